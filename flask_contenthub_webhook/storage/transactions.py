"""Transactions: the :class:`Database` of one application begins them, on the engine of our tables."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.exc import SQLAlchemyError, StatementError
from sqlalchemy.orm import Session
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from ..core.outages import Outage
from ..core.per_process import PerProcess
from .database_errors import Trouble, is_connection_useless, trouble_of
from .drivers import MYSQL, commits_by_itself, knows_autocommit, set_autocommit
from .encoding import check_encoding, is_checked
from .host_session import OURS, context_of_ours, is_exhausted, make_room
from .mysql_session import commit_each, connect, make_ours, make_session_ours, using_ours
from .sqlite_lock import begin_writing

if TYPE_CHECKING:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    from .forwards import Outbox
    from .store import Store

__all__ = ["Database", "Transaction"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Database:
    """The database of one application.

    Args:
        app: the application.
        db: the host's Flask-SQLAlchemy object.
        store: the statements over tasks and deliveries.
        outbox: the statements over forwards and their tries.
    """

    def __init__(self, app: Flask, db: SQLAlchemy, store: Store, outbox: Outbox) -> None:
        self.app = app
        self.db = db
        self.store = store
        self.outbox = outbox
        self.outage = Outage("The database")
        texts = store.tasks, store.deliveries, outbox.forwards, outbox.attempts
        self._tables: tuple[Table, ...] = tuple(model.table for model in texts)
        self._seen: tuple[Engine, Mapping[Any, Any], Any, Any] | None = None  # the engine, and what it depends on
        self._is_used = False
        self._write_turn = PerProcess(self._begin_process)

    @property
    def _engine(self) -> Engine | None:
        """The engine of our tables, once it is known that no session chooses another; a test may replace either."""
        if self._seen is None:
            return None
        engine, engines, key, sessions = self._seen
        return engine if engines.get(key) is engine and self.db.session is sessions else None

    @property
    def task_model(self) -> type[Any]:
        """The host's task model, or the default one."""
        return self.store.tasks.model

    @property
    def delivery_model(self) -> type[Any]:
        """The host's delivery model, or the default one."""
        return self.store.deliveries.model

    def _begin_process(self) -> threading.Lock:
        """Drop the connections that a forked child inherited, and pools whose locks may be held in the parent."""
        if self._is_used:
            with self.app.app_context():
                for engine in self.db.engines.values():
                    if not isinstance(engine.pool, StaticPool | SingletonThreadPool):  # a database in memory
                        engine.dispose(close=False)
        self._is_used = True
        return threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that only reads."""
        with self.transaction(writes=False) as transaction:
            yield transaction.connection
            transaction.commit()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Begin a transaction without a session, for work in which no handler takes part; commit at the end."""
        with self.transaction() as transaction:
            yield transaction.connection
            transaction.commit()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run some work in a transaction without a session, and commit.

        It runs a second time if that may succeed at once: after a restart of the database, the first pooled connection
        is dead.
        """
        return _at_most_twice(self._commit, work)

    def ask(self, work: Callable[[Connection], T]) -> T:
        """Run some work that only reads, as in :meth:`write`."""
        return _at_most_twice(self._read, work)

    def write_one(self, work: Callable[[Connection], T]) -> T:
        """Run one statement that writes, and others that only read or notify, as in :meth:`write`.

        A server commits such a statement by itself, which saves two of three round trips to PostgreSQL, and one of
        three to MariaDB. On SQLite this is a transaction; so it is where the host listens for the begin of one or for a
        new connection, and may have set there what ends with a transaction.
        """
        return _at_most_twice(self._commit_each, work)

    def _commit(self, work: Callable[[Connection], T]) -> T:
        with self.begin() as connection:
            return work(connection)

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self.read() as connection:
            return work(connection)

    def _commit_each(self, work: Callable[[Connection], T]) -> T:
        engine = self._engine
        if engine is None or not knows_autocommit(engine.dialect) or _is_prepared_by_host(engine):
            return self._commit(work)
        make_room(self.db, self.store.bind_of)
        with connect(engine, commits_each=True) as connection:
            try:
                if engine.dialect.name in MYSQL:
                    make_ours(connection, self.store.lock_timeout)
                    commit_each(connection)
                else:
                    connection.execution_options(isolation_level="AUTOCOMMIT")
                check_encoding(connection, self._tables)
                done = work(connection)
            except SQLAlchemyError as error:
                _drop_useless(connection, error)
                raise
        if self.outage.is_on:
            self.outage.worked(logger)
        return done

    @contextmanager
    def session(self, *, has_connection: bool = False) -> Iterator[Session]:
        """Open ``db.session`` in a new application context; roll back at the end what is not committed.

        Handlers get the session of this transaction, without anything that the host had begun before. Objects stay
        readable after the commit.

        Args:
            has_connection: True if it joins a connection that is there already.
        """
        if not has_connection:
            make_room(self.db, self.store.bind_of)
        with context_of_ours(self.app, self.db), nullcontext() if has_connection else using_ours():
            session = self.db.session()
            session.info[OURS] = True
            session.expire_on_commit, session.autobegin = False, True
            if not has_connection:
                dialect = self.store.bind_of(session).dialect
                make_session_ours(session, dialect, self.store.lock_timeout)
                if not is_checked(dialect):
                    event.listen(session, "after_begin", lambda _session, _, begun: check_encoding(begun, self._tables))
            try:
                yield session
            except StatementError as error:
                error.hide_parameters = True
                raise

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[Transaction]:
        """Begin a transaction; the caller commits.

        It uses the engine directly, unless the host's session class chooses among databases, commits in two phases, or
        is bound to a connection, as in tests.
        """
        engine = self._engine
        if engine is None or is_exhausted(engine.pool):
            make_room(self.db, self.store.bind_of)
        if engine is None:
            with self.session() as session:
                bind = self.store.bind_of(session)
                chooses = type(session).get_bind is not FlaskSession.get_bind
                if not isinstance(bind, Engine) or chooses or session.twophase:
                    connection = self.store.connection_of(session)
                    with Transaction(self, connection, session) as transaction:
                        if writes:
                            self._begin_writing(connection)
                        check_encoding(connection, self._tables)
                        yield transaction
                    return
                key = self.store.tasks.table.metadata.info.get("bind_key")
                self._seen = bind, self.db.engines, key, self.db.session
                engine = bind
        with connect(engine) as connection, Transaction(self, connection) as transaction:
            if writes:
                self._begin_writing(connection)
            check_encoding(connection, self._tables)
            yield transaction

    def _begin_writing(self, connection: Connection) -> None:
        begin_writing(connection, self._write_turn.value)
        make_ours(connection, self.store.lock_timeout)


class Transaction:
    """A transaction on the connection of our tables. A session, which costs as much as a statement, joins on demand.

    Args:
        database: the application's database.
        connection: nothing has begun on it yet.
        session: the session that it belongs to already, if any.
    """

    def __init__(self, database: Database, connection: Connection, session: Session | None = None) -> None:
        self.connection = connection
        self._database = database
        self._session = session
        self._joined: AbstractContextManager[Session] | None = None
        self._in_autocommit: Any = None  # the driver's connection

    def session(self) -> Session:
        """Join ``db.session`` to this transaction."""
        if self._session is None:
            self._joined = self._database.session(has_connection=True)
            self._session = self._joined.__enter__()
            self._session.join_transaction_mode = "control_fully"
        if self._joined is not None and not self._session.in_transaction():
            self._session.connection(bind_arguments={"bind": self.connection})
        return self._session

    def commit(self) -> None:
        """Keep everything that was written."""
        (self._session or self.connection).commit()
        if self._database.outage.is_on:
            self._database.outage.worked(logger)

    def __enter__(self) -> Self:
        """Make a server keep all or nothing even if the host's engine is in AUTOCOMMIT; nothing was sent yet."""
        if commits_by_itself(self.connection):
            self._in_autocommit = self.connection.connection.dbapi_connection
            set_autocommit(self._in_autocommit, False)
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Roll back what is not committed, and release the session."""
        try:
            if self._joined is not None:
                self._joined.__exit__(type_, error, trace)
        except SQLAlchemyError as failed:
            error = failed
            raise
        finally:
            if self._in_autocommit is not None:
                with suppress(Exception):  # the connection may be lost; then nobody gets it again
                    self._in_autocommit.rollback()
                    set_autocommit(self._in_autocommit, True)
            if isinstance(error, SQLAlchemyError):
                _drop_useless(self.connection, error)


def _at_most_twice(run: Callable[[Callable[[Connection], T]], T], work: Callable[[Connection], T]) -> T:
    try:
        return run(work)
    except SQLAlchemyError as error:
        if trouble_of(error) is not Trouble.RETRY:
            raise
    return run(work)


def _is_prepared_by_host(engine: Engine) -> bool:
    """Tell whether the host runs statements of its own before ours, such as the SET LOCAL of row-level security."""
    return bool(engine.dispatch.begin or engine.dispatch.engine_connect)


def _drop_useless(connection: Connection, error: SQLAlchemyError) -> None:
    """Hide the parameters of an error; empty the pool if its server is gone, or no longer accepts writes."""
    if isinstance(error, StatementError):
        error.hide_parameters = True
    if is_connection_useless(error):
        connection.invalidate(error)
        connection.engine.dispose()
