"""Guards the transaction of an event against commits and rollbacks by the host's handlers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flask import g, has_app_context
from sqlalchemy import Connection
from sqlalchemy import event as sa_event
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["CommitForbidden", "check_transaction", "forbid_commit", "watch_commits"]

_GUARD = "contenthub_webhook_forbidden_commits"

_IN_FAILED_TRANSACTION = 3
"""libpq's PQTRANS_INERROR, as psycopg and psycopg2 report it."""


class CommitForbidden(RuntimeError):
    """A handler called commit() or rollback() on db.session inside the transaction of its event."""


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
