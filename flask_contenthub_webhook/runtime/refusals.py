"""Refused requests, visible but bounded: a flood of forged ones cannot fill the database, nor keep it busy.

Each process counts refusals by reason. A reason has one history row per window, written when it first occurs and
brought up to date every few seconds, and at exit; so there are never more than ``reasons x windows x processes`` rows,
and the database sees one small statement per reason and interval, however many requests come. A row covers the time
from its first refusal to its last one, whenever it is written.
"""

from __future__ import annotations

import atexit
import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ..core.per_process import PerProcess
from ..core.received import Source
from ..core.redaction import redacted_sample
from ..core.state_machine import Verdict
from ..storage.database_errors import row_refusal
from ..storage.failure_log import log_failure, log_unexpected
from ..storage.transactions import Database
from .background import can_run_threads

__all__ = ["Refusal", "RefusalLog"]

logger = logging.getLogger(__name__)

WINDOW = timedelta(minutes=5)
"""Time for which a row counts refusals before another one is opened."""
_INTERVAL = timedelta(seconds=5)
_LONGEST_PAUSE = 60.0
"""Seconds between two tries while the database cannot be written to."""
_MOST_WINDOWS = 12
"""Windows of one reason that wait for the database; the last of them then covers all that follows."""
_SAMPLE_BYTES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refused request, as far as it is known.

    Args:
        code: the error code of the answer; the reasons are a closed set.
        message: the error message of the answer.
        task_id: the task in the path, if any.
        scheme: the signature scheme that authenticated the request, or None.
        status: the HTTP status of the answer.
        headers: redacted.
        body: what was read of the body; only what :class:`RefusalLog` keeps of it is redacted.
    """

    code: str
    message: str
    received_at: datetime
    task_id: str | None
    attempt: int | None = None
    scheme: str | None = None
    message_id: str | None = None
    remote_addr: str | None = None
    status: int = 400
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class _Tally:
    """The refusals of one reason within one window, and the row that stands for them.

    When the first and the last came is measured by a clock that is never set; the row has the database's times.
    """

    opened: timedelta
    last: timedelta
    sample: Mapping[str, Any]
    row: int | None = None
    pending: int = 0


@dataclass(slots=True)
class _Reason:
    """The tallies of one reason, oldest first: the current one, and before it those that are not written yet."""

    tallies: list[_Tally] = field(default_factory=list)
    written: timedelta | None = None
    writing: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class _Memory:
    """The counts of one process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    reasons: dict[str, _Reason] = field(default_factory=dict)
    is_timed: bool = False


