"""The SQL statements over tasks and the history, built once for each kind of database.

``RETURNING``, ``FOR UPDATE`` and ``SKIP LOCKED`` are used if the database has them; everything works without.
Bound parameters beside column names begin with ``at_``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa

from ..core.state_machine import OPEN_STATES, TERMINAL_STATES, TaskState, Verdict
from .clock import moved
from .completion import Completion, is_unsettled, literal
from .dialect import Capabilities, rechecked
from .prepared import PreparedInsert
from .rows import ModelTable, leaves_columns_to_sqlalchemy

__all__ = ["Claim", "Options", "Statements"]

_KNOWN_AT_COMPLETION = {"task_id", "status", "result", "finished_at", "updated_at"}
_SELDOM_READ = {
    "requirements",
    "target_audience",
    "keywords",
    "tone",
    "priority",
    "version",
    "earlier_creator_task_ids",
    "creator_name",
    "creator_address",
    "max_retries",
    "timeout_seconds",
    "callback_url",
    "callback_events",
    "creator_options",
    "traceparent",
    "progress",
    "progress_percentage",
    "progress_at",
    "submitting_since",
    "submit_tries",
    "submitted_at",
    "polls",
    "times_missing",
    "deadline_at",
    "created_at",
}
"""Columns that handlers of a completed task hardly ever read. Returning them each time costs more than the SELECT that
loads them for the handler that does."""


class Options(NamedTuple):
    """Settings that the statements depend on."""

    lock_timeout: str
    poll_intervals: tuple[timedelta, ...]
    own_intervals: Mapping[str, tuple[timedelta, ...]]
    """Of creators that have their own, by ``creator_name``."""

    @classmethod
    def of(
        cls, lock_timeout: float, poll_intervals: Sequence[timedelta], own: Mapping[str, Sequence[timedelta]]
    ) -> Options:
        """Return the options as the statements need them; the time for a lock is in seconds."""
        milliseconds = max(1, round(lock_timeout * 1000))
        return cls(f"{milliseconds}ms", tuple(poll_intervals), {name: tuple(times) for name, times in own.items()})

    def bound_intervals(self) -> dict[str, timedelta]:
        """Return the times that the statement of the polls binds, by name."""
        sets = [self.poll_intervals, *self.own_intervals.values()]
        return {_at_next(group, number): time for group, times in enumerate(sets) for number, time in enumerate(times)}


class Statements:
    """Every statement, for one kind of database."""

    def __init__(
        self,
        tasks: ModelTable,
        deliveries: ModelTable,
        *,
        dialect: sa.Dialect,
        capabilities: Capabilities,
        options: Options,
    ) -> None:
        t, d = tasks.columns, deliveries.columns
        self.capabilities = capabilities
        wait = _lock_timeout_clause(dialect, options.lock_timeout)
        by_task_id = t["task_id"] == sa.bindparam("at_task_id")
        by_delivery_id = d["id"] == sa.bindparam("at_id", type_=sa.BigInteger())

        self.cleared = dict.fromkeys(("error_code", "error_message", "next_poll_at", "next_submit_at"))
        self.returned = [key for key in t if key not in {*_KNOWN_AT_COMPLETION, *self.cleared, *_SELDOM_READ}]
        # Two parameters for the same time: PostgreSQL gives one the type of the first column, and the host may have
        # another type for the second.
        finished_at, updated_at = (
            sa.bindparam(f"at_{key}", type_=t[key].type) for key in ("finished_at", "updated_at")
        )
        complete = (
            sa.update(tasks.table)
            .where(by_task_id, sa.or_(*(t["status"] == literal(state.value) for state in OPEN_STATES)), *wait)
            .ordered_values(
                (t["previous_status"], t["status"]),  # before its change: MySQL goes from left to right
                (t["version"], t["version"] + sa.literal_column("1")),
                (t["status"], literal(TaskState.COMPLETED.value)),
                (t["finished_at"], finished_at),
                (t["updated_at"], updated_at),
                (t["result"], sa.bindparam("at_result", type_=t["result"].type)),
                *((t[key], sa.null()) for key in self.cleared),
            )
        )
        named = t["creator_task_id"] == sa.bindparam("at_creator_task_id")
        self.complete_open = Completion(
            complete,
            of_task=(by_task_id,),
            tasks=tasks,
            deliveries=deliveries,
            returned=self.returned,
            capabilities=capabilities,
        )
        self.complete_open_of_creator = Completion(
            complete.where(named),
            of_task=(by_task_id, named),
            tasks=tasks,
            deliveries=deliveries,
            returned=self.returned,
            capabilities=capabilities,
        )

        select_task = sa.select(*t.values())
        self.task_by_id = select_task.where(by_task_id)
        self.task_by_id_locked = self.task_by_id.where(*wait).with_for_update()
        self.task_by_creator_id = select_task.where(t["creator_task_id"] == sa.bindparam("at_task_id")).limit(1)
        ids: sa.BindParameter[Any] = sa.bindparam("at_task_ids", expanding=True)
        self.tasks_by_id = select_task.where(t["task_id"].in_(ids))
        self.attempts = sa.select(t["task_id"], t["attempt"], t["status"]).where(t["task_id"].in_(ids))
        self.tasks_by_creator_id = select_task.where(t["creator_task_id"].in_(ids)).order_by(t["id"])
        self.lock_by_writing = (
            sa.update(tasks.table).where(by_task_id).values({t["version"]: t["version"]})
            if dialect.name == "sqlite"
            else None
        )
        self.compare_and_set = (
            sa.update(tasks.table)
            .where(by_task_id, t["version"] == sa.bindparam("at_version"), *wait)
            .ordered_values((t["previous_status"], t["status"]))
        )

        self.change_attempt = sa.update(tasks.table).where(by_task_id, t["attempt"] == sa.bindparam("at_attempt"))
        self.change_open = self.change_attempt.where(t["status"].in_([state.value for state in OPEN_STATES]))
        self.change_ended = self.change_attempt.where(t["status"].in_([state.value for state in TERMINAL_STATES]))
        self.change_pending = self.change_attempt.where(t["status"] == TaskState.PENDING.value)
        self.change_claimed = self.change_pending.where(
            t["next_submit_at"] == sa.bindparam("at_seen", type_=t["next_submit_at"].type)
        )
        self.submissions = Claim(
            tasks,
            capabilities,
            due="next_submit_at",
            status=TaskState.PENDING,
            changes={"next_submit_at": moved("at_until", t["next_submit_at"].type)},
        )
        self.polls = Claim(
            tasks,
            capabilities,
            due="next_poll_at",
            soon=_may_be_early(t),
            changes={"next_poll_at": _next_poll(t, options), "polls": t["polls"] + 1},  # in this order
        )

        self._inserts: dict[tuple[str, ...], PreparedInsert] = {}
        self._prepare_insert = partial(
            PreparedInsert,
            deliveries.table,
            dialect=dialect,
            fills_columns=leaves_columns_to_sqlalchemy(tasks, deliveries),
        )
        # SQLite numbers the rows in their order anyway; asked to say so, SQLAlchemy would insert them one by one.
        in_order = dialect.name != "sqlite"
        self.insert_deliveries = sa.insert(deliveries.table).returning(d["id"], sort_by_parameter_order=in_order)
        self.update_delivery = sa.update(deliveries.table).where(by_delivery_id, is_unsettled(d))
        self.add_occurrences = (
            sa.update(deliveries.table)
            .where(by_delivery_id)
            .values({d["occurrences"]: d["occurrences"] + sa.bindparam("at_count")})
        )
        self.delivery_by_id = sa.select(*d.values()).where(by_delivery_id)
        is_parked = sa.and_(d["verdict"] == Verdict.DEAD.value, d["source"] != literal("webhook"))
        self.is_waiting = (
            sa.select(d["id"])
            .where(
                d["task_id"] == sa.bindparam("at_task_id"),
                d["event"] == sa.bindparam("at_event"),
                d["attempt"] == sa.bindparam("at_attempt"),
                sa.or_(d["next_retry_at"].is_not(None), is_parked),
            )
            .limit(1)
        )
        self.was_applied = (
            sa.select(d["id"])
            .where(
                d["task_id"] == sa.bindparam("at_task_id"),
                sa.or_(d["verdict"] == Verdict.PROCESSED.value, _is_of_earlier_attempt(d)),
                sa.or_(
                    d["message_id"] == sa.bindparam("at_message_id"),
                    d["body_digest"] == sa.bindparam("at_digest"),
                    sa.and_(d["body_digest"] == sa.bindparam("at_digest_without_id"), d["message_id"].is_(None)),
                ),
            )
            .limit(1)
        )

    def insert_delivery(self, connection: sa.Connection, row: Mapping[str, Any]) -> int:
        """Write a history row, given by the names of columns; return its id."""
        keys = tuple(row)
        insert = self._inserts.get(keys)
        if insert is None:
            insert = self._inserts[keys] = self._prepare_insert(keys=keys)
        return insert.execute(connection, row)


def _is_of_earlier_attempt(d: Mapping[str, sa.Column[Any]]) -> sa.ColumnElement[bool]:
    """Return the condition that a signed event belongs to an earlier attempt; a signed URL names its attempt anyway."""
    is_earlier = d["attempt"] < sa.bindparam("at_attempt")
    return sa.and_(d["verdict"] == Verdict.STALE.value, is_earlier, d["scheme"] != "url")


class Claim:
    """Claims tasks that are due at one of their times, and moves that time forward: in one statement if it can be."""

    def __init__(
        self,
        tasks: ModelTable,
        capabilities: Capabilities,
        *,
        due: str,
        changes: dict[str, Any],
        status: TaskState | None = None,
        soon: sa.ColumnElement[bool] | None = None,
        of_others: bool = False,
    ) -> None:
        t = tasks.columns
        is_due = [t[due] <= moved("at_due", t[due].type)]
        if status is not None:
            is_due.append(t["status"] == status.value)
        if soon is not None:
            is_due.append(soon)
        if of_others:
            is_due.append(sa.func.coalesce(t["creator_name"], "").not_in(sa.bindparam("at_without", expanding=True)))
        else:
            self.of_others = Claim(
                tasks, capabilities, due=due, changes=changes, status=status, soon=soon, of_others=True
            )
            """The same without the tasks of creators that rest, whose names are bound as ``at_without``."""
        at_limit = sa.bindparam("at_limit", type_=sa.Integer())
        self._due = sa.select(t["id"].label("due_id"), t[due]).where(*is_due).order_by(t[due]).limit(at_limit)
        if capabilities.skip_locked:
            self._due = self._due.with_for_update(skip_locked=True)
        ids = self._due.with_only_columns(t["id"].label("due_id"))
        claim = sa.update(tasks.table).ordered_values(*((t[key], value) for key, value in changes.items()))
        claim = claim.where(rechecked(sa.and_(*is_due)))
        self._all_due = claim.where(t["id"].in_(sa.select(ids.cte("due").c.due_id))).returning(*t.values())
        found = t["id"].in_(sa.bindparam("at_ids", expanding=True))
        self._locked = claim.where(found)
        seen = sa.bindparam("at_seen", type_=t[due].type)
        self._one_due = claim.where(t["id"] == sa.bindparam("at_id"), t[due] == seen)
        self._claimed = sa.select(*t.values()).where(found)
        self._capabilities = capabilities

    def run(self, connection: sa.Connection, parameters: dict[str, Any]) -> Sequence[sa.Row[Any]]:
        """Claim up to ``at_limit`` tasks, and return them as they are then."""
        if self._capabilities.returning:
            return connection.execute(self._all_due, parameters).all()
        due = connection.execute(self._due, parameters).all()
        del parameters["at_limit"]
        if self._capabilities.locks_first:
            ids = [task.due_id for task in due]
            if ids:
                connection.execute(self._locked, {**parameters, "at_ids": ids})
        else:
            one = [(number, {**parameters, "at_id": number, "at_seen": seen}) for number, seen in due]
            ids = [number for number, task in one if connection.execute(self._one_due, task).rowcount == 1]
        return connection.execute(self._claimed, {"at_ids": ids}).all() if ids else []


def _may_be_early(t: Mapping[str, sa.Column[Any]]) -> sa.ColumnElement[bool]:
    """Return the condition that a task is due, or nearly due and not at its deadline, to be queried with due ones."""
    ahead = sa.or_(t["deadline_at"].is_(None), t["next_poll_at"] < t["deadline_at"])
    at_now = moved("at_now", t["next_poll_at"].type)
    return sa.or_(t["next_poll_at"] <= at_now, sa.and_(t["callback_url"].is_not(None), ahead))


def _next_poll(t: Mapping[str, sa.Column[Any]], options: Options) -> sa.ColumnElement[Any]:
    """Return the time of the next query: later with each one, but not past a deadline that is ahead."""
    next_ = _regular_poll(t, 0, len(options.poll_intervals))
    own = [
        (t["creator_name"] == literal(name), _regular_poll(t, group, len(times)))
        for group, (name, times) in enumerate(options.own_intervals.items(), 1)
    ]
    if own:
        next_ = sa.case(*own, else_=next_)
    deadline_is_ahead = t["deadline_at"] > moved("at_now", t["next_poll_at"].type)
    return sa.case((sa.and_(deadline_is_ahead, t["deadline_at"] < next_), t["deadline_at"]), else_=next_)


def _regular_poll(t: Mapping[str, sa.Column[Any]], group: int, steps: int) -> sa.ColumnElement[Any]:
    type_ = t["next_poll_at"].type
    without_callbacks, *backed_off = (moved(_at_next(group, number), type_) for number in range(steps))
    last = backed_off.pop()
    doubling = sa.case(*((t["polls"] == count, time) for count, time in enumerate(backed_off)), else_=last)
    return sa.case((t["callback_url"].is_(None), without_callbacks), else_=doubling if backed_off else last)


def _at_next(group: int, number: int) -> str:
    return f"at_next_{number}" if group == 0 else f"at_next_{number}_{group}"


def _lock_timeout_clause(dialect: sa.Dialect, lock_timeout: str) -> Sequence[sa.ColumnElement[bool]]:
    """Return a condition that is always true, and bounds lock waits until the transaction ends.

    PostgreSQL evaluates the subquery once, before it touches a row; SET LOCAL would cost a round trip.
    """
    if dialect.name != "postgresql":
        return ()
    setting = sa.select(sa.func.set_config(literal("lock_timeout"), literal(lock_timeout), sa.true()))
    return (setting.scalar_subquery().is_not(None),)
