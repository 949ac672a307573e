"""Bring nearer what is due later than it can be: its time was written before the clock was set back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from .dialect import Capabilities
from .holds import HOLDS
from .rows import ModelTable

__all__ = ["pull_in", "pull_in_notes"]

_PORTION = 500
"""Rows that one statement changes, so that no other writer waits long."""


def pull_in(
    connection: sa.Connection,
    table: ModelTable,
    key: str,
    until: datetime,
    *,
    capabilities: Capabilities,
    lease: str | None = None,
) -> int:
    """Let a portion of the rows be due at a time that are due after it; rows that somebody has locked stay.

    Args:
        connection: in a transaction.
        table: the rows.
        key: the attribute that says when they are due.
        until: the latest time that is possible.
        capabilities: what the database can do.
        lease: the attribute that says when their lease ends, if that is another one.

    Returns:
        The number of rows.
    """
    due, row_id = table.columns[key], table.columns["id"]
    late = sa.select(row_id.label("id")).where(due > until).order_by(due).limit(_PORTION)
    if capabilities.skip_locked:
        late = late.with_for_update(skip_locked=True)
    values: dict[sa.Column[object], object] = {due: until}
    if lease is not None:
        ends = table.columns[lease]
        values[ends] = sa.case((ends.is_not(None), sa.literal(until, ends.type)), else_=sa.null())
    change = sa.update(table.table).values(values)
    if not capabilities.locks_first:
        return connection.execute(change.where(row_id.in_(sa.select(late.subquery("late").c.id)))).rowcount
    locked = connection.execute(late).scalars().all()
    return connection.execute(change.where(row_id.in_(locked))).rowcount if locked else 0


def pull_in_notes(
    connection: sa.Connection,
    model: type[Any],
    now: datetime,
    *,
    pause: str,
    longest_pause: datetime,
    longest: datetime,
) -> int:
    """Let no pause or hold end later than it can, and no alert, pass or acknowledgement be of the future.

    Args:
        connection: in a transaction.
        model: the model of alerts.
        now: the database's time.
        pause: the end of the names of pauses, whose length is another than that of holds.
        longest_pause: the latest end of a pause.
        longest: the latest end of any hold.

    Returns:
        The number of times that were moved.
    """
    t = model.__table__.c
    is_hold = t.name.startswith(HOLDS, autoescape=True)
    limits = (
        (t.checked_at, is_hold & t.name.endswith(f":{pause}", autoescape=True), longest_pause),
        (t.checked_at, is_hold, longest),
        (t.checked_at, ~is_hold, now),
        (t.changed_at, sa.true(), now),
    )
    changes = (
        sa.update(model.__table__).where(rows, column > latest).values({column: latest})
        for column, rows, latest in limits
    )
    return sum(connection.execute(change).rowcount for change in changes)
