"""A paid service that counts the jobs of each task, a creator for it, and the places in which a submission can be cut.

As a program, it is a process that submits one task and ends at such a place, without a chance to clean up.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import sqlalchemy as sa

from flask_contenthub_webhook.creators import Job, Report
from flask_contenthub_webhook.errors import CreatorAway, CreatorUnclear
from tests.support.host import Host, make_host
from tests.support.job_service import JobService, PaidCreator, PaidJob
from tests.support.submission import BASE, submit, sweep

DEADLY = ("before the call", "during the call", "after the answer", "in the first commit", "in the second commit")
"""The process ends there."""
LOSSES = ("cut before it arrived", "cut after it arrived", "502 before it arrived", "502 after it arrived")
"""The process lives, and the answer is lost."""
CUTS = (*DEADLY, *LOSSES)


class Powers(NamedTuple):
    """A service and its creator.

    Args:
        own: it takes our name of a job.
        idempotent: a second submission under our name starts no second job.
        find: the creator can look up a job by our name.
    """

    own: bool
    idempotent: bool
    find: bool

    @property
    def can_be_asked(self) -> bool:
        return any(self)


class CountingService(JobService):
    """Counts, at each submission, the jobs of the task that are open then."""

    def __init__(self, powers: Powers) -> None:
        super().__init__("keeps our names" if powers.own else "finds by our names", random.Random(0))
        self.powers = powers
        self.loss: str | None = None
        self.submitted: Counter[str] = Counter()
        self.most_open = 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any] | None:
        loss = self.loss if method == "POST" else None
        if loss is None:
            return super().answer(method, path, body)
        self.loss = None
        if loss.endswith("after it arrived"):
            super().answer(method, path, body)
        return (502, {}) if loss.startswith("502") else None

    def of_task(self, task_id: str) -> list[PaidJob]:
        return [job for job in self.jobs.values() if task_id in job.callback_url]

    def _accept(self, asked: dict[str, str]) -> PaidJob:
        with self._lock:
            for job in self.jobs.values():
                if self.powers.idempotent and job.ours == asked["ours"]:
                    return job
            job = super()._accept(asked)
            rivals = [other for other in self.open_jobs if _task_of(other) == _task_of(job)]
            self.most_open = max(self.most_open, len(rivals))
            return job


class CountedCreator(PaidCreator):
    """The host's class for it, which dies where it is told to."""

    def __init__(self, service_url: str, powers: Powers) -> None:
        self._http = httpx.Client(base_url=service_url, timeout=20)
        self.keeps_names, self.idempotent = powers.own, powers.idempotent
        self.find = self._find if powers.find else None
        self.before_the_call = self.after_the_call = lambda _: None
        self.during_the_call: Callable[[], None] = lambda: None

    def submit(self, job: Job, *, wait: float) -> Report:
        self.before_the_call("submit")
        body = {"ours": job.creator_task_id, "callback": job.callback_url}
        try:
            answer = self._http.post("/jobs", json=body)
        except httpx.HTTPError as error:
            raise CreatorUnclear(str(error)) from error
        self.during_the_call()
        if answer.status_code == 502:
            raise CreatorAway("502", retry_after=30)
        report = self._report_of(answer)
        self.after_the_call("submit")
        return report


class Dead(KeyboardInterrupt):
    """The process ends here; of another exception at a COMMIT it would believe that a handler raised it."""


def arm(host: Host, creator: CountedCreator, cut: str, die: Callable[[], Any]) -> Callable[[], None]:
    """Let the process end at a place of its next submission; return a function that brings it to life again."""
    seen: list[sa.Connection] = []
    engine, is_over = host.engine, threading.Event()

    def die_at_commit(number: int) -> Callable[[str], None]:
        def count(connection: sa.Connection) -> None:
            seen.append(connection)
            if len(seen) >= number and not is_over.is_set():
                die()

        return lambda _: sa.event.listen(engine, "commit", count)

    match cut:
        case "before the call":
            creator.before_the_call = lambda _: die()
        case "during the call":
            creator.during_the_call = die
        case "after the answer":
            creator.after_the_call = lambda _: die()
        case "in the first commit":
            creator.after_the_call = die_at_commit(1)
        case "in the second commit":
            creator.after_the_call = die_at_commit(2)
    return is_over.set


def host_for(database_url: str, *, create_tables: bool) -> Host:
    keys = {"WEBHOOK_CALLBACK_BASE_URL": BASE, "WEBHOOK_SUBMIT_THREADS": 0}
    return make_host(database_url, create_tables=create_tables, **keys)


def _task_of(job: PaidJob) -> str:
    return job.callback_url.partition("?")[0]


def main(database_url: str, service_url: str, powers: str, cut: str) -> None:
    host = host_for(database_url, create_tables=False)
    creator = CountedCreator(service_url, Powers(*(letter == "y" for letter in powers)))
    host.state.creator = creator
    print(submit(host), flush=True)  # noqa: T201 - the test reads it
    arm(host, creator, cut, lambda: os._exit(9))
    sweep(host)


if __name__ == "__main__":
    main(*sys.argv[1:])
