"""Bound the waits for locks on MySQL and MariaDB, where that is a setting of the session: 50 s for rows by default.

A pooled connection keeps the setting while only we use it, which costs no callback a statement; it gets its own back
when somebody else takes it from the pool. PostgreSQL has a setting of the transaction, see :mod:`.task_statements`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from .drivers import MYSQL

__all__ = ["bound_lock_waits", "connect"]

_BOUND = "contenthub_webhook_lock_waits"
_OWN = {"innodb_lock_wait_timeout": "@contenthub_row_wait", "lock_wait_timeout": "@contenthub_table_wait"}
"""The settings, in whole seconds, and the variables of the session in which their own values are kept."""
_RESTORE = "SET " + ", ".join(f"SESSION {setting} = {kept}" for setting, kept in _OWN.items())

_is_ours: ContextVar[bool] = ContextVar("contenthub_webhook_connects", default=False)


@contextmanager
def connect(engine: Engine) -> Iterator[Connection]:
    """Open a connection of ours, without giving it back its own settings first."""
    token = _is_ours.set(True)
    try:
        connection = engine.connect()
    finally:
        _is_ours.reset(token)
    with connection:
        yield connection


def bound_lock_waits(connection: Connection, seconds: float) -> None:
    """Let no statement wait for a lock of a row or a table for longer than this, or than the session's own setting.

    Args:
        connection: nothing was executed in its transaction yet.
        seconds: rounded to whole ones, and at least one.
    """
    if connection.dialect.name not in MYSQL or _BOUND in connection.info:
        return
    keep = [f"{kept} = @@SESSION.{setting}" for setting, kept in _OWN.items()]
    most = max(1, round(seconds))
    bound = [f"SESSION {setting} = LEAST(@@SESSION.{setting}, {most})" for setting in _OWN]
    engine = connection.engine
    if _BOUND not in vars(engine.dialect):
        event.listen(engine, "checkout", _give_back)
        vars(engine.dialect)[_BOUND] = True
    connection.exec_driver_sql(f"SET {', '.join(keep + bound)}")
    connection.info[_BOUND] = True


def _give_back(driver: Any, entry: ConnectionPoolEntry, _: object) -> None:
    """Give a connection back its own settings; only somebody else's check-out of one that we used costs a statement."""
    if _is_ours.get() or not entry.info.pop(_BOUND, False):
        return
    try:
        cursor = driver.cursor()
        cursor.execute(_RESTORE)
        cursor.close()
    except Exception as error:
        raise DisconnectionError("It was lost in the pool.") from error  # the pool opens another one
