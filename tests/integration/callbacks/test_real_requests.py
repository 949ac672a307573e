"""The captured requests of the real creator, sent again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.answers import code, outcome, untouched
from tests.support.host import PREFIX, Capture, Host, captures

CAPTURES = captures()


def deliver(host: Host, task_id: str, capture: Capture, attempt: int | None = 1) -> Any:
    return host.app.test_client().post(host.path(task_id, attempt), data=capture.body, headers=capture.headers)


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=lambda capture: capture.name)
def test_every_real_request_ends_in_the_state_of_the_design(host: Host, capture: Capture):
    task_id = host.add_task()

    answer = deliver(host, task_id, capture)
    task = host.task(task_id)

    assert outcome(answer) == "processed"
    if capture.event["event"] == "failed":
        assert (task.status, task.attempt) == ("pending", 2)
        assert task.error_message == capture.event["error"]["message"]
    elif "content" in capture.event["result"]:
        assert (task.status, task.result) == ("completed", capture.event["result"])
        assert host.contents() == [capture.event["result"]["content"]]
    else:
        assert (task.status, task.error_code) == ("failed", "INVALID_RESULT")
    assert [row.body for row in host.deliveries()] == [capture.body]


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=lambda capture: capture.name)
def test_every_real_request_is_refused_without_its_token(sqlite_host: Host, capture: Capture):
    task_id = sqlite_host.add_task()

    answer = sqlite_host.app.test_client().post(
        f"{PREFIX}/callback/{task_id}", data=capture.body, headers=capture.headers
    )

    assert (answer.status_code, code(answer)) == (403, "signature_missing")
    assert untouched(sqlite_host, task_id)


def test_the_real_failed_then_completed_ends_completed(host: Host):
    task_id = host.add_task(max_retries=0)

    assert outcome(deliver(host, task_id, CAPTURES["failed-then-completed-1-failed"])) == "processed"
    answer = deliver(host, task_id, CAPTURES["failed-then-completed-2-completed"])

    assert outcome(answer) == "processed"
    assert answer.json is not None
    assert answer.json["details"]["late"] is True
    assert (host.task(task_id).status, host.task(task_id).error_code) == ("completed", None)
    assert len(host.contents()) == 1


def test_the_real_completed_then_failed_stays_completed(host: Host):
    task_id = host.add_task()

    deliver(host, task_id, CAPTURES["completed-before-duplicate"])
    answer = deliver(host, task_id, CAPTURES["failed-duplicate-idempotency-key"])

    assert outcome(answer) == "ignored"
    assert (host.task(task_id).status, len(host.contents())) == ("completed", 1)


def test_the_real_retry_of_a_delivery_is_a_duplicate(host: Host):
    task_id = host.add_task()

    first = deliver(host, task_id, CAPTURES["retry-503-attempt-1"])
    second = deliver(host, task_id, CAPTURES["retry-503-attempt-2"])

    assert (outcome(first), outcome(second)) == ("processed", "duplicate")
