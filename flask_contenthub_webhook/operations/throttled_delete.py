"""Throttled deletes: small transactions with pauses, so that callbacks never wait for a purge.

The size of a transaction follows from the time that the one before took. The pause after each is several times as
long: SQLite has one writer at a time, and a waiting writer is not told when it is free, but looks again after a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from ..storage.transactions import Database

__all__ = ["MOST", "Throttle"]

_FEWEST, MOST = 10, 500
"""Rows that are deleted in one transaction."""
_HOLD = 0.001
"""Seconds that the statements should take; the commit comes on top."""
_REST, _LONGEST_REST = 9, 0.25
"""The pause after a transaction, in multiples of its duration; and the longest pause, in seconds."""


class Throttle:
    """The pace at which rows are deleted.

    Args:
        database: the application's database.
        stop: once it is set, deleting ends with the transaction at hand.
    """

    def __init__(self, database: Database, stop: threading.Event | None = None) -> None:
        self._database = database
        self._stop = threading.Event() if stop is None else stop
        self._batch = _FEWEST

    def delete(self, ids: Sequence[int], statements: Callable[[Session, Sequence[int]], object]) -> bool:
        """Delete rows.

        Args:
            ids: of the rows, in order.
            statements: deletes some of them, in a transaction that is committed after it.

        Returns:
            False once it was asked to stop.
        """
        begin = 0
        while begin < len(ids):
            batch = ids[begin : begin + self._batch]
            begin += len(batch)
            took = self._transaction(batch, statements)
            if self._stop.wait(min(_REST * took, _LONGEST_REST)):
                return False
        return not self._stop.is_set()

    def _transaction(self, batch: Sequence[int], statements: Callable[[Session, Sequence[int]], object]) -> float:
        """One transaction; the seconds that it took."""
        began = time.monotonic()
        with self._database.session() as session:
            statements(session, batch)
            held = time.monotonic() - began
            session.commit()
            took = time.monotonic() - began
            _move_log(self._database.store.connection_of(session))
            session.rollback()
        self._batch = min(max(round(self._batch * min(max(_HOLD / held, 0.5), 2)), _FEWEST), MOST)
        return took


def _move_log(connection: Connection) -> None:
    """Move what was written from SQLite's log into its file now, so that no callback pays for it.

    That keeps no writer waiting, and does nothing where there is no such log.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
