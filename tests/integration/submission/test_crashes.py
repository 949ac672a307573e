"""Crashes between the commit and the answer of the creator, and submissions from unusual places."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime

import pytest

from flask_contenthub_webhook.creators import Job, Report
from flask_contenthub_webhook.errors import CreatorRefused, CreatorUnclear, CreatorUnreachable
from tests.support.host import Host, at_once, completed, make_host
from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.submission import BASE, LEASE, OPEN, Killed, own, raise_, submit, sweep


class TestACrash:
    """In the process that hands over; another one sweeps when the lease is over."""

    @pytest.fixture
    def other(self, hub: Host, database_url: str) -> Iterator[Host]:
        """Another process on the same database, with the same creator."""
        other = make_host(database_url, create_tables=False, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0)
        other.clock, other.state.clock, other.state.creator = hub.clock, hub.clock, own(hub)
        yield other
        other.close()

    def test_before_the_creator_had_it(self, hub, other):
        task_id = submit(hub)
        own(hub).on_submit = lambda _: raise_(Killed())
        with pytest.raises(Killed):
            sweep(hub)
        assert sweep(other).claimed == 0  # it may still be at work
        assert hub.task(task_id).submitting_since == hub.clock.now

        own(hub).on_submit = lambda _: OPEN
        hub.clock.advance(LEASE)
        assert sweep(other).outcomes == {"submitted": 1}
        assert own(hub).calls == ["submit", "statuses", "submit"]
        first, second = own(hub).jobs
        assert first.creator_task_id == second.creator_task_id  # which the creator never saw
        assert hub.task(task_id).status == "submitted"

    def crash_after_it_was_accepted(self, hub: Host) -> str:
        def accept_and_die(job: Job) -> Report:
            own(hub).known[job.creator_task_id] = OPEN
            raise Killed

        own(hub).on_submit = accept_and_die
        task_id = submit(hub)
        with pytest.raises(Killed):
            sweep(hub)
        own(hub).on_submit = lambda _: OPEN
        hub.clock.advance(LEASE)
        return task_id

    def test_when_the_creator_had_it_it_is_not_submitted_again(self, hub, other):
        task_id = self.crash_after_it_was_accepted(hub)
        assert sweep(other).outcomes == {"submitted": 1}
        assert own(hub).calls == ["submit", "statuses"]
        assert (hub.task(task_id).status, hub.task(task_id).submitting_since) == ("submitted", None)

    @pytest.mark.parametrize("trouble", [CreatorUnreachable, CreatorUnclear, CreatorRefused])
    def test_nor_when_it_cannot_be_asked_at_first(self, hub, other, trouble):
        """A creator that dies with us, and comes back later: it marks the first run failed when it gets a second."""
        task_id = self.crash_after_it_was_accepted(hub)
        own(hub).on_statuses = lambda: raise_(trouble())
        sweep(other)
        assert hub.task(task_id).status == "pending"

        own(hub).on_statuses = lambda: None
        hub.clock.advance(LEASE)
        assert sweep(other).outcomes == {"submitted": 1}
        assert len(own(hub).jobs) == 1
        assert hub.task(task_id).status == "submitted"

    def test_a_callback_settles_what_a_crash_left(self, hub, other):
        task_id = self.crash_after_it_was_accepted(hub)
        assert hub.post(task_id, completed(task_id), attempt=1).status_code == 200
        assert sweep(other).claimed == 0
        assert hub.task(task_id).status == "completed"

    def test_many_sweeps_at_once_submit_each_task_once(self, hub, other):
        for _ in range(20):
            submit(hub)
        reports = at_once(*(lambda host=host: sweep(host) for host in (hub, other, hub, other)))
        assert sum(report.claimed for report in reports) == 20
        assert len({job.creator_task_id for job in own(hub).jobs}) == len(own(hub).jobs) == 20

    def test_one_that_slept_over_its_lease_does_not_submit_as_well(self, hub, other):
        """A machine that is suspended between its claim and its call; meanwhile another process makes the call."""
        submit(hub)
        due = hub.tasks()[0].next_submit_at
        called, answered = threading.Event(), threading.Event()
        other_process = threading.Thread(target=sweep, args=(other,))

        def wait_for_the_sleeper(job: Job) -> Report:
            if len(own(hub).jobs) == 1:
                called.set()
                answered.wait(10)
            return OPEN

        def sleepy() -> datetime:
            if other_process.ident is None and hub.tasks()[0].next_submit_at > due:
                hub.clock.advance(LEASE)
                other_process.start()
                assert called.wait(10)
            now: datetime = hub.clock.now
            return now

        own(hub).on_submit = wait_for_the_sleeper
        hub.state.clock = sleepy
        sweep(hub)
        answered.set()
        other_process.join()
        assert len(own(hub).jobs) == 1


class TestInUnusualPlaces:
    def submit_from(self, place: str, sqlite_url: str) -> str:
        """Two submissions, the second one from there; what the process has to say."""
        command = [sys.executable, "-m", "tests.support.unusual_places", place, sqlite_url]
        ended = subprocess.run(
            command, cwd=PROJECT_ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def test_a_forked_worker_hands_over_what_it_submits(self, sqlite_host, sqlite_url):
        """As gunicorn's with ``--preload``, where the parent has submitted something before."""
        assert self.submit_from("fork", sqlite_url) == "returned\n"
        assert [task.status for task in sqlite_host.tasks()] == ["submitted"] * 2

    def test_what_a_thread_submits_that_outlives_the_main_one_is_handed_over(self, sqlite_host, sqlite_url):
        assert self.submit_from("thread", sqlite_url) == "returned\n"
        assert [task.status for task in sqlite_host.tasks()] == ["submitted"] * 2
