"""A creator that does as a test says, and the calls with which tests submit, sweep, retry and cancel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flask_contenthub_webhook.creators import Job, RemoteState, Report
from tests.support.host import Host

BASE = "https://hub.example"
OPEN = Report(state=RemoteState.OPEN)
DONE = Report(state=RemoteState.COMPLETED, result={"content": "early"}, raw=b"{}")
LEASE = 3600
"""Longer than any lease of a claimed task."""


class Killed(BaseException):
    """The process ends here, whatever anybody catches."""


class OwnCreator:
    """A creator that does what a test tells it, and notes who held a database connection while it was called."""

    keeps_names = True
    idempotent = False
    find: Callable[..., Report] | None = None

    def __init__(self, host: Host) -> None:
        self._host = host
        self.calls: list[str] = []
        self.jobs: list[Job] = []
        self.cancelled: list[str] = []
        self.connections_in_use: list[int] = []
        self.known: dict[str, Report] = {}
        self.on_submit: Callable[[Job], Report] = lambda _: OPEN
        self.on_statuses: Callable[[], None] = lambda: None

    def _note(self, call: str) -> None:
        self.calls.append(call)
        pool: Any = self._host.engine.pool
        self.connections_in_use.append(pool.checkedout())

    def submit(self, job: Job, *, wait: float) -> Report:
        self._note("submit")
        self.jobs.append(job)
        return self.on_submit(job)

    def status(self, creator_task_id: str) -> Report:
        self._note("status")
        return self.known.get(creator_task_id, Report(state=RemoteState.MISSING))

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        self._note("statuses")
        self.on_statuses()
        return {name: self.known.get(name, Report(state=RemoteState.MISSING)) for name in creator_task_ids}

    def result(self, creator_task_id: str) -> Report:
        self._note("result")
        return Report(state=RemoteState.COMPLETED, result={"content": "fetched"})

    def cancel(self, creator_task_id: str) -> None:
        self._note("cancel")
        self.cancelled.append(creator_task_id)


def with_own_creator(host: Host) -> Host:
    host.state.creator = OwnCreator(host)
    return host


def own(host: Host) -> OwnCreator:
    assert isinstance(host.state.creator, OwnCreator)
    return host.state.creator


def submit(host: Host, **values: Any) -> str:
    with host.app.app_context():
        given = {"topic": "Tea", "requirements": "R", "target_audience": "A", **values}
        return str(host.webhook.submit(**given).task_id)


def sweep(host: Host, **options: Any) -> Any:
    with host.app.app_context():
        return host.webhook.submit_due(**options)


def reconcile(host: Host) -> Any:
    with host.app.app_context():
        return host.webhook.reconcile()


def cancel(host: Host, task_id: str) -> Any:
    with host.app.app_context():
        return host.webhook.cancel(task_id)


def retry(host: Host, task_id: str) -> Any:
    with host.app.app_context():
        return host.webhook.retry(task_id)


def raise_(error: BaseException) -> Any:
    raise error


def history(host: Host, task_id: str) -> list[tuple[str, str, str]]:
    return [(row.source, row.event, row.verdict) for row in host.deliveries(task_id)]


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query)
