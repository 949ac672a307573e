"""Queries for deliveries: filtered, and the latencies of callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ..core.received import Source
from ..core.signatures import SCHEMES
from ..core.state_machine import Verdict
from .queries import FilteredRows, RowFilter, equal_to
from .text_search import holds_text
from .transactions import Database

__all__ = ["DeliveryFilter", "can_be_replayed", "filter_deliveries", "latency_summary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter(RowFilter):
    """Filter for deliveries: received from ``since`` and before ``until``, with ``text`` in their bodies.

    ``error`` is a part of their error or reason, in any case. Empty fields match everything.
    """

    task_id: str | None = None
    events: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    error: str | None = None

    def conditions(self, model: Any) -> list[sa.ColumnElement[bool]]:
        """Return the parts of the WHERE clause."""
        conditions = equal_to(
            (model.task_id, self.task_id),
            (model.event, self.events),
            (model.verdict, self.verdicts),
            (model.source, self.sources),
            (model.scheme, self.schemes),
        )
        if self.since is not None:
            conditions.append(model.received_at >= self.since)
        if self.until is not None:
            conditions.append(model.received_at < self.until)
        if self.error:
            texts = (model.error, model.reason)
            conditions.append(sa.or_(*(text.icontains(self.error, autoescape=True) for text in texts)))
        if self.text:
            conditions.append(holds_text(model.body, self.text))
        return conditions


def filter_deliveries(database: Database, criteria: DeliveryFilter) -> FilteredRows:
    """Select deliveries; pages of them come without headers, bodies and tries."""
    model = database.delivery_model
    return FilteredRows(
        database, model, criteria, can_be_replayed(model), frozenset({"body", "headers", "failed_tries"})
    )


def can_be_replayed(delivery: Any) -> sa.ColumnElement[bool]:
    """Return the condition for a body that was authenticated; a replay may still be refused when it is tried.

    Our own format names no task that the URL did not; in a service's own words, the body may tell the task.
    """
    return sa.and_(
        sa.func.length(delivery.body) > 0,
        sa.or_(delivery.task_id.is_not(None), delivery.scheme.not_in(list(SCHEMES))),
        sa.or_(delivery.verdict != Verdict.REJECTED.value, delivery.scheme.is_not(None)),
    )


def latency_summary(delivery: Any, *conditions: sa.ColumnElement[bool], shares: Sequence[float]) -> sa.Select[Any]:
    """Summarise the latencies of applied callbacks in milliseconds: ``count``, ``p0.5`` and so on, ``max``.

    A percentile is the smallest latency that at least that share of the callbacks does not exceed.

    Args:
        delivery: the delivery model.
        *conditions: the filter.
        shares: the percentiles, from 0 to 1.
    """
    ranked = (
        sa.select(
            delivery.latency_ms.label("latency"),
            sa.func.cume_dist().over(order_by=delivery.latency_ms).label("share"),
        )
        .where(
            delivery.verdict == Verdict.PROCESSED.value,
            delivery.source == Source.WEBHOOK.value,
            delivery.latency_ms.is_not(None),
            *conditions,
        )
        .subquery()
    )
    percentiles = [
        sa.func.min(sa.case((ranked.c.share >= share, ranked.c.latency))).label(f"p{share:g}") for share in shares
    ]
    count, longest = sa.func.count().label("count"), sa.func.max(ranked.c.latency).label("max")
    return sa.select(*(count, *percentiles, longest))
