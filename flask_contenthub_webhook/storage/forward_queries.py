"""What the commands read of forwards: a fixed number of selects per command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from .forwards import DEAD, DELIVERED
from .queries import Row
from .transactions import Database

__all__ = ["ForwardFilter", "count_forwards", "finished_ids", "read_attempts", "read_forward", "read_forwards"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardFilter:
    """Which forwards are meant; what is empty does not narrow.

    Args:
        task_id: of this task.
        delivery_id: of this delivery.
        events: of one of these event types.
        statuses: in one of these states.
        url: to a URL that begins so.
        since: made at or after this time.
    """

    task_id: str | None = None
    delivery_id: int | None = None
    events: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    url: str | None = None
    since: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every forward is meant."""
        return self == ForwardFilter()

    def conditions(self, model: Any) -> list[sa.ColumnElement[bool]]:
        """The WHERE of this filter."""
        conditions: list[sa.ColumnElement[bool]] = []
        if self.task_id:
            conditions.append(model.task_id == self.task_id)
        if self.delivery_id is not None:
            conditions.append(model.delivery_id == self.delivery_id)
        if self.events:
            conditions.append(model.event.in_(self.events))
        if self.statuses:
            conditions.append(model.status.in_(self.statuses))
        if self.url:
            conditions.append(model.url.startswith(self.url, autoescape=True))
        if self.since is not None:
            conditions.append(model.created_at >= self.since)
        return conditions


def read_forwards(database: Database, chosen: ForwardFilter, *, before: int | None = None, limit: int) -> list[Row]:
    """Forwards, newest first, without bodies.

    Args:
        database: the application's database.
        chosen: which.
        before: only those with a smaller id, the last one of the page before.
        limit: how many at the most.
    """
    model = database.outbox.forwards.model
    columns = [column.label(key) for key, column in database.outbox.forwards.columns.items() if key != "body"]
    query = sa.select(*columns).where(*chosen.conditions(model)).order_by(model.id.desc()).limit(limit)
    return _rows(database, query if before is None else query.where(model.id < before))


def read_forward(database: Database, forward_id: int) -> Row | None:
    """Every column of a forward."""
    with database.session() as session:
        row = database.outbox.read(session, forward_id)
        return None if row is None else dict(row)


def read_attempts(database: Database, forward_id: int) -> list[Row]:
    """The tries of a forward, in order."""
    attempts = database.outbox.attempts
    columns = [column.label(key) for key, column in attempts.columns.items() if key not in {"id", "forward_id"}]
    query = sa.select(*columns).where(attempts.model.forward_id == forward_id).order_by(attempts.model.id)
    return _rows(database, query)


def count_forwards(database: Database, chosen: ForwardFilter) -> Row:
    """How many forwards match (``matching``), are finished (``replayable``), and the newest id (``newest``)."""
    model = database.outbox.forwards.model
    query = sa.select(
        sa.func.count().label("matching"),
        sa.func.count(sa.case((_is_finished(model), 1))).label("replayable"),
        sa.func.max(model.id).label("newest"),
    ).where(*chosen.conditions(model))
    return _rows(database, query)[0]


def finished_ids(database: Database, chosen: ForwardFilter, *, after: int, up_to: int, limit: int) -> list[int]:
    """Ids of finished forwards, oldest first.

    Args:
        database: the application's database.
        chosen: which.
        after: only greater ids, the last one of the batch before.
        up_to: no greater ids.
        limit: how many at the most.
    """
    model = database.outbox.forwards.model
    query = (
        sa.select(model.id.label("id"))
        .where(*chosen.conditions(model), _is_finished(model), model.id > after, model.id <= up_to)
        .order_by(model.id)
        .limit(limit)
    )
    return [row["id"] for row in _rows(database, query)]


def _is_finished(model: Any) -> sa.ColumnElement[bool]:
    return sa.or_(model.status == DELIVERED, model.status == DEAD)


def _rows(database: Database, query: sa.Select[Any]) -> list[Row]:
    """Read in a transaction of its own."""
    with database.session() as session:
        return [dict(row) for row in database.outbox.connection(session).execute(query).mappings()]
