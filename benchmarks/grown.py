"""A database that has been in use for long: so many completed tasks, each with its delivery."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from flask_contenthub_webhook.storage.inbox_statements import AT_ONCE

from .callbacks import new_task_ids, request_bytes
from .contestants import CONTESTANTS
from .databases import Database
from .hosts import deliveries, tasks
from .in_process import build, call, engine_of, environ_of

__all__ = ["add_open_tasks", "add_waiting", "grow", "grown_task_id", "settle"]

_BODY = b'{"event":"completed","result":{"content":"%s"}}' % (b"x" * 250)
_BATCH = 100_000
_SPREAD = 2_654_435_761  # odd, so it permutes the numbers of 32 bits: ids come in no order, as UUIDs do


def grown_task_id(number: int) -> str:
    """The id of a task that :func:`grow` made, counted from 1."""
    return f"{number * _SPREAD % 2**32:08x}-0000-4000-8000-{number:012x}"


def grow(database: Database, rows: int) -> None:
    """Fill both tables with copies of what one real callback left, with a short body in place of 6 KB.

    PostgreSQL keeps long values in a table beside the table, so the rows that a callback has to find are hardly
    smaller than real ones.
    """
    contestant = next(one for one in CONTESTANTS if one.is_extension)
    (first,) = new_task_ids(1)
    database.fill([first], status="processing")
    app = build(contestant, database)
    call(app, environ_of(request_bytes(contestant.path, first, "none")), answer=200)
    engine_of(app).dispose()
    with database.engine.begin() as connection:
        connection.execute(sa.update(tasks).values(result={"content": "x" * 250}))
        connection.execute(sa.update(deliveries).values(body=_BODY))
    for start in range(1, rows + 1, _BATCH):
        with database.engine.begin() as connection:
            for table in (tasks, deliveries):
                connection.execute(_copies(table, first, start, min(start + _BATCH - 1, rows), database))
    settle(database)


def add_open_tasks(database: Database, task_ids: Iterable[str]) -> None:
    """The newest tasks, those that callbacks come for."""
    columns = [column for column in tasks.columns if column.name not in {"id", "task_id", "status", "next_poll_at"}]
    with database.engine.begin() as connection:
        pattern = connection.execute(sa.select(*columns).limit(1)).mappings().one()
        settled = {"status": "processing", "result": None, "finished_at": None, "previous_status": "submitted"}
        due = pattern["created_at"].replace(year=2999)
        connection.execute(
            sa.insert(tasks),
            [{**pattern, **settled, "next_poll_at": due, "task_id": task_id} for task_id in task_ids],
        )
    settle(database)


def add_waiting(database: Database, task_ids: Iterable[str]) -> None:
    """Accepted events that no worker took yet, one for each task; the statistics are not brought up to date."""
    columns = [column for column in deliveries.columns if column.name not in {"id", "task_id"}]
    waiting = {"verdict": "queued", "tries": 0, "next_retry_at": AT_ONCE, "processed_at": None, "latency_ms": None}
    with database.engine.begin() as connection:
        pattern = connection.execute(sa.select(*columns).order_by(deliveries.c.id).limit(1)).mappings().one()
        connection.execute(sa.insert(deliveries), [{**pattern, **waiting, "task_id": task_id} for task_id in task_ids])


def settle(database: Database) -> None:
    """What a database in use has done by itself: statistics, free space, a short log."""
    sqlite = database.engine.dialect.name == "sqlite"
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in ("ANALYZE", "PRAGMA wal_checkpoint(TRUNCATE)") if sqlite else ("VACUUM ANALYZE", "CHECKPOINT"):
            connection.execute(sa.text(statement))


def _copies(table: sa.Table, of_task: str, start: int, end: int, database: Database) -> sa.Insert:
    numbers = sa.select(sa.literal(start).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n < end))
    pattern = sa.select(table).where(table.c.task_id == of_task).limit(1).subquery("pattern")
    names = [column.name for column in table.columns if column.name not in {"id", "task_id"}]
    copies = sa.select(_task_id(numbers.c.n, database), *(pattern.c[name] for name in names))
    return sa.insert(table).from_select(
        ["task_id", *names], copies.select_from(numbers.join(pattern, sa.true())), include_defaults=False
    )


def _task_id(number: sa.ColumnElement[int], database: Database) -> sa.ColumnElement[str]:
    """The same in SQL as :func:`grown_task_id`."""
    number = sa.cast(number, sa.BigInteger)
    spread = number * _SPREAD % 2**32
    if database.engine.dialect.name == "sqlite":
        return sa.func.printf("%08x-0000-4000-8000-%012x", spread, number)
    return sa.func.concat(
        sa.func.lpad(sa.func.to_hex(spread), 8, "0"), "-0000-4000-8000-", sa.func.lpad(sa.func.to_hex(number), 12, "0")
    )
