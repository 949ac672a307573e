"""The databases: how to have one, to fill it with tasks, and to count afterwards what really happened."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from tests.support.postgres import PostgresServer

from .hosts import ENGINE_OPTIONS, contents, deliveries, metadata, tasks, tune

__all__ = ["DATABASES", "Database", "Kind", "WrongCount", "open_database"]

Kind = Literal["sqlite", "postgresql"]
DATABASES: tuple[Kind, ...] = ("sqlite", "postgresql")

_insert_task = sa.insert(tasks)


class WrongCount(AssertionError):
    """The database does not hold exactly one effect for each request; the figures are worth nothing."""


@contextmanager
def open_database(kind: Kind, *, durable: bool) -> Iterator[Database]:
    """A new database with the tables in it, gone at the end.

    Args:
        kind: which.
        durable: PostgreSQL writes through to the disk. Off, no disk hides what the applications cost.
    """
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            yield from _opened(f"sqlite:///{Path(directory) / 'bench.sqlite3'}")
    else:
        settings = {"autovacuum": "off", "shared_buffers": "256MB", "max_wal_size": "4GB"}
        with PostgresServer(durable=durable, settings=settings) as server:
            yield from _opened(server.create_database())


def _opened(url: str) -> Iterator[Database]:
    engine = sa.create_engine(url, **ENGINE_OPTIONS)
    tune(engine)
    metadata.create_all(engine)
    try:
        yield Database(url, engine)
    finally:
        engine.dispose()


@dataclass(frozen=True, slots=True)
class Database:
    """One database.

    Args:
        url: for the applications.
        engine: for us.
    """

    url: str
    engine: sa.Engine

    def fill(self, task_ids: Sequence[str], *, status: str) -> None:
        """Start over, with these tasks alone."""
        sqlite = self.engine.dialect.name == "sqlite"
        with self.engine.begin() as connection:
            for table in (tasks, deliveries, contents):
                connection.execute(sa.delete(table) if sqlite else sa.text(f"TRUNCATE {table.name}"))
            connection.execute(
                _insert_task,
                [
                    {
                        "task_id": task_id,
                        "topic": "Artificial intelligence and the making of content",
                        "requirements": "Write an article about AI",
                        "target_audience": "engineers",
                        "keywords": ["AI", "content"],
                        "status": status,
                        "callback_url": f"https://hub.example.com/api/v1/content/callback/{task_id}?attempt=1",
                        "callback_events": ["completed", "failed"],
                    }
                    for task_id in task_ids
                ],
            )
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)" if sqlite else "ANALYZE"))

    def check(self, task_ids: Sequence[str], *, effects: bool, history: str | None) -> None:
        """Raise :class:`WrongCount` unless every task was treated once and only once.

        Args:
            task_ids: one for each request.
            effects: whether each must have its content.
            history: the verdict of the one delivery that each must have; None where there must be none.
        """
        expected = sorted(task_ids)
        with self.engine.connect() as connection:
            completed = connection.scalars(sa.select(tasks.c.task_id).where(tasks.c.status == "completed"))
            written = connection.scalars(sa.select(contents.c.task_id))
            recorded = connection.execute(sa.select(deliveries.c.task_id, deliveries.c.verdict))
            found: list[tuple[str, list[Any], list[Any]]] = [
                ("completed tasks", list(completed), expected),
                ("contents", list(written), expected if effects else []),
                (
                    "deliveries",
                    [(task_id, verdict) for task_id, verdict in recorded],
                    [] if history is None else [(task_id, history) for task_id in expected],
                ),
            ]
        for what, there, wanted in found:
            if sorted(there) != wanted:
                raise WrongCount(f"{len(there)} {what} after {len(task_ids)} requests, not {len(wanted)}, or others.")
