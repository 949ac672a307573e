"""The settings of a session of MySQL or MariaDB while it is ours.

By default a statement waits 50 s for a row, and a day for a table; and REPEATABLE READ locks gaps between rows, so that
claims, forwards and purges run into each other, and answers a row that changed meanwhile with an error
(``innodb_snapshot_isolation``). The statements of this package are written for READ COMMITTED, as PostgreSQL has it.
Without a strict mode the server cuts off what a column cannot hold, and under another character set than utf8mb4 the
driver cannot even send it.

These are settings of the session, not of the transaction. A pooled connection keeps them while only we use it, which
costs no callback a statement; it gets its own back when somebody else takes it from the pool. So it is with autocommit,
which is on from a single statement of ours until somebody, one of us or not, takes the connection for a transaction.
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

__all__ = ["commit_each", "connect", "make_ours", "make_session_ours", "using_ours"]

_OURS = "contenthub_webhook_session"
_COMMITS_EACH = "contenthub_webhook_autocommit"
_HOSTS = "contenthub_webhook_character_set"
_CHARACTER_SET = "utf8mb4"
_WAITS = ("innodb_lock_wait_timeout", "lock_wait_timeout")
"""Of rows and of tables, in whole seconds."""

_is_ours: ContextVar[bool] = ContextVar("contenthub_webhook_connects", default=False)
_commits_each: ContextVar[bool] = ContextVar("contenthub_webhook_commits_each", default=False)


@contextmanager
def using_ours(*, commits_each: bool = False) -> Iterator[None]:
    """Take connections from the pool as ours, which keep our settings if they have them.

    Args:
        commits_each: for a single statement, so that autocommit may stay on as well.
    """
    is_ours, commits = _is_ours.set(True), _commits_each.set(commits_each)
    try:
        yield
    finally:
        _is_ours.reset(is_ours)
        _commits_each.reset(commits)


def connect(engine: Engine, *, commits_each: bool = False) -> Connection:
    """Open a connection of ours; see :func:`using_ours`."""
    if engine.dialect.name not in MYSQL:
        return engine.connect()
    with using_ours(commits_each=commits_each):
        return engine.connect()


def make_ours(connection: Connection, longest_wait: float) -> None:
    """Give a session our settings; stricter ones of its own stay, and its isolation if its log needs that.

    Args:
        connection: nothing was executed in its transaction yet.
        longest_wait: seconds for a lock, rounded to whole ones, and at least one.
    """
    if connection.dialect.name not in MYSQL:
        return
    if _OURS not in connection.info:
        _change_settings(connection, longest_wait)
    elif "isolation_level" in connection.get_execution_options():  # SQLAlchemy resets it whenever it is given back
        isolation, level = _isolation(connection.dialect)
        connection.exec_driver_sql(f"SET SESSION {isolation} = {level}")


def commit_each(connection: Connection) -> None:
    """Let a session with our settings commit each statement until it is taken from the pool for a transaction."""
    if not commits_by_itself(connection):
        connection.exec_driver_sql("SET autocommit = 1")
        connection.info[_COMMITS_EACH] = True


def _change_settings(connection: Connection, longest_wait: float) -> None:
    dialect = connection.dialect
    isolation, level = _isolation(dialect)
    settings = (*_WAITS, isolation, "sql_mode")
    longest = max(1, round(longest_wait))
    values = [f"LEAST(@@SESSION.{wait}, {longest})" for wait in _WAITS]
    values.append(level)
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
    connection.info[_OURS] = restore
    if (own := character_set(driver)) != _CHARACTER_SET:
        collation = connection.exec_driver_sql("SELECT @@SESSION.collation_connection").scalar_one()
        connection.info[_HOSTS] = own, collation
        set_character_set(driver, _CHARACTER_SET)
    connection.exec_driver_sql(f"SET {', '.join(keep + change)}")


def make_session_ours(session: Session, dialect: Dialect, longest_wait: float) -> None:
    """Give each connection that a session of SQLAlchemy's takes our settings, as in :func:`make_ours`."""
    if dialect.name in MYSQL:
        event.listen(session, "after_begin", lambda _session, _transaction, begun: make_ours(begun, longest_wait))


def _isolation(dialect: Dialect) -> tuple[str, str]:
    """Return the setting of the isolation, and the expression of the one that we want."""
    name = "tx_isolation" if getattr(dialect, "is_mariadb", False) else "transaction_isolation"
    needs_its_own = "@@log_bin AND @@SESSION.binlog_format = 'STATEMENT'"
    own = f"@@SESSION.{name}"
    return name, f"IF({own} = 'REPEATABLE-READ' AND NOT ({needs_its_own}), 'READ-COMMITTED', {own})"


def _kept(setting: str) -> str:
    """Return the variable of the session in which its own value of a setting is kept."""
    return f"@contenthub_{setting}"


def _give_back(driver: Any, entry: ConnectionPoolEntry, _: object) -> None:
    """Give a session its own settings back; only somebody else's check-out of one that we used costs a statement."""
    is_ours = _is_ours.get()
    restore = [] if is_ours else list(entry.info.pop(_OURS, ()))
    if not _commits_each.get() and entry.info.pop(_COMMITS_EACH, False):
        restore.append("autocommit = 0")
    if not restore:
        return
    try:
        cursor = driver.cursor()
        cursor.execute(f"SET {', '.join(restore)}")
        if not is_ours and (hosts := entry.info.pop(_HOSTS, None)):
            own, collation = hosts
            set_character_set(driver, own)
            cursor.execute(f"SET SESSION collation_connection = {collation}")
        cursor.close()
    except Exception as error:
        raise DisconnectionError("It was lost in the pool.") from error  # the pool opens another one
