"""Whole processes with wrong clocks, by libfaketime: work is done once, in its time, and booked under the right one."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flask_contenthub_webhook.testing import CreatorSimulator
from tests.support.faketime import FakeTime, needs_faketime
from tests.support.workers import Site, Worker, site

pytestmark = needs_faketime

HOUR, TEN_MINUTES = 3600, 600
QUICK = {"WEBHOOK_TIMEOUT": "0.5", "WEBHOOK_RETRY_BACKOFF": "1,1,1"}
"""A lease lasts 3 s."""


class Scheduler(Worker):
    """`flask webhook scheduler`."""

    command, runs = "scheduler", "The scheduler runs in this process"


@contextmanager
def servers(url: str, directory: Path) -> Iterator[Site]:
    """A site whose processes have a real clock, as far as libfaketime leaves it to them."""
    with site(url, directory, **QUICK) as made:
        del made.env["TEST_CLOCK_OFFSET"]
        yield made


def process(made: Site, kind: type[Worker], clock: FakeTime) -> Worker:
    log = made.directory / f"process-{len(made.workers)}.log"
    made.workers.append(kind({**made.env, **clock.environment}, log))
    return made.workers[-1]


def worker(made: Site, seconds: float) -> Worker:
    """A worker whose clock is wrong."""
    return process(made, Worker, FakeTime(made.directory / f"clock-{len(made.workers)}", seconds))


def assert_done_once(made: Site, tasks: list[str]) -> None:
    made.wait_until_done(60)
    assert made.database.contents(*tasks) == dict.fromkeys(tasks, 1)
    for row in made.deliveries():
        assert row.verdict == "processed"
        assert row.latency_ms >= 0
        assert abs(row.processed_at - datetime.now(UTC)) < timedelta(minutes=2)
        assert row.received_at <= row.processed_at


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_scheduler_whose_clock_is_set_goes_on(database_url: str, tmp_path: Path, seconds: int):
    with servers(database_url, tmp_path) as made:
        clock = FakeTime(tmp_path / "clock")
        scheduler = process(made, Scheduler, clock).start()
        before, after = made.database.add_tasks(2), made.database.add_tasks(2)
        made.complete(before)
        made.wait_until_done(60)
        clock.set(seconds)
        made.wait(lambda: "clock of this machine was set" in scheduler.log, "it was not noticed", 60)
        made.complete(after)
        made.wait_until_done(60)
        assert made.database.contents(*before, *after) == dict.fromkeys([*before, *after], 1)
        assert scheduler.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_worker_whose_clock_is_set_goes_on(postgres_url: str, tmp_path: Path, seconds: int):
    with servers(postgres_url, tmp_path) as made:
        clock = FakeTime(tmp_path / "clock")
        process(made, Worker, clock).start()
        tasks = made.database.add_tasks(6)
        made.complete(tasks[:2])
        made.wait_until_done(60)
        made.switch.write_text("raise")
        made.complete(tasks[2:4])
        made.wait(lambda: all(row.tries or row.verdict == "processed" for row in made.deliveries()), "no try", 60)
        clock.set(seconds)
        made.switch.write_text("")
        made.complete(tasks[4:])
        assert_done_once(made, tasks)


def test_a_retry_that_waits_when_the_clock_of_the_machine_is_set_back_is_due_soon(sqlite_url: str, tmp_path: Path):
    with servers(sqlite_url, tmp_path) as made:
        made.env |= {"WEBHOOK_RETRY_BACKOFF": "8,8,8", "CREATOR_API_TIMEOUT": "1"}
        clock = FakeTime(tmp_path / "clock")
        made.switch.write_text("raise")
        scheduler = process(made, Scheduler, clock).start()
        tasks = made.database.add_tasks(2)
        made.complete(tasks)
        made.wait(lambda: all(row.tries for row in made.deliveries()), "not each was tried", 60)
        clock.set(-HOUR)
        made.switch.write_text("")
        made.wait_until_done(90)
        assert made.database.contents(*tasks) == dict.fromkeys(tasks, 1)
        assert "The clock of the database was set back by 3600 s" in scheduler.log


def test_workers_whose_clocks_differ_do_each_event_once(postgres_url: str, tmp_path: Path):
    with servers(postgres_url, tmp_path) as made:
        for seconds in (-HOUR, -120, 120, TEN_MINUTES):
            worker(made, seconds).start()
        tasks = made.database.add_tasks(60)
        made.complete(tasks)
        assert_done_once(made, tasks)
        assert all(row.tries == 1 for row in made.deliveries())


@pytest.mark.parametrize(("dead", "living"), [(HOUR, -HOUR), (-HOUR, HOUR), (TEN_MINUTES, 0), (0, -120)])
def test_the_events_of_a_killed_worker_are_taken_over_when_its_lease_ends(
    postgres_url: str, tmp_path: Path, dead: int, living: int
):
    with servers(postgres_url, tmp_path) as made:
        made.switch.write_text("sleep 30")
        killed, other = worker(made, dead), worker(made, living)
        tasks = made.database.add_tasks(4)
        made.complete(tasks)
        killed.start()
        made.wait(made.leased, "nothing was claimed", 60)
        killed.end(signal.SIGKILL)
        made.switch.write_text("")
        other.start()
        assert_done_once(made, tasks)


def test_a_retry_is_due_after_its_backoff_whichever_worker_failed(postgres_url: str, tmp_path: Path):
    with servers(postgres_url, tmp_path) as made:
        made.switch.write_text("raise")
        for seconds in (-HOUR, TEN_MINUTES):
            worker(made, seconds).start()
        tasks = made.database.add_tasks(20)
        made.complete(tasks)
        made.wait(lambda: all(row.tries for row in made.deliveries()), "not each was tried", 60)
        made.switch.write_text("")
        assert_done_once(made, tasks)


def test_two_schedulers_whose_clocks_differ_submit_and_poll_each_task_once(postgres_url: str, tmp_path: Path):
    with (
        CreatorSimulator(time_scale=0.02, work_time=(0.2, 1), restart_after=None) as creator,
        servers(postgres_url, tmp_path) as made,
    ):
        made.env |= {"CREATOR_API_BASE_URL": creator.base_url, "WEBHOOK_POLL_INTERVAL": "3"}
        for seconds in (-HOUR, TEN_MINUTES):
            process(made, Scheduler, FakeTime(tmp_path / f"clock{seconds}", seconds)).start()
        now = datetime.now(UTC)
        job = {"topic": "Tea", "requirements": "R", "target_audience": "A"}
        due = {"status": "pending", "next_submit_at": now, "next_poll_at": now + timedelta(minutes=2)}
        tasks = [made.database.add_task(**job, **due, creator_task_id=str(uuid.uuid4())) for _ in range(10)]
        made.wait(lambda: made.effects() >= len(tasks), "not each task was completed", 120)
        assert made.database.contents(*tasks) == dict.fromkeys(tasks, 1)
        assert len(creator.tasks) == len(tasks)
        assert {made.database.task(task_id).attempt for task_id in tasks} == {1}
        for task_id in tasks:
            row = made.database.task(task_id)
            assert now <= row.submitted_at <= row.finished_at <= datetime.now(UTC)
