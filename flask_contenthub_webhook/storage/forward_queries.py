"""Queries for forwards: filtered, and the tries of one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from .forwards import DEAD, DELIVERED
from .queries import FilteredRows, Row, RowFilter, equal_to, reading, select_all
from .transactions import Database

__all__ = ["ForwardFilter", "filter_forwards", "read_tries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardFilter(RowFilter):
    """Filter for forwards: created from ``since`` and before ``until``, to a URL beginning with ``url``.

    Empty fields match everything.
    """

    task_id: str | None = None
    delivery_id: int | None = None
    events: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    url: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self, model: Any) -> list[sa.ColumnElement[bool]]:
        """Return the parts of the WHERE clause."""
        conditions = equal_to(
            (model.task_id, self.task_id),
            (model.delivery_id, self.delivery_id),
            (model.event, self.events),
            (model.status, self.statuses),
        )
        if self.url:
            conditions.append(model.url.startswith(self.url, autoescape=True))
        if self.since is not None:
            conditions.append(model.created_at >= self.since)
        if self.until is not None:
            conditions.append(model.created_at < self.until)
        return conditions


def filter_forwards(database: Database, criteria: ForwardFilter) -> FilteredRows:
    """Select forwards; pages of them come without bodies, and only finished ones can be replayed."""
    model = database.outbox.forwards.model
    is_finished = sa.or_(model.status == DELIVERED, model.status == DEAD)
    return FilteredRows(database, model, criteria, is_finished, frozenset({"body"}))


def read_tries(database: Database, forward_id: int) -> list[Row]:
    """Return the tries of a forward, in order."""
    model = database.outbox.attempts.model
    query = select_all(model, without={"id", "forward_id"}).where(model.forward_id == forward_id).order_by(model.id)
    with reading(database) as read:
        return read.rows(query)
