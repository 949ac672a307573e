"""The inbox as the rest of the extension sees it; its SQL and its rule of order are in :mod:`.inbox_statements`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from .clock import NOW, AgreedClock
from .dialect import Capabilities
from .inbox_statements import LOST, InboxStatements
from .rows import ModelTable, Row, Tx

__all__ = ["Claimed", "InboxStore"]

_EVERYTHING = 2**31 - 1
_ENOUGH = 4
"""So many due deliveries for each that is wanted."""


class Claimed(NamedTuple):
    """A claimed delivery.

    Args:
        row: its attributes; the claim ends at ``claimed_until``.
        more: True if further deliveries of its task may wait behind it.
    """

    row: dict[str, Any]
    more: bool


class InboxStore:
    """The statements of the inbox, run in a transaction of the caller's, who commits.

    Args:
        tasks: the host's task model.
        deliveries: the host's delivery model.
        connect: returns the connection of a transaction.
        capabilities: returns the capabilities of the database of a transaction.
        clock: the application's and the database's.
        window: how many due deliveries a claim looks at, at most; if none of them is free, it looks at all.
    """

    def __init__(
        self,
        tasks: ModelTable,
        deliveries: ModelTable,
        *,
        connect: Callable[[Tx], sa.Connection],
        capabilities: Callable[[Tx], Capabilities],
        clock: AgreedClock | None = None,
        window: int = 1_000,
    ) -> None:
        self._tasks, self._deliveries = tasks, deliveries
        self._connection, self._capabilities = connect, capabilities
        self._clock = clock or AgreedClock()
        self._most = window
        self._was_full = False
        self._prepared: InboxStatements | None = None

    def accept(
        self, tx: Tx, task_id: str, values: Row, *, creator_task_id: str | None, notify: bool
    ) -> tuple[int, str] | None:
        """Write a delivery that waits, if there is such a task, and wake the listening workers with ``notify``.

        With ``creator_task_id``, the task must have that one, and its attempt becomes the delivery's.

        Returns:
            The id of the row and the task's status; None if nothing was written, or this database cannot tell.
        """
        sql = self._sql(tx)
        if not sql.capabilities.insert_from_select:
            return None
        named = creator_task_id is not None
        given = {key: value for key, value in values.items() if value is not None or key in sql.not_null}
        statement = sql.accept(tuple(given), named=named, notify=notify and sql.capabilities.notify)
        parameters = {f"new_{key}": value for key, value in given.items()}
        parameters["at_task_id"] = task_id
        if named:
            parameters["at_creator_task_id"] = creator_task_id
        row = self._connection(tx).execute(statement, parameters).first()
        return None if row is None else (row[0], row[1])

    def claim(self, tx: Tx, *, lease: timedelta, limit: int, task_id: str | None = None) -> list[Claimed]:
        """Claim the first waiting delivery of each of several tasks, for the time of a lease.

        With ``task_id``, claim the first of that task only, even if it is not due for the sweep yet.
        """
        parameters = self._clock.bound(self._connection(tx), at_now=NOW, at_until=lease)
        if task_id is not None:
            return self._claim(tx, self._sql(tx).head_of_task, {**parameters, "at_task_id": task_id})
        for window in dict.fromkeys((self._window(limit), self._most, _EVERYTHING)):
            within = {**parameters, "at_limit": limit, "at_window": window}
            claimed = self._claim(tx, self._sql(tx).heads, within)
            self._was_full = len(claimed) == limit
            if claimed:
                return claimed
        return []

    def _window(self, limit: int) -> int:
        """Look at few while many tasks wait: the last claim was full. A short one may be due to few tasks with many."""
        return min(_ENOUGH * limit, self._most) if self._was_full else self._most

    def _claim(self, tx: Tx, statements: tuple[Any, Any], parameters: dict[str, Any]) -> list[Claimed]:
        sql, connection = self._sql(tx), self._connection(tx)
        claim, candidates = statements
        if sql.tells_more:
            claimed = connection.execute(claim, parameters)
            return sorted((Claimed(self._row(values), bool(more)) for *values, more in claimed), key=_in_order)
        if sql.capabilities.returning:
            rows = [self._row(values) for values in connection.execute(claim, parameters)]
        elif sql.capabilities.locks_first:
            rows = self._lock_and_claim(connection, candidates, parameters)
        else:
            rows = self._claim_one_by_one(connection, candidates, parameters)
        ids = [row["id"] for row in rows]
        followed = set(connection.scalars(sql.followed, {"at_ids": ids})) if rows else set()
        return sorted((Claimed(row, row["id"] in followed) for row in rows), key=_in_order)

    def _lock_and_claim(self, connection: sa.Connection, candidates: Any, parameters: Row) -> list[dict[str, Any]]:
        """Claim what nobody has, in two statements; what the second one changes is known without reading it again."""
        rows = []
        for *values, until in connection.execute(candidates, parameters):
            row = self._row(values)
            if row["claimed_until"] is not None:
                row |= {"tries": row["tries"] + 1, "error": LOST}
            rows.append(row | {"next_retry_at": until, "claimed_until": until})
        if rows:
            found = {"at_ids": [row["id"] for row in rows], "at_until": until}
            connection.execute(self._sql(connection).claim_locked, found)
        return rows

    def _claim_one_by_one(
        self, connection: sa.Connection, candidates: Any, parameters: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Claim those that are still as they were when they were read."""
        sql = self._sql(connection)
        times = {key: value for key, value in parameters.items() if key in {"at_until", "at_clock"}}
        del parameters["at_until"]
        heads = connection.execute(candidates, parameters).all()
        one = [(number, {"at_id": number, "at_seen": seen, **times}) for number, seen in heads]
        ids = [number for number, head in one if connection.execute(sql.claim_one, head).rowcount == 1]
        found = connection.execute(sql.claimed, {"at_ids": ids}) if ids else ()
        return [self._row(values) for values in found]

    def renew(self, tx: Tx, row: Row, until: datetime) -> bool:
        """Extend a claim; False if another worker has it, or a transaction is settling the delivery."""
        claim = {"at_id": row["id"], "at_seen": row["claimed_until"], "at_until": until}
        return bool(self._connection(tx).execute(self._sql(tx).renew, claim).rowcount)

    def release(self, tx: Tx, rows: Sequence[Row]) -> None:
        """Give back claimed deliveries that were not begun; they are due at once."""
        given_back = [{"at_id": row["id"], "at_seen": row["claimed_until"]} for row in rows]
        self._connection(tx).execute(self._sql(tx).release, given_back)

    def count_waiting(self, tx: Tx, *, most: int) -> int:
        """Count the waiting deliveries, up to a limit."""
        counted = self._connection(tx).execute(self._sql(tx).count_waiting, {"at_limit": most})
        return int(counted.scalar_one())

    def is_anything_due(self, tx: Tx) -> bool:
        """Tell whether a claim is worth trying; takes no lock."""
        connection = self._connection(tx)
        return connection.execute(self._sql(tx).is_due, self._clock.bound(connection, at_now=NOW)).first() is not None

    def notify(self, tx: Tx) -> None:
        """Wake the listening workers at the commit, if the database supports it."""
        sql = self._sql(tx)
        if sql.capabilities.notify:
            self._connection(tx).execute(sql.notify)

    def _row(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self._deliveries.columns, values, strict=True))

    def _sql(self, tx: Tx) -> InboxStatements:
        if self._prepared is None:
            self._prepared = InboxStatements(self._tasks, self._deliveries, self._capabilities(tx))
        return self._prepared


def _in_order(delivery: Claimed) -> int:
    """Return what claimed deliveries are sorted by: their ids, in the order of arrival."""
    number: int = delivery.row["id"]
    return number
