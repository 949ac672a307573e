"""What one callback asks of the database, seen from below the application: by the driver, and on the wire.

SQLite's trace callback shows every statement, BEGIN and COMMIT included. Of PostgreSQL, libpq's trace holds every
protocol message: each ReadyForQuery of the server ends one round trip. MariaDB counts the questions of a session.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from . import hosts
from .callbacks import new_task_ids, request_bytes
from .contestants import Contestant
from .databases import Database
from .in_process import build, call, engine_of, environ_of

__all__ = ["Asked", "count_statements"]

_TABLES = {hosts.tasks.name: "task", hosts.deliveries.name: "history", hosts.contents.name: "content"}
_WARM_UP = 10  # psycopg prepares a statement that comes for the sixth time


@dataclass(slots=True)
class Asked:
    """What one callback asks.

    Args:
        statements: the verb and the table of each, in order, BEGIN and COMMIT included.
        round_trips: to a database server; None where there is none.
    """

    statements: list[str] = field(default_factory=list)
    round_trips: int | None = None


def count_statements(database: Database, contestant: Contestant) -> Asked:
    """Send one callback, in this process, and watch."""
    task_ids = new_task_ids(_WARM_UP + 1)
    database.fill(task_ids, status=contestant.status_before)
    app = build(contestant, database)
    engine = engine_of(app)
    try:
        environs = [environ_of(request_bytes(contestant.path, task_id, contestant.signing)) for task_id in task_ids]
        with engine.connect() as connection:  # before the others, so that it is as they leave it; the pool's only one
            driver: Any = connection.connection.driver_connection
        for environ in environs[:-1]:
            call(app, environ, answer=contestant.answer)
        with _watched(engine, driver) as asked:
            call(app, environs[-1], answer=contestant.answer)
        return asked
    finally:
        engine.dispose()


@contextmanager
def _watched(engine: sa.Engine, driver: Any) -> Iterator[Asked]:
    """Watch the connection that the application gets next; what was seen is complete when the block has ended."""
    asked = Asked()
    if engine.dialect.name == "sqlite":
        driver.set_trace_callback(lambda statement: asked.statements.append(_short(statement)))
        yield asked
        driver.set_trace_callback(None)
        return
    if engine.dialect.name == "mysql":
        before = _questions(driver)
        with _statements_of(engine, asked.statements):
            yield asked
        after = _questions(driver)
        asked.round_trips = after["Questions"] - before["Questions"] - 1  # one is ours
        for verb in ("COMMIT", "ROLLBACK"):
            asked.statements += [verb] * (after[f"Com_{verb.lower()}"] - before[f"Com_{verb.lower()}"])
        return
    with tempfile.TemporaryFile("w+") as trace:
        driver.pgconn.trace(trace.fileno())
        with _statements_of(engine, asked.statements):
            yield asked
        driver.pgconn.untrace()
        trace.seek(0)
        # A statement that is not prepared yet, such as a count that is due now and then, may go on in further lines.
        messages = [line.split("\t", 3)[1::2] for line in trace if line.count("\t") >= 3]
    asked.round_trips = sum(sender == "B" and text.startswith("ReadyForQuery") for sender, text in messages)
    sent = [text for sender, text in messages if sender == "F"]
    asked.statements[:0] = ["BEGIN" for text in sent if '"BEGIN' in text]
    asked.statements += ["COMMIT" for text in sent if '"COMMIT' in text]


def _questions(driver: Any) -> dict[str, int]:
    """What the server counted of this session."""
    with driver.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS WHERE variable_name IN ('Questions', 'Com_commit', 'Com_rollback')")
        return {name: int(value) for name, value in cursor.fetchall()}


@contextmanager
def _statements_of(engine: sa.Engine, statements: list[str]) -> Iterator[None]:
    def before(*arguments: Any) -> None:
        statements.append(_short(arguments[2]))

    sa.event.listen(engine, "before_cursor_execute", before)
    yield
    sa.event.remove(engine, "before_cursor_execute", before)


def _short(statement: str) -> str:
    """``UPDATE task`` is enough."""
    words = statement.split()
    verb = words[0].upper()
    found = re.search(r"(?:FROM|INTO|UPDATE)\s+\"?(\w+)", statement)
    return f"{verb} {_TABLES[found[1]]}" if found else verb
