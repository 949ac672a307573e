"""Gates before each statement, COMMIT and ROLLBACK of an application: a thread waits there until it is let through.

Each actor has an application of its own, as a process of its own would, and so an engine by which it is known.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from flask_contenthub_webhook.storage.drivers import commits_by_itself

__all__ = ["Gate", "Lock", "State", "Step", "sqlite_options", "watch"]

_TABLE = re.compile(r"\b(content_generation_tasks|webhook_\w+|contents|alembic_version)\b")
_LOCKING = re.compile(r"\bFOR UPDATE\b|\bpg_notify\b", re.IGNORECASE)
_LOOK = re.compile(r"\bSELECT\b", re.IGNORECASE)
_SESSION = re.compile(r"\s*SET\b", re.IGNORECASE)
_BEGIN = "BEGIN IMMEDIATE"


class Lock:
    """What a step has to do with the lock of a SQLite file, which one transaction can have."""

    NOTHING = "nothing"
    TAKES = "takes it"
    HAS = "has it"


@dataclass(frozen=True, slots=True)
class Step:
    """What an actor does next.

    Args:
        kind: ``begin`` (of a transaction that writes, on SQLite), ``read``, ``write``, ``commit`` (or a statement that
            is committed with it), ``rollback``, or ``call`` of the service.
        text: the statement.
        tables: what it touches; of a COMMIT or a ROLLBACK, what was written since the transaction began; of a call,
            the service.
        lock: one of :class:`Lock`.
        looks: it may be the first look of its transaction at the database, after which that sees no later COMMIT under
            REPEATABLE READ.
    """

    kind: str
    text: str
    tables: frozenset[str] = frozenset()
    lock: str = Lock.NOTHING
    looks: bool = False

    @property
    def short(self) -> str:
        """The statement in a line."""
        text = " ".join(self.text.split())
        return text if len(text) <= 110 else f"{text[:70]} ... {text[-35:]}"


class State:
    """Where an actor is."""

    RUNNING = "running"
    AT_GATE = "at a gate"
    REFUSED = "refused by SQLite until somebody else's transaction ends"
    DONE = "done"


@dataclass(eq=False)
class Gate:
    """The gate of one actor; open until the actor is stepped.

    Args:
        name: of the actor.
        changed: shared by all gates; notified whenever one of the actors arrives or ends.
        has_one_writer: the database is SQLite, where the first statement that writes takes the lock of the file.
    """

    name: str
    changed: threading.Condition
    has_one_writer: bool = False
    is_stepped: bool = False
    state: str = State.DONE
    next: Step | None = None
    answer: str = ""
    _may_go: bool = False
    _lock: str = Lock.NOTHING
    _written: set[str] = field(default_factory=set)
    _written_before: frozenset[str] = frozenset()
    _have_looked: set[int] = field(default_factory=set)  # connections

    def arrive(self, step: Step, *, state: str = State.AT_GATE) -> None:
        """Wait before a step until it is let through."""
        with self.changed:
            if not self.is_stepped:
                return
            assert self.state == State.RUNNING, f"two threads of {self.name} at once: {self.next} and {step}"
            self.state, self.next, self._may_go = state, step, False
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._may_go or not self.is_stepped)
            self.state = State.RUNNING

    def let_through(self) -> None:
        with self.changed:
            self.state, self.answer, self._may_go = State.RUNNING, "", True
            self.changed.notify_all()

    def finish(self) -> None:
        with self.changed:
            self.state, self.next = State.DONE, None
            self.changed.notify_all()

    def open(self) -> None:
        """Let everything through from now on."""
        with self.changed:
            self.is_stepped = False
            self._forget()
            self.changed.notify_all()

    def close(self) -> None:
        """Stop the actor at its next step."""
        with self.changed:
            self.is_stepped, self.state, self.next = True, State.RUNNING, None
            self._forget()

    def statement(self, connection: sa.Connection, text: str) -> None:
        if _SESSION.match(text):  # settings of a new connection, which touch no row
            return
        tables = frozenset(_TABLE.findall(text))
        reads = text.lstrip().upper().startswith("SELECT") and not _LOCKING.search(text)
        commits, lock = commits_by_itself(connection), self._lock
        if not reads and self.has_one_writer and lock == Lock.NOTHING:
            lock, commits = Lock.TAKES, _is_single(connection.connection.dbapi_connection, text)
        self._written_before = frozenset(self._written)
        if not reads and not commits:
            self._written.update(tables)
            self._lock = Lock.HAS if lock == Lock.TAKES else lock
        driver = id(connection.connection.dbapi_connection)
        looks = driver not in self._have_looked and _LOOK.search(text) is not None
        if reads and not commits:
            self._have_looked.add(driver)
        self.arrive(Step("read" if reads else "commit" if commits else "write", text, tables, lock, looks))

    def call(self, place: str) -> None:
        """Wait before a call of the service; ``place`` is where in it the actor is."""
        if place.startswith("before"):
            self.arrive(Step("call", place.removeprefix("before the "), frozenset({"service"})))

    def begin(self) -> None:
        """Wait before a transaction that writes, on SQLite."""
        self._lock = Lock.HAS
        step = Step("begin", _BEGIN, lock=Lock.TAKES)
        self.arrive(step, state=State.REFUSED if self.answer == "busy" else State.AT_GATE)

    def changed_nothing(self) -> None:
        """Learn that a statement found no row, and so locked none: its transaction has written no more than before."""
        self._written = set(self._written_before)

    def end(self, kind: str, connection: sa.Connection) -> None:
        if connection.invalidated:
            self._have_looked.clear()  # a new one may have its id
        else:
            self._have_looked.discard(id(connection.connection.dbapi_connection))
        step = Step(kind, kind.upper(), frozenset(self._written), self._lock)
        self._forget()
        self.arrive(step)

    def _forget(self) -> None:
        self._written.clear()
        self._lock = Lock.NOTHING


def _is_single(driver: Any, text: str) -> bool:
    """Tell whether SQLite commits a statement outside a transaction at once, since the driver begins none for it."""
    return driver.isolation_level is None or text.lstrip().upper().startswith("WITH")


def watch(engine: sa.Engine, gate: Gate) -> None:
    """Put the gate before every step of an engine."""

    def answered(connection: Any, cursor: Any, *_: Any) -> None:
        count = getattr(cursor, "rowcount", -1)
        if count == 0 and engine.dialect.name == "postgresql":
            gate.changed_nothing()
        gate.answer = f"{count} row{'' if count == 1 else 's'}" if count >= 0 else "done"

    def failed(context: sa.ExceptionContext) -> None:
        gate.answer = f"error: {' '.join(str(context.original_exception).split())[:120]}"

    sa.event.listen(engine, "before_cursor_execute", lambda *args: gate.statement(args[0], args[2]))
    sa.event.listen(engine, "after_cursor_execute", answered)
    sa.event.listen(engine, "handle_error", failed)
    sa.event.listen(engine, "commit", lambda connection: gate.end("commit", connection))
    sa.event.listen(engine, "rollback", lambda connection: gate.end("rollback", connection))


def sqlite_options(gate: Gate) -> dict[str, Any]:
    """Return the engine options by which SQLite's own "busy" is seen at the gate, in the place of its waiting."""

    class Cursor(sqlite3.Cursor):
        def execute(self, statement: str, *values: Any) -> Any:
            if not gate.is_stepped:
                return super().execute(statement, *values)
            if statement == _BEGIN:  # the package tries again by itself
                gate.begin()
                return self._tried(statement, *values)
            if statement.startswith("PRAGMA"):
                return super().execute(statement, *values)
            (patience,) = super().execute("PRAGMA busy_timeout").fetchone()
            super().execute("PRAGMA busy_timeout = 0")
            try:
                while True:
                    try:
                        return self._tried(statement, *values)
                    except sqlite3.OperationalError:
                        if gate.answer != "busy" or gate.next is None:
                            raise
                        gate.arrive(gate.next, state=State.REFUSED)
            finally:
                self.connection.execute(f"PRAGMA busy_timeout = {patience:d}")

        def _tried(self, statement: str, *values: Any) -> Any:
            try:
                return super().execute(statement, *values)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorname == "SQLITE_BUSY":
                    gate.answer = "busy"
                raise

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    return {"connect_args": {"factory": Connection, "timeout": 60}}
