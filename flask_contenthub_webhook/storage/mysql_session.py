"""The settings of a session of MySQL or MariaDB while it is ours.

By default a statement waits 50 s for a row, and a day for a table; and REPEATABLE READ locks gaps between rows, so that
claims, forwards and purges run into each other, and answers a row that changed meanwhile with an error
(``innodb_snapshot_isolation``). The statements of this package are written for READ COMMITTED, as PostgreSQL has it.
Without a strict mode the server cuts off what a column cannot hold, and under another character set than utf8mb4 the
driver cannot even send it.

These are settings of the session, not of the transaction. A pooled connection keeps them while only we use it, which
costs no callback a statement; it gets its own back when somebody else takes it from the pool. So it is with autocommit,
which is on from a single statement of ours until one of us needs a transaction.
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

from .drivers import MYSQL, character_set, commits_by_itself, set_character_set
from .packet_limit import PACKET, watch_packets

__all__ = ["connect", "end_commit_each", "make_ours", "make_ours_to_commit_each", "make_session_ours", "using_ours"]

_OURS = "contenthub_webhook_session"
_COMMITS_EACH = "contenthub_webhook_autocommit"
_HOSTS = "contenthub_webhook_character_set"
_CHARACTER_SET = "utf8mb4"
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
    if connection.dialect.name in MYSQL:
        end_commit_each(connection)
        if _OURS not in connection.info:
            _change_settings(connection, longest_wait)


def make_ours_to_commit_each(connection: Connection, longest_wait: float) -> None:
    """Give a session our settings, and let it commit each statement until :func:`make_ours` or somebody else needs it.

    Args:
        connection: as in :func:`make_ours`, of a driver that knows whether it commits each statement.
        longest_wait: as in :func:`make_ours`.
    """
    if _OURS not in connection.info:
        _change_settings(connection, longest_wait)
    if not commits_by_itself(connection):
        connection.exec_driver_sql("SET autocommit = 1")
        connection.info[_COMMITS_EACH] = True


def end_commit_each(connection: Connection) -> bool:
    """Let a session no longer commit each statement; False if it was not we who let it."""
    if not connection.info.get(_COMMITS_EACH):
        return False
    connection.exec_driver_sql("SET autocommit = 0")
    del connection.info[_COMMITS_EACH]
    return True


def _change_settings(connection: Connection, longest_wait: float) -> None:
    dialect = connection.dialect
    isolation = "tx_isolation" if getattr(dialect, "is_mariadb", False) else "transaction_isolation"
    settings = (*_WAITS, isolation, "sql_mode")
    longest = max(1, round(longest_wait))
    values = [f"LEAST(@@SESSION.{wait}, {longest})" for wait in _WAITS]
    values.append(
        f"IF(@@SESSION.{isolation} = 'REPEATABLE-READ' AND NOT (@@log_bin AND @@SESSION.binlog_format = 'STATEMENT'),"
        f" 'READ-COMMITTED', @@SESSION.{isolation})"
    )
    values.append("CONCAT_WS(',', NULLIF(@@SESSION.sql_mode, ''), 'STRICT_TRANS_TABLES')")
    keep = [f"{_kept(setting)} = @@SESSION.{setting}" for setting in settings]
    change = [f"SESSION {setting} = {value}" for setting, value in zip(settings, values, strict=True)]
    restore = [f"SESSION {setting} = {_kept(setting)}" for setting in settings]
    engine = connection.engine
    if _OURS not in vars(engine.dialect):
        event.listen(engine, "checkout", _give_back)
        watch_packets(engine)
        vars(engine.dialect)[_OURS] = True
    if PACKET not in connection.info:  # it stays the same until the session ends
        connection.info[PACKET] = connection.exec_driver_sql("SELECT @@SESSION.max_allowed_packet").scalar_one()
    driver = connection.connection.dbapi_connection
    connection.info[_OURS] = f"SET {', '.join(restore)}"
    if (own := character_set(driver)) != _CHARACTER_SET:
        collation = connection.exec_driver_sql("SELECT @@SESSION.collation_connection").scalar_one()
        connection.info[_HOSTS] = own, collation
        set_character_set(driver, _CHARACTER_SET)
    connection.exec_driver_sql(f"SET {', '.join(keep + change)}")


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
    if entry.info.pop(_COMMITS_EACH, False):
        restore += ", autocommit = 0"
    try:
        cursor = driver.cursor()
        cursor.execute(restore)
        if hosts := entry.info.pop(_HOSTS, None):
            own, collation = hosts
            set_character_set(driver, own)
            cursor.execute(f"SET SESSION collation_connection = {collation}")
        cursor.close()
    except Exception as error:
        raise DisconnectionError("It was lost in the pool.") from error  # the pool opens another one
