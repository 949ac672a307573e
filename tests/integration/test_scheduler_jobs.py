"""The jobs of a scheduler in this process: what they do, and that nothing stops the next run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import current_app, has_app_context

from flask_contenthub_webhook.creators import RemoteState, Report
from flask_contenthub_webhook.operations.jobs import JOBS
from tests.support.host import Host, at_once, completed
from tests.support.processes import wait_until

Build = Callable[..., Host]
BASE = "https://hub.example"
NAMES = {"reconcile", "submit", "retry-deliveries", "forward", "alerts", "purge", "clock"}
PATIENCE = 60


class OwnCreator:
    """Calls back into the test, in the thread of the job."""

    def __init__(self) -> None:
        self.on_statuses: Callable[[], None] = lambda: None
        self.submitted = threading.Event()

    def submit(self, job: Any, *, wait: float) -> Report:
        self.submitted.set()
        return Report(state=RemoteState.OPEN)

    def statuses(self, names: Any, *, since: Any = None) -> Any:
        self.on_statuses()
        return {name: Report(state=RemoteState.OPEN) for name in names}

    def status(self, name: str) -> Report:
        return Report(state=RemoteState.OPEN)

    result = status

    def cancel(self, name: str) -> None:
        pass


@pytest.fixture
def hub(hosts: Build, database_url: str) -> Iterator[Host]:
    host = hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0)
    host.state.creator = OwnCreator()
    yield host
    host.webhook.stop_scheduler(host.app)


def own(host: Host) -> OwnCreator:
    assert isinstance(host.state.creator, OwnCreator)
    return host.state.creator


def due(host: Host) -> str:
    return host.add_task(creator_task_id="c-1", next_poll_at=host.clock.now, submitted_at=host.clock.now)


def run_now(host: Host, name: str) -> None:
    """As if its time had come."""
    assert host.state.jobs.value.scheduler is not None
    host.state.jobs.value.scheduler.modify_job(name, next_run_time=datetime.now(UTC))


class Ran:
    """Waits until the last thing that a job does was done so many times."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.count = 0

    def __call__(self, *_: Any, **__: Any) -> None:
        with self._condition:
            self.count += 1
            self._condition.notify_all()

    def wait_for(self, count: int) -> None:
        assert self.wait_for_a_moment(count, PATIENCE)

    def wait_for_a_moment(self, count: int, seconds: float = 0.1) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self.count >= count, seconds)


def test_every_job_runs_at_the_start_and_does_its_work(hub):
    asked = threading.Event()
    own(hub).on_statuses = asked.set
    with hub.app.app_context():
        hub.webhook.submit(topic="Tea")
    due(hub)
    failed = hub.add_task()
    hub.publisher.broken = True
    hub.post(failed, completed(failed), attempt=1)
    hub.publisher.broken = False
    old = hub.add_task()
    hub.post(old, completed(old), attempt=1)
    with hub.app.app_context():
        model = hub.state.delivery_model
        long_ago = {"received_at": hub.clock.now - timedelta(days=100)}
        hub.db.session.query(model).filter(model.task_id == old).update(long_ago)
        hub.db.session.commit()
    hub.clock.advance(40)

    hub.webhook.start_scheduler(hub.app)
    assert asked.wait(PATIENCE)
    assert own(hub).submitted.wait(PATIENCE)

    def have_done_their_work() -> bool:
        with hub.app.app_context():
            are_checked = all(alert.checked_at == hub.clock.now for alert in hub.webhook.alerts())
        return are_checked and hub.task(failed).status == "completed" and hub.deliveries(old) == []

    wait_until(have_done_their_work, timeout=PATIENCE, what="a job did not run", log=lambda: "")
    hub.webhook.stop_scheduler(hub.app)
    assert hub.task(old).status == "completed"


def test_jobs_run_in_an_application_context(hub):
    seen: list[Any] = []
    ran = threading.Event()

    def look() -> None:
        seen.append(current_app.extensions["contenthub_webhook"].app if has_app_context() else None)
        ran.set()

    own(hub).on_statuses = look
    due(hub)
    hub.webhook.start_scheduler(hub.app)
    assert ran.wait(PATIENCE)
    assert seen == [hub.app]


