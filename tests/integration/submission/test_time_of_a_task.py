"""The time of a task: it begins with the acceptance, and it ends for tasks that were made by hand as well."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from flask_contenthub_webhook.errors import CreatorUnreachable
from tests.support.host import Host, at_once, completed
from tests.support.submission import (
    BASE,
    OPEN,
    Killed,
    cancel,
    own,
    raise_,
    reconcile,
    retry,
    submit,
    sweep,
    with_own_creator,
)


def an_outage(host: Host, minutes: int, *, order: str) -> None:
    """Let the scheduler run while the creator is away, and the two jobs of a tick in this order."""
    own(host).on_submit = lambda _: raise_(CreatorUnreachable())
    jobs = [sweep, reconcile] if order == "submit first" else [reconcile, sweep]
    for _ in range(minutes):
        host.clock.advance(60)
        for job in jobs:
            job(host)
    own(host).on_submit = lambda job: own(host).known.setdefault(job.creator_task_id, OPEN)
    for _ in range(10):
        host.clock.advance(60)
        for job in jobs:
            job(host)


@pytest.mark.parametrize("order", ["submit first", "reconcile first"])
def test_a_task_that_was_never_handed_over_has_used_none_of_it(hub, order):
    """After an outage of 45 minutes it was timed out, or handed over, depending on which job came first."""
    first, second = submit(hub), submit(hub, timeout=60)
    an_outage(hub, 45, order=order)
    assert [hub.task(one).status for one in (first, second)] == ["submitted", "timeout"]
    task = hub.task(second)
    assert task.submitted_at is not None
    assert task.finished_at - task.submitted_at >= timedelta(seconds=60)
    assert hub.task(first).deadline_at - hub.task(first).submitted_at == timedelta(seconds=1800)


def test_neither_has_a_further_attempt(hub):
    task_id = hub.add_task(status="failed", next_poll_at=None)
    retry(hub, task_id)
    an_outage(hub, 45, order="reconcile first")
    assert (hub.task(task_id).status, hub.task(task_id).attempt) == ("submitted", 2)


class TestMadeByHand:
    def make(self, host: Host) -> str:
        with host.app.app_context():
            task = host.webhook.task_model(topic="Hello")
            host.db.session.add(task)
            host.db.session.commit()
            return str(task.task_id)

    def test_it_times_out_like_any_other(self, hub):
        task_id = self.make(hub)
        hub.clock.advance(1700)
        reconcile(hub)
        assert hub.task(task_id).status == "pending"
        hub.clock.advance(200)
        reconcile(hub)
        assert hub.task(task_id).status == "timeout"
        assert own(hub).calls == []

    def test_its_result_still_counts(self, hub):
        task_id = self.make(hub)
        hub.clock.advance(1900)
        reconcile(hub)
        assert hub.post(task_id, completed(task_id), attempt=1).get_json()["details"]["late"]

    def test_it_is_handed_over_by_a_cancellation_and_a_retry(self, hub):
        """As the doctor says, also for tasks from before a migration."""
        task_id = self.make(hub)
        cancel(hub, task_id)
        retry(hub, task_id)
        assert sweep(hub).outcomes == {"submitted": 1}
        assert (hub.task(task_id).status, own(hub).cancelled) == ("submitted", [])
        assert "attempt=2" in str(own(hub).jobs[0].callback_url)


def test_a_job_that_the_list_shows_although_its_task_has_gone_on_is_cancelled(hub):
    """The poller asked for the first attempt; while the service answered, the second began."""
    task_id = submit(hub)
    sweep(hub)
    first = hub.task(task_id).creator_task_id
    own(hub).known[first] = OPEN

    def go_on() -> None:
        own(hub).on_statuses = lambda: None
        threading.Event().wait(1.1)  # the service takes its time
        cancel(hub, task_id)
        retry(hub, task_id)
        sweep(hub)
        own(hub).cancelled.clear()

    own(hub).on_statuses = go_on
    hub.clock.advance(130)
    reconcile(hub)
    assert hub.task(task_id).attempt == 2
    assert own(hub).cancelled == [first]


def test_two_passes_at_once_tell_the_service_at_most_twice(hub, monkeypatch):
    task_id = submit(hub)
    sweep(hub)
    monkeypatch.setattr(own(hub), "cancel", lambda _: raise_(CreatorUnreachable()))
    cancel(hub, task_id)
    monkeypatch.undo()
    hub.clock.advance(1000)
    at_once(lambda: reconcile(hub), lambda: reconcile(hub))
    if not own(hub).cancelled:  # one pass had the turn at the service that was away, and the other one the task
        hub.clock.advance(1000)
        reconcile(hub)
    assert own(hub).cancelled == [hub.task(task_id).creator_task_id]


class TestShorterThanALease:
    """A deadline that passes during the hand-over, or before anybody sees that its process was killed."""

    @pytest.fixture
    def hub(self, hosts: Callable[..., Host], database_url: str) -> Host:
        settings = {"WEBHOOK_CALLBACK_BASE_URL": BASE, "WEBHOOK_SUBMIT_THREADS": 0, "WEBHOOK_POLL_GRACE": 5}
        return with_own_creator(hosts(database_url, **settings))

    def test_a_hand_over_that_goes_on_gets_its_answer(self, hub):
        def slow(job):
            own(hub).known[job.creator_task_id] = OPEN
            hub.clock.advance(20)
            reconcile(hub)
            return OPEN

        own(hub).on_submit = slow
        task_id = submit(hub, timeout=10)
        assert sweep(hub).outcomes == {"submitted": 1}
        task = hub.task(task_id)
        assert (task.status, task.attempt) == ("submitted", 1)
        assert task.deadline_at == hub.clock.now + timedelta(seconds=10)

    def test_one_whose_process_was_killed_is_looked_for(self, hub):
        def accept_and_die(job):
            own(hub).known[job.creator_task_id] = OPEN
            raise Killed

        own(hub).on_submit = accept_and_die
        task_id = submit(hub, timeout=10)
        with pytest.raises(Killed):
            sweep(hub)
        for _ in range(20):  # the poller runs more often than the sweep
            hub.clock.advance(6)
            reconcile(hub)
        assert (hub.task(task_id).status, hub.task(task_id).attempt) == ("pending", 1)
        assert sweep(hub).outcomes == {"submitted": 1}
        assert (hub.task(task_id).status, hub.task(task_id).attempt, len(own(hub).jobs)) == ("submitted", 1, 1)

    def test_where_no_sweep_came_the_poller_looks_for_it_before_it_gives_up(self, hub):
        """All was down for longer than the time of the task, and the poller ran first."""

        def accept_and_die(job):
            own(hub).known[job.creator_task_id] = OPEN
            raise Killed

        own(hub).on_submit = accept_and_die
        task_id = submit(hub, timeout=10, max_retries=0)
        with pytest.raises(Killed):
            sweep(hub)
        hub.clock.advance(600)
        reconcile(hub)
        assert (hub.task(task_id).status, hub.task(task_id).deadline_at) == (
            "submitted",
            hub.clock.now + timedelta(seconds=10),
        )
        assert sweep(hub).claimed == 0

    def test_an_answer_that_comes_after_the_task_was_given_up_ends_the_job(self, hub):
        """The service took it, and was asked a moment before that: its answer took longer than any lease."""

        def slow(job):
            hub.clock.advance(600)
            reconcile(hub)
            return OPEN

        own(hub).on_submit = slow
        task_id = submit(hub, timeout=10, max_retries=0)
        sweep(hub)
        task = hub.task(task_id)
        assert (task.status, task.error_code) == ("failed", "SUBMISSION_UNANSWERED")
        assert own(hub).cancelled == [task.creator_task_id]

    def test_but_not_for_ever(self, hub):
        own(hub).on_submit = lambda _: raise_(Killed())
        task_id = submit(hub, timeout=10, max_retries=0)
        with pytest.raises(Killed):
            sweep(hub)
        hub.clock.advance(600)
        reconcile(hub)
        assert (hub.task(task_id).status, hub.task(task_id).error_code) == ("failed", "SUBMISSION_UNANSWERED")