class RefusalLog:
    """Counts refusals of one process and writes them down sparingly; safe for threads.

    What is not written at once is written by a thread that lives while something waits, and at exit. An application
    under test has neither: there the next refusal writes it, or :meth:`flush`.

    Args:
        database: where they are written.
        window: time for which a row counts refusals before another one is opened.
        interval: how long to wait, after a reason's row was written, before it is brought up to date.
    """

    def __init__(self, database: Database, *, window: timedelta = WINDOW, interval: timedelta = _INTERVAL) -> None:
        self._database = database
        self._window = window
        self._interval = interval
        self._memory = PerProcess(_Memory)

    def record(self, refusal: Refusal) -> None:
        """Make a refusal visible. What cannot be written now is counted and written later.

        A refused request with a valid signature gets its own row with its whole body, so that the mistake of a trusted
        sender can be found; or the beginning of it, if the database cannot store the whole.
        """
        if refusal.scheme is None:
            self._count(refusal)
            return
        try:
            try:
                self._write_one(refusal, _kept_whole(refusal.body))
            except SQLAlchemyError as error:
                if row_refusal(error) is None:
                    raise
                self._write_one(refusal, redacted_sample(refusal.body[:_SAMPLE_BYTES]))
        except SQLAlchemyError as error:
            log_failure(self._database, logger, "A refused request could not be recorded.", error)

    def _write_one(self, refusal: Refusal, body: bytes) -> None:
        with self._database.begin() as tx:
            store = self._database.store
            came_at = refusal.received_at + store.clock.ahead(tx)
            times = {"received_at": came_at, "processed_at": came_at}
            store.insert_delivery(tx, {**_row(refusal, body=body), **times})

    def flush(self) -> bool:
        """Write what waits, each count under the time at which its refusals came; False if some of it still waits."""
        written = [self._write(reason) for reason in list(self._memory.value.reasons.values())]
        return all(written)

    def _count(self, refusal: Refusal) -> None:
        memory, now = self._memory.value, self._database.store.clock.waited()
        with memory.lock:
            reason = memory.reasons.setdefault(refusal.code, _Reason())
            tallies = reason.tallies
            if not tallies or (now - tallies[-1].opened >= self._window and len(tallies) < _MOST_WINDOWS):
                tallies.append(_Tally(now, now, _row(refusal, body=redacted_sample(refusal.body[:_SAMPLE_BYTES]))))
            tallies[-1].pending += 1
            tallies[-1].last = max(now, tallies[-1].last)
            is_due = reason.written is None or now - reason.written >= self._interval
            if is_due:
                reason.written = now
        if not is_due or not self._write(reason):
            self._write_later(memory)

    def _write(self, reason: _Reason) -> bool:
        """Write what waits of a reason; False if the database does not take it now."""
        memory = self._memory.value
        with reason.writing:
            for tally in list(reason.tallies):
                with memory.lock:
                    count, tally.pending = tally.pending, 0
                    reason.written = max(tally.last, reason.written or tally.last)
                if count and not self._add(tally, count):
                    with memory.lock:
                        tally.pending += count
                    return False
            with memory.lock:
                reason.tallies[:-1] = [tally for tally in reason.tallies[:-1] if tally.pending]
        return True

    def _add(self, tally: _Tally, count: int) -> bool:
        store = self._database.store
        try:
            with self._database.begin() as tx:
                row, now = tally.row, store.now(tx)
                first, last = (now - (store.clock.waited() - waited) for waited in (tally.opened, tally.last))
                if row is None or not store.add_occurrences(tx, row, count, last):
                    times = {"received_at": first, "processed_at": last}
                    row = store.insert_delivery(tx, {**tally.sample, "occurrences": count, **times})["id"]
        except Exception as error:  # noqa: BLE001 - neither an answer nor a thread may end by what is only a record
            message = "Refused requests could not be recorded; they are counted in memory."
            log_unexpected(self._database, logger, message, error)
            return False
        tally.row = row
        return True

    def _write_later(self, memory: _Memory) -> None:
        """See that what waits is written even if no other request follows."""
        if self._database.app.testing:
            return
        with memory.lock:
            _unwritten.add(self)
            if memory.is_timed or not can_run_threads():
                return
            memory.is_timed = True
        try:
            threading.Thread(
                target=self._write_by_time, args=(memory,), name="contenthub-refusals", daemon=True
            ).start()
        except RuntimeError:  # no thread can be started now
            memory.is_timed = False

    def _write_by_time(self, memory: _Memory) -> None:
        pause = self._interval.total_seconds()
        while True:
            time.sleep(pause)
            pause = self._interval.total_seconds() if self.flush() else min(2 * pause, _LONGEST_PAUSE)
            with memory.lock:
                tallies = [tally for reason in memory.reasons.values() for tally in reason.tallies]
                if not any(tally.pending for tally in tallies):
                    memory.is_timed = False
                    _unwritten.discard(self)
                    return


_unwritten: set[RefusalLog] = set()
"""The logs to write at the end of the process; they keep their applications, and only until they are written."""


@atexit.register
def _write_at_exit() -> None:
    for log in list(_unwritten):
        log.flush()


def _kept_whole(body: bytes) -> bytes:
    """Return one event as it came, so that it can be replayed; redact anything else, such as a batch."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return redacted_sample(body)
    return body if isinstance(value, dict) and "events" not in value else redacted_sample(body)


def _row(refusal: Refusal, *, body: bytes) -> dict[str, Any]:
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
        "occurrences": 1,
        "answer_status": refusal.status,
        "remote_addr": refusal.remote_addr and refusal.remote_addr[:64],
        "headers": dict(refusal.headers),
        "body": body,
    }
