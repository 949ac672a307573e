"""Which deliveries are meant: a filter over the history, and what commands and pages read by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from ..core.received import Source
from ..core.state_machine import Verdict
from .queries import Row, count_where, reading, select_all
from .transactions import Database

__all__ = [
    "BULKY",
    "DeliveryFilter",
    "can_be_replayed",
    "count_matching",
    "latency_summary",
    "read_deliveries",
    "read_delivery",
    "replayable_ids",
]

BULKY = frozenset({"body", "headers"})
"""What a list of deliveries leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries are meant; what is empty does not narrow.

    Args:
        task_id: of this task.
        events: of one of these event types.
        verdicts: with one of these verdicts.
        sources: brought by one of these.
        since: received at or after this time.
        until: received before this time.
    """

    task_id: str | None = None
    events: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every delivery is meant."""
        return not (self.task_id or self.events or self.verdicts or self.sources or self.since or self.until)

    def conditions(self, model: Any) -> list[sa.ColumnElement[bool]]:
        """The WHERE of this filter."""
        conditions: list[sa.ColumnElement[bool]] = []
        if self.task_id:
            conditions.append(model.task_id == self.task_id)
        for column, values in (
            (model.event, self.events),
            (model.verdict, self.verdicts),
            (model.source, self.sources),
        ):
            if values:
                conditions.append(column.in_(values))
        if self.since is not None:
            conditions.append(model.received_at >= self.since)
        if self.until is not None:
            conditions.append(model.received_at < self.until)
        return conditions


def read_deliveries(database: Database, chosen: DeliveryFilter, *, before: int | None = None, limit: int) -> list[Row]:
    """Deliveries, newest first, without headers and bodies.

    Args:
        database: the application's database.
        chosen: which.
        before: only those with a smaller id, the last one of the page before.
        limit: how many at the most.
    """
    delivery = database.delivery_model
    query = select_all(delivery, without=BULKY).where(*chosen.conditions(delivery))
    if before is not None:
        query = query.where(delivery.id < before)
    with reading(database) as read:
        return read.rows(query.order_by(delivery.id.desc()).limit(limit))


def read_delivery(database: Database, delivery_id: int) -> Row | None:
    """Every column of a delivery."""
    delivery = database.delivery_model
    with reading(database) as read:
        return read.row(select_all(delivery).where(delivery.id == delivery_id))


def count_matching(database: Database, chosen: DeliveryFilter) -> Row:
    """How many deliveries match (``matching``), can be replayed (``replayable``), and the newest id (``newest``)."""
    delivery = database.delivery_model
    query = sa.select(
        sa.func.count().label("matching"),
        count_where(can_be_replayed(delivery)).label("replayable"),
        sa.func.max(delivery.id).label("newest"),
    ).where(*chosen.conditions(delivery))
    with reading(database) as read:
        return read.rows(query)[0]


def replayable_ids(database: Database, chosen: DeliveryFilter, *, after: int, up_to: int, limit: int) -> list[int]:
    """Ids of deliveries that hold an event somebody vouched for, oldest first.

    Args:
        database: the application's database.
        chosen: which.
        after: only greater ids, the last one of the batch before.
        up_to: no greater ids: replays are deliveries themselves, and are not to be replayed in their turn.
        limit: how many at the most.
    """
    delivery = database.delivery_model
    query = (
        sa.select(delivery.id.label("id"))
        .where(*chosen.conditions(delivery), can_be_replayed(delivery), delivery.id > after, delivery.id <= up_to)
        .order_by(delivery.id)
        .limit(limit)
    )
    with reading(database) as read:
        return [row["id"] for row in read.rows(query)]


def can_be_replayed(delivery: Any) -> sa.ColumnElement[bool]:
    """It holds a body, and nobody refused it unseen; the rest shows when it is tried."""
    return sa.and_(
        sa.func.length(delivery.body) > 0,
        delivery.task_id.is_not(None),
        sa.or_(delivery.verdict != Verdict.REJECTED.value, delivery.scheme.is_not(None)),
    )


def latency_summary(delivery: Any, *conditions: sa.ColumnElement[bool], shares: Sequence[float]) -> sa.Select[Any]:
    """Latencies of the callbacks that were applied: ``count``, ``p0.5`` and so on, ``max``, in ms.

    A percentile is the smallest latency that at least that share of the callbacks does not exceed.

    Args:
        delivery: the delivery model.
        *conditions: which deliveries.
        shares: of the percentiles, from 0 to 1.
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
