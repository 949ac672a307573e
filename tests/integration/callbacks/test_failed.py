"""Failed events: another attempt, or the end of the task."""

from __future__ import annotations

import pytest

from tests.support.answers import outcome
from tests.support.host import Host, at_once, failed


def test_a_failure_with_retries_left_makes_the_next_attempt_due_after_the_backoff(host: Host):
    task_id = host.add_task(creator_task_id="creator-1")

    answer = host.post(task_id, failed(task_id), attempt=1)
    task = host.task(task_id)
    wait = (task.next_submit_at - host.clock.now).total_seconds()

    assert outcome(answer) == "processed"
    assert answer.json is not None
    assert answer.json["details"]["will_retry"] is True
    assert (task.status, task.attempt) == ("pending", 2)
    assert task.creator_task_id != "creator-1"  # none, or a fresh one
    assert task.earlier_creator_task_ids == ["creator-1"]
    assert 27 <= wait <= 33
    assert task.next_poll_at > task.next_submit_at


@pytest.mark.parametrize(("attempt", "low", "high"), [(1, 27, 33), (2, 54, 66), (3, 108, 132), (4, 108, 132)])
def test_every_attempt_waits_longer_than_the_one_before(host: Host, attempt: int, low: float, high: float):
    task_id = host.add_task(attempt=attempt, max_retries=9)

    host.post(task_id, failed(task_id), attempt=attempt)

    assert low <= (host.task(task_id).next_submit_at - host.clock.now).total_seconds() <= high


def test_a_failure_without_retries_left_is_final(host: Host):
    task_id = host.add_task(attempt=4)

    host.post(task_id, failed(task_id, "no more"), attempt=4)
    task = host.task(task_id)

    assert (task.status, task.error_code, task.error_message) == ("failed", "execution_error", "no more")


def test_a_failure_that_cannot_be_retried_is_final(host: Host):
    task_id = host.add_task()

    host.post(task_id, failed(task_id, retryable=False), attempt=1)

    assert host.task(task_id).status == "failed"


def test_four_identical_failures_without_an_attempt_are_one(host: Host):
    task_id = host.add_task()

    answers = [host.post(task_id, failed(task_id)) for _ in range(4)]

    assert [outcome(answer) for answer in answers] == ["processed", "duplicate", "duplicate", "duplicate"]
    assert host.task(task_id).attempt == 2


def test_four_identical_failures_at_the_same_moment_are_one(server_host: Host):
    host = server_host
    for _ in range(5):
        task_id = host.add_task()

        answers = at_once(*[lambda task_id=task_id: host.post(task_id, failed(task_id))] * 4)

        assert sorted(outcome(answer) for answer in answers) == ["duplicate"] * 3 + ["processed"]
        assert host.task(task_id).attempt == 2


def test_four_identical_failures_of_one_attempt_are_one(host: Host):
    task_id = host.add_task()

    answers = [host.post(task_id, failed(task_id), attempt=1) for _ in range(4)]

    assert [outcome(answer) for answer in answers] == ["processed", "stale", "stale", "stale"]
    assert host.task(task_id).attempt == 2


def test_two_different_failures_without_an_attempt_are_two(host: Host):
    task_id = host.add_task()

    assert [outcome(host.post(task_id, failed(task_id, text))) for text in "ab"] == ["processed", "processed"]
    assert host.task(task_id).attempt == 3


def test_identical_failures_of_two_attempts_are_two_under_message_ids_too(host: Host):
    """The attempt tells them apart, and so do the message ids."""
    task_id, event = host.add_task(), failed("t")
    event["taskId"] = task_id

    first = host.post_signed(task_id, event, "standard", attempt=1, message_id="msg-1")
    second = host.post_signed(task_id, event, "standard", attempt=2, message_id="msg-2")

    assert (outcome(first), outcome(second)) == ("processed", "processed")
    assert host.task(task_id).attempt == 3


def test_an_error_code_that_is_null_gives_way_to_the_type(host: Host):
    task_id, event = host.add_task(), failed("t")
    event["error"]["code"] = None

    host.post(task_id, event, attempt=1)

    assert host.task(task_id).error_code == "execution_error"
