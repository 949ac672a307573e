"""The session of the host's request, beside which we need one of our own, and a second connection from the same pool.

A ``before_request`` function that reads the current user leaves a connection in ``db.session`` until the request ends.
When as many requests hold one as the pool has, each would wait for a second one until the pool gives up. So when none
is left, what the host has only read ends early: its connection is free for us, and its objects stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from flask import has_app_context
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import QueuePool

from .drivers import TransactionState, transaction_state

if TYPE_CHECKING:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["OURS", "capacity", "context_of_ours", "is_exhausted", "make_room"]

OURS = "contenthub_webhook"
"""Marks a session of ours in its ``info``: it is never ended from outside."""

_HAS_ONLY_READ = sa.text(
    "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid'"
    " AND mode NOT IN ('AccessShareLock', 'SIReadLock'))"
)
"""PostgreSQL: whatever a transaction would lose at its end, such as a change or a lock of any kind, shows as a lock."""


def make_room(db: SQLAlchemy, bind_of: Callable[[Session], sa.Engine | sa.Connection]) -> None:
    """End the transaction of the host's session if the pool is exhausted and the transaction has only read.

    Args:
        db: the host's Flask-SQLAlchemy object.
        bind_of: returns what a session uses for our tables.
    """
    session = _host_session(db)
    if session is None or not session.in_transaction() or session.info.get(OURS):
        return
    bind = bind_of(session)
    if not isinstance(bind, sa.Engine) or not is_exhausted(bind.pool):
        return
    expires = session.expire_on_commit
    with suppress(SQLAlchemyError):  # its connection may be lost, which the host learns in its own time
        if _has_only_read(session, bind.pool):
            session.expire_on_commit = False
            session.commit()  # unlike a rollback, it leaves the objects as they are
    session.expire_on_commit = expires


@contextmanager
def context_of_ours(app: Flask, db: SQLAlchemy) -> Iterator[None]:
    """Push an application context in which nobody has used ``db.session`` yet.

    A new context alone gives no new session if the host's ``scopefunc`` is that of the thread, or if its tests have put
    a ``scoped_session`` in the place of ``db.session``. There, the host's own is kept aside until the context ends,
    which would otherwise also remove it.

    Flask-SQLAlchemy knows a context by its address, and forgets a session only if it could be closed. What is left of a
    context that has ended is therefore dropped, and nothing is left of ours.
    """
    scoped: Any = db.session
    if not isinstance(scoped, scoped_session):
        with app.app_context():
            yield
        return
    registry: Any = scoped.registry
    outside, hosts = _session_of(registry), None
    try:
        with app.app_context():
            found = _session_of(registry)
            if found is not None:
                hosts = found if found is outside else None
                registry.clear()
            try:
                yield
            finally:
                try:
                    scoped.remove()
                finally:
                    registry.clear()
    finally:
        if hosts is not None:
            registry.set(hosts)


def _session_of(registry: Any) -> Session | None:
    try:
        session: Session | None = registry() if registry.has() else None
    except RuntimeError:  # there is no context yet
        return None
    return session


def capacity(pool: sa.Pool) -> int | None:
    """Return the most connections that a pool gives at once; None if there is no limit."""
    most_more = getattr(pool, "_max_overflow", -1)
    return pool.size() + int(most_more) if isinstance(pool, QueuePool) and most_more >= 0 else None


def _host_session(db: SQLAlchemy) -> Session | None:
    """Return ``db.session`` of the current context, unless nobody has used it."""
    scoped: Any = db.session
    if not has_app_context() or not isinstance(scoped, scoped_session) or not scoped.registry.has():
        return None
    session: Session = scoped()
    return session


def is_exhausted(pool: sa.Pool) -> bool:
    """Return True if a pool has given all the connections that it may."""
    most = capacity(pool)
    return most is not None and isinstance(pool, QueuePool) and pool.checkedout() >= most


def _has_only_read(session: Session, pool: sa.Pool) -> bool:
    """Tell whether the session holds a connection of the pool, and would lose nothing by ending its transaction."""
    transaction = session.get_transaction()
    if transaction is None or not transaction.is_active or session.in_nested_transaction() or session.twophase:
        return False
    if session.new or session.dirty or session.deleted:
        return False
    held = {entry[0] for entry in getattr(transaction, "_connections", {}).values()}
    holds_ours = any(connection.engine.pool is pool for connection in held)
    return holds_ours and all(_is_harmless_to_end(connection) for connection in held)


def _is_harmless_to_end(connection: sa.Connection) -> bool:
    if connection.invalidated:
        return False
    state = transaction_state(connection.dialect.name, connection.connection.dbapi_connection)
    if state is TransactionState.OPEN and connection.dialect.name == "postgresql":
        return bool(connection.scalar(_HAS_ONLY_READ))
    return state is TransactionState.NONE  # on SQLite none is open before something is written
