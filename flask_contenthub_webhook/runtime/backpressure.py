"""Back-pressure: reject new events while the inbox is full, and limit how often workers are woken."""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from ..core.per_process import PerProcess
from ..errors import InboxFull
from ..storage.failure_log import log_failure
from ..storage.transactions import Database

__all__ = ["Backpressure"]

logger = logging.getLogger(__name__)

_NOTIFY_INTERVAL = 0.05
"""Seconds between two wake-ups from one process. Workers that found something look again for longer than that, and
PostgreSQL serializes the commits of transactions that notify."""


class Backpressure:
    """The number of events that wait, as far as this process knows; safe for threads.

    Counting costs, so it is done about once a second, and between two counts this process adds what it accepted.

    Args:
        limit: WEBHOOK_INBOX_LIMIT; 0 admits everything.
        recount: seconds after which the inbox is counted again.
    """

    def __init__(self, database: Database, limit: int, *, recount: float = 1.0) -> None:
        self._database, self._limit = database, limit
        self._recount = recount
        self._lock = PerProcess(threading.Lock)
        self._waiting = 0
        self._counted_at = float("-inf")
        self._notified_at = float("-inf")

    def admit(self) -> None:
        """Reject a request while too many events wait.

        Raises:
            InboxFull: the limit, WEBHOOK_INBOX_LIMIT, is reached.
        """
        limit = self._limit
        if not limit:
            return
        now = time.monotonic()
        if now - self._counted_at >= self._recount and self._lock.value.acquire(blocking=False):
            try:
                self._counted_at = now
                self._waiting = self._count(limit)
            finally:
                self._lock.value.release()
        if self._waiting >= limit:
            raise InboxFull

    def added(self, accepted: int, *, notified: bool) -> None:
        """Add the events that this process accepted; races between threads last until the next count."""
        self._waiting += accepted
        if notified:
            self._notified_at = time.monotonic()

    def may_notify(self) -> bool:
        """Tell whether workers may be woken again; a wake-up that is rolled back does not count."""
        return time.monotonic() - self._notified_at >= _NOTIFY_INTERVAL

    def _count(self, most: int) -> int:
        try:
            with self._database.read() as tx:
                return self._database.store.inbox.count_waiting(tx, most=most)
        except SQLAlchemyError as error:
            log_failure(self._database, logger, "The inbox could not be counted.", error)
            return 0  # the next write shows whether the database is down
