"""Transactions: where a unit of work begins and ends, and what a database error means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Self

from flask import g, has_app_context
from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy import Connection, Engine, exc
from sqlalchemy import event as sa_event
from sqlalchemy.orm import Session

from .sqlite_lock import begin_writing

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

    from ..runtime.state import WebhookState

__all__ = [
    "CommitForbidden",
    "Transaction",
    "Trouble",
    "check_transaction",
    "core_transaction",
    "forbid_commit",
    "single_statement",
    "transaction",
    "trouble_of",
    "unit_of_work",
    "watch_commits",
]

_GUARD = "contenthub_webhook_forbidden_commits"

_IN_FAILED_TRANSACTION = 3
"""libpq's PQTRANS_INERROR, as psycopg and psycopg2 report it."""
_RETRY_SQLSTATES = {"40001", "40P01"}  # serialization failure, deadlock
_RETRY_MYSQL = {1213}  # deadlock
_BUSY_SQLSTATES = {"55P03", "57014"}  # lock not available, statement timeout
_BUSY_MYSQL = {1205, 3024}  # lock wait timeout, statement timeout


class Trouble(Enum):
    """What a database error means for the work that met it."""

    RETRY = "another try right away may succeed"
    BUSY = "somebody else holds what it waits for"
    UNAVAILABLE = "the database is away"
    STATEMENT = "the statement itself is at fault"


class CommitForbidden(RuntimeError):
    """A handler called commit() or rollback() on db.session inside the transaction of its event."""


@contextmanager
def unit_of_work(state: WebhookState) -> Iterator[Session]:
    """A session of its own, in an application context of its own.

    Flask-SQLAlchemy scopes ``db.session`` to the application context. A new one gives handlers the very session that
    this transaction uses, and keeps out whatever the host had begun before; leaving it rolls back what is not
    committed. Objects stay readable after the commit, since nobody goes on with this session.
    """
    with state.app.app_context():
        session = state.db.session()
        session.expire_on_commit = False
        yield session


