"""Postpone what waits for a URL that keeps failing, and bring it forward once the URL answers again.

A hundred thousand forwards may wait for one URL. They are moved in portions, each in its own short transaction; what
was never tried is moved far away, so that it is not moved again after each try of the URL.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from time import monotonic, sleep
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..core.stopping import is_stopping
from ..storage.failure_log import log_failure

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["PORTION", "bring_forward", "pause", "push_back_what_came_since"]

logger = logging.getLogger(__name__)

PORTION = 200
"""Forwards that one transaction moves."""
_REST, _LONGEST_REST = 4, 0.25
"""The pause after a transaction, in multiples of its duration, and its limit in seconds."""
_LONGEST_WORK = 2.0
"""Seconds after which the rest is left to the next pass."""
_OTHERS_LATER = timedelta(seconds=30)
"""Extra time that the other events of a paused URL wait after the one that tries it first."""
_MUCH_LATER = timedelta(hours=1)
"""The same of those that were never tried, unless the URL answers earlier."""


def pause(state: WebhookState, url: str, length: timedelta) -> None:
    """Leave a URL alone, in every process: the event that is due first tries it again, and the others wait for longer.

    Args:
        state: the application's state.
        url: the URL.
        length: the time until it is tried again.
    """
    try:
        with state.forward_lanes.moving(url) as is_ours:
            if is_ours:
                _push_back_others(state, url, length)
                with state.database.session() as session:
                    state.outbox.put_first(session, url, state.store.now(session) + length)
                    session.commit()
    except SQLAlchemyError as error:
        log_failure(state.database, logger, "The forwards of a failing URL could not be postponed.", error)


def push_back_what_came_since(state: WebhookState) -> None:
    """Postpone new events of paused URLs, for processes that do not know of the pause."""
    for url, left in state.forward_lanes.paused(state.waited()).items():
        pause(state, url, left)


def bring_forward(state: WebhookState, url: str) -> int:
    """Make a portion of what was postponed due at once; return its size."""
    try:
        with state.database.session() as session:
            moved = state.outbox.bring_forward(session, url, state.store.now(session), limit=PORTION)
            session.commit()
    except SQLAlchemyError as error:
        log_failure(state.database, logger, "Postponed forwards wait for longer than they need to.", error)
        return 0
    if moved < PORTION:
        state.forward_lanes.forget_postponed(url)
    return moved


def _push_back_others(state: WebhookState, url: str, length: timedelta) -> None:
    """Move all but the first away from the pause, and rest after each portion: SQLite has one writer at a time."""
    began, moved = monotonic(), PORTION
    while moved == PORTION and monotonic() - began < _LONGEST_WORK and not is_stopping():
        this = monotonic()
        with state.database.session() as session:
            until = state.store.now(session) + length
            moved = state.outbox.push_back(
                session, url, until=until + _OTHERS_LATER, untried_until=until + _MUCH_LATER, limit=PORTION
            )
            session.commit()
        if moved == PORTION:
            sleep(min(_REST * (monotonic() - this), _LONGEST_REST))
