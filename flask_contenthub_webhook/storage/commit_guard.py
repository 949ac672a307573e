"""Guards an event against handlers that end its transaction, or change the state of its task or delivery.

Only checks that cost nearly nothing are made: the text of each statement before it is executed, the state of the
transaction as the driver knows it, and the two objects. None of them sends a statement, unless a handler expired what
it was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from flask import g, has_app_context
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy import event as sa_event
from sqlalchemy.orm import Session

from .drivers import TransactionState, transaction_state

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["CommitForbidden", "StateChangeForbidden", "guard_transaction", "watch_commits"]

_GUARD = "contenthub_webhook_guard"
_END = r"COMMIT|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)"
_ENDS_TRANSACTION = re.compile(
    rf"(?>\s|--[^\n]*\n|/\*.*?\*/)*+(?:END|{_END})\b",
    re.IGNORECASE | re.DOTALL,
)
_ENDS_IT_LATER = re.compile(rf";\s*(?:{_END})\b", re.IGNORECASE)
"""A command after another one; not END, which also closes the body of a trigger or a function."""
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

    def __init__(self, name: str, instance: Any, attributes: Collection[str]) -> None:
        self._name = name
        self._instance = instance
        self._attributes = attributes
        self._before = {key: value for key, value in vars(instance).items() if key in attributes}

    def check(self, session: Session) -> None:
        """Find changes; what a statement of the handler's changed is read again if the session expired it."""
        state, now = inspect(self._instance), vars(self._instance)
        if state.deleted or self._instance in session.deleted:
            raise StateChangeForbidden(f"The handler deleted the {self._name} of its event.")
        if self._before.keys() - now.keys():
            session.refresh(self._instance, self._before)
        changed = {key for key, value in self._before.items() if now[key] != value}
        changed |= (state.committed_state.keys() & self._attributes) - self._before.keys()
        if changed:
            text = f"The handler assigned {self._name}.{min(changed)}, which only the extension changes."
            raise StateChangeForbidden(text)


class _Guard:
    """The transaction of one event while its handlers run, and what they did to it."""

    def __init__(self, session: Session, connection: Connection, task: Any, delivery: Any) -> None:
        self.connection = connection
        self._session = session
        self._transactions = session.get_transaction(), connection.get_transaction()
        self._rows = _Row("task", task, _TASK_STATE), _Row("delivery", delivery, _DELIVERY_STATE)
        self._found: CommitForbidden | None = None

    def refuse(self, message: str = _ENDED) -> None:
        """Raise, and remember the error, in case the handler hides it."""
        self._found = CommitForbidden(message)
        raise self._found

    def check(self) -> None:
        """Raise if the handler did something that could not be refused at once, or hid its refusal.

        Raises:
            CommitForbidden: the transaction has ended, or will keep nothing.
            StateChangeForbidden: the task or the delivery was deleted, or its state assigned.
        """
        if self._found is not None:
            raise self._found
        transactions = self._session.get_transaction(), self.connection.get_transaction()
        if transactions != self._transactions or not all(one is not None and one.is_active for one in transactions):
            raise CommitForbidden(_ENDED)
        state = transaction_state(self.connection)
        if state is TransactionState.NONE:
            raise CommitForbidden(_ENDED)
        if state is TransactionState.FAILED:
            raise CommitForbidden(_FAILED)
        for row in self._rows:
            row.check(self._session)


_guarded: ContextVar[_Guard | None] = ContextVar(_GUARD, default=None)
_watched: WeakSet[Engine] = WeakSet()


def watch_commits(db: SQLAlchemy) -> None:
    """Let :func:`guard_transaction` see commits of this object's sessions; calling it again changes nothing."""
    if not sa_event.contains(db.session, "before_commit", _before_commit):
        sa_event.listen(db.session, "before_commit", _before_commit)


def _watch_statements(engine: Engine) -> None:
    if engine not in _watched:
        sa_event.listen(engine, "before_cursor_execute", _before_statement)
        sa_event.listen(engine, "commit", _before_connection_commit)
        _watched.add(engine)


@contextmanager
def guard_transaction(
    session: Session, connection: Connection, *, task: Any, delivery: Any
) -> Iterator[Callable[[], None]]:
    """Raise :class:`CommitForbidden` for anything in this block that would end the transaction; savepoints are allowed.

    Args:
        session: ``db.session``, in a transaction.
        connection: the connection of that transaction.
        task: the object that handlers get.
        delivery: likewise.

    Yields:
        A function that raises if a handler did so unnoticed, hid the error, or changed the state of the rows.
    """
    _watch_statements(connection.engine)
    guard = _Guard(session, connection, task, delivery)
    setattr(g, _GUARD, guard)
    token = _guarded.set(guard)
    try:
        yield guard.check
    finally:
        _guarded.reset(token)
        g.pop(_GUARD, None)


def _before_statement(connection: Connection, _: Any, statement: str, *__: Any) -> None:
    guard = _guarded.get()
    if guard is None or guard.connection is not connection:
        return
    if _ends_transaction(statement) or transaction_state(connection) is TransactionState.NONE:
        guard.refuse()


def _ends_transaction(statement: str) -> bool:
    """Tell whether one of the commands in a text ends the transaction; PostgreSQL takes several at once."""
    if _ENDS_TRANSACTION.match(statement):
        return True
    return ";" in statement and _ENDS_IT_LATER.search(_QUOTED.sub(" ", statement)) is not None


def _before_connection_commit(connection: Connection) -> None:
    guard = _guarded.get()
    if guard is not None and guard.connection is connection:
        connection.connection.rollback()  # SQLAlchemy lets go of a transaction whose commit failed, still open
        guard.refuse()


def _before_commit(session: Session) -> None:
    guard: _Guard | None = g.get(_GUARD) if has_app_context() else None
    if guard is not None and session.get_nested_transaction() is None:
        guard.refuse(_COMMITTED)
