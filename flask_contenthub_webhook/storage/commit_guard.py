"""Guards an event against handlers that end its transaction, or change the state of its task or delivery.

Only checks that cost nearly nothing are made: the text of each statement before it is executed, the state of the
transaction as the driver knows it, and the two objects. None of them sends a statement, unless a handler expired what
it was given, or the driver keeps the state for itself, as mysqlclient does: then a savepoint tells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextvars import ContextVar, Token
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

from flask import g, has_app_context
from sqlalchemy import Connection, Engine, ExceptionContext
from sqlalchemy import event as sa_event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state

from .database_errors import ends_transaction, is_lock_timeout
from .drivers import MYSQL, TransactionState, error_code, transaction_state

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["CommitForbidden", "StateChangeForbidden", "TransactionGuard", "watch_commits"]

_END = r"COMMIT|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)"
_ENDS_TRANSACTION = re.compile(
    rf"(?>\s|--[^\n]*\n|/\*.*?\*/)*+(?:END|{_END})\b",
    re.IGNORECASE | re.DOTALL,
)
_ENDS_IT_LATER = re.compile(rf";\s*(?:{_END})\b", re.IGNORECASE)
"""A command after another one; not END, which also closes the body of a trigger or a function."""
_COMMITS_FIRST = re.compile(
    r"(?>\s|--[^\n]*\n|\#[^\n]*\n|/\*.*?\*/)*+(?:BEGIN|START\s+TRANSACTION|SET\s+(?:\w+\s+|@@(?:\w+\.)?)?AUTOCOMMIT"
    r"|(?:CREATE|DROP)(?!\s+(?:OR\s+REPLACE\s+)?TEMPORARY)|ALTER|RENAME|TRUNCATE|(?:UN)?LOCK\s+TABLES?|ANALYZE|OPTIMIZE"
    r"|REPAIR|CHECK\s+TABLE|CACHE\s+INDEX|LOAD\s+INDEX|FLUSH|RESET|GRANT|REVOKE|INSTALL|UNINSTALL|XA)\b",
    re.IGNORECASE | re.DOTALL,
)
"""Statements before which MySQL and MariaDB commit by themselves."""
_QUOTED = re.compile(
    r"""\bE'(?:[^'\\]|\\.|'')*'|'[^']*'|"[^"]*"|(\$\w*\$).*?\1|--[^\n]*|/\*.*?\*/""",
    re.IGNORECASE | re.DOTALL,
)
"""Text and comments, in which a word is not a command."""
_TASK_STATE = frozenset(
    {
        "task_id",
        "creator_task_id",
        "earlier_creator_task_ids",
        "status",
        "previous_status",
        "attempt",
        "version",
        "next_submit_at",
        "submitting_since",
        "submit_tries",
        "submitted_at",
        "next_poll_at",
        "polls",
        "times_missing",
        "finished_at",
    }
)
"""Attributes of a task by which the extension decides; others, such as ``topic``, a handler may change."""
_DELIVERY_STATE = frozenset(
    {
        "task_id",
        "event",
        "attempt",
        "source",
        "scheme",
        "message_id",
        "verdict",
        "tries",
        "next_retry_at",
        "claimed_until",
        "replay_of",
        "body",
        "body_digest",
    }
)
"""The same of a delivery: what tells a repeat, what is tried again, and with what."""

_ENDED = (
    "The handler ended the transaction of its event (commit, rollback, close or remove). "
    "It must only add to db.session."
)
_COMMITTED = (
    "The handler called db.session.commit(); the extension commits, together with the task's new status. "
    "Use db.session.flush() for generated keys, or begin_nested() for a savepoint."
)
_COMMITTED_FIRST = (
    "The handler executed a statement before which MySQL and MariaDB commit by themselves, such as CREATE, ALTER or "
    "LOCK TABLES. Change tables elsewhere; CREATE TEMPORARY TABLE is allowed."
)
_FAILED = (
    "A statement of a handler failed, and the handler hid its error; nothing of this transaction can be kept. "
    "Use db.session.begin_nested() around what may fail."
)


class CommitForbidden(RuntimeError):
    """A handler ended the transaction of its event, or tried to."""


class StateChangeForbidden(RuntimeError):
    """A handler deleted its task or delivery, or assigned an attribute by which the extension decides."""