def test_a_job_that_raises_does_not_stop_the_next_run(hub):
    ran = Ran()

    def break_down() -> None:
        ran()
        raise RuntimeError("an own creator with a bug in it")

    own(hub).on_statuses = break_down
    due(hub)
    hub.webhook.start_scheduler(hub.app)
    ran.wait_for(1)
    for times in (2, 3):
        hub.clock.advance(1000)
        while ran.count < times:  # APScheduler skips a time that comes before the run before it has ended
            run_now(hub, "reconcile")
            ran.wait_for_a_moment(times)
    hub.webhook.stop_scheduler(hub.app)


def test_one_that_hangs_holds_up_no_other_and_is_not_started_twice(hub):
    release, inside, ran = threading.Event(), threading.Event(), Ran()

    def hang() -> None:
        ran()
        inside.set()
        release.wait(PATIENCE)

    own(hub).on_statuses = hang
    due(hub)
    hub.webhook.start_scheduler(hub.app)
    assert inside.wait(PATIENCE)
    with hub.app.app_context():
        hub.webhook.submit(topic="Tea")
    run_now(hub, "submit")
    assert own(hub).submitted.wait(PATIENCE)
    assert ran.count == 1
    release.set()


def test_starting_twice_is_starting_once(hub):
    hub.webhook.start_scheduler(hub.app)
    first = hub.state.jobs.value.scheduler
    hub.webhook.start_scheduler(hub.app)
    assert hub.state.jobs.value.scheduler is first
    assert first is not None
    assert {job.id for job in first.get_jobs()} == NAMES == {job.name for job in JOBS}
    assert len(first.get_jobs()) == len(NAMES)


def test_the_lines_that_apscheduler_logs_name_our_jobs(hub, caplog):
    with caplog.at_level(logging.INFO, "apscheduler"):
        hub.webhook.start_scheduler(hub.app)
        hub.webhook.stop_scheduler(hub.app)

    for name in NAMES:
        assert any(f'"contenthub_webhook {name}' in line for line in caplog.messages), name


def test_starting_at_once_in_many_threads_is_starting_once(hub):
    assert at_once(*[lambda: hub.webhook.start_scheduler(hub.app)] * 8) == [None] * 8
    names = [thread.name for thread in threading.enumerate() if thread.name == "APScheduler"]
    assert len(names) == 1


def test_stopping_waits_for_what_runs(hub):
    inside, release, stopped = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        release.wait(PATIENCE)

    own(hub).on_statuses = work
    task_id = due(hub)
    hub.webhook.start_scheduler(hub.app)
    assert inside.wait(PATIENCE)

    def stop_and_say_so() -> None:
        hub.webhook.stop_scheduler(hub.app)
        stopped.set()

    stop = threading.Thread(target=stop_and_say_so)
    stop.start()
    assert not stopped.wait(0.2)
    release.set()
    stop.join(PATIENCE)
    assert stopped.is_set()
    assert hub.task(task_id).polls == 1


def test_stopping_without_waiting_comes_back_at_once(hub):
    inside, release = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        release.wait(PATIENCE)

    own(hub).on_statuses = work
    due(hub)
    hub.webhook.start_scheduler(hub.app)
    assert inside.wait(PATIENCE)
    hub.webhook.stop_scheduler(hub.app, wait=False)
    release.set()


def test_it_can_be_started_again_and_stopped_twice(hub):
    hub.webhook.start_scheduler(hub.app)
    hub.webhook.stop_scheduler(hub.app)
    hub.webhook.stop_scheduler(hub.app)
    assert hub.state.jobs.value.scheduler is None
    ran = threading.Event()
    own(hub).on_statuses = ran.set
    due(hub)
    hub.webhook.start_scheduler(hub.app)
    assert ran.wait(PATIENCE)


def test_stopping_what_never_ran_does_nothing(hub):
    hub.webhook.stop_scheduler(hub.app)
    assert hub.state.jobs.value.scheduler is None


def test_how_often_the_jobs_run_and_what_a_missed_time_means(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_POLL_INTERVAL=60)
    host.webhook.start_scheduler(host.app)
    assert host.state.jobs.value.scheduler is not None
    jobs = {job.id: job for job in host.state.jobs.value.scheduler.get_jobs()}
    seconds = {name: job.trigger.interval.total_seconds() for name, job in jobs.items()}
    assert seconds == {
        "reconcile": 20,
        "submit": 5,
        "retry-deliveries": 10,
        "forward": 5,
        "alerts": 30,
        "purge": 3600,
        "clock": 10,
    }
    assert {(job.coalesce, job.max_instances, job.misfire_grace_time) for job in jobs.values()} == {(True, 1, None)}
    host.webhook.stop_scheduler(host.app)
