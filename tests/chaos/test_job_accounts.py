"""The books of a paid service after every race: no job is open that belongs to no open task.

JOBS_ROUNDS sets the number of rounds for each kind of service, on each database.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from flask_contenthub_webhook.errors import RequestRefused, TransitionRefused
from tests.support.host import Host, completed, failed, progress
from tests.support.job_service import KINDS, JobService, PaidCreator, PaidJob
from tests.support.submission import BASE, Killed, cancel, reconcile, retry, submit, sweep

ROUNDS = int(os.environ.get("JOBS_ROUNDS", "25"))
"""For each of four services, on two databases: two hundred."""
OPEN = {"pending", "submitted", "processing"}


class Round:
    """One task, and everything that may happen to it at once."""

    def __init__(self, host: Host, service: JobService, creator: PaidCreator, seed: str) -> None:
        self.host, self.service, self.creator = host, service, creator
        self.draw = random.Random(seed)
        self.task_id = submit(host, max_retries=3)

    def acts(self) -> list[Callable[[], Any]]:
        return [
            lambda: sweep(self.host),
            lambda: reconcile(self.host),
            lambda: cancel(self.host, self.task_id),
            lambda: retry(self.host, self.task_id),
            lambda: self.host.clock.advance(self.draw.choice((5, 20))),
            self.show_life,
            self.complete,
            self.fail_and_go_on,
        ]

    def race(self) -> None:
        """Two processes' work and the sender's at once, with deaths and cut connections in between."""
        self.service.trouble = self.draw.choice((0.0, 0.2, 0.5))
        dies = self.draw.choice((0.0, 0.2))
        self.creator.before_the_call = self.creator.after_the_call = lambda _: self._maybe_die(dies)
        inside = self.draw.choices(self.acts(), [3, 1, 3, 3, 1, 4, 1, 2], k=3)
        self.service.meanwhile = lambda _: self._try(inside.pop()) if inside else None
        lists = [self.draw.choices(self.acts(), [5, 2, 2, 2, 3, 3, 1, 2], k=6) for _ in range(2)]
        threads = [threading.Thread(target=lambda acts=acts: [self._try(act) for act in acts]) for acts in lists]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)
        self.service.trouble = 0.0
        self.service.meanwhile = lambda _: None
        self.creator.before_the_call = self.creator.after_the_call = lambda _: None

    def settle(self, hours: int) -> None:
        """Let the scheduler of a healthy installation run.

        Where nobody can look up a job by our name, one whose answer was lost is only known by its own events.
        """
        for _ in range(hours):
            self.host.clock.advance(700)
            sweep(self.host)
            if self.service.kind in KINDS[2:]:
                self.show_life()
            reconcile(self.host)

    def strays(self) -> list[PaidJob]:
        task = self.host.task(self.task_id)
        owned = task.creator_task_id if task.status in OPEN else None
        return [job for job in self.service.open_jobs if job.name != owned]

    def facts(self) -> str:
        """What a person needs to understand a stray."""
        task = self.host.task(self.task_id)
        names = ("status", "attempt", "creator_task_id", "earlier_creator_task_ids", "submitted_at", "submitting_since")
        facts = {name: getattr(task, name) for name in (*names, "next_poll_at", "previous_status")}
        events = [(row.source, row.event, row.attempt, row.verdict) for row in self.host.deliveries(self.task_id)]
        return f"{facts}\n{events}\n{self.service.open_jobs}"

    # --- what the service tells ------------------------------------------------------------------------------

    def show_life(self) -> None:
        for job in self.service.open_jobs:
            job.percentage += 1
            self._post(job, progress(job.name, job.percentage))

    def complete(self) -> None:
        if jobs := self.service.open_jobs:
            job = self.draw.choice(jobs)
            job.state = "completed"
            self._post(job, completed(job.name))

    def fail_and_go_on(self) -> None:
        """Say that it failed, and try again by itself."""
        if jobs := self.service.open_jobs:
            job = self.draw.choice(jobs)
            self._post(job, failed(job.name))

    def _post(self, job: PaidJob, event: dict[str, Any]) -> None:
        self.host.post(self.task_id, event, attempt=job.attempt)

    def _maybe_die(self, share: float) -> None:
        if self.draw.random() < share:
            raise Killed

    @staticmethod
    def _try(act: Callable[[], Any]) -> None:
        with suppress(TransitionRefused, RequestRefused, OperationalError, Killed):
            act()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_no_job_is_open_at_the_end_that_belongs_to_no_open_task(hosts, database_url, kind):
    host = hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0)
    with JobService(kind, random.Random(kind)) as service:
        creator = PaidCreator(service)
        host.state.creator = creator
        for number in range(ROUNDS):
            one = Round(host, service, creator, seed=f"{kind} {number}")
            one.race()
            host.clock.advance(one.draw.choice((0, 45, 150, 700, 2000)))
            one.race()
            one.settle(12)
            assert one.strays() == [], f"round {number}: {one.facts()}"
            with suppress(TransitionRefused):
                cancel(host, one.task_id)
            one.settle(3)
            assert service.open_jobs == [], f"round {number}"
            assert host.task(one.task_id).next_poll_at is None
        creator.close()
    assert len(service.jobs) > ROUNDS / 2  # there was something to count
