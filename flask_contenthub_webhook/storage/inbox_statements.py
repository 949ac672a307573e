"""The SQL of the inbox: deliveries that wait, put in by requests, claimed and given back by workers.

A delivery waits while its ``next_retry_at`` is set. Only the first waiting delivery of a task can be claimed; later
ones wait while it is due or claimed. So the events of a task keep their order of arrival, however many workers there
are. A delivery that waits for its next try does not delay later ones.

Tasks take turns by when their deliveries became due, whether that was by arrival, by the time of another try or by the
end of a lease. So none waits for longer than it takes to work off what was due before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ..core.state_machine import Verdict
from .clock import moved
from .dialect import Capabilities, rechecked
from .rows import ModelTable

__all__ = ["AT_ONCE", "CHANNEL", "LOST", "InboxStatements", "at_once", "due_since"]

AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
"""Due at once, even if the clock is set back, and before all others."""
_END_OF_AT_ONCE = datetime(1971, 1, 1, tzinfo=UTC)

LOST = "Its worker died, or lost the database, while it was tried."
"""The error of a delivery that is claimed after an expired lease."""
CHANNEL = "contenthub_webhook"
"""The channel on which PostgreSQL wakes the workers."""


def at_once(now: datetime) -> datetime:
    """Return a time in 1970, to the millisecond in the order of arrival: due at once, even if the clock is set back."""
    return AT_ONCE + (now - AT_ONCE) / 1000


def due_since(due_at: Any, received_at: Any) -> sa.ColumnElement[Any]:
    """Return the expression of when a delivery became due or will, from its ``next_retry_at`` and ``received_at``."""
    return sa.case((due_at < sa.literal(_END_OF_AT_ONCE, due_at.type), received_at), else_=due_at)


class InboxStatements:
    """Every statement, for one kind of database. Bound parameters beside column names begin with ``at_``."""

    def __init__(self, tasks: ModelTable, deliveries: ModelTable, capabilities: Capabilities) -> None:
        self._tasks, self._deliveries = tasks, deliveries
        self.capabilities = capabilities
        self.tells_more = capabilities.returning and capabilities.skip_locked
        """A claim tells by itself whether more waits behind a delivery; SQLite could use no index for that."""
        self._accepting: dict[tuple[tuple[str, ...], bool, bool], Any] = {}
        d = deliveries.columns
        self.not_null = {key for key, column in d.items() if not _is_null_by_itself(column)}
        """The columns of a delivery that have to be given, even None."""
        moment = d["next_retry_at"].type
        at_now = moved("at_now", moment)
        at_limit = sa.bindparam("at_limit", type_=sa.Integer())
        table = deliveries.table

        due = _is_due(d, at_now)
        head = self._first_in_line(sa.bindparam("at_task_id", type_=d["task_id"].type), at_now, fresh=True)
        self.heads = self._claim(*self._heads(d["next_retry_at"] <= at_now, at_now, at_limit))
        self.head_of_task = self._claim(sa.or_(due, _is_fresh(d)), sa.select(d["id"]).where(d["id"] == head))

        found = d["id"].in_(sa.bindparam("at_ids", expanding=True))
        at_until = sa.bindparam("at_until", type_=moment)
        self.claim_locked = sa.update(table).where(found).ordered_values(*self._taken(at_until))
        self.claim_one = (
            sa.update(table)
            .where(d["id"] == sa.bindparam("at_id"), d["next_retry_at"] == sa.bindparam("at_seen", type_=moment))
            .ordered_values(*self._taken(moved("at_until", moment)))
        )
        ours = d["claimed_until"] == sa.bindparam("at_seen", type_=moment)
        held = (d["id"] == sa.bindparam("at_id"), ours)
        self.renew = (
            sa.update(table)
            .where(*held, *self._unlocked(held))
            .values({d["next_retry_at"]: at_until, d["claimed_until"]: at_until})
        )
        self.release = (
            sa.update(table)
            .where(d["id"] == sa.bindparam("at_id"), ours)
            .values({d["next_retry_at"]: sa.literal(AT_ONCE, moment), d["claimed_until"]: sa.null()})
        )
        waiting = sa.select(sa.literal(1)).where(d["next_retry_at"].is_not(None)).limit(at_limit)
        self.count_waiting = sa.select(sa.func.count()).select_from(waiting.subquery())
        self.is_due = sa.select(d["id"]).where(due).limit(1)
        self.claimed = sa.select(*d.values()).where(found).order_by(d["id"])
        self.followed = sa.select(d["id"]).where(found, self._has_more())
        self.notify = sa.select(sa.func.pg_notify(CHANNEL, ""))

    def _unlocked(self, held: tuple[sa.ColumnElement[bool], ...]) -> Sequence[sa.ColumnElement[bool]]:
        """Return the condition that no transaction is settling the row, for which a renewal need not wait."""
        if not self.capabilities.skip_locked:
            return ()
        row_id = self._deliveries.columns["id"]
        # The limit keeps MySQL from merging the subquery into an update of the same table.
        free = sa.select(row_id.label("id")).where(*held).limit(1).with_for_update(skip_locked=True)
        return (row_id.in_(sa.select(free.subquery("free").c.id)),)

    def accept(self, keys: tuple[str, ...], *, named: bool, notify: bool) -> Any:
        """Return the INSERT of a delivery with these attributes, bound as ``new_KEY``, if there is such a task.

        With ``named``, the creator's id must be the task's, and determines the attempt.
        """
        known = self._accepting.get((keys, named, notify))
        if known is None:
            known = self._accepting[keys, named, notify] = self._accept(keys, named=named, notify=notify)
        return known

    def _accept(self, keys: tuple[str, ...], *, named: bool, notify: bool) -> Any:
        t, d = self._tasks.columns, self._deliveries.columns
        values: dict[str, sa.ColumnElement[Any]] = {
            key: sa.bindparam(f"new_{key}", type_=d[key].type).label(None) for key in keys
        }
        values["status_before"] = t["status"]
        task = sa.select().where(t["task_id"] == sa.bindparam("at_task_id"))
        if named:
            values["attempt"] = t["attempt"]
            task = task.where(t["creator_task_id"] == sa.bindparam("at_creator_task_id"))
        insert = (
            sa.insert(self._deliveries.table)
            .from_select([d[key] for key in values], task.with_only_columns(*values.values()))
            .returning(d["id"].label("new_id"), d["status_before"].label("status"))
        )
        if not notify:
            return insert
        kept = insert.cte("kept")
        return sa.select(kept.c.new_id, kept.c.status, sa.func.pg_notify(CHANNEL, ""))

    def _heads(self, due: sa.ColumnElement[bool], at_now: Any, at_limit: Any) -> tuple[Any, Any]:
        """Return the condition of a due delivery, and the SELECT of the first in line of each task.

        Thousands of events may wait behind the first of a task. So a bounded number of due deliveries is read, of new
        ones and of others, and each task among them is looked at once.
        """
        d = self._deliveries.columns
        at_window = sa.bindparam("at_window", type_=sa.Integer())
        waiting = self._deliveries.table.alias("w")
        w = {key: waiting.c[column.key] for key, column in d.items()}
        is_new = w["next_retry_at"] < sa.literal(_END_OF_AT_ONCE, d["next_retry_at"].type)

        def oldest(since: str, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
            rows = sa.select(w["id"].label("id"), w["task_id"].label("task_id"), w[since].label("since"))
            rows = rows.where(condition).order_by(w["next_retry_at"]).limit(at_window)
            return sa.select(rows.subquery())  # SQLite allows no LIMIT in a part of a UNION

        again = oldest("next_retry_at", (w["next_retry_at"] <= at_now) & ~is_new)
        window = sa.union_all(oldest("received_at", is_new), again).subquery("due")
        turn = (sa.func.min(window.c.since), sa.func.min(window.c.id))
        queues = sa.select(window.c.task_id).group_by(window.c.task_id).order_by(*turn).limit(at_window)
        task_id = queues.subquery("queues").c.task_id
        first = self._first_in_line(task_id, at_now, fresh=False)
        firsts = sa.join(task_id.table, self._deliveries.table, d["id"] == first)
        return due, sa.select(d["id"]).select_from(firsts).limit(at_limit)

    def _first_in_line(self, task_id: Any, at_now: Any, *, fresh: bool) -> Any:
        """Return the id of the first delivery of a task, or NULL if that is claimed.

        This is one step into the index of the task's queue. A NOT EXISTS would say the same, but a database may turn it
        into a join of all waiting deliveries with themselves.
        """
        earlier = self._deliveries.table.alias("earlier")
        e = {key: earlier.c[column.key] for key, column in self._deliveries.columns.items()}
        free = e["next_retry_at"] <= at_now
        if fresh:
            free = sa.or_(free, _is_fresh(e))
        return (
            sa.select(sa.case((free, e["id"])))
            .where(e["task_id"] == task_id, e["next_retry_at"].is_not(None))
            .where(sa.or_(free, e["claimed_until"] > at_now))
            .order_by(e["id"])
            .limit(1)
            .correlate_except(earlier)
            .scalar_subquery()
        )

    def _claim(self, wanted: sa.ColumnElement[bool], heads: sa.Select[Any]) -> tuple[Any, Any]:
        """Return the claim, and the SELECT of candidates for databases without RETURNING; it locks them, if it can."""
        d, table = self._deliveries.columns, self._deliveries.table
        until = moved("at_until", d["next_retry_at"].type)
        if self.capabilities.locks_first:  # it reads the rows as they are now, and all else as it was when it began
            candidates = heads.with_only_columns(*d.values(), until.label("until")).where(wanted)
            candidates = candidates.with_for_update(skip_locked=True)
        else:
            candidates = heads.with_only_columns(d["id"], d["next_retry_at"])
        heads = heads.with_only_columns(d["id"].label("head_id"))
        if self.capabilities.skip_locked:
            heads = heads.with_for_update(skip_locked=True, of=table)
        claim = (
            sa.update(table)
            .where(d["id"].in_(sa.select(heads.cte("heads").c.head_id)), rechecked(wanted))
            .ordered_values(*self._taken(until))
            .returning(*d.values(), *([self._has_more().label("more_of_task")] if self.tells_more else ()))
        )
        return claim, candidates

    def _has_more(self) -> sa.ColumnElement[bool]:
        """Return the condition that another delivery of the same task waits behind a delivery."""
        d, table = self._deliveries.columns, self._deliveries.table
        later = table.alias("later")
        f = {key: later.c[column.key] for key, column in d.items()}
        waits_behind = (f["task_id"] == d["task_id"], f["id"] > d["id"], f["next_retry_at"].is_not(None))
        behind = sa.select(f["id"]).where(*waits_behind).correlate(table)
        if not self.tells_more:
            return behind.exists()
        # PostgreSQL might take the index of another order for an EXISTS, while its statistics are old.
        return behind.order_by(f["id"]).limit(sa.literal_column("1")).scalar_subquery().is_not(None)

    def _taken(self, at_until: sa.ColumnElement[Any]) -> Sequence[tuple[Any, Any]]:
        """Return what a claim sets, the lease last, since MySQL goes from left to right.

        An expired lease counts as a try, so an event that kills its workers is parked.
        """
        d = self._deliveries.columns
        was_lost = d["claimed_until"].is_not(None)
        return (
            (d["tries"], sa.case((was_lost, d["tries"] + 1), else_=d["tries"])),
            (d["error"], sa.case((was_lost, sa.literal(LOST, d["error"].type)), else_=d["error"])),
            (d["next_retry_at"], at_until),
            (d["claimed_until"], at_until),
        )


def _is_null_by_itself(column: sa.Column[Any]) -> bool:
    """Tell whether a column that is not given has the value of one that is given None."""
    type_ = column.type
    is_hosts = isinstance(type_, sa.types.TypeDecorator) and type(type_).__module__ != sa.types.__name__  # as ours say
    return bool(column.nullable) and not is_hosts and column.default is None and column.server_default is None


def _is_due(d: Mapping[str, sa.ColumnElement[Any]], at_now: Any) -> sa.ColumnElement[bool]:
    return sa.and_(d["next_retry_at"].is_not(None), d["next_retry_at"] <= at_now)


def _is_fresh(d: Mapping[str, sa.ColumnElement[Any]]) -> sa.ColumnElement[bool]:
    """Return the condition that a delivery was never claimed; its own wake-up may claim it before the sweep does."""
    return sa.and_(d["verdict"] == Verdict.QUEUED.value, d["tries"] == 0, d["claimed_until"].is_(None))
