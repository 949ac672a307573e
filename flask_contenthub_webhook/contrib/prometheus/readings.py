"""How things stand, read from the database in six statements: each over what waits, none over what is done.

Everything that is open, waits or was given up is in a partial index, and counting ends at a limit; so a scrape costs
the same whether the history holds a thousand rows or a hundred million.
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
"""Counts of what waits end here."""
_MOST_ALERTS = 100
_WAITING = (Verdict.QUEUED, Verdict.FAILED)


@dataclass(frozen=True, slots=True)
class Queue:
    """What should be in work by now.

    Args:
        due: how many.
        seconds: for how long the oldest of them has been due.
    """

    due: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How things stood at one moment.

    Args:
        open_tasks: by status.
        overdue_tasks: open, and past their deadline.
        waiting_deliveries: by verdict.
        dead_deliveries: given up.
        waiting_forwards: to be sent on.
        dead_forwards: given up.
        queues: what is due, by the name of the queue.
        alerts: whether an alert is raised, by its name.
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
    """Read it all in one transaction.

    Raises:
        SQLAlchemyError: the database is away, or a table is not there yet.
    """
    now, task, delivery = state.clock(), state.task_model, state.delivery_model
    forward, _ = default_forward_models(state.database.db)
    alert = default_alert_model(state.database.db)
    with state.database.session() as session:
        tasks = _rows(session, task, _open_tasks(task, now))
        deliveries = _rows(session, delivery, _waiting(delivery, delivery.next_retry_at, delivery.verdict, now))
        forwards = _rows(session, forward, _waiting(forward, forward.next_try_at, forward.status, now))
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
            alerts={
                row["name"]: row["raised"]
                for row in _rows(
                    session,
                    alert,
                    sa.select(alert.name.label("name"), alert.raised.label("raised")).limit(_MOST_ALERTS),
                )
            },
        )


# --- the statements ------------------------------------------------------------------------------------------


def _open_tasks(task: Any, now: datetime) -> sa.Select[Any]:
    """For each state: open tasks, past their deadline, due for a question, due for submission; the oldest of both.

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
    """For each state: what waits for a time, how much of it is due, and the oldest."""
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
    """How many rows were given up.

    The values stand in the statement itself, since bound ones find no partial index; and where the index is one of
    several states, SQLite only finds it by its very words.
    """
    indexed = [state.in_([_literal(value) for value in among])] if among else []
    parked = sa.select(model.id).where(state == _literal(Verdict.DEAD), *indexed).limit(COUNT_LIMIT).subquery()
    rows = _rows(session, model, sa.select(sa.func.count().label("count")).select_from(parked))
    return int(rows[0]["count"])


def _literal(verdict: Verdict) -> sa.ColumnElement[str]:
    return sa.literal_column(f"'{verdict.value}'")


def _count_where(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((condition, 1)))


def _rows(session: Session, model: Any, query: sa.Select[Any]) -> list[Mapping[str, Any]]:
    """From the database that the model lives in."""
    return [dict(row) for row in session.execute(query, bind_arguments={"mapper": sa.inspect(model)}).mappings()]


# --- what they amount to -------------------------------------------------------------------------------------


def _by(rows: list[Mapping[str, Any]], key: str, known: tuple[str, ...]) -> dict[str, int]:
    """Counts by state, zero for the states that no row is in."""
    return {**dict.fromkeys(map(str, known), 0), **{row[key]: row["count"] for row in rows}}


def _queue(rows: list[Mapping[str, Any]], due: str, oldest: str, now: datetime) -> Queue:
    times = [row[oldest] for row in rows if row[oldest] is not None]
    waited = (now - min(times)).total_seconds() if times else 0.0
    return Queue(sum(row[due] for row in rows), max(0.0, waited))
