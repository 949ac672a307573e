"""The outbox: all statements about forwards.

One statement claims a row: it counts a try, and moves the next one behind a lease. The number of the try identifies the
claim. Forwards commit together with tasks, so they use the same connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .clock import NOW, AgreedClock, moved
from .dialect import Capabilities, rechecked
from .rows import ModelTable, Row

__all__ = ["DEAD", "DELIVERED", "WAITING", "Outbox"]

WAITING, DELIVERED, DEAD = "waiting", "delivered", "dead"

_ROUNDS = 3
"""Looks for a due forward, each of which another process may have taken before it was claimed."""


class Outbox:
    """The statements over forwards and their tries.

    Args:
        task_model: determines the database.
        forward_model: a model with the columns of ``ForwardMixin``.
        attempt_model: a model with the columns of ``ForwardAttemptMixin``.
        capabilities: what the database can do; detected on the first connection by default.
        clock: the application's and the database's.
    """

    def __init__(
        self,
        task_model: type[Any],
        forward_model: type[Any],
        attempt_model: type[Any],
        *,
        capabilities: Capabilities | None = None,
        clock: AgreedClock | None = None,
    ) -> None:
        self.forwards = ModelTable(forward_model)
        self.attempts = ModelTable(attempt_model)
        self._task_model = task_model
        self._features = capabilities
        self._prepared: _Statements | None = None
        self._clock = clock or AgreedClock()

    # --- writing and claiming --------------------------------------------------------------------------------

    def insert(self, session: Session, rows: Sequence[Row]) -> None:
        """Write forwards; all of them have the same keys."""
        connection, sql = self._prepare(session)
        connection.execute(sql.insert, [dict(row) for row in rows])

    def claim(self, session: Session, *, lease: timedelta, closed: Sequence[str]) -> Row | None:
        """Claim the forward that is due first, except for ``closed`` URLs, for the time of a lease."""
        connection, sql = self._prepare(session)
        times = self._clock.bound(connection, at_now=NOW, at_until=lease)
        window = {**times, "at_closed": list(closed)}
        if sql.capabilities.returning and sql.capabilities.skip_locked:
            return self._values(connection.execute(sql.claim, window).one_or_none())
        del window["at_until"]
        for _ in range(_ROUNDS):  # another process may take it before we do, unless the search locks it
            due = connection.execute(sql.due, window).one_or_none()
            if due is None:
                return None
            claimed = {"at_id": due.id, "at_tries": due.tries, **times}
            if connection.execute(sql.claim_one, claimed).rowcount == 1:
                return self.read(session, due.id)
        return None

    def renew(self, session: Session, forward: Row, until: datetime) -> bool:
        """Extend a claim; False if it was lost, or the forward was settled."""
        connection, sql = self._prepare(session)
        claim = {"at_id": forward["id"], "at_tries": forward["tries"], "at_until": until}
        return connection.execute(sql.renew, claim).rowcount == 1

    # --- results ---------------------------------------------------------------------------------------------

    def add_attempt(self, session: Session, forward_id: int, values: Row) -> None:
        """Record a try, under the next number."""
        connection, sql = self._prepare(session)
        bound = {f"at_{key}": value for key, value in values.items()}
        connection.execute(sql.add_attempt, {**bound, "at_id": forward_id})

    def settle(self, session: Session, forward: Row, values: Row) -> bool:
        """Write the outcome of a try, if the row still waits; anything but a success only while the claim is ours."""
        connection, sql = self._prepare(session)
        if values["status"] == DELIVERED:
            return connection.execute(sql.settle, {**values, "at_id": forward["id"]}).rowcount == 1
        claim = {"at_id": forward["id"], "at_tries": forward["tries"]}
        return connection.execute(sql.settle_claimed, {**values, **claim}).rowcount == 1

    def put_first(self, session: Session, url: str, at: datetime) -> None:
        """Let the waiting row of a URL that is due first be due at this time, and no earlier."""
        connection, sql = self._prepare(session)
        first = connection.execute(sql.first_of_url, {"at_url": url}).scalar_one_or_none()
        if first is not None:
            connection.execute(sql.put_at, {"at_id": first, "at_until": at})

    def push_back(self, session: Session, url: str, *, until: datetime, untried_until: datetime, limit: int) -> int:
        """Postpone some rows of a URL that are due earlier, except the first; return their number.

        The rows are found before the transaction begins to write, since SQLite has one writer at a time.
        """
        connection, sql = self._prepare(session)
        found = list(
            connection.execute(sql.due_of_url, {"at_url": url, "at_until": until, "at_limit": limit}).scalars()
        )
        if found:
            times = {"at_until": until, "at_untried": untried_until}
            connection.execute(sql.push_back, {"at_ids": found, **times})
        return len(found)

    def bring_forward(self, session: Session, url: str, now: datetime, *, limit: int) -> int:
        """Make some rows of a URL due that were never tried, and are due later; return their number."""
        connection, sql = self._prepare(session)
        found = list(connection.execute(sql.postponed, {"at_url": url, "at_now": now, "at_limit": limit}).scalars())
        if found:
            connection.execute(sql.bring_forward, {"at_ids": found, "at_now": now})
        return len(found)

    def reset(self, session: Session, forward_id: int, now: datetime, *, by: str | None = None) -> bool:
        """Make a finished forward wait again, for somebody; False if it is not finished."""
        connection, sql = self._prepare(session)
        return connection.execute(sql.reset, {"at_id": forward_id, "at_now": now, "at_by": by}).rowcount == 1

    # --- reading and deleting --------------------------------------------------------------------------------

    def read(self, session: Session, forward_id: int) -> Row | None:
        """Read a forward."""
        connection, sql = self._prepare(session)
        return self._values(connection.execute(sql.by_id, {"at_id": forward_id}).one_or_none())

    def oldest(self, session: Session, *, after: int, limit: int) -> list[Row]:
        """Read ``id``, ``created_at`` and ``finished_at`` of the rows after an id, oldest first."""
        connection, sql = self._prepare(session)
        rows = connection.execute(sql.oldest, {"at_id": after, "at_limit": limit})
        return [dict(row._mapping) for row in rows]  # noqa: SLF001 - public, in spite of its name

    def delete(self, session: Session, forward_ids: Sequence[int], *, finished_before: datetime) -> None:
        """Delete those of some forwards that finished earlier, and have not been replayed, with their attempts."""
        connection, sql = self._prepare(session)
        connection.execute(sql.delete, {"at_ids": list(forward_ids), "at_before": finished_before})
        connection.execute(sql.delete_attempts, {"at_ids": list(forward_ids)})

    # --- plumbing --------------------------------------------------------------------------------------------

    def connection(self, session: Session) -> sa.Connection:
        """Return the connection of the tasks."""
        return session.connection(bind_arguments={"mapper": self._task_model})

    def _prepare(self, session: Session) -> tuple[sa.Connection, _Statements]:
        connection = self.connection(session)
        if self._prepared is None:
            capabilities = self._features or Capabilities.of(connection.dialect)
            self._prepared = _Statements(self.forwards, self.attempts, capabilities)
        return connection, self._prepared

    def _values(self, row: sa.Row[Any] | None) -> Row | None:
        return None if row is None else dict(zip(self.forwards.columns, row, strict=True))


class _Statements:
    """Every statement; bound parameters beside column names begin with ``at_``."""

    def __init__(self, forwards: ModelTable, attempts: ModelTable, capabilities: Capabilities) -> None:
        f, a = forwards.columns, attempts.columns
        self.capabilities = capabilities
        by_id = f["id"] == sa.bindparam("at_id")
        moment = f["next_try_at"].type
        at_now, at_until = sa.bindparam("at_now", type_=moment), sa.bindparam("at_until", type_=moment)
        is_due = f["next_try_at"] <= moved("at_now", moment)
        is_waiting = f["status"] == WAITING

        self.insert = sa.insert(forwards.table)
        self.by_id = sa.select(*f.values()).where(by_id)

        is_open = f["url"].not_in(sa.bindparam("at_closed", expanding=True))
        self.due = sa.select(f["id"], f["tries"]).where(is_due, is_open).order_by(f["next_try_at"]).limit(1)
        if capabilities.skip_locked:
            self.due = self.due.with_for_update(skip_locked=True)
        candidate = self.due.with_only_columns(f["id"])
        claim = (
            sa.update(forwards.table)
            .where(rechecked(is_due))
            .values({f["tries"]: f["tries"] + 1, f["next_try_at"]: moved("at_until", moment)})
        )
        self.claim = claim.where(f["id"].in_(sa.select(candidate.cte("due").c.id))).returning(*f.values())
        is_ours = f["tries"] == sa.bindparam("at_tries")
        self.claim_one = claim.where(by_id, is_ours)

        self.settle = sa.update(forwards.table).where(by_id, is_waiting)
        self.settle_claimed = self.settle.where(is_ours)
        self.renew = self.settle_claimed.values({f["next_try_at"]: at_until})
        number = sa.func.coalesce(sa.func.max(a["number"]), 0) + 1
        given = [key for key in a if key not in {"id", "forward_id", "number"}]
        self.add_attempt = sa.insert(attempts.table).from_select(
            [a["forward_id"], a["number"], *(a[key] for key in given)],
            sa.select(
                sa.bindparam("at_id", type_=a["forward_id"].type),
                number,
                *(sa.bindparam(f"at_{key}", type_=a[key].type) for key in given),
            ).where(a["forward_id"] == sa.bindparam("at_id")),
        )
        at_ids = sa.bindparam("at_ids", type_=f["id"].type, expanding=True)
        at_limit = sa.bindparam("at_limit", type_=sa.Integer())
        of_url = sa.select(f["id"]).where(f["url"] == sa.bindparam("at_url")).order_by(f["next_try_at"])
        self.first_of_url = of_url.where(f["next_try_at"].is_not(None)).limit(1)
        self.put_at = sa.update(forwards.table).where(by_id, is_waiting).values({f["next_try_at"]: at_until})
        self.due_of_url = of_url.where(f["next_try_at"] < at_until).offset(1).limit(at_limit)
        was_tried = f["tries"] > 0
        self.push_back = (
            sa.update(forwards.table)
            .where(f["id"].in_(at_ids), f["next_try_at"] < at_until)
            .values({f["next_try_at"]: sa.case((was_tried, at_until), else_=sa.bindparam("at_untried", type_=moment))})
        )
        self.postponed = of_url.where(f["next_try_at"] > at_now, ~was_tried).limit(at_limit)
        self.bring_forward = (
            sa.update(forwards.table)
            .where(f["id"].in_(at_ids), f["next_try_at"] > at_now, ~was_tried)
            .values({f["next_try_at"]: at_now})
        )
        self.reset = (
            sa.update(forwards.table)
            .where(by_id, f["status"].in_((DELIVERED, DEAD)))
            .values({f["status"]: WAITING, f["tries"]: 0, f["next_try_at"]: at_now, f["finished_at"]: sa.null()})
            .values({f["resent_at"]: at_now, f["resent_by"]: sa.bindparam("at_by", type_=f["resent_by"].type)})
        )

        self.oldest = (
            sa.select(*(f[key].label(key) for key in ("id", "created_at", "finished_at")))
            .where(f["id"] > sa.bindparam("at_id"))
            .order_by(f["id"])
            .limit(at_limit)
        )
        finished_earlier = f["finished_at"] < sa.bindparam("at_before", type_=f["finished_at"].type)
        self.delete = sa.delete(forwards.table).where(f["id"].in_(at_ids), finished_earlier)
        is_gone = ~sa.exists().where(f["id"] == a["forward_id"])
        self.delete_attempts = sa.delete(attempts.table).where(a["forward_id"].in_(at_ids), is_gone)