class Transaction:
    """A transaction on the connection of our tables, which a session joins where handlers take part in it.

    Most of what is written needs no session, and a session costs as much as a statement.

    Args:
        state: the application's state.
        connection: nothing has begun on it yet.
        session: the session that it belongs to already, if any.
    """

    def __init__(self, state: WebhookState, connection: Connection, session: Session | None = None) -> None:
        self.connection = connection
        self._state = state
        self._session = session
        self._joined: AbstractContextManager[Session] | None = None

    def session(self) -> Session:
        """``db.session``, in this transaction."""
        if self._session is None:
            self._joined = unit_of_work(self._state)
            self._session = self._joined.__enter__()
            self._session.join_transaction_mode = "control_fully"
        if self._joined is not None and not self._session.in_transaction():
            self._session.connection(bind_arguments={"bind": self.connection})
        return self._session

    def commit(self) -> None:
        """Keep it all."""
        (self._session or self.connection).commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Undo what is not committed, and let the session go."""
        if self._joined is not None:
            self._joined.__exit__(type_, error, trace)


@contextmanager
def transaction(state: WebhookState, *, writes: bool = True) -> Iterator[Transaction]:
    """A transaction that whoever began it commits.

    A host is asked for a session each time where its own session class chooses among databases, where it commits in two
    phases, and where it has put a connection in the place of an engine, as tests do.

    Args:
        state: the application's state.
        writes: False for one that only reads.
    """
    engine = state.engine
    if engine is None:
        with unit_of_work(state) as session:
            bind = state.store.bind_of(session)
            if not isinstance(bind, Engine) or type(session).get_bind is not FlaskSession.get_bind or session.twophase:
                connection = state.store.connection_of(session)
                if writes:
                    begin_writing(connection, state.write_turn)
                yield Transaction(state, connection, session)
                return
            engine = state.engine = bind
    with engine.connect() as connection, Transaction(state, connection) as begun:
        if writes:
            begin_writing(connection, state.write_turn)
        yield begun


@contextmanager
def core_transaction(state: WebhookState, *, writes: bool = True) -> Iterator[Connection]:
    """A transaction without a session, for what no handler takes part in; it commits at the end."""
    with transaction(state, writes=writes) as begun:
        yield begun.connection
        begun.commit()


@contextmanager
def single_statement(state: WebhookState) -> Iterator[Connection]:
    """A connection for one statement that writes, and others that only read or notify.

    PostgreSQL commits such a statement by itself, which saves two of three round trips. Elsewhere this is a
    transaction, which commits at the end.
    """
    engine = state.engine
    if engine is None or engine.dialect.name != "postgresql":
        with core_transaction(state) as connection:
            yield connection
        return
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def watch_commits(db: SQLAlchemy) -> None:
    """Let :func:`forbid_commit` work for sessions of this database object; calling it again changes nothing."""
    if not sa_event.contains(db.session, "before_commit", _before_commit):
        sa_event.listen(db.session, "before_commit", _before_commit)


@contextmanager
def forbid_commit(session: Session, connection: Connection) -> Iterator[None]:
    """Inside this block, commits of ``db.session`` in the current application context raise; savepoints are free.

    Args:
        session: ``db.session``, in a transaction.
        connection: the connection of that transaction.

    Raises:
        CommitForbidden: also at the end, where somebody hid the error, or ended the transaction in another way.
    """
    transaction, begun = session.get_transaction(), connection.get_transaction()
    setattr(g, _GUARD, [])
    try:
        yield
    finally:
        hidden = g.pop(_GUARD)
    if hidden:
        raise CommitForbidden(hidden[0])
    same = session.get_transaction() is transaction and connection.get_transaction() is begun
    if not same or begun is None or not begun.is_active or transaction is None or not transaction.is_active:
        raise CommitForbidden(
            "The handler ended the transaction of its event (rollback, close or remove); "
            "it must only add to db.session."
        )


def check_transaction(connection: Connection) -> None:
    """Refuse to commit a transaction that the database has given up on.

    PostgreSQL answers COMMIT with a silent ROLLBACK after a statement failed, even one whose error a handler hid;
    SQLite ends a transaction by itself when the disk is full.

    Raises:
        CommitForbidden: the commit would keep nothing.
    """
    driver = connection.connection.dbapi_connection
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    if connection.dialect.name == "postgresql":
        gone = status == _IN_FAILED_TRANSACTION
    else:
        gone = getattr(driver, "in_transaction", True) is False
    if gone:
        raise CommitForbidden(
            "A statement of a handler failed, and the handler hid its error; nothing of this transaction can be kept. "
            "Use db.session.begin_nested() around what may fail."
        )


def _before_commit(session: Session) -> None:
    if has_app_context() and _GUARD in g and session.get_nested_transaction() is None:
        message = (
            "The handler called db.session.commit(); the extension commits, together with the task's new status. "
            "Use db.session.flush() for generated keys, or begin_nested() for a savepoint."
        )
        getattr(g, _GUARD).append(message)
        raise CommitForbidden(message)


def trouble_of(error: exc.SQLAlchemyError) -> Trouble:
    """What a database error means; anything that is not clearly the statement's fault counts as unavailable."""
    if isinstance(error, exc.TimeoutError):  # the pool is exhausted
        return Trouble.BUSY
    if not isinstance(error, exc.DBAPIError):
        return Trouble.STATEMENT
    if error.connection_invalidated:
        return Trouble.RETRY
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    number = next(iter(getattr(error.orig, "args", ())), None)
    if state in _RETRY_SQLSTATES or number in _RETRY_MYSQL:
        return Trouble.RETRY
    if state in _BUSY_SQLSTATES or number in _BUSY_MYSQL:
        return Trouble.BUSY
    match getattr(error.orig, "sqlite_errorname", ""):
        case "SQLITE_BUSY_SNAPSHOT":
            return Trouble.RETRY
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            return Trouble.BUSY
        case "SQLITE_ERROR":  # no such table or column: SQLite calls it operational
            return Trouble.STATEMENT
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError):
        return Trouble.UNAVAILABLE
    return Trouble.STATEMENT