class _Row:
    """The object of a row, with the values that a handler must not change."""

    def __init__(self, name: str, instance: Any, attributes: frozenset[str]) -> None:
        values = vars(instance)
        self._name = name
        self._instance = instance
        self._state = instance_state(instance)
        self._loaded, self._unloaded, self._read = _parted(attributes, tuple(values))
        self._values = self._read(values)

    def check(self, session: Session, to_delete: Collection[Any]) -> None:
        """Find changes; what a statement of the handler's changed is read again if the session expired it."""
        if self._state.deleted or (to_delete and self._instance in to_delete):
            raise StateChangeForbidden(f"The handler deleted the {self._name} of its event.")
        now = vars(self._instance)
        try:
            values = self._read(now)
        except KeyError:
            session.refresh(self._instance, self._loaded)
            values = self._read(now)
        if values != self._values:
            self._refuse({key for key, value in zip(self._loaded, self._values, strict=True) if now[key] != value})
        if assigned := self._state.committed_state.keys() & self._unloaded:
            self._refuse(assigned)

    def _refuse(self, changed: Collection[str]) -> NoReturn:
        text = f"The handler assigned {self._name}.{min(changed)}, which only the extension changes."
        raise StateChangeForbidden(text)


@lru_cache(maxsize=64)
def _parted(
    attributes: frozenset[str], loaded: tuple[str, ...]
) -> tuple[list[str], frozenset[str], Callable[[dict[str, Any]], tuple[Any, ...]]]:
    """Return the attributes that are loaded, those that are not, and what reads the former from an object's values."""
    keys = [key for key in loaded if key in attributes]
    return keys, attributes.difference(keys), itemgetter(*keys)


class TransactionGuard:
    """The transaction of one event while its handlers run, and what they did to it.

    In this block, anything that would end the transaction raises :class:`CommitForbidden`; savepoints are allowed.

    Args:
        session: ``db.session``, in a transaction.
        connection: the connection of that transaction.
        task: the object that handlers get.
        delivery: likewise.
    """

    def __init__(self, session: Session, connection: Connection, *, task: Any, delivery: Any) -> None:
        self.connection = connection
        self.session = session
        self.app_context = _app_context()
        self._dialect, self._driver = connection.dialect.name, cast("Any", connection.connection.dbapi_connection)
        self._transactions = session.get_transaction(), connection.get_transaction()
        self._rows = _Row("task", task, _TASK_STATE), _Row("delivery", delivery, _DELIVERY_STATE)
        self._is_marked = self._dialect in MYSQL and self.state() is TransactionState.UNKNOWN
        self._found: CommitForbidden | None = None
        self.lost: BaseException | None = None
        """The error of the database that ended the transaction, even if the handler hid it."""
        self._token: Token[TransactionGuard | None] | None = None

    def __enter__(self) -> Self:
        if self._is_marked:
            self._execute(f"SAVEPOINT {_MARK}")
        _watch_statements(self.connection.engine)
        self.connection.__dict__[_COMMIT] = self._refuse_commit
        self._token = _guarded.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _guarded.reset(self._token)
        self.connection.__dict__.pop(_COMMIT, None)

    def refuse(self, message: str = _ENDED) -> NoReturn:
        """Raise, and remember the error, in case the handler hides it."""
        self._found = CommitForbidden(message)
        raise self._found

    def _refuse_commit(self) -> None:
        self.connection.connection.rollback()  # SQLAlchemy lets go of a transaction whose commit failed, still open
        self.refuse()

    def state(self) -> TransactionState:
        """Return the state of the transaction as the driver knows it."""
        return transaction_state(self._dialect, self._driver)

    def before_statement(self, statement: str) -> None:
        """Refuse what would end the transaction, and anything after the database has ended it."""
        if self.lost is not None:
            raise self.lost
        if _ends_transaction(statement) or self.state() is TransactionState.NONE:
            self.refuse()
        if self._dialect in MYSQL and _COMMITS_FIRST.match(statement):
            self.refuse(_COMMITTED_FIRST)

    def after_error(self, context: ExceptionContext) -> None:
        """Note an error with which the database has ended the transaction: no savepoint brings it back."""
        error = context.original_exception
        ended = context.is_disconnect or ends_transaction(error) or self.state() is TransactionState.NONE
        if isinstance(error, OSError):  # pg8000 lets some through, of a socket that the server has closed
            self.lost = self.lost or DBAPIError(context.statement, None, error, connection_invalidated=True)
        elif ended or (is_lock_timeout(error) and self._rolls_back_on_timeout()):
            self.lost = self.lost or context.sqlalchemy_exception or error

    def _rolls_back_on_timeout(self) -> bool:
        return bool(self._execute("SELECT @@innodb_rollback_on_timeout")[0])

    def _execute(self, statement: str) -> Any:
        """Run a statement that no listener sees, and return its row, if any."""
        cursor = self._driver.cursor()
        try:
            cursor.execute(statement)
            return cursor.fetchone()
        finally:
            cursor.close()

    def check(self) -> None:
        """Raise if a handler did something that could not be refused at once, or hid its refusal.

        Raises:
            CommitForbidden: the transaction has ended, or will keep nothing.
            StateChangeForbidden: the task or the delivery was deleted, or its state assigned.
            DBAPIError: the database ended the transaction, and the handler hid the error; the event may be tried again.
        """
        if self.lost is not None:
            raise self.lost
        if self._found is not None:
            raise self._found
        ours, drivers = self.session.get_transaction(), self.connection.get_transaction()
        if ours is None or drivers is None or (ours, drivers) != self._transactions:
            raise CommitForbidden(_ENDED)
        if not (ours.is_active and drivers.is_active):
            raise CommitForbidden(_ENDED)
        state = self.state()
        if state is TransactionState.NONE:
            raise CommitForbidden(_ENDED)
        if state is TransactionState.FAILED:
            raise CommitForbidden(_FAILED)
        to_delete = self.session.deleted
        for row in self._rows:
            row.check(self.session, to_delete)

    def check_mark(self) -> None:
        """Raise if the transaction is no longer the one that was marked, where its driver does not tell.

        Raises:
            CommitForbidden: the mark has gone, and with it everything that this event had written.
        """
        if not self._is_marked:
            return
        try:
            self._execute(f"RELEASE SAVEPOINT {_MARK}")
        except Exception as error:
            if error_code(error) == _NO_SAVEPOINT:
                raise CommitForbidden(_ENDED) from error
            # A lost connection is the COMMIT's to find.


