"""Lists of deliveries: pages of them, and what came after one that is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ...storage.queries import Reading, Row
from .filters import Wanted
from .search import PER_PAGE, Page, Search, read_page
from .windows import Span, lane_of, span_of

__all__ = ["columns", "deliveries_newer_than", "read_deliveries_page", "search_for"]

_BRIEF = 200
_SHOWN = (
    "id",
    "task_id",
    "event",
    "attempt",
    "source",
    "scheme",
    "verdict",
    "status_before",
    "status_after",
    "late",
    "tries",
    "next_retry_at",
    "occurrences",
    "replay_of",
    "received_at",
    "latency_ms",
)


def read_deliveries_page(
    read: Reading, model: Any, wish: Wanted, *, before: int | None = None, after: int | None = None
) -> Page:
    """The newest deliveries of a filter, or those next to a cursor; see :func:`.search.read_page`."""
    search = search_for(read, model, wish, down=after is None)
    span = span_of(read, model, wish.chosen.since, wish.chosen.until)
    return read_page(read, search, span, columns(model), time=model.received_at, before=before, after=after)


def deliveries_newer_than(read: Reading, model: Any, wish: Wanted, after: int) -> list[Row]:
    """The newest deliveries of a filter that came after one that is known."""
    search = search_for(read, model, wish, down=True)
    span = span_of(read, model, wish.chosen.since, wish.chosen.until)
    rows, _ = search.rows(Span(max(span.low, after + 1), span.high), columns(model), PER_PAGE)
    return rows


def search_for(
    read: Reading, model: Any, wish: Wanted, *, down: bool, more: Sequence[sa.ColumnElement[bool]] = ()
) -> Search:
    """A search for the deliveries of a filter, for which more may have to hold."""
    lane = lane_of(read, model, wish.chosen, down=down)
    return Search(read, model, lane, [*wish.chosen.conditions(model), *more], wish.text)


def columns(model: Any) -> list[sa.ColumnElement[Any]]:
    """What a list shows of a delivery; no bodies, and of long texts the beginning."""
    brief = [sa.func.substr(getattr(model, key), 1, _BRIEF).label(key) for key in ("reason", "error")]
    return [*(getattr(model, key).label(key) for key in _SHOWN), *brief]
