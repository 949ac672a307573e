"""What one callback asks of the database, seen from below the application: by the driver, and on the wire.

SQLite's trace callback shows every statement, BEGIN and COMMIT included. Of PostgreSQL, libpq's trace holds every
protocol message: each ReadyForQuery of the server ends one round trip.
"""

from __future__ import annotations

import io
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from flask import Flask
from werkzeug.wrappers import Response

from . import hosts
from .callbacks import new_task_ids, request_bytes
from .databases import Database
from .rounds import Contestant

__all__ = ["Asked", "build", "call", "count_statements", "engine_of", "environ_of"]

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
    database.fill(task_ids, status=contestant.status)
    app = build(contestant, database)
    engine = engine_of(app)
    try:
        for task_id in task_ids[:-1]:
            call(app, request_bytes(contestant.path, task_id, contestant.signing))
        with _watched(engine) as asked:
            call(app, request_bytes(contestant.path, task_ids[-1], contestant.signing))
        return asked
    finally:
        engine.dispose()


def build(contestant: Contestant, database: Database) -> Flask:
    """The contestant's application, in this process."""
    factory, arguments = contestant.factory.format(url=database.url).split("(", 1)
    with warnings.catch_warnings(action="ignore"):  # that there is no secret is the point
        app: Flask = eval(f"make({arguments}", {"make": hosts.FACTORIES[factory]})  # our own text, as for gunicorn
    return app


def engine_of(app: Flask) -> sa.Engine:
    """The engine that an application of :mod:`.hosts` works with."""
    engine = app.extensions.get("benchmark_engine")
    if engine is None:
        with app.app_context():
            engine = hosts.db.engine
    assert isinstance(engine, sa.Engine)
    return engine


def environ_of(request: bytes) -> dict[str, Any]:
    """The WSGI environment that gunicorn would make of a request."""
    head, body = request.split(b"\r\n\r\n", 1)
    first, *lines = head.decode("ascii").split("\r\n")
    _, target, protocol = first.split(" ")
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "RAW_URI": target,
        "SERVER_PROTOCOL": protocol,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_SOFTWARE": "benchmark",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for line in lines:
        name, value = line.split(": ", 1)
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    return environ


def call(app: Flask, request: bytes) -> None:
    """Send one request through the application; it must be answered with 200."""
    response = Response.from_app(app.wsgi_app, environ_of(request))
    if response.status_code != 200:
        raise RuntimeError(f"{response.status}: {response.get_data(as_text=True)}")


@contextmanager
def _watched(engine: sa.Engine) -> Iterator[Asked]:
    """Watch the connection that the application gets next; what was seen is complete when the block has ended."""
    with engine.connect() as connection:  # the pool's newest
        driver: Any = connection.connection.driver_connection
    asked = Asked()
    if engine.dialect.name == "sqlite":
        driver.set_trace_callback(lambda statement: asked.statements.append(_short(statement)))
        yield asked
        driver.set_trace_callback(None)
        return
    with tempfile.TemporaryFile("w+") as trace:
        driver.pgconn.trace(trace.fileno())
        with _statements_of(engine, asked.statements):
            yield asked
        driver.pgconn.untrace()
        trace.seek(0)
        messages = [(sender, text) for _, sender, _, text in (line.split("\t", 3) for line in trace)]
    asked.round_trips = sum(sender == "B" and text.startswith("ReadyForQuery") for sender, text in messages)
    sent = [text for sender, text in messages if sender == "F"]
    asked.statements[:0] = ["BEGIN" for text in sent if '"BEGIN' in text]
    asked.statements += ["COMMIT" for text in sent if '"COMMIT' in text]


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
