"""SQLite's write lock: poll for it often when a transaction begins.

SQLite itself sleeps for up to 100 ms between two tries, while a callback holds the lock for a fraction of a
millisecond. Here the lock is requested every fraction of a millisecond, for as long as the host's ``busy_timeout``
allows.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

if TYPE_CHECKING:
    import sqlite3

__all__ = ["begin_writing"]

_SHORT = 0.0001
"""Seconds between two tries at first: shorter than a callback holds the lock; a waiter has no other work."""
_LONG = 0.005
"""Seconds between two tries while the lock is held for longer."""
_BUSY_TIMEOUT = "contenthub_webhook_busy_timeout"
_PATIENCE = 0.1
"""Seconds of waiting after which tries become rare."""


def begin_writing(connection: Connection, turn: threading.Lock) -> None:
    """Begin a transaction that writes; on SQLite, take the write lock.

    Args:
        connection: no statement was executed in its transaction yet.
        turn: held by the one thread of this process that polls; the others wait for it at no cost.

    Raises:
        sqlalchemy.exc.OperationalError: SQLITE_BUSY; the lock was taken for the whole ``busy_timeout``.
    """
    if connection.dialect.name != "sqlite":
        return
    if not connection.in_transaction():
        connection.begin()
    import sqlite3  # which hosts on other databases have not

    driver: Any = connection.connection.dbapi_connection
    if not isinstance(driver, sqlite3.Connection) or driver.in_transaction:  # the host begins in a way of its own
        return
    timeout = connection.info.get(_BUSY_TIMEOUT)
    if timeout is None:  # of each pooled connection
        (timeout,) = driver.execute("PRAGMA busy_timeout").fetchone()
        connection.info[_BUSY_TIMEOUT] = timeout
    cursor = driver.cursor()
    cursor.execute("PRAGMA busy_timeout = 0")
    try:
        if not _begin(cursor, turn, timeout / 1000):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # raises, as any statement of SQLAlchemy's does
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {timeout:d}")
        cursor.close()


def _begin(cursor: sqlite3.Cursor, lock: threading.Lock, timeout: float) -> bool:
    """Return True once it has begun; False after the time-out, or if something other than a writer prevents it."""
    import sqlite3

    began = time.monotonic()
    if not lock.acquire(timeout=timeout):
        return False
    try:
        while True:
            try:
                cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                waited = time.monotonic() - began
                if waited >= timeout or not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                    return False
            else:
                return True
            time.sleep(_SHORT if waited < _PATIENCE else _LONG)
    finally:
        lock.release()
