"""The statements of most callbacks: an open task is completed, or a completed one is completed once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ..core.state_machine import COMPLETED_BEFORE, COMPLETED_NOW, UNSETTLED, TaskState, Verdict
from .delivery_rows import decision_values
from .dialect import Capabilities
from .rows import ModelTable, Row

__all__ = ["FIRST", "REPEAT", "Completion", "is_unsettled", "literal"]

FIRST = decision_values(COMPLETED_NOW, TaskState.COMPLETED)
"""Values in the history row of every event that completes a task."""
REPEAT = decision_values(COMPLETED_BEFORE, TaskState.COMPLETED)
"""Values in the history row of every repeat."""


class Completion:
    """Completes an open task; on PostgreSQL together with its history row, in one statement and one round trip.

    Constants are written into the statements, since each bound value costs the driver and the server time.
    """

    def __init__(
        self,
        update: sa.Update,
        *,
        of_task: tuple[sa.ColumnElement[bool], ...],
        tasks: ModelTable,
        deliveries: ModelTable,
        returned: Sequence[str],
        capabilities: Capabilities,
    ) -> None:
        self.alone = update
        """The UPDATE of the task; it returns its columns, and whether an event of it failed before."""
        if capabilities.returning:
            self.alone = update.returning(*(tasks.columns[key] for key in returned), _has_failed(deliveries.columns))
        self.changed = sa.select(*tasks.columns.values(), _has_failed(deliveries.columns)).where(*of_task)
        """The same where an UPDATE returns nothing."""
        self._deliveries = deliveries
        self._previous = tasks.columns["previous_status"].key
        self._recording: dict[tuple[str, ...], sa.Select[Any]] = {}
        self._settling: dict[tuple[str, ...], sa.Select[Any]] = {}
        self._repeating: dict[tuple[str, ...], sa.Insert] = {}
        self._status = tasks.columns["status"]
        self._of_completed = (*of_task, self._status == literal(TaskState.COMPLETED.value))
        self.records = capabilities.modifying_cte

    def recording(self, keys: tuple[str, ...]) -> sa.Select[Any]:
        """Return the UPDATE with the INSERT of a history row; for a completed task, the INSERT of a repeat.

        The row is built from what the UPDATE returns or a SELECT finds. Both see the task as it was when the statement
        began, so a task completed now is not a repeat. For a repeat, everything but ``recorded_id`` is NULL.

        Args:
            keys: attributes of the history row, bound as ``history_KEY``.
        """
        if keys not in self._recording:
            changed = self.alone.cte("changed")
            first = sa.select(*_literals(FIRST), changed.c[self._previous].label("status_before"))
            outcome = sa.union_all(first, self._repeat()).cte("outcome")
            insert = self._insert(keys, sa.select(*self._bound(keys), *outcome.c))
            recorded = insert.returning(self._deliveries.columns["id"].label("recorded_id")).cte("recorded")
            joined = recorded.outerjoin(changed, sa.true())
            self._recording[keys] = sa.select(*changed.c, recorded.c.recorded_id).select_from(joined)
        return self._recording[keys]

    def settling(self, keys: tuple[str, ...]) -> sa.Select[Any]:
        """Return the UPDATE with that of the waiting history row ``at_id``, unless it was settled meanwhile."""
        if keys not in self._settling:
            d = self._deliveries.columns
            changed = self.alone.cte("changed")
            values: dict[Any, Any] = {d[key]: literal(value) for key, value in FIRST.items()}
            values |= {d[value.key]: value.element for value in self._bound(keys)}
            update = (
                sa.update(self._deliveries.table)
                .where(d["id"] == sa.bindparam("at_id"), is_unsettled(d), d["task_id"] == sa.bindparam("at_task_id"))
                .where(sa.exists().select_from(changed))
                .values({**values, d["status_before"]: sa.select(changed.c[self._previous]).scalar_subquery()})
            )
            settled = update.returning(d["id"].label("recorded_id")).cte("settled")
            joined = changed.outerjoin(settled, sa.true())
            self._settling[keys] = sa.select(*changed.c, settled.c.recorded_id).select_from(joined)
        return self._settling[keys]

    def repeating(self, keys: tuple[str, ...]) -> sa.Insert:
        """Return the INSERT of a history row, bound as in :meth:`recording`, if the task is completed already."""
        if keys not in self._repeating:
            self._repeating[keys] = self._insert(keys, self._repeat(self._bound(keys)))
        return self._repeating[keys]

    def _repeat(self, before: Sequence[sa.Label[Any]] = ()) -> sa.Select[Any]:
        values = (*_literals(REPEAT), self._status.label("status_before"))
        return sa.select(*before, *values).where(*self._of_completed)

    def _bound(self, keys: Sequence[str]) -> list[sa.Label[Any]]:
        d = self._deliveries.columns
        return [sa.bindparam(f"history_{key}", type_=d[key].type).label(key) for key in keys]

    def _insert(self, keys: Sequence[str], row: sa.Select[Any]) -> sa.Insert:
        d = self._deliveries.columns
        columns = [d[key] for key in (*keys, *FIRST, "status_before")]
        return sa.insert(self._deliveries.table).from_select(columns, row, include_defaults=False)


def is_unsettled(d: Mapping[str, sa.Column[Any]]) -> sa.ColumnElement[bool]:
    """Return the condition that the event of a history row has had no effect yet."""
    return sa.or_(*(d["verdict"] == literal(verdict.value) for verdict in UNSETTLED))


def _has_failed(d: Mapping[str, sa.Column[Any]]) -> sa.Label[bool]:
    """Return the expression of whether an event of the task failed, or was parked, and was not applied since."""
    failed = sa.or_(*(d["verdict"] == literal(verdict.value) for verdict in (Verdict.FAILED, Verdict.DEAD)))
    of_task = d["task_id"] == sa.bindparam("at_task_id")
    return sa.select(sa.literal_column("1")).where(of_task, failed).exists().label("has_failed")


def _literals(values: Row) -> list[sa.Label[Any]]:
    return [literal(value).label(key) for key, value in values.items()]


def literal(value: str | bool | None) -> sa.ColumnElement[Any]:
    """Return a constant of our own as a part of the statement."""
    if value is None:
        return sa.null()
    if isinstance(value, bool):
        return sa.true() if value else sa.false()
    return sa.literal_column("'" + value.replace("'", "''") + "'", sa.String())
