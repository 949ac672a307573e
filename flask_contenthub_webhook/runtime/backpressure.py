"""How full the inbox is, and when its workers were last woken, as far as this process knows."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..errors import InboxFull
from ..storage.inbox_statements import AT_ONCE
from ..storage.transactions import core_transaction

if TYPE_CHECKING:
    from .state import WebhookState

__all__ = ["InboxGauge"]

logger = logging.getLogger(__name__)

_NOTIFY_INTERVAL = 0.05
"""Seconds between two wake-ups from one process. Workers that found something look again for longer than that, and
PostgreSQL serializes the commits of transactions that notify."""


class InboxGauge:
    """How full the inbox is, as far as this process knows; safe for threads.

    Counting costs, so it is done about once a second, and between two counts this process adds what it accepted.

    Args:
        recount: seconds after which the inbox is counted again.
    """

    def __init__(self, *, recount: float = 1.0) -> None:
        self._recount = recount
        self._lock = threading.Lock()
        self._waiting = 0
        self._counted_at = float("-inf")
        self._notified_at = float("-inf")

    def check(self, state: WebhookState) -> None:
        """Turn a request away when too many events wait.

        Raises:
            InboxFull: the limit, WEBHOOK_INBOX_LIMIT, is reached.
        """
        limit = state.settings.inbox_limit
        if not limit:
            return
        now = time.monotonic()
        if now - self._counted_at >= self._recount and self._lock.acquire(blocking=False):
            try:
                self._counted_at = now
                self._waiting = self._count(state, limit)
            finally:
                self._lock.release()
        if self._waiting >= limit:
            raise InboxFull

    def count(self, accepted: int, *, notified: bool) -> None:
        """Add what this process accepted; not exact between threads, which the next count mends.

        Args:
            accepted: how many events were committed.
            notified: whether that woke the workers.
        """
        self._waiting += accepted
        if notified:
            self._notified_at = time.monotonic()

    def may_notify(self) -> bool:
        """Whether it is time to wake workers again; a wake-up that is rolled back does not count."""
        return time.monotonic() - self._notified_at >= _NOTIFY_INTERVAL

    def first_due(self, state: WebhookState, now: datetime) -> datetime:
        """When the sweep may take a new event: at once, or after Celery had its chance."""
        return now + state.settings.celery_grace if state.settings.processing == "celery" else AT_ONCE

    def _count(self, state: WebhookState, most: int) -> int:
        try:
            with core_transaction(state, writes=False) as unit:
                return state.store.inbox.count_waiting(unit, most=most)
        except SQLAlchemyError as error:
            logger.warning("The inbox could not be counted.", exc_info=error)
            return 0  # whoever writes next finds out
