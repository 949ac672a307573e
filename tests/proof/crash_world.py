"""The applications, the service and the receiver of the crash points, and what must hold after a crash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import Celery

from flask_contenthub_webhook.core.state_machine import OPEN_STATES, TERMINAL_STATES
from flask_contenthub_webhook.creators import RemoteState
from tests.support.host import Host
from tests.support.receiver import Receiver
from tests.support.submission import reconcile, sweep

from .effects import host_with_effects
from .judge import Found, audited, broken, find
from .service import Books, LedgerCreator

__all__ = ["World"]

_FORWARDING = {
    "WEBHOOK_FORWARD_SECRET": "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw==",
    "WEBHOOK_FORWARD_ALLOWED_NETWORKS": "127.0.0.0/8",
}
_SOON, _LATER = 200, 700
"""Seconds: longer than any lease; longer than the interval of any poll."""
_ENDINGS = {"completed", "cancelled", "timed_out"}


@dataclass
class World:
    """A database with the application that dies, the one that comes after it, and one that looks on.

    Args:
        url: of the database.
        folder: an empty one.
        receiver: of forwarded events.
    """

    url: str
    folder: Path
    receiver: Receiver
    keeps_names: bool = True
    finds: bool = True
    received: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.books = Books(self.folder / "books")
        self.observer = self._host(create_tables=True)
        self.victim = self._host()
        self.heir = self._host()
        self.celery_victim = self._host(
            WEBHOOK_PROCESSING="celery",
            before=lambda app: app.extensions.update(celery=Celery("host", broker="memory://", set_as_current=False)),
        )

    def _host(self, *, create_tables: bool = False, **options: Any) -> Host:
        urls = self.receiver.url()
        return host_with_effects(
            self.url, create_tables=create_tables, WEBHOOK_FORWARD_URLS=urls, **_FORWARDING, **options
        )

    def close(self) -> None:
        for host in (self.observer, self.victim, self.heir, self.celery_victim):
            host.close()

    def prepare(self, host: Host, *, processing: str = "inline") -> Host:
        """Give an application the time, the service and the mode of a case."""
        host.clock.now = self.observer.clock.now
        host.state.creator = LedgerCreator(self.books, keeps_names=self.keeps_names, finds=self.finds)
        host.state.settings = replace(host.state.settings, processing=processing, alert_min_sample=1)
        return host

    # --- afterwards ------------------------------------------------------------------------------------------

    def go_on(self, host: Host) -> list[str]:
        """Let time pass, with the sweeps of a scheduler; return what was wrong while jobs were still open."""
        for _ in range(4):
            self._pass(host, _SOON)
            if self._is_settled(host):
                break
        strays = list(self._strays(host))
        for job in self.books.jobs:
            if job.state is RemoteState.OPEN:
                self.books.note("completed", job.name)
        for _ in range(14):
            self._pass(host, _LATER)
            if self._is_settled(host):
                break
        return strays

    def _pass(self, host: Host, seconds: float) -> None:
        host.clock.advance(seconds)
        sweep(host)
        host.retry()
        reconcile(host)
        with host.app.app_context():
            host.webhook.send_due_forwards()

    def _strays(self, host: Host) -> Iterator[str]:
        owned = {(task.task_id, task.attempt) for task in host.tasks() if task.status in {*OPEN_STATES, "completed"}}
        for job in self.books.jobs:
            if job.state is RemoteState.OPEN and (job.task_id, job.attempt) not in owned:
                yield f"the job {job.name} of attempt {job.attempt} goes on, and nobody wants it"

    def _is_settled(self, host: Host) -> bool:
        deliveries, forwards = host.state.delivery_model, host.state.models.forward
        with host.app.app_context():
            is_open = any(task.status in OPEN_STATES or task.next_poll_at is not None for task in host.tasks())
            waits = sa.select(sa.func.count()).where(deliveries.next_retry_at.is_not(None))
            sends = sa.select(sa.func.count()).select_from(forwards).where(forwards.status == "waiting")
            session = host.db.session
            return not is_open and not session.execute(waits).scalar() and not session.execute(sends).scalar()

    def broken(self, *, has_history: bool) -> Iterator[str]:
        """Name the promises that are broken in the end."""
        host = self.observer
        for task in host.tasks():
            found = find(host, task.task_id)
            status = found.task["status"]
            if has_history:
                yield from broken(found, "pending")
                yield from self._lost_forwards(found)
            if status not in TERMINAL_STATES:
                yield f"the task is still {status}"
            elif found.task["next_poll_at"] is not None:
                yield f"the task is {status}, and still asked about"
            for row in found.deliveries:
                if row["next_retry_at"] is not None:
                    yield f"delivery {row['id']} is {row['verdict']}, and still waits"
        yield from audited(host, whole_history=has_history)
        counts = Counter((job.task_id, job.attempt) for job in self.books.jobs)
        for (_, attempt), count in counts.items():
            if count > 1:
                yield f"attempt {attempt} was submitted {count} times, and is paid {count} times"

    def lines(self) -> Iterator[str]:
        """Describe what there is, for a story."""
        for task in self.observer.tasks():
            yield from find(self.observer, task.task_id).lines
        for line in self.books.text.splitlines():
            yield f"the service: {' '.join(line.split())}"

    def _lost_forwards(self, found: Found) -> Iterator[str]:
        forwards = self.observer.state.models.forward.__table__
        of_task = sa.select(forwards).where(forwards.c.task_id == found.task["task_id"])
        with self.observer.engine.connect() as connection:
            rows: Sequence[Any] = connection.execute(of_task).mappings().all()
        endings = [row for row in found.deliveries if row["verdict"] == "processed" and _ends(row)]
        if len(rows) != len(endings):
            yield f"{len(endings)} endings were to be forwarded, and there are {len(rows)} forwards"
        came = Counter(request.header("webhook-id") for request in self.receiver.requests[self.received :])
        for row in rows:
            if row["status"] != "delivered" or not came[row["message_id"]]:
                yield f"forward {row['id']} is {row['status']}, and came {came[row['message_id']]} times"


def _ends(row: Any) -> bool:
    return row["event"] in _ENDINGS or (row["event"] == "failed" and row["status_after"] == "failed")
