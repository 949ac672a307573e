"""Deleting history that is older than its retention, in small batches that keep no callback waiting.

A purge walks along the primary key. It reads a page of rows, without their bodies, and deletes what has expired of
them in short transactions, each of its own. How many rows a transaction takes follows from how long the one before
took. After each one the database is left alone for several times as long: SQLite has one writer at a time, and
whoever waits for it is not told when it is free, but looks again after a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from .database import unit_of_work
from .forwarding.upkeep import purge_forwards
from .retention import PurgeMemory, Rule, expired, retention_rules, spans
from .transitions import Verdict

if TYPE_CHECKING:
    from .state import WebhookState

__all__ = ["purge_deliveries", "purge_regularly"]

_PAGE = 1000
"""Rows that are looked at in one statement."""
_FEWEST, _MOST = 10, 500
"""Rows that are deleted in one transaction."""
_HOLD = 0.005
"""Seconds that a DELETE should take; the commit comes on top, and takes the same for few rows and for many."""
_REST, _LONGEST_REST = 9, 0.25
"""How many times as long as a transaction took the database is left alone after it; and for how long at the most."""


def purge_deliveries(
    state: WebhookState,
    *,
    before: datetime | None = None,
    verdicts: Collection[Verdict | str] = (),
    on_progress: Callable[[int], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> int:
    """Delete deliveries that were received long ago; one that is still to be tried again is kept.

    Any number of processes may do so at once.

    Args:
        state: the application's state.
        before: delete what was received earlier; by default what WEBHOOK_HISTORY_RETENTION_DAYS and
            WEBHOOK_HISTORY_RETENTION_BY_VERDICT let go.
        verdicts: delete deliveries with these verdicts alone; by default with any.
        on_progress: called with how many rows each batch deleted.
        stop: once it is set, the purge ends with the batch at hand.

    Returns:
        How many rows were deleted.
    """
    chosen = [Verdict(verdict) for verdict in verdicts]
    rules = retention_rules(state.settings, state.clock(), chosen, before=before)
    purge = _Purge(state, rules, on_progress, stop or threading.Event())
    purge.run(_spans(state, rules, None))
    if not chosen:
        _purge_forwards(state, before)
    return purge.deleted


def purge_regularly(state: WebhookState) -> int:
    """The same, as the scheduler does it: where this process did so lately, it only looks at what is new.

    Ends early while the scheduler is being stopped.
    """
    now = state.clock()
    memory = state.purge_memory
    rules = retention_rules(state.settings, now)
    purge = _Purge(state, rules, lambda _: None, state.stopping)
    if purge.run(_spans(state, rules, None if memory is None else memory.time_since(now))):
        state.purge_memory = PurgeMemory.after(memory, now)
        _purge_forwards(state)
    return purge.deleted


def _purge_forwards(state: WebhookState, before: datetime | None = None) -> None:
    """What was sent on is kept as long as a delivery without a rule of its own."""
    retention = state.settings.history_retention
    if before is None and retention:
        before = state.clock() - retention
    if before is not None:
        purge_forwards(state, before)


class _Purge:
    """One walk along the history.

    Args:
        state: the application's state.
        rules: what has expired.
        on_progress: called with how many rows each batch deleted.
        stop: ends it.
    """

    def __init__(
        self, state: WebhookState, rules: Sequence[Rule], on_progress: Callable[[int], None], stop: threading.Event
    ) -> None:
        self._state, self._on_progress, self._stop = state, on_progress, stop
        self._model = state.delivery_model
        self._condition = expired(self._model, rules)
        self._batch = _FEWEST
        self.deleted = 0

    def run(self, ranges: Sequence[tuple[int, int]]) -> bool:
        """Walk through ranges of ids, each from one to before another; False where it was stopped."""
        for first, end in ranges:
            for ids in self._pages(first, end):
                begin = 0
                while begin < len(ids):
                    batch = ids[begin : begin + self._batch]
                    begin += len(batch)
                    took = self._delete(batch[0], batch[-1])
                    if self._stop.wait(min(_REST * took, _LONGEST_REST)):
                        return False
                if self._stop.is_set():
                    return False
        return True

    def _pages(self, first: int, end: int) -> Iterator[list[int]]:
        """The ids of expired rows, page by page. A page that has begun is looked at as a whole, beyond the end, too."""
        row_id = self._model.id
        query = sa.select(row_id, sa.case((self._condition, 1), else_=0)).order_by(row_id).limit(_PAGE)
        while first < end:
            with unit_of_work(self._state) as session:
                page = list(session.execute(query.where(row_id >= first), bind_arguments=self._bind))
            yield [found for found, has_expired in page if has_expired]
            first = page[-1][0] + 1 if len(page) == _PAGE else end

    def _delete(self, first: int, last: int) -> float:
        """Delete what has expired between two ids, in a transaction of its own; the seconds that it took."""
        began = time.monotonic()
        with unit_of_work(self._state) as session:
            statement = self._statement(first, last, skip_locked=self._state.store.features(session).skip_locked)
            deleted = session.connection(bind_arguments=self._bind).execute(statement).rowcount
            held = time.monotonic() - began
            session.commit()
        self.deleted += deleted
        self._on_progress(deleted)
        pace = min(max(_HOLD / held, 0.5), 2)
        self._batch = min(max(round(self._batch * pace), _FEWEST), _MOST)
        return time.monotonic() - began

    def _statement(self, first: int, last: int, *, skip_locked: bool) -> sa.Delete:
        """Asks for the condition again: a row may have changed since it was read."""
        table, row_id = sa.inspect(self._model).local_table, self._model.id
        chosen = (row_id >= first, row_id <= last, self._condition)
        if not skip_locked:
            return sa.delete(table).where(*chosen)
        # The limit, which never counts, keeps MySQL from merging the subquery into a DELETE of the same table.
        free = sa.select(row_id.label("id")).where(*chosen).limit(_MOST).with_for_update(skip_locked=True)
        return sa.delete(table).where(row_id.in_(sa.select(free.subquery("free").c.id)))

    @property
    def _bind(self) -> dict[str, Any]:
        return {"mapper": sa.inspect(self._model)}


def _spans(state: WebhookState, rules: Sequence[Rule], since: timedelta | None) -> list[tuple[int, int]]:
    with unit_of_work(state) as session:
        return spans(session, state.delivery_model, rules, since=since)
