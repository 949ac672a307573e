"""Bounded steps through a history of any length.

There is no index on the time or the verdict of a delivery, since every callback would have to maintain it. Ids grow
with time, so a span of time is a span of ids, which bisection finds; other conditions are checked row by row in the
order of ids, for a bounded number of rows in a request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ...core.state_machine import UNSETTLED
from ...models.columns import named
from ...storage.delivery_queries import DeliveryFilter
from ...storage.id_search import search_id
from ...storage.queries import Reading, id_of

__all__ = ["EVERYTHING", "FEWER_ROWS", "MOST_ROWS", "Lane", "Span", "lane_of", "shifted", "span_of"]

MOST_ROWS = 20_000
"""Rows that a request examines."""
FEWER_ROWS = 5_000
"""The same where each row costs a look at another table."""
_SLACK = timedelta(minutes=10)
"""Ids grow with time only roughly: clocks differ, and a delivery gets its id some time after it was received."""

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

_Conditions = tuple[sa.ColumnElement[bool], ...]


@dataclass(frozen=True, slots=True)
class Span:
    """Ids from ``low`` to ``high``, both included."""

    low: int
    high: int

    @property
    def is_empty(self) -> bool:
        """True if it holds no id."""
        return self.low > self.high


EVERYTHING = Span(0, 2**63 - 1)


# --- time ----------------------------------------------------------------------------------------------------


def span_of(read: Reading, model: Any, since: datetime | None, until: datetime | None) -> Span:
    """Return the ids that deliveries of a time can have; ``received_at`` still has to be compared.

    Args:
        read: the transaction.
        model: the delivery model.
        since: the beginning, or None.
        until: the end, or None.
    """
    if since is None and until is None:
        return EVERYTHING
    low = sa.null() if since is None else search_id(model, shifted(since, -_SLACK), "since").scalar_subquery()
    high = sa.null() if until is None else search_id(model, shifted(until, _SLACK), "until").scalar_subquery()
    first, behind = read.first(sa.select(low, high)) or (None, None)
    return Span(EVERYTHING.low if first is None else first, EVERYTHING.high if behind is None else behind - 1)


def shifted(at: datetime, by: timedelta) -> datetime:
    """Shift a time, but not beyond the ends of the calendar."""
    try:
        return at + by
    except OverflowError:
        return _LAST if by > timedelta() else _FIRST


# --- rows ----------------------------------------------------------------------------------------------------


class Lane:
    """The rows that may match a filter, in the order of ids, in one direction.

    Args:
        read: the transaction.
        model: any model with an ``id`` that grows.
        down: from the newest to the oldest; otherwise the other way.
        branches: conditions, for each of which an index gives the rows in the order of ids. A row is in the lane if it
            meets one of them.
        in_common: a condition that every row of the lane meets; databases use a partial index only if it is stated.
    """

    def __init__(
        self,
        read: Reading,
        model: Any,
        *,
        down: bool,
        branches: Iterable[_Conditions] = ((),),
        in_common: _Conditions = (),
    ) -> None:
        self.down = down
        self.branches = tuple(branches)
        self.in_common = in_common
        self.id = id_of(model)
        self._read = read

    @property
    def order(self) -> sa.ColumnElement[Any]:
        """The ORDER BY."""
        order: sa.ColumnElement[Any] = self.id.desc() if self.down else self.id.asc()
        return order

    def start(self, span: Span) -> int | None:
        """Return the first id of the lane in a span, or None."""
        return self._step(span, 0)

    def window(self, span: Span, start: int, rows: int) -> Span:
        """Return the ids from the first one on that hold at most this many rows of the lane.

        Args:
            span: the limits.
            start: the first id, from :meth:`start`.
            rows: the maximum for each branch.
        """
        if self.branches == ((),):  # a span of ids holds no more rows than ids
            end: int | None = start - rows + 1 if self.down else start + rows - 1
        else:
            end = self._step(self._behind(span, start), rows - 1)
        if self.down:
            return Span(span.low if end is None else max(span.low, end), start)
        return Span(start, span.high if end is None else min(span.high, end))

    def rest(self, span: Span, window: Span) -> Span:
        """Return the part of a span that comes after a window."""
        return Span(span.low, window.low - 1) if self.down else Span(window.high + 1, span.high)

    def _behind(self, span: Span, start: int) -> Span:
        return Span(span.low, start) if self.down else Span(start, span.high)

    def _step(self, span: Span, rows: int) -> int | None:
        """Return the id that this many rows precede, from the branch in which it comes first."""
        if span.is_empty:
            return None
        steps = [
            sa.select(self.id)
            .where(*branch, *self.in_common, self.id >= span.low, self.id <= span.high)
            .order_by(self.order)
            .limit(1)
            .offset(rows)
            .scalar_subquery()
            for branch in self.branches
        ]
        ids: list[int] = [id_ for id_ in self._read.first(sa.select(*steps)) or () if id_ is not None]
        if not ids:
            return None
        return max(ids) if self.down else min(ids)


def lane_of(read: Reading, model: Any, criteria: DeliveryFilter, *, down: bool) -> Lane:
    """Return the narrowest lane that an index provides: one task's deliveries, the unsettled ones, or all.

    Args:
        read: the transaction.
        model: the delivery model.
        criteria: of the filter.
        down: from the newest to the oldest.
    """
    if criteria.task_id:
        return Lane(read, model, down=down, branches=[(model.task_id == criteria.task_id,)])
    if criteria.verdicts and set(criteria.verdicts) <= set(UNSETTLED) and has_unsettled_index(model):
        branches = [(model.verdict == verdict,) for verdict in criteria.verdicts]
        return Lane(read, model, down=down, branches=branches, in_common=(is_unsettled(model),))
    return Lane(read, model, down=down)


def is_unsettled(model: Any) -> sa.ColumnElement[bool]:
    """Return the condition of the index of unsettled deliveries, verbatim, so that databases recognise it."""
    condition: sa.ColumnElement[bool] = model.verdict.in_([sa.literal_column(f"'{verdict}'") for verdict in UNSETTLED])
    return condition


def has_unsettled_index(model: Any) -> bool:
    """Return False for a model without the mixin that leaves it out."""
    table = sa.inspect(model).local_table
    return any(index.name == named("ix", table.name, "unsettled") for index in table.indexes)
