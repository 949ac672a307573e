"""What a process sends to the database while nothing is due, and that it misses nothing for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.operations import scheduler
from flask_contenthub_webhook.operations.jobs import JOBS
from flask_contenthub_webhook.operations.lookout import Lookout
from tests.support.host import Host, completed
from tests.support.processes import wait_until
from tests.support.submission import OwnCreator

Build = Callable[..., Host]
BASE = "https://hub.example"
MINUTES = 10


class Process:
    """The scheduler of one process, which runs on the clock of its host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.lookout = Lookout(host.state)
        self.stopping = threading.Event()
        self._seconds = 0

    def listen(self) -> None:
        self.lookout.listen(self.stopping)
        wait_until(lambda: self.lookout.is_woken, timeout=30, what="it does not listen", log=lambda: "")

    def stop(self) -> None:
        self.stopping.set()
        self.lookout.join(30)

    def live(self, seconds: int) -> None:
        """Let time pass, and run each job at its times."""
        for _ in range(seconds):
            self.host.clock.advance(1)
            for job in JOBS:
                every = job.interval(self.host.state.registry.pacing).total_seconds()
                if self._seconds % every == 0:
                    scheduler._run(self.host.state, job, self.lookout)
            self._seconds += 1


@pytest.fixture
def processes() -> Iterator[Callable[[Host], Process]]:
    made: list[Process] = []

    def make(host: Host) -> Process:
        made.append(Process(host))
        return made[-1]

    yield make
    for process in made:
        process.stop()


def rename(host: Host, table: str, name: str) -> None:
    with host.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table} RENAME TO {name}"))


def sent(process: Process, minutes: int = MINUTES) -> float:
    """The statements of a minute, on the average; a COMMIT is none."""
    with process.host.statements() as statements:
        process.live(minutes * 60)
    return len([statement for statement in statements if statement != "COMMIT"]) / minutes


@pytest.mark.parametrize(("mode", "threads"), [("inline", 4), ("inline", 0), ("worker", 4)])
def test_an_idle_scheduler_sends_at_most_twelve_statements_a_minute(hosts, postgres_url, processes, mode, threads):
    settings = {"WEBHOOK_PROCESSING": mode, "WEBHOOK_SUBMIT_THREADS": threads}
    process = processes(hosts(postgres_url, WEBHOOK_CALLBACK_BASE_URL=BASE, **settings))
    process.host.state.creator = OwnCreator(process.host)
    if (mode, threads) != ("inline", 4):
        process.listen()
    process.live(60)

    assert sent(process) <= 12


@pytest.mark.parametrize(("mode", "threads", "most"), [("inline", 4, 12), ("inline", 0, 18), ("worker", 4, 66)])
def test_where_nothing_is_announced_it_looks_more_often(hosts, database_url, processes, mode, threads, most):
    """Every ten seconds, or every five or every one where it may be the only one that does new work."""
    process = processes(hosts(database_url, WEBHOOK_PROCESSING=mode, WEBHOOK_SUBMIT_THREADS=threads))
    process.live(60)

    assert sent(process) <= most


def test_tasks_that_are_open_but_not_due_cost_nothing_more(host, processes):
    host.add_task(next_poll_at=host.clock.now + timedelta(days=1))
    process = processes(host)
    process.live(60)

    assert sent(process) <= 12


def test_what_comes_due_while_it_idles_is_done_in_its_time(host, processes):
    process = processes(host)
    process.live(120)
    host.publisher.broken = True
    task_id = host.add_task()
    host.post(task_id, completed(task_id), attempt=1)
    host.publisher.broken = False

    process.live(29)
    assert host.task(task_id).status != "completed"
    process.live(21)  # the first try is due after 30 s, and the job runs every ten
    assert host.task(task_id).status == "completed"


def test_an_event_for_a_worker_wakes_it(hosts, postgres_url, processes):
    host = hosts(postgres_url, WEBHOOK_PROCESSING="worker")
    process = processes(host)
    process.listen()
    process.live(1)
    assert not process.lookout.is_due("retry-deliveries")

    task_id = host.add_task()
    host.post(task_id, completed(task_id), attempt=1)

    wait_until(lambda: process.lookout.is_due("retry-deliveries"), timeout=30, what="it sleeps on", log=lambda: "")


