"""The statements that most callbacks are: an open task is completed, or a completed one is completed once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from .entities import Entities
from .features import Features
from .transitions import UNSETTLED, TaskState

__all__ = ["Completion", "is_unsettled"]


_TOLD_BY_REPEATS = ("verdict", "reason")
"""What is different in the history row of a repeat."""


class Completion:
    """Completes an open task; on PostgreSQL together with its history row, in one statement and one round trip."""

    def __init__(
        self,
        update: sa.Update,
        *,
        of_task: tuple[sa.ColumnElement[bool], ...],
        tasks: Entities,
        deliveries: Entities,
        returned: Sequence[str],
        features: Features,
    ) -> None:
        self._update = update.returning(*(tasks.columns[key] for key in returned)) if features.returning else update
        self._deliveries = deliveries
        self._task_id, self._previous = (tasks.columns[key].key for key in ("task_id", "previous_status"))
        self._recording: dict[tuple[str, ...], sa.Select[Any]] = {}
        self._settling: dict[tuple[str, ...], sa.Select[Any]] = {}
        self._repeating: dict[tuple[str, ...], Any] = {}
        self._of_completed = (*of_task, tasks.columns["status"] == TaskState.COMPLETED.value)
        self._status = tasks.columns["status"]
        self.records = features.modifying_cte

    @property
    def alone(self) -> sa.Update:
        """The UPDATE."""
        return self._update

    def recording(self, keys: tuple[str, ...]) -> sa.Select[Any]:
        """The UPDATE and the INSERT of the history row, its values bound as ``history_KEY``; or else :meth:`repeating`.

        A history row is written exactly when a task was changed or is completed, since it is made from what the UPDATE
        returns or a SELECT finds. Both see the task as it was when the statement began, so what is completed now is no
        repeat; of a repeat, all but ``recorded_id`` is NULL.
        """
        if keys not in self._recording:
            changed = self._update.cte("changed")
            update = sa.select(*self._bound(_TOLD_BY_REPEATS, "history"), changed.c[self._previous].label("status"))
            told = sa.union_all(update, self._found(_TOLD_BY_REPEATS)).cte("told")
            same = tuple(key for key in keys if key not in _TOLD_BY_REPEATS)
            row = sa.select(*self._bound(same, "history"), *told.c)
            recorded = self._insert((*same, *_TOLD_BY_REPEATS), row).cte("recorded")
            joined = recorded.outerjoin(changed, sa.true())
            self._recording[keys] = sa.select(*changed.c, recorded.c.recorded_id).select_from(joined)
        return self._recording[keys]

    def settling(self, keys: tuple[str, ...]) -> sa.Select[Any]:
        """The UPDATE, and that of a history row that waited, ``at_id``, if nobody settled it meanwhile."""
        if keys not in self._settling:
            d = self._deliveries.columns
            changed = self._update.cte("changed")
            values: dict[Any, Any] = {d[key]: sa.bindparam(f"history_{key}", type_=d[key].type) for key in keys}
            update = (
                sa.update(self._deliveries.table)
                .where(d["id"] == sa.bindparam("at_id"), is_unsettled(d), d["task_id"] == changed.c[self._task_id])
                .values({**values, d["status_before"]: changed.c[self._previous]})
            )
            settled = update.returning(d["id"].label("recorded_id")).cte("settled")
            joined = changed.outerjoin(settled, sa.true())
            self._settling[keys] = sa.select(*changed.c, settled.c.recorded_id).select_from(joined)
        return self._settling[keys]

    def repeating(self, keys: tuple[str, ...]) -> Any:
        """The INSERT of a history row if the task is completed already; what differs is bound as ``repeat_KEY``."""
        if keys not in self._repeating:
            same = tuple(key for key in keys if key not in _TOLD_BY_REPEATS)
            row = self._found(_TOLD_BY_REPEATS, before=self._bound(same, "history"))
            self._repeating[keys] = self._insert((*same, *_TOLD_BY_REPEATS), row)
        return self._repeating[keys]

    def _found(self, keys: Sequence[str], *, before: Sequence[sa.ColumnElement[Any]] = ()) -> sa.Select[Any]:
        """What a repeat tells, and the task's state, if the task is completed."""
        return sa.select(*before, *self._bound(keys, "repeat"), self._status.label("status")).where(*self._of_completed)

    def _bound(self, keys: Sequence[str], prefix: str) -> list[sa.ColumnElement[Any]]:
        d = self._deliveries.columns
        return [sa.bindparam(f"{prefix}_{key}", type_=d[key].type).label(key) for key in keys]

    def _insert(self, keys: Sequence[str], row: sa.Select[Any]) -> Any:
        d = self._deliveries.columns
        columns = [*(d[key] for key in keys), d["status_before"]]
        insert = sa.insert(self._deliveries.table).from_select(columns, row, include_defaults=False)
        return insert.returning(d["id"].label("recorded_id"))


def is_unsettled(d: Mapping[str, sa.Column[Any]]) -> sa.ColumnElement[bool]:
    """Whether the event of a history row has had no effect yet."""
    return sa.or_(*(d["verdict"] == verdict.value for verdict in UNSETTLED))
