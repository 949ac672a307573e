"""The database of `web_host`, as a test sees it from outside: tasks to begin with, and what became of them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from flask_contenthub_webhook import default_models

from .web_host import Content, Failure, db

if TYPE_CHECKING:
    from collections.abc import Sequence

_TASKS, _DELIVERIES = (model.__table__ for model in default_models(db))
_CONTENTS, _FAILURES = Content.__table__, Failure.__table__


class HostDatabase:
    """Reads and prepares the tables with connections of its own, so that it sees what is committed and nothing else.

    Args:
        url: The SQLAlchemy URL of an empty database.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        options = {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {}
        self.engine = sa.create_engine(url, poolclass=NullPool, **options)

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    def create(self) -> Self:
        if self.is_sqlite:
            with self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        db.metadata.create_all(self.engine)
        return self

    def add_tasks(self, count: int, **values: Any) -> list[str]:
        """Open tasks, submitted to the creator; their ids."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        with self.engine.begin() as connection:
            for task_id in ids:
                connection.execute(sa.insert(_TASKS), {"task_id": task_id, "status": "submitted", **values})
        return ids

    def add_task(self, **values: Any) -> str:
        return self.add_tasks(1, **values)[0]

    def task(self, task_id: str) -> sa.Row[Any]:
        return self._all(sa.select(_TASKS).where(_TASKS.c.task_id == task_id))[0]

    def status(self, task_id: str) -> str:
        return str(self.task(task_id).status)

    def contents(self, *task_ids: str) -> dict[str, int]:
        """How many Content rows each task has."""
        return self._counts(_CONTENTS, task_ids)

    def failures(self, *task_ids: str) -> dict[str, int]:
        """How many failures the host was told of for each task."""
        return self._counts(_FAILURES, task_ids)

    def deliveries(self, task_id: str) -> Sequence[sa.Row[Any]]:
        """The history of a task, from its beginning."""
        return self._all(sa.select(_DELIVERIES).where(_DELIVERIES.c.task_id == task_id).order_by(_DELIVERIES.c.id))

    def verdicts(self, task_id: str) -> list[str]:
        return [row.verdict for row in self.deliveries(task_id)]

    def count(self, table: str) -> int:
        return int(self._all(sa.select(sa.func.count()).select_from(sa.table(table)))[0][0])

    def _counts(self, table: Any, task_ids: Sequence[str]) -> dict[str, int]:
        counted = self._all(sa.select(table.c.task_id, sa.func.count().label("number")).group_by(table.c.task_id))
        found = {row.task_id: int(row.number) for row in counted}
        return {task_id: found.get(task_id, 0) for task_id in task_ids}

    def _all(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with self.engine.connect() as connection:
            return connection.execute(statement).all()
