"""SQLite's one writer: how a transaction waits for its turn to be it.

A statement that finds the write lock taken sleeps inside SQLite, 1 ms at first and 100 ms in the end, while others come
and go before it. A callback holds the lock for a fraction of a millisecond, so nearly all of that time is lost. Here
the lock is asked for when the transaction begins, every fraction of a millisecond, for as long as the host's
``busy_timeout`` allows.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import Any

from sqlalchemy import Connection

__all__ = ["begin_writing"]

_SHORT = 0.0001
"""Seconds between two questions at first: shorter than a callback holds the lock; a waiter has no other work."""
_LONG = 0.005
"""Seconds between two questions where somebody holds it for longer."""
_PATIENCE = 0.1
"""Seconds after which that is so."""


def begin_writing(connection: Connection, turn: threading.Lock) -> None:
    """Begin a transaction that will write; on SQLite it has the write lock then.

    Args:
        connection: no statement was executed in its transaction yet.
        turn: held by the one thread of this process that asks for the lock; the others wait for it at no cost.

    Raises:
        sqlalchemy.exc.OperationalError: SQLITE_BUSY; others kept the lock for the whole ``busy_timeout``.
    """
    if connection.dialect.name != "sqlite":
        return
    if not connection.in_transaction():
        connection.begin()
    driver: Any = connection.connection.dbapi_connection
    if not isinstance(driver, sqlite3.Connection) or driver.in_transaction:  # the host begins in a way of its own
        return
    (timeout,) = driver.execute("PRAGMA busy_timeout").fetchone()
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        if not _begin(driver, turn, timeout / 1000):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # raises, as any statement of SQLAlchemy's does
    finally:
        driver.execute(f"PRAGMA busy_timeout = {timeout:d}")


def _begin(driver: sqlite3.Connection, lock: threading.Lock, timeout: float) -> bool:
    """Whether it has begun within the time; False as well where something other than another writer is in the way."""
    began = time.monotonic()
    if not lock.acquire(timeout=timeout):
        return False
    try:
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                waited = time.monotonic() - began
                if waited >= timeout or not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                    return False
            else:
                return True
            time.sleep(_SHORT if waited < _PATIENCE else _LONG)
    finally:
        lock.release()
