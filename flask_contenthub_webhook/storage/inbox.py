"""The inbox as the rest of the extension sees it; its SQL and its rule of order are in :mod:`.inbox_statements`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from .dialect import Capabilities
from .inbox_statements import InboxStatements
from .rows import ModelTable, Row, Tx

__all__ = ["Claimed", "InboxStore"]


_WINDOW = 1_000
"""Deliveries that a claim looks at. Where none of them is the first of its task that is free, it looks at all."""
_EVERYTHING = 2**31 - 1


class Claimed(NamedTuple):
    """A delivery in our hands.

    Args:
        row: its attributes; ``claimed_until`` is when we lose it.
        more: True where further deliveries of its task may wait behind it.
    """

    row: Row
    more: bool


class InboxStore:
    """The statements of the inbox, run in a transaction of the caller's, who commits.

    Args:
        tasks: the host's task model.
        deliveries: the host's delivery model.
        connect: the connection of a transaction, on which the two live.
        capabilities: what the database can do, once it is connected.
    """

    def __init__(
        self,
        tasks: ModelTable,
        deliveries: ModelTable,
        *,
        connect: Callable[[Tx], sa.Connection],
        capabilities: Callable[[Tx], Capabilities],
    ) -> None:
        self._tasks, self._deliveries = tasks, deliveries
        self._connection, self._features = connect, capabilities
        self._prepared: InboxStatements | None = None

    def accept(
        self, tx: Tx, task_id: str, values: Row, *, creator_task_id: str | None, notify: bool
    ) -> tuple[int, str] | None:
        """Write a delivery that waits, if there is such a task.

        Args:
            tx: the transaction.
            task_id: our id of the task.
            values: the new row, but for ``status_before``.
            creator_task_id: where given, the task must have this one, and its attempt is what the event speaks for.
            notify: wake the workers that listen, with the commit.

        Returns:
            The id of the row and the task's status; None where nothing was written, or this database cannot tell.
        """
        sql = self._sql(tx)
        if not sql.capabilities.insert_from_select:
            return None
        named = creator_task_id is not None
        statement = sql.accept(tuple(values), named=named, notify=notify and sql.capabilities.notify)
        parameters = {f"new_{key}": value for key, value in values.items()}
        parameters["at_task_id"] = task_id
        if named:
            parameters["at_creator_task_id"] = creator_task_id
        row = self._connection(tx).execute(statement, parameters).first()
        return None if row is None else (row[0], row[1])

    def claim(self, tx: Tx, *, now: datetime, until: datetime, limit: int, task_id: str | None = None) -> list[Claimed]:
        """Claim the first waiting delivery of as many tasks, and keep them from others until the lease ends.

        Args:
            tx: the transaction.
            now: deliveries due by then.
            until: the end of the lease; where the work never ends, somebody claims again after it.
            limit: how many at the most.
            task_id: the first of this task only; also one that was accepted and is not due for the sweep yet.
        """
        parameters = {"at_now": now, "at_until": until}
        if task_id is not None:
            return self._claim(tx, self._sql(tx).head_of_task, {**parameters, "at_task_id": task_id})
        for window in (_WINDOW, _EVERYTHING):
            within = {**parameters, "at_limit": limit, "at_window": window}
            if claimed := self._claim(tx, self._sql(tx).heads, within):
                return claimed
        return []

    def _claim(self, tx: Tx, statements: tuple[Any, Any], parameters: dict[str, Any]) -> list[Claimed]:
        sql, connection = self._sql(tx), self._connection(tx)
        claim, candidates = statements
        if sql.capabilities.returning:
            claimed = connection.execute(claim, parameters).all()
            return sorted((self._claimed(row) for row in claimed), key=lambda one: one.row["id"])
        until = parameters.pop("at_until")
        taken: list[Claimed] = []
        for delivery_id, seen in connection.execute(candidates, parameters).all():
            one = {"at_id": delivery_id, "at_seen": seen, "at_until": until}
            if connection.execute(sql.claim_one, one).rowcount == 1:
                row = connection.execute(sql.delivery_by_id, {"at_id": delivery_id}).one()
                taken.append(self._claimed((*row, True)))
        return taken

    def renew(self, tx: Tx, row: Row, until: datetime) -> bool:
        """Keep a claimed delivery for longer; False where the lease had ended and somebody else has it."""
        one = {"at_id": row["id"], "at_seen": row["claimed_until"], "at_until": until}
        return bool(self._connection(tx).execute(self._sql(tx).renew, one).rowcount)

    def release(self, tx: Tx, rows: Sequence[Row]) -> None:
        """Give back what was claimed and not begun; it is due at once."""
        given_back = [{"at_id": row["id"], "at_seen": row["claimed_until"]} for row in rows]
        self._connection(tx).execute(self._sql(tx).release, given_back)

    def count_waiting(self, tx: Tx, *, most: int) -> int:
        """How many deliveries wait for their effect, counted up to a limit."""
        counted = self._connection(tx).execute(self._sql(tx).count_waiting, {"at_limit": most})
        return int(counted.scalar_one())

    def is_anything_due(self, tx: Tx, now: datetime) -> bool:
        """Whether a claim would be worth trying; takes no lock."""
        return self._connection(tx).execute(self._sql(tx).is_due, {"at_now": now}).first() is not None

    def notify(self, tx: Tx) -> None:
        """Wake the workers that listen, with the commit; does nothing where the database has no such thing."""
        sql = self._sql(tx)
        if sql.capabilities.notify:
            self._connection(tx).execute(sql.notify)

    def _claimed(self, row: Sequence[Any]) -> Claimed:
        *values, more = row
        return Claimed(dict(zip(self._deliveries.columns, values, strict=True)), bool(more))

    def _sql(self, tx: Tx) -> InboxStatements:
        if self._prepared is None:
            self._prepared = InboxStatements(self._tasks, self._deliveries, self._features(tx))
        return self._prepared
