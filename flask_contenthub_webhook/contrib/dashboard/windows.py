"""Bounded steps through a history of any length.

There is no index on the time or the verdict of a delivery, since every callback would pay for it. Ids grow with
time, so a span of time is a span of ids, found by bisection; and whatever has to be looked through is looked through in
the order of ids, a bounded number of rows in a request.
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
from ...storage.queries import Reading

__all__ = ["EVERYTHING", "MOST_ROWS", "Lane", "Span", "lane_of", "span_of"]

MOST_ROWS = 20_000
"""Rows that one request looks through."""
_SLACK = timedelta(minutes=10)
"""Ids follow time only roughly: clocks differ, and a delivery is numbered some time after it was received."""

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

_Conditions = tuple[sa.ColumnElement[bool], ...]


@dataclass(frozen=True, slots=True)
class Span:
    """Ids from ``low`` to ``high``, both included."""

    low: int
    high: int

    @property
    def is_empty(self) -> bool:
        """Whether no id is in it."""
        return self.low > self.high


EVERYTHING = Span(0, 2**63 - 1)


# --- time ----------------------------------------------------------------------------------------------------


def span_of(read: Reading, model: Any, since: datetime | None, until: datetime | None) -> Span:
    """The ids that the deliveries of a time can have; their own ``received_at`` still has to be looked at.

    Args:
        read: the transaction.
        model: the delivery model.
        since: the beginning, or None.
        until: the end, or None.
    """
    if since is None and until is None:
        return EVERYTHING
    low = sa.null() if since is None else search_id(model, _moved(since, -_SLACK), "since").scalar_subquery()
    high = sa.null() if until is None else search_id(model, _moved(until, _SLACK), "until").scalar_subquery()
    first, behind = read.first(sa.select(low, high)) or (None, None)
    return Span(EVERYTHING.low if first is None else first, EVERYTHING.high if behind is None else behind - 1)


def _moved(at: datetime, by: timedelta) -> datetime:
    """A time that was moved, but not beyond the ends of the calendar."""
    try:
        return at + by
    except OverflowError:
        return _LAST if by > timedelta() else _FIRST


# --- rows ----------------------------------------------------------------------------------------------------


class Lane:
    """The deliveries among which those of a filter are, in the order of ids, in one direction.

    Args:
        read: the transaction.
        model: any model with an ``id`` that grows.
        down: from the newest to the oldest; otherwise the other way.
        branches: conditions, each such that an index leads through its rows in the order of ids. A row is in the lane
            where one of them holds.
        in_common: a condition that holds in every branch, without which a database would not see that the index fits.
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
        self.id = model.id
        self._read = read

    @property
    def order(self) -> sa.ColumnElement[Any]:
        """For ORDER BY."""
        order: sa.ColumnElement[Any] = self.id.desc() if self.down else self.id.asc()
        return order

    def start(self, span: Span) -> int | None:
        """The first id of the lane in a span, or None."""
        return self._step(span, 0)

    def window(self, span: Span, start: int, rows: int) -> Span:
        """The ids from the first one on, with at most so many rows of the lane in it.

        Args:
            span: where to stay within.
            start: the first id, as :meth:`start` gives it.
            rows: how many at the most, for each branch.
        """
        if self.branches == ((),):  # ids are at least as many as rows
            end: int | None = start - rows + 1 if self.down else start + rows - 1
        else:
            end = self._step(self._behind(span, start), rows - 1)
        if self.down:
            return Span(span.low if end is None else max(span.low, end), start)
        return Span(start, span.high if end is None else min(span.high, end))

    def rest(self, span: Span, window: Span) -> Span:
        """What of a span is behind a window."""
        return Span(span.low, window.low - 1) if self.down else Span(window.high + 1, span.high)

    def _behind(self, span: Span, start: int) -> Span:
        return Span(span.low, start) if self.down else Span(start, span.high)

    def _step(self, span: Span, rows: int) -> int | None:
        """The id that so many rows precede, in the branch where that comes first."""
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
        found: list[int] = [id_ for id_ in self._read.first(sa.select(*steps)) or () if id_ is not None]
        if not found:
            return None
        return max(found) if self.down else min(found)


def lane_of(read: Reading, model: Any, chosen: DeliveryFilter, *, down: bool) -> Lane:
    """The narrowest lane that an index leads through: one task's, the few unsettled ones, or all deliveries.

    Args:
        read: the transaction.
        model: the delivery model.
        chosen: the filter.
        down: from the newest to the oldest.
    """
    if chosen.task_id:
        return Lane(read, model, down=down, branches=[(model.task_id == chosen.task_id,)])
    if chosen.verdicts and set(chosen.verdicts) <= set(UNSETTLED) and has_unsettled_index(model):
        branches = [(model.verdict == verdict,) for verdict in chosen.verdicts]
        return Lane(read, model, down=down, branches=branches, in_common=(is_unsettled(model),))
    return Lane(read, model, down=down)


def is_unsettled(model: Any) -> sa.ColumnElement[bool]:
    """The condition of the index of unsettled deliveries, in its own words, by which databases know it again."""
    is_one: sa.ColumnElement[bool] = model.verdict.in_([sa.literal_column(f"'{verdict}'") for verdict in UNSETTLED])
    return is_one


def has_unsettled_index(model: Any) -> bool:
    """A host with a ``__table_args__`` of its own may lack it."""
    table = sa.inspect(model).local_table
    return any(index.name == named("ix", table.name, "unsettled") for index in table.indexes)