def test_a_submission_that_no_thread_hands_over_wakes_it(hosts, postgres_url, processes):
    host = hosts(postgres_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0)
    host.state.creator = OwnCreator(host)
    process = processes(host)
    process.listen()
    process.live(1)
    assert not process.lookout.is_due("submit")

    with host.app.app_context():
        host.webhook.submit(topic="Tea")

    wait_until(lambda: process.lookout.is_due("submit"), timeout=30, what="it sleeps on", log=lambda: "")


@pytest.mark.parametrize(("job", "asked"), [("submit", "retry"), ("forward", "replay_forward")])
def test_what_a_person_asks_for_wakes_it_too(hosts, postgres_url, processes, job, asked):
    host = hosts(postgres_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0)
    host.state.creator = OwnCreator(host)
    tomorrow = host.clock.now + timedelta(days=1)
    task_id = host.add_task(status="failed", next_poll_at=None, deadline_at=tomorrow)
    with host.app.app_context():
        forward = {"delivery_id": 1, "event": "completed", "url": BASE, "message_id": "m", "body": b"{}"}
        host.db.session.add(host.state.models.forward(task_id=task_id, status="dead", **forward))
        host.db.session.commit()
    process = processes(host)
    process.listen()
    process.live(1)
    assert not process.lookout.is_due(job)

    with host.app.app_context():
        getattr(host.webhook, asked)(task_id if asked == "retry" else 1)

    wait_until(lambda: process.lookout.is_due(job), timeout=30, what="it sleeps on", log=lambda: "")


def test_what_is_announced_before_a_look_that_fails_is_seen_by_the_next_one(sqlite_host, processes):
    process, now = processes(sqlite_host), sqlite_host.clock.now
    process.live(1)
    assert not process.lookout.is_due("submit")
    rename(sqlite_host, "webhook_forwards", "elsewhere")
    sqlite_host.add_task(status="pending", next_submit_at=now)
    process.lookout.forget()
    assert process.lookout.is_due("reconcile")  # it could not look

    rename(sqlite_host, "elsewhere", "webhook_forwards")

    assert process.lookout.is_due("submit")


def test_what_is_announced_during_a_look_is_seen_by_the_next_one(sqlite_host, processes):
    """The look may have begun before the work was committed."""
    process = processes(sqlite_host)
    process.live(1)
    process.lookout.forget()
    with process.host.statements() as statements:
        sa.event.listen(process.host.engine, "after_cursor_execute", lambda *_: process.lookout.forget())
        process.lookout.is_due("submit")
        process.lookout.is_due("submit")

    assert len([statement for statement in statements if statement != "COMMIT"]) == 2


def test_alerts_are_checked_again_as_soon_as_anything_happened(host, processes):
    process = processes(host)
    process.live(60)
    assert not process.lookout.is_due("alerts")

    task_id = host.add_task()
    host.post(task_id, completed(task_id), attempt=1)
    process.lookout.forget()

    assert process.lookout.is_due("alerts")


def test_a_silence_that_begins_while_nothing_is_due_is_noticed(host, processes):
    """Its tasks are polled much later; the alert is raised a sixth of its period late at most."""
    tomorrow = host.clock.now + timedelta(days=1)
    minutes = int(host.state.settings.silence_alert_minutes)
    process = processes(host)
    process.live(60)
    host.add_task(next_poll_at=tomorrow, submitted_at=host.clock.now, callback_url=BASE, status="submitted")

    process.live(minutes * 70 + 30)

    with host.app.app_context():
        assert {alert.name for alert in host.webhook.alerts() if alert.raised} == {"silence"}


def test_quiet_alerts_are_confirmed_every_five_minutes(host, processes):
    process = processes(host)
    process.live(331)

    with host.app.app_context():
        assert {host.clock.now - alert.checked_at for alert in host.webhook.alerts()} <= {
            timedelta(seconds=second) for second in range(32)
        }


def test_where_a_look_fails_the_job_makes_its_pass_and_says_why(host, processes):
    process = processes(host)
    rename(host, "webhook_forwards", "elsewhere")

    assert process.lookout.is_due("reconcile")
