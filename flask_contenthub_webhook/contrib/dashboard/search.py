"""Search in a history: a bounded number of rows in a request, and a cursor to continue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ...storage.queries import Reading, Row
from ...storage.text_search import holds_text
from .windows import MOST_ROWS, Lane, Span

__all__ = ["PER_PAGE", "Page", "Search", "read_page"]

PER_PAGE = 50
_MOST_ROWS_WITH_TEXT = 2_000
_MOST_BYTES = 8 * 1024 * 1024
"""Bytes of bodies that a request examines; at least one body."""


@dataclass(frozen=True, slots=True)
class Page:
    """The result of a search.

    Args:
        rows: newest first.
        newer: the cursor ``after`` of the page before, or None.
        older: the cursor ``before`` of the next page, or None.
        stopped_at: if the search reached its limit before its end, the time of the row that it would examine next. The
            cursor of its direction continues there.
        looked_at: the limit, as a text.
    """

    rows: list[Row]
    newer: int | None = None
    older: int | None = None
    stopped_at: datetime | None = None
    looked_at: str = ""


class Search:
    """A search over a bounded number of rows and bytes.

    Args:
        read: the transaction.
        model: a model with an ``id`` that grows.
        lane: the rows to examine, in the order of the search.
        conditions: for the rows to match.
        text: the text that the bodies must contain, or an empty string.
        most: rows to examine in a request, without a text.
    """

    def __init__(
        self,
        read: Reading,
        model: Any,
        lane: Lane,
        conditions: Sequence[sa.ColumnElement[bool]],
        text: str = "",
        *,
        most: int | None = None,
    ) -> None:
        self._read = read
        self._model = model
        self._text = text
        self._most = MOST_ROWS if most is None else most
        self._conditions = [*conditions, *lane.in_common]
        self.lane = lane
        self.looked_at = ""
        self.found_more = False

    def rows(self, span: Span, selected: Sequence[Any], limit: int) -> tuple[list[Row], Span | None]:
        """Search the beginning of a span.

        Returns:
            At most ``limit`` rows, and the rest of the span after the rows that were examined, or None if there is no
            rest. :attr:`found_more` is True if more than ``limit`` match.
        """
        window = self.window(span)
        if window is None:
            return [], None
        rows = self.read(window, selected, limit + 1)
        self.found_more = len(rows) > limit
        if self.found_more:
            return rows[:limit], None
        rest = self.lane.rest(span, window)
        return rows, None if self.lane.start(rest) is None else rest

    def window(self, span: Span) -> Span | None:
        """Return the beginning of a span that a request examines; None if the span has no rows."""
        start = self.lane.start(span)
        if start is None:
            return None
        rows = _MOST_ROWS_WITH_TEXT if self._text else self._most
        window = self.lane.window(span, start, rows)
        self.looked_at = f"{rows:,} rows"
        return self._affordable(window) if self._text else window

    def read(self, window: Span, selected: Sequence[Any], limit: int) -> list[Row]:
        """Read the first matching rows of a window.

        Each branch of the lane is a separate subquery, so that it uses its own index and stops early; with a condition
        over several branches a database might choose the primary key.
        """
        walks = [
            sa.select(*selected).where(*branch, *self.conditions(window)).order_by(self.lane.order).limit(limit)
            for branch in self.lane.branches
        ]
        if len(walks) == 1:
            return self._read.rows(walks[0])
        rows = sa.union_all(*(sa.select(walk.subquery()) for walk in walks)).subquery()
        order = rows.c.id.desc() if self.lane.down else rows.c.id
        return self._read.rows(sa.select(rows).order_by(order).limit(limit))

    def conditions(self, window: Span) -> list[sa.ColumnElement[bool]]:
        """Return the WHERE for the matching rows of a window."""
        return [*self._inside(window), *self._holds_text()]

    def _inside(self, window: Span) -> list[sa.ColumnElement[bool]]:
        id_ = self.lane.id
        return [id_ >= window.low, id_ <= window.high, *self._conditions]

    # --- text in bodies ------------------------------------------------------------------------------------------

    def _affordable(self, window: Span) -> Span:
        """Shorten a window to bodies of :data:`_MOST_BYTES`; their lengths cost nothing to read."""
        model, down = self._model, self.lane.down
        running = sa.func.sum(sa.func.length(model.body)).over(order_by=self.lane.order)
        bodies = sa.select(model.id.label("id"), running.label("total")).where(*self._inside(window)).subquery()
        nearest, furthest = (sa.func.max, sa.func.min) if down else (sa.func.min, sa.func.max)
        first, last, total = self._read.first(
            sa.select(
                nearest(bodies.c.id),
                furthest(sa.case((bodies.c.total <= _MOST_BYTES, bodies.c.id))),
                sa.func.max(bodies.c.total),
            )
        ) or (None, None, None)
        if total is None or total <= _MOST_BYTES:
            return window
        self.looked_at = f"{_MOST_BYTES // 1024 // 1024} MB of bodies"
        end = first if last is None else last
        return Span(end, window.high) if down else Span(window.low, end)

    def _holds_text(self) -> list[sa.ColumnElement[bool]]:
        """Match the text as it is or as JSON writes it, only in rows that meet all other conditions."""
        if not self._text:
            return []
        holds = holds_text(self._model.body, self._text)
        return [sa.case((sa.and_(*self._conditions), holds), else_=sa.false()) if self._conditions else holds]


def read_page(
    read: Reading,
    search: Search,
    span: Span,
    selected: Sequence[Any],
    *,
    time: Any,
    before: int | None = None,
    after: int | None = None,
) -> Page:
    """Read the newest rows of a search, or those next to a cursor.

    Args:
        read: the transaction.
        search: downwards, or upwards with ``after``.
        span: the limits.
        selected: the columns.
        time: the column with the time of a row.
        before: read the nearest smaller ids.
        after: read the nearest greater ids.
    """
    down = search.lane.down
    if before is not None:
        span = Span(span.low, min(span.high, before - 1))
    if after is not None:
        span = Span(max(span.low, after + 1), span.high)
    rows, rest = search.rows(span, selected, PER_PAGE)
    ahead: int | None = None
    stopped_at: datetime | None = None
    if rest is not None:
        ahead = rest.high + 1 if down else rest.low - 1
        stopped_at = (read.first(sa.select(time).where(search.lane.id == search.lane.start(rest))) or (None,))[0]
    elif search.found_more:
        ahead = rows[-1]["id"]
    if down:
        back = None if before is None else (rows[0]["id"] if rows else before - 1)
        return Page(rows, newer=back, older=ahead, stopped_at=stopped_at, looked_at=search.looked_at)
    back = rows[0]["id"] if rows else (after or 0) + 1
    return Page(rows[::-1], newer=ahead, older=back, stopped_at=stopped_at, looked_at=search.looked_at)
