"""Handlers of the extension's own events that fail: the backoff and the end of every other event."""

from __future__ import annotations

from typing import Any

import pytest

from flask_contenthub_webhook import task_cancelled, task_timed_out
from flask_contenthub_webhook.creators import RemoteState, Report
from flask_contenthub_webhook.errors import HandlerFailed
from tests.support.host import Host
from tests.support.submission import OPEN, cancel, own, reconcile, submit, sweep

DONE = Report(state=RemoteState.COMPLETED, result={"content": "# T"})


class Broken:
    """A handler that raises while it is broken."""

    def __init__(self) -> None:
        self.calls = 0
        self.broken = True

    def __call__(self, app: Any, **extra: Any) -> None:
        self.calls += 1
        if self.broken:
            raise RuntimeError("broken")


def a_day(host: Host) -> None:
    """Pass a day as the scheduler does, with longer steps."""
    for _ in range(24 * 12):
        host.clock.advance(300)
        reconcile(host)
        host.retry()


def overdue(host: Host) -> str:
    task_id = submit(host)
    sweep(host)
    own(host).known[host.task(task_id).creator_task_id] = OPEN
    host.clock.advance(1801)
    return task_id


def verdicts(host: Host, task_id: str, event: str) -> list[str]:
    return [row.verdict for row in host.deliveries(task_id) if row.event == event]


def test_of_a_timeout_is_tried_four_times_and_then_dead(hub):
    """It wrote a row at every pass: 1,438 a day."""
    handler = Broken()
    hub.connect(task_timed_out, handler)
    task_id = overdue(hub)
    a_day(hub)
    assert (verdicts(hub, task_id, "timed_out"), handler.calls) == (["dead"], 4)
    assert hub.task(task_id).status == "submitted"


def test_of_a_timeout_that_is_mended_meanwhile_ends_the_task(hub):
    handler = Broken()
    hub.connect(task_timed_out, handler)
    task_id = overdue(hub)
    reconcile(hub)
    handler.broken = False
    hub.clock.advance(40)
    assert hub.retry().outcomes == {"processed": 1}
    assert (hub.task(task_id).status, verdicts(hub, task_id, "timed_out")) == ("timeout", ["processed"])
    assert own(hub).cancelled == [hub.task(task_id).creator_task_id]


def test_of_a_timeout_that_is_dead_is_replayed_by_a_person(hub):
    handler = Broken()
    hub.connect(task_timed_out, handler)
    task_id = overdue(hub)
    a_day(hub)
    handler.broken = False
    with hub.app.app_context():
        hub.webhook.replay(hub.deliveries(task_id)[-1].id)
    assert hub.task(task_id).status == "timeout"
    assert verdicts(hub, task_id, "timed_out") == ["replayed", "processed"]


def test_of_a_cancellation_is_told_and_tried_again(hub):
    handler = Broken()
    hub.connect(task_cancelled, handler)
    task_id = submit(hub)
    sweep(hub)
    with pytest.raises(HandlerFailed):
        cancel(hub, task_id)
    handler.broken = False
    hub.clock.advance(40)
    assert hub.retry().outcomes == {"processed": 1}
    assert hub.task(task_id).status == "cancelled"
    assert own(hub).cancelled == [hub.task(task_id).creator_task_id]


def test_of_a_cancellation_whose_task_ends_meanwhile_has_nothing_to_do(hub):
    handler = Broken()
    hub.connect(task_cancelled, handler)
    task_id = submit(hub)
    sweep(hub)
    with pytest.raises(HandlerFailed):
        cancel(hub, task_id)
    own(hub).known[hub.task(task_id).creator_task_id] = DONE
    hub.clock.advance(130)
    reconcile(hub)
    assert hub.task(task_id).status == "completed"
    assert hub.retry().outcomes == {"ignored": 1}
    a_day(hub)
    assert verdicts(hub, task_id, "cancelled") == ["ignored"]


def test_of_a_result_that_is_polled_again_and_again_has_one_row(hub):
    hub.publisher.broken = True
    task_id = submit(hub, timeout=3600)
    sweep(hub)
    own(hub).known[hub.task(task_id).creator_task_id] = DONE
    for _ in range(11):
        hub.clock.advance(300)
        reconcile(hub)
        hub.retry()
    assert verdicts(hub, task_id, "completed") == ["dead"]
    assert hub.publisher.calls == 4


def test_of_a_result_leave_the_task_to_its_deadline_and_the_replay_completes_it_late(hub):
    hub.publisher.broken = True
    task_id = submit(hub, timeout=3600)
    sweep(hub)
    own(hub).known[hub.task(task_id).creator_task_id] = DONE
    a_day(hub)
    assert hub.task(task_id).status == "timeout"
    hub.publisher.broken = False
    (dead,) = (row for row in hub.deliveries(task_id) if row.verdict == "dead")
    with hub.app.app_context():
        assert hub.webhook.replay(dead.id).late
    assert hub.contents(task_id) == ["# T"]


def test_a_sender_cannot_send_an_event_of_our_own(hub):
    task_id = submit(hub)
    for name in ("timed_out", "cancelled", "retry", "submitted"):
        answer = hub.post(task_id, {"event": name, "taskId": task_id}, attempt=1)
        assert answer.status_code == 400
    assert hub.task(task_id).status == "pending"
