"""Lists of deliveries: pages, and the deliveries that came after a known one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ...storage.queries import Reading, Row
from .filters import FilterForm, PageFilter
from .search import PER_PAGE, Page, Search, read_page
from .windows import FEWER_ROWS, Span, lane_of, span_of

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
    read: Reading, model: Any, form: FilterForm, *, before: int | None = None, after: int | None = None
) -> Page:
    """Read the newest deliveries of a filter, or those next to a cursor; see :func:`.search.read_page`."""
    search = search_for(read, model, form.criteria, form.text, down=after is None)
    span = span_of(read, model, form.criteria.since, form.criteria.until)
    return read_page(read, search, span, columns(model), time=model.received_at, before=before, after=after)


def deliveries_newer_than(read: Reading, model: Any, form: FilterForm, after: int) -> list[Row]:
    """Read the newest deliveries of a filter that came after a known one."""
    search = search_for(read, model, form.criteria, form.text, down=True)
    span = span_of(read, model, form.criteria.since, form.criteria.until)
    rows, _ = search.rows(Span(max(span.low, after + 1), span.high), columns(model), PER_PAGE)
    return rows


def search_for(
    read: Reading,
    model: Any,
    criteria: PageFilter,
    text: str,
    *,
    down: bool,
    more: Sequence[sa.ColumnElement[bool]] = (),
) -> Search:
    """Make a search for the deliveries that match a filter, hold a text and meet further conditions."""
    lane = lane_of(read, model, criteria, down=down)
    most = FEWER_ROWS if criteria.reads_tasks else None
    return Search(read, model, lane, [*criteria.conditions(model), *more], text, most=most)


def columns(model: Any) -> list[sa.ColumnElement[Any]]:
    """Return the columns of a list: no bodies, and only the beginning of long texts."""
    brief = [sa.func.substr(getattr(model, key), 1, _BRIEF).label(key) for key in ("reason", "error")]
    return [*(getattr(model, key).label(key) for key in _SHOWN), *brief]
