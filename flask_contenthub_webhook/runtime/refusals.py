"""Refused requests, visible but bounded: a flood of forged ones cannot fill the database, nor keep it busy.

Each process counts refusals by reason. A reason has one history row per window, written when it first occurs and
brought up to date at most every few seconds; so there are never more than ``reasons x windows x processes`` rows, and
the database sees one small statement per reason and interval, however many requests come.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ..core.received import Source
from ..core.state_machine import Verdict
from ..storage.transactions import Database

__all__ = ["Refusal", "RefusalLog"]

logger = logging.getLogger(__name__)

WINDOW = timedelta(minutes=5)
"""How long a row is counted up before another one is opened."""
_INTERVAL = timedelta(seconds=5)
_SAMPLE_BYTES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refused request, as far as it is known.

    Args:
        code: the error code of the answer; the reasons are a closed set.
        message: the error message of the answer.
        task_id: the task in the path, if any.
        scheme: the signature scheme that vouched, or None where nobody did.
        headers: redacted.
        body: what was read of the body.
    """

    code: str
    message: str
    received_at: datetime
    task_id: str | None
    attempt: int | None = None
    scheme: str | None = None
    message_id: str | None = None
    remote_addr: str | None = None
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(slots=True)
class _Tally:
    row: int | None = None
    opened: datetime | None = None
    written: datetime | None = None
    pending: int = 0


class RefusalLog:
    """Counts refusals of one process and writes them down sparingly; safe for threads.

    Args:
        database: where they are written.
        interval: how long to wait, after a reason's row was written, before it is brought up to date.
    """

    def __init__(self, database: Database, *, interval: timedelta = _INTERVAL) -> None:
        self._database = database
        self._interval = interval
        self._lock = threading.Lock()
        self._tallies: dict[str, _Tally] = {}

    def record(self, refusal: Refusal) -> None:
        """Make a refusal visible. What cannot be written now is counted and written with a later one.

        A refused request that a known sender signed gets a row of its own with its whole body: the sender is
        trusted, something is wrong with what it sends, and somebody will want to see it.
        """
        try:
            if refusal.scheme is not None:
                with self._database.begin() as tx:
                    self._database.store.insert_delivery(tx, _row(refusal, body=refusal.body, occurrences=1))
            else:
                self._count(refusal)
        except SQLAlchemyError as error:
            logger.warning("A refused request could not be recorded: %s", refusal.code, exc_info=error)

    def _count(self, refusal: Refusal) -> None:
        now = refusal.received_at
        with self._lock:
            tally = self._tallies.setdefault(refusal.code, _Tally())
            tally.pending += 1
            if tally.written is not None and now - tally.written < self._interval:
                return
            count, tally.pending, tally.written = tally.pending, 0, now
            row = tally.row if tally.opened is not None and now - tally.opened < WINDOW else None
        try:
            with self._database.begin() as tx:
                if row is None or not self._database.store.add_occurrences(tx, row, count, now):
                    sample = _row(refusal, body=refusal.body[:_SAMPLE_BYTES], occurrences=count)
                    tally.row, tally.opened = self._database.store.insert_delivery(tx, sample)["id"], now
        except SQLAlchemyError:
            with self._lock:
                tally.pending += count
                tally.row = None
            raise


def _row(refusal: Refusal, *, body: bytes, occurrences: int) -> dict[str, Any]:
    return {
        "task_id": None if refusal.task_id is None else ascii(refusal.task_id)[1:-1][:255],
        "attempt": refusal.attempt,
        "source": Source.WEBHOOK.value,
        "scheme": refusal.scheme,
        "message_id": refusal.message_id,
        "verdict": Verdict.REJECTED.value,
        "error": refusal.code,
        "reason": refusal.message,
        "tries": 0,
        "late": False,
        "occurrences": occurrences,
        "received_at": refusal.received_at,
        "processed_at": refusal.received_at,
        "remote_addr": refusal.remote_addr and refusal.remote_addr[:64],
        "headers": dict(refusal.headers),
        "body": body,
    }
