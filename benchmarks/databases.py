"""The databases: how to have one, to fill it with tasks, and to count afterwards what really happened."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from tests.support.mariadb import PROGRAM, MariaDBServer
from tests.support.postgres import PostgresServer

from .hosts import ENGINE_OPTIONS, contents, deliveries, metadata, tasks, tune

__all__ = ["DATABASES", "EXPLAINED", "Database", "Kind", "WrongCount", "open_database", "open_databases"]

Kind = Literal["sqlite", "postgresql", "mariadb"]
DATABASES: tuple[Kind, ...] = ("sqlite", "postgresql", *(("mariadb",) if PROGRAM is not None else ()))
"""MariaDB comes from the machine, if it is there."""
EXPLAINED: tuple[Kind, ...] = ("sqlite", "postgresql")
"""Those whose plans :mod:`.plans` can read."""

_ROOM = 1 << 30
_TIDY = {
    "sqlite": "PRAGMA wal_checkpoint(TRUNCATE)",
    "postgresql": "ANALYZE",
    "mysql": f"ANALYZE TABLE {', '.join(table.name for table in (tasks, deliveries, contents))}",
}
"""An empty log, or fresh statistics."""
_insert_task = sa.insert(tasks)


class WrongCount(AssertionError):
    """The database does not hold exactly one effect for each request; the figures are worth nothing."""


@contextmanager
def open_database(kind: Kind, *, durable: bool) -> Iterator[Database]:
    """A new database with the tables in it, gone at the end.

    Args:
        kind: which.
        durable: write through to the disk. Off, no disk hides what the applications cost: servers do not wait for
            it, and SQLite's file is kept in memory where the system has a place for that.
    """
    with open_databases(kind, 1, durable=durable, in_memory=not durable) as (database,):
        yield database


@contextmanager
def open_databases(kind: Kind, count: int, *, durable: bool, in_memory: bool) -> Iterator[list[Database]]:
    """The same several times, on one server."""
    with ExitStack() as stack:
        if kind == "sqlite":
            place = _memory() if in_memory else None
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=place)))
            urls = [f"sqlite:///{directory / f'bench-{number}.sqlite3'}" for number in range(count)]
        elif kind == "postgresql":
            settings = {"autovacuum": "off", "shared_buffers": "256MB", "max_wal_size": "4GB"}
            postgres = stack.enter_context(PostgresServer(durable=durable, settings=settings))
            urls = [postgres.create_database() for _ in range(count)]
        else:
            settings = {"innodb-buffer-pool-size": "256M", "innodb-log-file-size": "1G"}
            mariadb = stack.enter_context(MariaDBServer(durable=durable, settings=settings))
            urls = [mariadb.create_database() for _ in range(count)]
        databases = [Database(url, sa.create_engine(url, **ENGINE_OPTIONS)) for url in urls]
        for database in databases:
            stack.callback(database.engine.dispose)
            tune(database.engine)
            metadata.create_all(database.engine)
        yield databases


def _memory() -> Path | None:
    """A folder in memory with room enough."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > _ROOM else None


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
        dialect = self.engine.dialect.name
        sqlite = dialect == "sqlite"
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
            connection.execute(sa.text(_TIDY[dialect]))

    def check(
        self, statuses: Mapping[str, Sequence[str]], *, effects: Sequence[str], history: Sequence[tuple[str, str]]
    ) -> None:
        """Raise :class:`WrongCount` unless every request was treated once and only once.

        Args:
            statuses: the tasks that must be in each state.
            effects: the tasks that must have one content each, and no others.
            history: the task and the verdict of every delivery that must be there, and no others.
        """
        with self.engine.connect() as connection:
            found: list[tuple[str, list[Any], list[Any]]] = [
                (
                    f"{status} tasks",
                    list(connection.scalars(sa.select(tasks.c.task_id).where(tasks.c.status == status))),
                    list(wanted),
                )
                for status, wanted in statuses.items()
            ]
            recorded = connection.execute(sa.select(deliveries.c.task_id, deliveries.c.verdict))
            found += [
                ("contents", list(connection.scalars(sa.select(contents.c.task_id))), list(effects)),
                ("deliveries", [(task_id, verdict) for task_id, verdict in recorded], list(history)),
            ]
        for what, there, wanted in found:
            if sorted(there) != sorted(wanted):
                raise WrongCount(f"{len(there)} {what}, not {len(wanted)}, or others.")
