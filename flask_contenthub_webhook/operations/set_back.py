"""Heed that the clock of the database was set back: what was scheduled before would wait for that much longer."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from ..creators.holds import LONGEST_HOLD
from ..creators.pause import ALL_CALLS, LONGEST_PAUSE
from ..storage.pull_in import pull_in, pull_in_notes

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..runtime.state import WebhookState
    from ..storage.rows import ModelTable

__all__ = ["ClockMemory", "heed_clock", "longest_wait"]

logger = logging.getLogger(__name__)

_TOLERANCE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class ClockMemory:
    """The database's time, and that of a clock that is never set, at the last look."""

    database: datetime
    steady: timedelta


def heed_clock(state: WebhookState) -> int:
    """Let nothing wait longer than it may from now on, if the database's clock was set back since the last look.

    Returns:
        The number of rows that are due earlier now.
    """
    jobs, now = state.jobs.value, ClockMemory(state.now(), state.waited())
    before = jobs.clock_memory or now
    set_back_by = (now.steady - before.steady) - (now.database - before.database)
    changed = _pull_in_everything(state, now.database) if set_back_by > _TOLERANCE else 0
    jobs.clock_memory = now  # not if the database is away now
    if set_back_by <= _TOLERANCE:
        return 0
    logger.warning(
        "The clock of the database was set back by %.0f s; %d times that lie too far ahead were moved.",
        set_back_by.total_seconds(),
        changed,
    )
    return changed


def _pull_in_everything(state: WebhookState, now: datetime) -> int:
    tasks, deliveries, forwards = state.store.tasks, state.store.deliveries, state.outbox.forwards
    soon = now + longest_wait(state.settings)
    poll = (
        now + state.registry.longest_poll + _longest_backoff(state.settings)
    )  # after the grace that follows a backoff
    return sum(
        (
            _pull_in(state, deliveries, "next_retry_at", soon, lease="claimed_until"),
            _pull_in(state, tasks, "next_submit_at", soon),
            _pull_in(state, tasks, "next_poll_at", poll),
            _pull_in(state, forwards, "next_try_at", soon),
            _pull_in_notes(state, now),
        )
    )


def _pull_in(state: WebhookState, table: ModelTable, key: str, until: datetime, *, lease: str | None = None) -> int:
    def portion(tx: Connection) -> int:
        return pull_in(tx, table, key, until, capabilities=state.store.capabilities(tx), lease=lease)

    changed = 0
    while moved := state.database.write(portion):
        changed += moved
    return changed


def _pull_in_notes(state: WebhookState, now: datetime) -> int:
    ends = {
        "longest_pause": now + timedelta(seconds=LONGEST_PAUSE),
        "longest": now + timedelta(seconds=LONGEST_HOLD),
    }
    return state.database.write(lambda tx: pull_in_notes(tx, state.models.alert, now, pause=ALL_CALLS, **ends))


def longest_wait(settings: Settings) -> timedelta:
    """Return the longest lease or backoff of a submission, an event or a forward."""
    return max(
        _longest_backoff(settings),
        timedelta(seconds=6 * settings.timeout + 3 * settings.creator_timeout),
        timedelta(seconds=settings.creator_submit_wait + 2 * settings.creator_timeout + 10),
        timedelta(seconds=settings.forward_timeout + 30),
        settings.celery_grace,
    )


def _longest_backoff(settings: Settings) -> timedelta:
    return 1.1 * max(settings.retry_backoff)
