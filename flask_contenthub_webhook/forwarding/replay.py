"""What people and time do to forwards: the replay by hand, and the purge."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..errors import DatabaseUnavailable, ForwardNotFound, ReplayRefused
from ..storage.transactions import unit_of_work
from .send import forward_next

if TYPE_CHECKING:
    from ..operations.throttled_delete import Pace
    from ..runtime.state import WebhookState

__all__ = ["purge_forwards", "replay_forward"]

_PAGE = 1000
"""Rows that are looked at in one statement."""


def replay_forward(state: WebhookState, forward_id: int) -> None:
    """Send a forward again that is delivered or dead, under its old ``webhook-id``; its attempts stay on record.

    Args:
        state: the application's state.
        forward_id: the row.

    Raises:
        ForwardNotFound: there is no such row.
        ReplayRefused: it still waits for its next try.
        DatabaseUnavailable: nothing was written.
    """
    try:
        with unit_of_work(state) as session:
            was_reset = state.outbox.reset(session, forward_id, state.clock())
            is_there = was_reset or state.outbox.read(session, forward_id) is not None
            session.commit()
    except SQLAlchemyError as error:
        raise DatabaseUnavailable from error
    if not is_there:
        raise ForwardNotFound(f"There is no forward {forward_id}.")
    if not was_reset:
        raise ReplayRefused(f"Forward {forward_id} is not finished; it is tried again by itself.")
    state.forward_dispatcher.kick(state, forward_next)


def purge_forwards(state: WebhookState, before: datetime, pace: Pace) -> None:
    """Delete forwards that were finished long ago, and their attempts.

    Ids grow with time, so the walk begins at the oldest row and ends where the rows get younger; nothing is scanned.

    Args:
        state: the application's state.
        before: delete what was finished earlier.
        pace: how fast.
    """
    after = 0
    while True:
        with unit_of_work(state) as session:
            oldest = state.outbox.oldest(session, after=after, limit=_PAGE)
        expired = [row["id"] for row in oldest if row["finished_at"] is not None and row["finished_at"] < before]
        if not pace.delete(expired, state.outbox.delete):
            return
        if len(oldest) < _PAGE or oldest[-1]["created_at"] >= before:
            return
        after = oldest[-1]["id"]
