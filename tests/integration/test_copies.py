"""A message that is applied settles its copies: those that failed before, that were parked, and that it replays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from flask_contenthub_webhook.core.state_machine import Verdict
from flask_contenthub_webhook.errors import HandlerFailed
from tests.support.host import Host, completed, custom

Build = Callable[..., Host]


def verdicts(host: Host, task_id: str) -> Counter[str]:
    return Counter(row.verdict for row in host.deliveries(task_id))


def fail_until_dead(host: Host, task_id: str, event: Any, *, copies: int = 4, **options: Any) -> None:
    """As a sender that repeats what was answered with 500, and then gives up."""
    host.publisher.broken = True
    for _ in range(copies):
        assert host.post(task_id, event, **options).status_code == 500
    for _ in range(4):
        host.clock.advance(200)
        host.retry()
    assert verdicts(host, task_id) == {"dead": copies}
    host.publisher.broken = False


def test_a_replay_of_one_of_four_copies_leaves_none_dead(host: Host) -> None:
    task_id = host.add_task()
    fail_until_dead(host, task_id, completed(task_id))
    first = host.deliveries(task_id)[0].id

    applied = host.replay(first)

    assert applied.verdict is Verdict.PROCESSED
    assert verdicts(host, task_id) == {"replayed": 1, "duplicate": 3, "processed": 1}
    assert host.delivery(first).reason == f"Replayed as delivery {applied.delivery_id}."
    assert {row.reason for row in host.deliveries(task_id)[1:4]} == {f"Applied as delivery {applied.delivery_id}."}
    assert len(host.contents(task_id)) == 1


def test_a_copy_that_comes_when_all_is_well_again_leaves_none_dead(host: Host) -> None:
    task_id = host.add_task()
    fail_until_dead(host, task_id, completed(task_id))

    assert host.post(task_id, completed(task_id)).status_code == 200

    assert verdicts(host, task_id) == {"duplicate": 4, "processed": 1}


def test_a_later_try_of_one_copy_settles_the_others_at_once(host: Host) -> None:
    task_id = host.add_task()
    host.publisher.broken = True
    for _ in range(4):
        host.post(task_id, completed(task_id))
    host.publisher.broken = False
    host.clock.advance(27.1)
    for _ in range(60):  # the tries vary by a tenth
        host.retry()
        if "processed" in verdicts(host, task_id):
            break
        host.clock.advance(0.1)

    assert verdicts(host, task_id) == {"processed": 1, "duplicate": 3}
    assert [row.next_retry_at for row in host.deliveries(task_id)] == [None] * 4


def test_a_replay_whose_handlers_fail_first_settles_its_original_when_it_is_tried_again(host: Host) -> None:
    task_id = host.add_task()
    fail_until_dead(host, task_id, completed(task_id), copies=1)
    host.publisher.broken = True
    with pytest.raises(HandlerFailed):
        host.replay(host.deliveries(task_id)[0].id)
    assert verdicts(host, task_id) == {"dead": 1, "failed": 1}
    host.publisher.broken = False
    host.clock.advance(60)
    host.retry()

    assert verdicts(host, task_id) == {"replayed": 1, "processed": 1}


def test_a_chain_of_replays_ends_with_the_last(host: Host) -> None:
    task_id = host.add_task()
    fail_until_dead(host, task_id, completed(task_id), copies=1)
    host.publisher.broken = True
    with pytest.raises(HandlerFailed):
        host.replay(host.deliveries(task_id)[0].id)
    for _ in range(4):
        host.clock.advance(200)
        host.retry()
    assert verdicts(host, task_id) == {"dead": 2}
    host.publisher.broken = False
    host.replay(host.deliveries(task_id)[1].id)

    assert "dead" not in verdicts(host, task_id)


def test_another_message_of_the_task_is_not_settled(hosts: Build, database_url: str) -> None:
    host = hosts(database_url, WEBHOOK_EVENTS="illustrated")
    broken = True

    @host.webhook.on("illustrated")
    def handle(app: Any, **extra: Any) -> None:
        if broken:
            raise RuntimeError("broken")

    task_id = host.add_task()
    for number in (1, 1, 2):
        assert host.post(task_id, custom(task_id, "illustrated", number=number)).status_code == 500
    broken = False
    assert host.post(task_id, custom(task_id, "illustrated", number=1)).status_code == 200

    assert verdicts(host, task_id) == {"processed": 1, "duplicate": 2, "failed": 1}
    assert [row.verdict for row in host.deliveries(task_id)] == ["duplicate", "duplicate", "failed", "processed"]


def test_copies_of_what_was_applied_are_no_failures_to_the_alert(hosts: Build, database_url: str) -> None:
    host = hosts(database_url, WEBHOOK_ALERT_MIN_SAMPLE=1)
    task_id = host.add_task()
    host.publisher.broken = True
    for _ in range(4):
        host.post(task_id, completed(task_id))
    host.publisher.broken = False
    host.post(task_id, completed(task_id))
    with host.app.app_context():
        alerts = {alert.name: alert for alert in host.webhook.check_alerts()}

    assert not alerts["failure_rate"].raised
    assert alerts["failure_rate"].value == 0