_MARK = "contenthub_webhook_event"
_NO_SAVEPOINT = 1305
_COMMIT = "_commit_impl"
"""The method that every commit of a connection goes through. An event of SQLAlchemy would do, but one listener on the
engine makes each statement of the application slower. If the name changes, :meth:`TransactionGuard.check` still finds
the commit, too late to undo it; a test would fail."""

_guarded: ContextVar[TransactionGuard | None] = ContextVar("contenthub_webhook_guard", default=None)
_WATCHED = "contenthub_webhook_watched"


def watch_commits(db: SQLAlchemy) -> None:
    """Let :class:`TransactionGuard` see commits of this object's sessions; calling it again changes nothing."""
    if not sa_event.contains(db.session, "before_commit", _before_commit):
        sa_event.listen(db.session, "before_commit", _before_commit)


def _watch_statements(engine: Engine) -> None:
    """Listen where it costs the least: at the dialect, not at the engine."""
    if _WATCHED not in vars(engine.dialect):
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            sa_event.listen(engine, name, _before_statement)
        sa_event.listen(engine, "handle_error", _after_error)
        vars(engine.dialect)[_WATCHED] = True


def _before_statement(_: object, statement: str, *rest: Any) -> None:
    guard, context = _guarded.get(), rest[-1]
    if guard is None or context.root_connection is not guard.connection:
        return
    guard.before_statement(statement)


def _after_error(context: ExceptionContext) -> None:
    guard = _guarded.get()
    if guard is not None and context.connection is guard.connection:
        guard.after_error(context)


def _before_commit(session: Session) -> None:
    guard = _guarded.get()
    if guard is None or session.get_nested_transaction() is not None:
        return
    if has_app_context() and _app_context() is guard.app_context:  # to which db.session belongs, whatever a handler did
        guard.refuse(_COMMITTED)


def _app_context() -> object:
    return g._get_current_object()


def _ends_transaction(statement: str) -> bool:
    """Tell whether one of the commands in a text ends the transaction; PostgreSQL takes several at once."""
    if _ENDS_TRANSACTION.match(statement):
        return True
    return ";" in statement and _ENDS_IT_LATER.search(_QUOTED.sub(" ", statement)) is not None
