"""The settings of a session of MySQL or MariaDB while it is ours: bounded waits for locks, and READ COMMITTED.

By default a statement waits 50 s for a row, and a day for a table; and REPEATABLE READ locks gaps between rows, so that
claims, forwards and purges run into each other, and answers a row that changed meanwhile with an error
(``innodb_snapshot_isolation``). The statements of this package are written for READ COMMITTED, as PostgreSQL has it.

These are settings of the session, not of the transaction. A pooled connection keeps them while only we use it, which
costs no callback a statement; it gets its own back when somebody else takes it from the pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from .drivers import MYSQL

__all__ = ["connect", "make_ours", "make_session_ours", "using_ours"]

_OURS = "contenthub_webhook_session"
_WAITS = ("innodb_lock_wait_timeout", "lock_wait_timeout")
"""Of rows and of tables, in whole seconds."""

_is_ours: ContextVar[bool] = ContextVar("contenthub_webhook_connects", default=False)


@contextmanager
def using_ours() -> Iterator[None]:
    """Take connections from the pool as ours, which keep our settings if they have them."""
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


def connect(engine: Engine) -> Connection:
    """Open a connection of ours."""
    if engine.dialect.name not in MYSQL:
        return engine.connect()
    with using_ours():
        return engine.connect()


def make_ours(connection: Connection, longest_wait: float) -> None:
    """Give a session our settings; stricter ones of its own stay, and its isolation if its log needs that.

    Args:
        connection: nothing was executed in its transaction yet.
        longest_wait: seconds for a lock, rounded to whole ones, and at least one.
    """
    dialect = connection.dialect
    if dialect.name not in MYSQL or _OURS in connection.info:
        return
    isolation = "tx_isolation" if getattr(dialect, "is_mariadb", False) else "transaction_isolation"
    settings = (*_WAITS, isolation)
    longest = max(1, round(longest_wait))
    values = [f"LEAST(@@SESSION.{wait}, {longest})" for wait in _WAITS]
    values.append(
        f"IF(@@SESSION.{isolation} = 'REPEATABLE-READ' AND NOT (@@log_bin AND @@SESSION.binlog_format = 'STATEMENT'),"
        f" 'READ-COMMITTED', @@SESSION.{isolation})"
    )
    keep = [f"{_kept(setting)} = @@SESSION.{setting}" for setting in settings]
    change = [f"SESSION {setting} = {value}" for setting, value in zip(settings, values, strict=True)]
    restore = [f"SESSION {setting} = {_kept(setting)}" for setting in settings]
    engine = connection.engine
    if _OURS not in vars(engine.dialect):
        event.listen(engine, "checkout", _give_back)
        vars(engine.dialect)[_OURS] = True
    connection.exec_driver_sql(f"SET {', '.join(keep + change)}")
    connection.info[_OURS] = f"SET {', '.join(restore)}"


def make_session_ours(session: Session, dialect: Dialect, longest_wait: float) -> None:
    """Give each connection that a session of SQLAlchemy's takes our settings, as in :func:`make_ours`."""
    if dialect.name in MYSQL:
        event.listen(session, "after_begin", lambda _session, _transaction, begun: make_ours(begun, longest_wait))


def _kept(setting: str) -> str:
    """Return the variable of the session in which its own value of a setting is kept."""
    return f"@contenthub_{setting}"


def _give_back(driver: Any, entry: ConnectionPoolEntry, _: object) -> None:
    """Give a session its own settings back; only somebody else's check-out of one that we used costs a statement."""
    if _is_ours.get() or not (restore := entry.info.pop(_OURS, None)):
        return
    try:
        cursor = driver.cursor()
        cursor.execute(restore)
        cursor.close()
    except Exception as error:
        raise DisconnectionError("It was lost in the pool.") from error  # the pool opens another one
