"""The service moves to an address that does not know the open jobs, while the old one still works on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flask_contenthub_webhook.creators import HttpCreator
from flask_contenthub_webhook.errors import ConfigurationError
from flask_contenthub_webhook.testing import CreatorSimulator
from tests.support.host import Host, completed, failed
from tests.support.submission import BASE, cancel, reconcile, submit, sweep

FOUND = {"content": "# Found"}


@pytest.fixture
def services() -> Iterator[tuple[CreatorSimulator, CreatorSimulator]]:
    with (
        CreatorSimulator(work_time=None, restart_after=None) as old,
        CreatorSimulator(work_time=None, restart_after=None) as new,
    ):
        yield old, new


@pytest.fixture
def moved(
    hosts: Callable[..., Host], database_url: str, services: tuple[CreatorSimulator, CreatorSimulator]
) -> Callable[..., tuple[Host, str]]:
    """A function that submits a task to the old service, moves, and returns the host after it and the task."""
    old, new = services
    common = {"WEBHOOK_SUBMIT_THREADS": 0, "WEBHOOK_CALLBACK_BASE_URL": BASE, "CREATOR_SUBMIT_WAIT": 0.1}

    def move(*, drain: bool) -> tuple[Host, str]:
        before = hosts(database_url, CREATOR_API_BASE_URL=old.base_url, **common)
        task_id = submit(before)
        sweep(before)
        assert before.task(task_id).status == "submitted"
        previous = {"CREATOR_API_PREVIOUS_URL": old.base_url} if drain else {}
        after = hosts(database_url, create_tables=False, CREATOR_API_BASE_URL=new.base_url, **previous, **common)
        after.state.clock = after.clock = before.clock
        return after, task_id

    return move


def asked(host: Host, seconds: int = 700) -> None:
    host.clock.advance(seconds)
    reconcile(host)


def finish(service: CreatorSimulator, name: str) -> None:
    record = service.tasks[name]
    service.add_task(name, state="completed", result=FOUND, created_at=record.created_at)


def test_the_old_jobs_are_asked_about_at_the_old_address(moved, services):
    old, new = services
    host, task_id = moved(drain=True)
    name = host.task(task_id).creator_task_id
    for _ in range(2):
        asked(host, 200)
    assert (host.task(task_id).status, host.task(task_id).times_missing) == ("submitted", 0)
    finish(old, name)
    asked(host)
    assert host.contents(task_id) == ["# Found"]
    assert (len(new.tasks), old.deaths, new.deaths) == (0, 0, 0)


def test_new_tasks_and_further_attempts_go_to_the_new_one(moved, services):
    old, new = services
    host, task_id = moved(drain=True)
    first = host.task(task_id).creator_task_id
    another = submit(host)
    host.post(task_id, failed(first), attempt=1)
    host.clock.advance(40)
    sweep(host)
    assert {*new.tasks} == {host.task(another).creator_task_id, host.task(task_id).creator_task_id}
    assert {*old.tasks} == {first}
    assert old.tasks[first].state == "cancelled"
    assert host.task(task_id).creator_address == new.base_url


def test_a_cancellation_reaches_the_old_one(moved, services):
    old, _ = services
    host, task_id = moved(drain=True)
    cancel(host, task_id)
    assert old.tasks[host.task(task_id).creator_task_id].state == "cancelled"


def test_an_old_service_that_is_away_delays_only_its_own(moved, services):
    old, new = services
    host, task_id = moved(drain=True)
    another = submit(host)
    sweep(host)
    old.crash()
    finish(new, host.task(another).creator_task_id)
    asked(host)
    assert (host.task(another).status, host.task(task_id).status) == ("completed", "submitted")
    assert not host.state.service.pause.is_on()


def test_a_thin_callback_is_completed_from_the_old_one(moved, services):
    old, _ = services
    host, task_id = moved(drain=True)
    name = host.task(task_id).creator_task_id
    finish(old, name)
    assert host.post(task_id, completed(name, None), attempt=1).get_json()["outcome"] == "processed"
    assert host.contents(task_id) == ["# Found"]


def test_without_a_drain_nothing_is_given_up_as_lost_and_paid_again(moved, services):
    """All became LOST_BY_CREATOR after three polls, and were submitted once more."""
    _, new = services
    host, task_id = moved(drain=False)
    for _ in range(5):
        asked(host, 300)
        sweep(host)
    task = host.task(task_id)
    assert (task.status, task.attempt, task.times_missing, len(new.tasks)) == ("submitted", 1, 0, 0)
    assert host.post(task_id, completed(task.creator_task_id), attempt=1).get_json()["outcome"] == "processed"
    assert new.deaths == 0


def test_without_a_drain_the_deadline_still_ends_it(moved):
    host, task_id = moved(drain=False)
    for _ in range(5):
        asked(host)
    assert host.task(task_id).status == "timeout"


def test_a_submission_that_was_interrupted_before_the_move_is_found_at_the_old_one(moved, services):
    old, new = services
    host, task_id = moved(drain=True)
    with host.app.app_context():
        task = host.db.session.scalars(host.db.select(host.state.task_model)).one()
        task.status, task.submitted_at, task.submitting_since = "pending", None, host.clock.now
        task.next_submit_at = host.clock.now
        host.db.session.commit()
    assert sweep(host).outcomes == {"submitted": 1}
    assert (host.task(task_id).creator_address, len(new.tasks)) == (old.base_url, 0)


def test_a_move_needs_both_addresses(hosts, sqlite_url):
    with pytest.raises(ConfigurationError, match="CREATOR_API_BASE_URL is not"):
        hosts(sqlite_url, CREATOR_API_PREVIOUS_URL="http://127.0.0.1:9")


def test_the_old_one_is_closed_like_the_new_one(moved):
    host, _ = moved(drain=True)
    assert isinstance(host.state.previous_creator, HttpCreator)
    host.state.previous_creator.close()
