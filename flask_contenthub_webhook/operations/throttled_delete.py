"""Throttled deletes: small transactions with pauses, so that callbacks never wait for a purge.

The size of a transaction follows from the duration of the last one. The pause after each is several times as long:
SQLite has one writer at a time, and a waiting writer polls for the lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from ..core.stopping import is_stopping
from ..storage.transactions import Database

__all__ = ["HOLD", "MOST", "Throttle"]

_FEWEST, MOST = 10, 500
"""Rows per transaction."""
HOLD = 0.001
"""Seconds that the statements of a transaction should take, without the commit."""
_REST, _LONGEST_REST = 9, 0.25
"""The pause after a transaction, in multiples of its duration, and its limit in seconds."""


class Throttle:
    """The pace at which rows are deleted.

    Args:
        database: the application's database.
        stop: ends deleting after the current transaction, once it is set.
        hold: seconds that the statements of a transaction should take.
    """

    def __init__(self, database: Database, stop: threading.Event | None = None, *, hold: float = HOLD) -> None:
        self._database = database
        self._hold = hold
        self._stop = threading.Event() if stop is None else stop
        self._batch = _FEWEST

    def delete(self, ids: Sequence[int], statements: Callable[[Session, Sequence[int]], object]) -> bool:
        """Delete rows, given their ids in order and a function that deletes some of them; False if it was stopped."""
        begin = 0
        while begin < len(ids):
            batch = ids[begin : begin + self._batch]
            begin += len(batch)
            took = self._transaction(batch, statements)
            if self._stop.wait(min(_REST * took, _LONGEST_REST)) or is_stopping():
                return False
        return not (self._stop.is_set() or is_stopping())

    def _transaction(self, batch: Sequence[int], statements: Callable[[Session, Sequence[int]], object]) -> float:
        """Run one transaction; return its seconds."""
        began = time.monotonic()
        with self._database.session() as session:
            statements(session, batch)
            held = time.monotonic() - began
            session.commit()
            took = time.monotonic() - began
            _move_log(self._database.store.connection_of(session))
            session.rollback()
        self._batch = min(max(round(self._batch * min(max(self._hold / held, 0.5), 2)), _FEWEST), MOST)
        return took


def _move_log(connection: Connection) -> None:
    """Checkpoint SQLite's log, so that no callback pays for it; this delays no writer."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
