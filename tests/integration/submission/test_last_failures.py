"""A failure that would end a task for good is believed once the creator, if it can be asked, does not deny it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_contenthub_webhook.creators import RemoteState, Report
from flask_contenthub_webhook.errors import CreatorUnclear, CreatorUnreachable
from tests.support.host import Host, failed
from tests.support.submission import BASE, DONE, OPEN, own, raise_, reconcile, submit, sweep, with_own_creator

Build = Callable[..., Host]
GONE = Report(state=RemoteState.FAILED, error={"message": "no"})


@pytest.fixture(params=["inline", "worker"])
def hub(hosts: Build, database_url: str, request: pytest.FixtureRequest) -> Host:
    settings = {"WEBHOOK_CALLBACK_BASE_URL": BASE, "WEBHOOK_SUBMIT_THREADS": 0, "WEBHOOK_PROCESSING": request.param}
    return with_own_creator(hosts(database_url, **settings))


def submitted(hub: Host, **options: Any) -> str:
    task_id = submit(hub, **options)
    sweep(hub)
    return task_id


def say_failed(hub: Host, task_id: str, *, retryable: bool | None = None) -> Any:
    """Send a failure; return the row of the history."""
    answer: Any = hub.post(task_id, failed(task_id, retryable=retryable), attempt=1)
    hub.retry()
    return hub.delivery(answer.json["delivery_id"])


def knows(hub: Host, task_id: str, report: Report) -> None:
    own(hub).known[hub.task(task_id).creator_task_id] = report


@pytest.mark.parametrize("options", [{"max_retries": 0}, {"retryable": False}])
def test_while_the_job_goes_on_it_has_no_effect(hub: Host, options: dict[str, Any]) -> None:
    retryable = options.get("retryable")
    task_id = submitted(hub, **{key: value for key, value in options.items() if key != "retryable"})
    knows(hub, task_id, OPEN)
    row = say_failed(hub, task_id, retryable=retryable)
    assert (row.verdict, row.reason) == ("ignored", "The service was asked, and says that the job is open.")
    assert hub.task(task_id).status == "submitted"
    knows(hub, task_id, GONE)
    assert say_failed(hub, task_id, retryable=retryable).verdict == "processed"
    assert hub.task(task_id).status == "failed"


def test_if_the_job_is_done_it_is_polled_next(hub: Host) -> None:
    task_id = submitted(hub, max_retries=0)
    knows(hub, task_id, DONE)
    assert say_failed(hub, task_id).verdict == "ignored"
    reconcile(hub)
    assert (hub.task(task_id).status, hub.contents(task_id)) == ("completed", ["early"])


@pytest.mark.parametrize("report", [GONE, Report(state=RemoteState.MISSING), Report(state=RemoteState.CANCELLED)])
def test_otherwise_it_is_believed(hub: Host, report: Report) -> None:
    task_id = submitted(hub, max_retries=0)
    knows(hub, task_id, report)
    assert say_failed(hub, task_id).verdict == "processed"
    assert hub.task(task_id).status == "failed"


@pytest.mark.parametrize("error", [CreatorUnreachable(), CreatorUnclear(), RuntimeError("a bug")])
def test_so_it_is_if_the_creator_cannot_tell(hub: Host, error: Exception) -> None:
    task_id = submitted(hub, max_retries=0)
    own(hub).on_statuses = lambda: raise_(error)
    assert say_failed(hub, task_id).verdict == "processed"
    assert hub.task(task_id).status == "failed"


def test_nor_is_one_asked_that_is_left_alone(hub: Host) -> None:
    task_id = submitted(hub, max_retries=0)
    knows(hub, task_id, OPEN)
    hub.state.service.pause.failed()
    before = list(own(hub).calls)
    assert say_failed(hub, task_id).verdict == "processed"
    assert own(hub).calls == before


def test_a_failure_that_is_retried_anyway_needs_no_question(hub: Host) -> None:
    task_id = submitted(hub)
    knows(hub, task_id, OPEN)
    before = list(own(hub).calls)
    assert say_failed(hub, task_id).verdict == "processed"
    assert (hub.task(task_id).attempt, own(hub).calls) == (2, before)


def test_a_person_is_believed(hub: Host) -> None:
    task_id = submitted(hub, max_retries=0)
    knows(hub, task_id, OPEN)
    row = say_failed(hub, task_id)
    assert hub.replay(row.id).verdict == "processed"
    assert hub.task(task_id).status == "failed"


def test_no_connection_is_held_meanwhile(hub: Host) -> None:
    task_id = submitted(hub, max_retries=0)
    say_failed(hub, task_id)
    assert set(own(hub).connections_in_use) == {0}
