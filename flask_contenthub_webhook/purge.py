"""Deleting history that is older than its retention, in small batches that never keep a callback waiting."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from .database import unit_of_work
from .forwarding.upkeep import purge_forwards

if TYPE_CHECKING:
    from .state import WebhookState

__all__ = ["purge_deliveries"]

_BATCH = 1000


def purge_deliveries(state: WebhookState, *, before: datetime | None = None) -> int:
    """Delete deliveries that were received long ago; one that is still to be tried again is kept.

    Ids grow with time, so the walk begins at the oldest row and ends where the rows get younger; nothing is scanned.

    Args:
        state: the application's state.
        before: delete what was received earlier; by default WEBHOOK_HISTORY_RETENTION_DAYS ago.

    Returns:
        How many rows were deleted.
    """
    if before is None:
        if not state.settings.history_retention:
            return 0
        before = state.clock() - state.settings.history_retention
    purge_forwards(state, before)
    deleted, after = 0, 0
    while True:
        with unit_of_work(state) as session:
            oldest = state.store.oldest_deliveries(session, after=after, limit=_BATCH)
            expired = [row["id"] for row in oldest if row["received_at"] < before and row["next_retry_at"] is None]
            if expired:
                state.store.delete_deliveries(session, expired)
                session.commit()
        deleted += len(expired)
        if len(oldest) < _BATCH or oldest[-1]["received_at"] >= before:
            return deleted
        after = oldest[-1]["id"]
