"""A paid service whose books are a file: what a process wrote there stays, however that process ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorRefused

__all__ = ["Books", "LedgerCreator", "PaidJob"]


@dataclass
class PaidJob:
    """A job that was submitted once, and is paid."""

    name: str
    task_id: str
    attempt: int
    state: RemoteState = RemoteState.OPEN


class Books:
    """The books of the service: a line for each job that was submitted, cancelled or done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.text = ""

    def note(self, *words: object) -> None:
        """Write one line, at once and whole."""
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, ("\t".join(map(str, words)) + "\n").encode())
        finally:
            os.close(file)

    @property
    def text(self) -> str:
        """All lines."""
        return self._path.read_text()

    @text.setter
    def text(self, text: str) -> None:
        self._path.write_text(text)

    @property
    def jobs(self) -> list[PaidJob]:
        """Every job, in the order of the submissions; one that was submitted twice is there twice."""
        jobs: list[PaidJob] = []
        for line in self.text.splitlines():
            did, name, *more = line.split("\t")
            if did == "submit":
                jobs.append(PaidJob(name, more[0], int(more[1])))
                continue
            for job in jobs:
                if job.name == name and job.state is RemoteState.OPEN:
                    job.state = RemoteState(did)
        return jobs

    def find(self, name: str) -> PaidJob | None:
        """Return the last job of that name."""
        return next((job for job in reversed(self.jobs) if job.name == name), None)


class LedgerCreator:
    """The host's class for the service.

    Args:
        books: those of the service.
        keeps_names: the service knows jobs by our names; else it has its own.
        finds: it looks up jobs by our names then.
        says: the state that it gives of its open jobs.
        at: called at the two ends of each call.
    """

    def __init__(
        self,
        books: Books,
        *,
        keeps_names: bool = True,
        finds: bool = True,
        says: RemoteState = RemoteState.OPEN,
        at: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.books, self.keeps_names, self.says, self.at = books, keeps_names, says, at
        if finds and not keeps_names:
            self.find = self._find

    def submit(self, job: Job, *, wait: float) -> Report:
        self.at("before the call of submit")
        name = self._name(job)
        self.books.note("submit", name, job.task_id, job.attempt)
        self.at("after the call of submit")
        return Report(state=RemoteState.OPEN, creator_task_id=None if self.keeps_names else name)

    def status(self, creator_task_id: str) -> Report:
        self.at("before the call of status")
        report = self._report(creator_task_id)
        self.at("after the call of status")
        return report

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        self.at("before the call of statuses")
        reports = {name: self._report(name) for name in creator_task_ids}
        self.at("after the call of statuses")
        return reports

    def result(self, creator_task_id: str) -> Report:
        self.at("before the call of result")
        return Report(state=RemoteState.COMPLETED, result={"content": "completed:polled"}, raw=b"{}")

    def cancel(self, creator_task_id: str) -> None:
        self.at("before the call of cancel")
        job = self.books.find(creator_task_id)
        self.books.note("cancelled", creator_task_id)
        self.at("after the call of cancel")
        if job is None:
            raise CreatorRefused("There is no such job.")

    def _find(self, job: Job, *, since: datetime | None = None) -> Report:
        self.at("before the call of find")
        report = self._report(self._name(job))
        self.at("after the call of find")
        return report

    def _name(self, job: Job) -> str:
        return job.creator_task_id if self.keeps_names else f"press-{job.task_id}-{job.attempt}"

    def _report(self, name: str) -> Report:
        job = self.books.find(name)
        if job is None:
            return Report(state=RemoteState.MISSING)
        state = self.says if job.state is RemoteState.OPEN else job.state
        result = {"content": "completed:polled"} if state is RemoteState.COMPLETED else None
        return Report(state=state, result=result, raw=b"{}", creator_task_id=None if self.keeps_names else job.name)
