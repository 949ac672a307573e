"""Deleting much without keeping anybody waiting: in short transactions, with rests between them.

How many rows a transaction takes follows from how long the one before took. After each one the database is left alone
for several times as long: SQLite has one writer at a time, and whoever waits for it is not told when it is free, but
looks again after a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from ..storage.transactions import unit_of_work

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["MOST", "Pace"]

_FEWEST, MOST = 10, 500
"""Rows that are deleted in one transaction."""
_HOLD = 0.001
"""Seconds that the statements should take; the commit comes on top."""
_REST, _LONGEST_REST = 9, 0.25
"""How many times as long as a transaction took the database is left alone after it; and for how long at the most."""


class Pace:
    """How fast rows are deleted.

    Args:
        state: the application's state.
        stop: once it is set, deleting ends with the transaction at hand.
    """

    def __init__(self, state: WebhookState, stop: threading.Event | None = None) -> None:
        self._state = state
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
        with unit_of_work(self._state) as session:
            statements(session, batch)
            held = time.monotonic() - began
            session.commit()
            took = time.monotonic() - began
            _move_log(self._state.store.connection_of(session))
            session.rollback()
        self._batch = min(max(round(self._batch * min(max(_HOLD / held, 0.5), 2)), _FEWEST), MOST)
        return took


def _move_log(connection: Connection) -> None:
    """Move what was written from SQLite's log into its file now, so that it is no callback's commit that has to.

    That keeps no writer waiting, and does nothing where there is no such log.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
