"""The state of tasks and queues, read from the database in six statements: over what waits, never over the history.

All rows that are open, waiting or dead are in a partial index, and counting stops at a limit; so a scrape costs the
same whether the history holds a thousand rows or a hundred million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ...core.state_machine import OPEN_STATES, UNSETTLED, TaskState, Verdict
from ...models.defaults import default_alert_model, default_forward_models

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["COUNT_LIMIT", "Queue", "Reading", "read"]

COUNT_LIMIT = 100_000
"""Counting stops here."""
_MOST_ALERTS = 100
_WAITING = (Verdict.QUEUED, Verdict.FAILED)


@dataclass(frozen=True, slots=True)
class Queue:
    """Work that is due.

    Args:
        due: the number of rows that are due.
        seconds: for how long the oldest has been due.
    """

    due: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The state of tasks and queues at one moment.

    Args:
        open_tasks: number by status.
        overdue_tasks: open tasks that are past their deadline.
        waiting_deliveries: number by verdict.
        dead_deliveries: deliveries that wait for a replay.
        waiting_forwards: forwards that are still to be sent.
        dead_forwards: forwards that wait for a replay.
        queues: by name.
        alerts: True for each name that is raised.
    """

    open_tasks: Mapping[str, int]
    overdue_tasks: int
    waiting_deliveries: Mapping[str, int]
    dead_deliveries: int
    waiting_forwards: int
    dead_forwards: int
    queues: Mapping[str, Queue]
    alerts: Mapping[str, bool]


def read(state: WebhookState) -> Reading:
    """Read everything in one transaction.

    Raises:
        SQLAlchemyError: the database is down, or a table is missing.
    """
    now, task, delivery = state.clock(), state.task_model, state.delivery_model
    forward, _ = default_forward_models(state.database.db)
    alert = default_alert_model(state.database.db)
    with state.database.session() as session:
        tasks = _rows(session, task, _open_tasks(task, now))
        deliveries = _rows(session, delivery, _waiting(delivery, delivery.next_retry_at, delivery.verdict, now))
        forwards = _rows(session, forward, _waiting(forward, forward.next_try_at, forward.status, now))
        alerts = _rows(
            session, alert, sa.select(alert.name.label("name"), alert.raised.label("raised")).limit(_MOST_ALERTS)
        )
        return Reading(
            open_tasks=_by(tasks, "status", OPEN_STATES),
            overdue_tasks=sum(row["overdue"] for row in tasks),
            waiting_deliveries=_by(deliveries, "state", _WAITING),
            dead_deliveries=_count_dead(session, delivery, delivery.verdict, among=UNSETTLED),
            waiting_forwards=sum(row["count"] for row in forwards),
            dead_forwards=_count_dead(session, forward, forward.status),
            queues={
                "deliveries": _queue(deliveries, "due", "oldest", now),
                "polls": _queue(tasks, "due_polls", "oldest_poll", now),
                "submissions": _queue(tasks, "due_submissions", "oldest_submission", now),
                "forwards": _queue(forwards, "due", "oldest", now),
            },
            alerts={row["name"]: row["raised"] for row in alerts},
        )


# --- the statements ------------------------------------------------------------------------------------------


def _open_tasks(task: Any, now: datetime) -> sa.Select[Any]:
    """Select for each status: open tasks, overdue ones, due polls and submissions, and the oldest of both.

    Every open task has a ``next_poll_at``, so the index of those times finds them all.
    """
    open_ = (
        sa.select(
            task.status.label("status"),
            task.deadline_at.label("deadline_at"),
            task.next_poll_at.label("next_poll_at"),
            sa.case((task.status == TaskState.PENDING.value, task.next_submit_at)).label("next_submit_at"),
        )
        .where(task.next_poll_at.is_not(None), task.status.in_([state.value for state in OPEN_STATES]))
        .order_by(task.next_poll_at)
        .limit(COUNT_LIMIT)
        .subquery()
    ).c
    return sa.select(
        open_.status.label("status"),
        sa.func.count().label("count"),
        _count_where(open_.deadline_at <= now).label("overdue"),
        _count_where(open_.next_poll_at <= now).label("due_polls"),
        sa.func.min(open_.next_poll_at).label("oldest_poll"),
        _count_where(open_.next_submit_at <= now).label("due_submissions"),
        sa.func.min(open_.next_submit_at).label("oldest_submission"),
    ).group_by(open_.status)


def _waiting(model: Any, due_at: Any, state: Any, now: datetime) -> sa.Select[Any]:
    """Select for each state: the rows that wait for a time, how many are due, and the oldest."""
    waiting = (
        sa.select(state.label("state"), due_at.label("due_at"))
        .select_from(model)
        .where(due_at.is_not(None))
        .order_by(due_at)
        .limit(COUNT_LIMIT)
        .subquery()
    ).c
    return sa.select(
        waiting.state.label("state"),
        sa.func.count().label("count"),
        _count_where(waiting.due_at <= now).label("due"),
        sa.func.min(waiting.due_at).label("oldest"),
    ).group_by(waiting.state)


def _count_dead(session: Session, model: Any, state: Any, *, among: tuple[Verdict, ...] = ()) -> int:
    """Count the dead rows.

    The values are literals, since with bound parameters no partial index is used; and SQLite uses an index over several
    states only if the statement repeats its condition verbatim.
    """
    indexed = [state.in_([_literal(value) for value in among])] if among else []
    dead = sa.select(model.id).where(state == _literal(Verdict.DEAD), *indexed).limit(COUNT_LIMIT).subquery()
    rows = _rows(session, model, sa.select(sa.func.count().label("count")).select_from(dead))
    return int(rows[0]["count"])


def _literal(verdict: Verdict) -> sa.ColumnElement[str]:
    return sa.literal_column(f"'{verdict.value}'")


def _count_where(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((condition, 1)))


def _rows(session: Session, model: Any, query: sa.Select[Any]) -> list[Mapping[str, Any]]:
    """Run a query in the database of the model."""
    return [dict(row) for row in session.execute(query, bind_arguments={"mapper": sa.inspect(model)}).mappings()]


# --- the results ---------------------------------------------------------------------------------------------


def _by(rows: list[Mapping[str, Any]], key: str, known: tuple[str, ...]) -> dict[str, int]:
    """Return the counts by state, zero for states without rows."""
    return {**dict.fromkeys(map(str, known), 0), **{row[key]: row["count"] for row in rows}}


def _queue(rows: list[Mapping[str, Any]], due: str, oldest: str, now: datetime) -> Queue:
    times = [row[oldest] for row in rows if row[oldest] is not None]
    waited = (now - min(times)).total_seconds() if times else 0.0
    return Queue(sum(row[due] for row in rows), max(0.0, waited))
