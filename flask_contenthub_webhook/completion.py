"""The statements that most callbacks are: an open task is completed, or a completed one is completed once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from .entities import Entities
from .features import Features
from .transitions import UNSETTLED, TaskState

__all__ = ["Completion", "is_unsettled"]


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
        self._with_history: dict[tuple[str, ...], sa.Select[Any]] = {}
        self._settling: dict[tuple[str, ...], sa.Select[Any]] = {}
        self._repeated: dict[tuple[str, ...], Any] = {}
        self._of_completed_task = (*of_task, tasks.columns["status"] == TaskState.COMPLETED.value)
        self._status = tasks.columns["status"]
        self.records = features.modifying_cte

    @property
    def alone(self) -> sa.Update:
        """The UPDATE."""
        return self._update

    def with_history(self, keys: tuple[str, ...]) -> sa.Select[Any]:
        """The UPDATE and the INSERT of the history row, whose values are bound as ``history_KEY``.

        A history row is written exactly when a task was changed, since it is made from what the UPDATE returns; the
        state that the task had comes from there, too.
        """
        if keys not in self._with_history:
            d = self._deliveries.columns
            changed = self._update.cte("changed")
            values = [sa.bindparam(f"history_{key}", type_=d[key].type) for key in keys]
            insert = sa.insert(self._deliveries.table).from_select(
                [*(d[key] for key in keys), d["status_before"]], sa.select(*values, changed.c[self._previous])
            )
            recorded = insert.returning(d["id"].label("recorded_id")).cte("recorded")
            joined = changed.join(recorded, sa.true())
            self._with_history[keys] = sa.select(*changed.c, recorded.c.recorded_id).select_from(joined)
        return self._with_history[keys]

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

    def repeated(self, keys: tuple[str, ...]) -> Any:
        """The INSERT of a history row, as in :meth:`with_history`, if the task is completed already."""
        if keys not in self._repeated:
            d = self._deliveries.columns
            values = [sa.bindparam(f"history_{key}", type_=d[key].type).label(None) for key in keys]
            task = sa.select(*values, self._status).where(*self._of_completed_task)
            columns = [*(d[key] for key in keys), d["status_before"]]
            insert = sa.insert(self._deliveries.table).from_select(columns, task, include_defaults=False)
            self._repeated[keys] = insert.returning(d["id"])
        return self._repeated[keys]


def is_unsettled(d: Mapping[str, sa.Column[Any]]) -> sa.ColumnElement[bool]:
    """Whether the event of a history row has had no effect yet."""
    return sa.or_(*(d["verdict"] == verdict.value for verdict in UNSETTLED))
