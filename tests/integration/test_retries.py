"""A failed handler loses nothing: the retries, the parking, the replay by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from flask import Flask

from flask_contenthub_webhook import task_completed, task_failed, task_progress
from flask_contenthub_webhook.core.state_machine import Trigger, Verdict
from flask_contenthub_webhook.engine.apply import apply_event
from flask_contenthub_webhook.engine.history import read_delivery, set_verdict
from flask_contenthub_webhook.engine.replay import replay
from flask_contenthub_webhook.engine.restore import event_of_row
from flask_contenthub_webhook.engine.retry import retry_due_deliveries
from flask_contenthub_webhook.errors import DeliveryNotFound, HandlerFailed, ReplayRefused
from flask_contenthub_webhook.storage.store import AlreadySettled
from tests.support.host import (
    PREFIX,
    BrokenHandler,
    Host,
    at_once,
    completed,
    custom,
    encode,
    failed,
    progress,
)

Build = Callable[..., Host]
ALL_FEATURES = "all capabilities"
NO_FEATURES = "no capabilities"


@pytest.fixture(params=[ALL_FEATURES, NO_FEATURES])
def any_host(request: pytest.FixtureRequest, host: Host) -> Host:
    """On each database, with what it can do and as if it had neither RETURNING nor SKIP LOCKED."""
    if request.param == NO_FEATURES:
        host.use_features(returning=False, skip_locked=False)
    return host


def wait_of(host: Host, row: Any) -> float:
    return float((row.next_retry_at - host.clock.now) / timedelta(seconds=1))


def break_once(host: Host, task_id: str, *, attempt: int | None = 1) -> Any:
    """A delivery whose handler failed; the handler is mended again."""
    host.publisher.broken = True
    assert host.post(task_id, completed(task_id), attempt=attempt).status_code == 500
    host.publisher.broken = False
    return host.deliveries(task_id)[-1]


class Breakable:
    """A receiver of any signal that can be broken."""

    def __init__(self, host: Host, signal: Any) -> None:
        self.broken, self.calls = True, 0
        host.connect(signal, self)

    def __call__(self, app: Flask, **extra: Any) -> None:
        self.calls += 1
        if self.broken:
            raise BrokenHandler("broken")


# --- backoff -----------------------------------------------------------------------------------------------------


def test_a_failed_handler_leaves_the_task_open_and_the_delivery_due(any_host: Host):
    host, task_id = any_host, any_host.add_task()

    row = break_once(host, task_id)
    task = host.task(task_id)

    assert (row.verdict, row.tries) == ("failed", 1)
    assert "the publisher is broken" in row.error
    assert 27 <= wait_of(host, row) <= 33
    assert (task.status, task.version, task.result) == ("submitted", 1, None)
    assert task.next_poll_at is not None
    assert host.contents() == []


def test_it_is_tried_after_30_60_and_120_seconds_and_then_parked(any_host: Host):
    host, task_id = any_host, any_host.add_task()
    host.publisher.broken = True
    host.post(task_id, completed(task_id), attempt=1)
    waits = []

    for _ in range(3):
        (row,) = host.deliveries(task_id)
        waits.append(wait_of(host, row))
        host.clock.advance(waits[-1] - 1)
        assert host.retry().claimed == 0
        host.clock.advance(2)
        assert host.retry().claimed == 1
    (row,) = host.deliveries(task_id)

    assert [round(wait / 30) for wait in waits] == [1, 2, 4]
    assert all(abs(wait - base) <= base / 10 for wait, base in zip(waits, (30, 60, 120), strict=True))
    assert (row.verdict, row.tries, row.next_retry_at) == ("dead", 4, None)
    assert host.publisher.calls == 4
    assert (host.task(task_id).status, host.contents()) == ("submitted", [])


def test_what_is_dead_is_not_tried_again(sqlite_host: Host, hosts: Build):
    host, task_id = sqlite_host, sqlite_host.add_task()
    host.publisher.broken = True
    host.post(task_id, completed(task_id))
    for _ in range(4):
        host.clock.advance(200)
        host.retry()
    calls = host.publisher.calls

    host.clock.advance(100_000)

    assert host.retry().claimed == 0
    assert host.publisher.calls == calls


def test_the_backoff_can_be_chosen(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_RETRY_BACKOFF="5")
    task_id = host.add_task()
    host.publisher.broken = True
    host.post(task_id, completed(task_id))

    assert 4.5 <= wait_of(host, host.deliveries(task_id)[0]) <= 5.5
    host.clock.advance(6)
    assert host.retry().outcomes == {"dead": 1}


def test_a_mended_handler_has_its_effect_once(any_host: Host):
    host, task_id = any_host, any_host.add_task()
    row = break_once(host, task_id)

    host.clock.advance(34)
    report = host.retry()
    after = host.delivery(row.id)

    assert (report.claimed, report.outcomes, report.interrupted) == (1, {"processed": 1}, False)
    assert len(host.contents()) == 1
    assert host.task(task_id).status == "completed"
    assert (after.verdict, after.error, after.next_retry_at) == ("processed", None, None)
    assert (after.status_before, after.status_after) == ("submitted", "completed")
    assert host.retry().claimed == 0


def test_the_senders_own_retry_comes_first_and_ours_finds_a_duplicate(any_host: Host):
    host, task_id = any_host, any_host.add_task()
    row = break_once(host, task_id)

    assert host.post(task_id, completed(task_id), attempt=1).json["outcome"] == "processed"  # type: ignore[index]
    host.clock.advance(34)
    host.retry()

    assert len(host.contents()) == 1
    assert host.delivery(row.id).verdict == "duplicate"


def test_four_copies_of_a_failure_that_all_broke_count_once(any_host: Host):
    host, task_id = any_host, any_host.add_task()
    receiver = Breakable(host, task_failed)
    assert [host.post(task_id, failed(task_id)).status_code for _ in range(4)] == [500] * 4

    receiver.broken = False
    host.clock.advance(34)
    report = host.retry()

    assert (report.claimed, report.outcomes) == (1, {"processed": 1})
    assert [row.verdict for row in host.deliveries(task_id)] == ["processed", *["duplicate"] * 3]
    assert host.task(task_id).attempt == 2


@pytest.mark.parametrize("how", ["retried", "replayed"])
def test_a_failure_kept_from_an_older_attempt_fails_no_newer_one(any_host: Host, how: str):
    """It came without an attempt and spoke for the first; by the time it is tried again the second one runs."""
    host, task_id = any_host, any_host.add_task()
    receiver = Breakable(host, task_failed)
    assert host.post(task_id, failed(task_id, "one")).status_code == 500
    (kept,) = host.deliveries(task_id)
    receiver.broken = False
    assert host.post(task_id, failed(task_id, "another")).status_code == 200
    assert host.task(task_id).attempt == 2

    if how == "retried":
        host.clock.advance(34)
        host.retry()
    else:
        host.replay(kept.id)

    assert host.task(task_id).attempt == 2


@pytest.mark.parametrize(
    "make", [failed, lambda task_id: progress(task_id, 50), lambda task_id: custom(task_id, "known")]
)
def test_every_kind_of_event_is_tried_again(hosts: Build, database_url: str, make: Any):
    host = hosts(database_url)
    task_id = host.add_task()
    broken, calls = [True], []

    def receiver(app: Flask, **extra: Any) -> None:
        calls.append(extra)
        if broken:
            raise BrokenHandler("broken")

    for signal in (task_failed, task_progress):
        host.connect(signal, receiver)
    host.webhook.on("known")(receiver)
    assert host.post(task_id, make(task_id)).status_code == 500

    broken.clear()
    host.clock.advance(34)

    assert host.retry().outcomes == {"processed": 1}
    assert len(calls) == 2


def test_an_event_that_can_never_be_applied_is_parked(sqlite_host: Host):
    host, task_id = sqlite_host, sqlite_host.add_task()
    row = break_once(host, task_id)
    with host.app.app_context():
        host.db.session.query(host.state.task_model).delete()
        host.db.session.commit()

    host.clock.advance(34)

    assert host.retry().outcomes == {"dead": 1}
    assert host.delivery(row.id).reason


def test_one_bad_delivery_holds_up_no_other(any_host: Host):
    host = any_host
    tasks = [host.add_task() for _ in range(3)]
    host.publisher.broken = True
    for task_id in tasks:
        host.post(task_id, completed(task_id))
    host.publisher.broken = False

    def picky(app: Flask, *, task: Any, **extra: Any) -> None:
        if task.task_id == tasks[0]:
            raise BrokenHandler("this one")

    from flask_contenthub_webhook import task_completed

    host.connect(task_completed, picky)
    host.clock.advance(34)

    assert host.retry().outcomes == {"failed": 1, "processed": 2}
    assert len(host.contents()) == 2


def test_a_pass_takes_no_more_than_its_limit(any_host: Host):
    host = any_host
    for _ in range(5):
        break_once(host, host.add_task())
    host.clock.advance(34)

    with host.app.app_context():
        assert [host.webhook.retry_due_deliveries(limit=2).claimed for _ in range(4)] == [2, 2, 1, 0]
    assert len(host.contents()) == 5


# --- claims ------------------------------------------------------------------------------------------------------


def test_what_is_claimed_is_left_alone_until_the_lease_ends(any_host: Host):
    host, task_id = any_host, any_host.add_task()
    row = break_once(host, task_id)
    host.clock.advance(34)

    def claim() -> list[int]:
        with host.app.app_context():
            session = host.db.session()
            claimed = host.state.store.inbox.claim(session, lease=timedelta(seconds=60), limit=9)
            session.commit()
            return [one.row["id"] for one in claimed]

    assert claim() == [row.id]
    assert claim() == []
    assert host.retry().claimed == 0
    host.clock.advance(59)
    assert host.retry().claimed == 0
    host.clock.advance(2)
    assert host.retry().outcomes == {"processed": 1}


def test_a_delivery_given_to_two_workers_has_one_effect_and_keeps_its_verdict(any_host: Host):
    """The lease of a slow worker ended, and another one took over before it went on."""
    host, task_id = any_host, any_host.add_task()
    receiver = Breakable(host, task_failed)
    assert host.post(task_id, failed(task_id)).status_code == 500
    receiver.broken = False
    (row,) = host.deliveries(task_id)

    claimed = read_delivery(host.state, row.id)
    assert claimed is not None
    received = event_of_row(host.state, claimed)

    apply_event(host.state, received, kept=claimed)
    with pytest.raises(AlreadySettled):
        apply_event(host.state, received, kept=claimed)

    assert host.delivery(row.id).verdict == "processed"
    assert host.post(task_id, failed(task_id)).json["outcome"] == "duplicate"  # type: ignore[index]
    assert host.task(task_id).attempt == 2


def test_a_result_whose_delivery_was_settled_meanwhile_completes_nothing(any_host: Host):
    """A worker that lost its lease long ago, and a task that the host has opened again since."""
    host, task_id = any_host, any_host.add_task()
    row = break_once(host, task_id)
    held = read_delivery(host.state, row.id)
    assert held is not None
    set_verdict(host.state, held, Verdict.IGNORED, reason="by another")

    with pytest.raises(AlreadySettled):
        apply_event(host.state, event_of_row(host.state, held), kept=held)

    assert (host.task(task_id).status, host.contents()) == ("submitted", [])
    assert host.delivery(row.id).verdict == "ignored"


@pytest.mark.parametrize("capabilities", [ALL_FEATURES, NO_FEATURES])
def test_two_passes_at_the_same_moment_double_nothing(server_host: Host, capabilities: str):
    host = server_host
    if capabilities == NO_FEATURES:
        host.use_features(returning=False, skip_locked=False)
    tasks = [host.add_task() for _ in range(12)]
    for task_id in tasks:
        break_once(host, task_id)
    host.clock.advance(34)

    reports = at_once(*[lambda: retry_due_deliveries(host.state)] * 4)

    assert sum(report.claimed for report in reports) == 12
    assert [len(host.contents(task_id)) for task_id in tasks] == [1] * 12
    assert {row.verdict for row in host.deliveries()} == {"processed"}


def test_a_retry_and_the_senders_own_at_the_same_moment_have_one_effect(server_host: Host):
    host = server_host
    for _ in range(5):
        task_id = host.add_task()
        break_once(host, task_id)
        host.clock.advance(34)

        at_once(partial(retry_due_deliveries, host.state), partial(host.post, task_id, completed(task_id), attempt=1))

        assert len(host.contents(task_id)) == 1
        assert host.task(task_id).status == "completed"


# --- replay ------------------------------------------------------------------------------------------------------


def test_a_dead_delivery_can_be_replayed(any_host: Host):
    host, task_id = any_host, any_host.add_task()
    host.publisher.broken = True
    host.post(task_id, completed(task_id), attempt=1)
    for _ in range(3):
        host.clock.advance(140)
        host.retry()
    (dead,) = host.deliveries(task_id)
    assert dead.verdict == "dead"
    host.publisher.broken = False

    applied = host.replay(dead.id)
    original, new = host.deliveries(task_id)

    assert (applied.verdict, applied.delivery_id) == ("processed", new.id)
    assert (new.source, new.replay_of, new.verdict, new.attempt) == ("replay", dead.id, "processed", 1)
    assert original.verdict == "replayed"
    assert len(host.contents()) == 1


def test_a_failed_delivery_that_was_replayed_is_not_retried(any_host: Host):
    host, task_id = any_host, any_host.add_task()
    row = break_once(host, task_id)

    host.replay(row.id)
    host.clock.advance(100)

    assert host.retry().claimed == 0
    assert host.delivery(row.id).verdict == "replayed"
    assert len(host.contents()) == 1


@pytest.mark.parametrize("attempt", [1, None])
@pytest.mark.parametrize("make", [completed, failed, lambda task_id: progress(task_id, 50)])
def test_the_replay_of_what_was_applied_has_no_effect(any_host: Host, make: Any, attempt: int | None):
    host, task_id = any_host, any_host.add_task()
    host.post(task_id, make(task_id), attempt=attempt)
    before, (row,) = host.task(task_id), host.deliveries(task_id)

    applied = host.replay(row.id)

    assert applied.verdict in {"duplicate", "stale", "ignored"}
    if make is completed:
        assert applied.verdict == "duplicate"
    assert host.delivery(row.id).verdict == "processed"
    after = host.task(task_id)
    assert (after.status, after.attempt, after.version) == (before.status, before.attempt, before.version)
    assert len(host.contents()) <= 1


def test_a_replay_that_fails_again_is_kept_and_tried_again(any_host: Host):
    host, task_id = any_host, any_host.add_task()
    row = break_once(host, task_id)
    host.publisher.broken = True

    with pytest.raises(HandlerFailed) as caught:
        host.replay(row.id)

    new = host.deliveries(task_id)[-1]
    assert caught.value.delivery_id == new.id
    assert (new.source, new.verdict, new.replay_of) == ("replay", "failed", row.id)
    assert host.delivery(row.id).verdict == "failed"
    host.publisher.broken = False
    host.clock.advance(34)
    host.retry()
    assert len(host.contents()) == 1


def test_two_replays_at_the_same_moment_have_one_effect(server_host: Host):
    host, task_id = server_host, server_host.add_task()
    row = break_once(host, task_id)

    answers = at_once(*[lambda: replay(host.state, row.id)] * 4)

    assert sorted(answer.verdict for answer in answers) == ["duplicate"] * 3 + ["processed"]
    assert len(host.contents()) == 1


def test_what_nobody_vouched_for_cannot_be_replayed(host: Host):
    task_id = host.add_task()
    host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}?token=forged")
    (row,) = host.deliveries()

    with pytest.raises(ReplayRefused, match="never authenticated"):
        host.replay(row.id)

    assert host.contents() == []
    assert host.task(task_id).status == "submitted"


def test_a_signed_request_that_is_no_event_cannot_be_replayed(host: Host):
    task_id = host.add_task()
    host.post(task_id, b"{}")
    (row,) = host.deliveries()

    with pytest.raises(ReplayRefused, match="no valid event"):
        host.replay(row.id)


def test_a_believed_event_whose_task_came_later_can_be_replayed(host: Host):
    task_id = "0b5f6a2e-7a0c-4b1e-9c65-2f6d4d6c7f10"
    assert host.post(task_id, completed(task_id)).status_code == 404
    (row,) = host.deliveries()
    host.add_task(task_id=task_id)

    assert host.replay(row.id).verdict == "processed"
    assert len(host.contents()) == 1


def test_a_signed_event_of_another_task_cannot_be_slipped_in_by_a_replay(host: Host):
    mine, other = host.add_task(), host.add_task()
    assert host.post_signed(other, completed(mine), "contenthub").status_code == 409
    (row,) = host.deliveries()

    with pytest.raises(Exception, match="different task"):
        host.replay(row.id)
    assert host.contents() == []


def test_a_delivery_that_is_not_there_cannot_be_replayed(host: Host):
    with pytest.raises(DeliveryNotFound, match="4711"):
        host.replay(4711)


# --- without RETURNING and SKIP LOCKED ---------------------------------------------------------------------------


def test_the_whole_life_of_tasks_is_the_same_whatever_the_database_can_do(any_host: Host):
    host = any_host
    task_id, late, gone = host.add_task(), host.add_task(), host.add_task()
    steps = [
        lambda: host.post(task_id, progress(task_id, 10), attempt=1).json,
        lambda: host.post(task_id, progress(task_id, 5), attempt=1).json,
        lambda: host.post(task_id, failed(task_id), attempt=1).json,
        lambda: host.post(task_id, failed(task_id), attempt=1).json,
        lambda: host.post(task_id, completed(task_id), attempt=1).json,
        lambda: host.post(task_id, completed(task_id), attempt=2).json,
        lambda: host.post(late, failed(late, retryable=False)).json,
        lambda: host.post(late, failed(late, retryable=False)).json,
        lambda: host.post(late, completed(late)).json,
    ]

    outcomes = [(step() or {})["outcome"] for step in steps]
    host.trigger(gone, Trigger.TIMED_OUT)

    assert outcomes == [
        "processed",
        "ignored",
        "processed",
        "stale",
        "processed",
        "duplicate",
        "processed",
        "duplicate",
        "processed",
    ]
    assert [host.task(one).status for one in (task_id, late, gone)] == ["completed", "completed", "timeout"]
    assert len(host.contents()) == 2
    assert host.post_signed(gone, encode(completed(late)), "contenthub").status_code == 409
    assert host.post("unknown", completed("unknown")).status_code == 404


def test_a_shorter_backoff_lets_what_waits_have_the_try_that_it_waits_for(hosts: Build, database_url: str):
    host = hosts(database_url, WEBHOOK_RETRY_BACKOFF="30,60,120")
    task_id, other = host.add_task(), host.add_task()
    host.publisher.broken = True
    for each in (task_id, other):
        host.post(each, completed(each))
    for _ in range(2):
        host.clock.advance(67)
        host.retry()
    assert [(row.verdict, row.tries) for row in host.deliveries()] == [("failed", 3)] * 2

    shorter = hosts(database_url, WEBHOOK_RETRY_BACKOFF="30", create_tables=False)
    shorter.clock = shorter.state.clock = host.clock
    shorter.clock.advance(133)
    shorter.connect(task_completed, fail_for(other))
    shorter.retry()

    assert [(row.verdict, row.tries) for row in host.deliveries()] == [("processed", 4), ("dead", 4)]


def fail_for(task_id: str) -> Callable[..., None]:
    def fail(app: object, *, task: Any, **extra: object) -> None:
        if task.task_id == task_id:
            raise RuntimeError("broken still")

    return fail
