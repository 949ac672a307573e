"""What the commands count and list beyond :mod:`.delivery_queries`: a fixed number of statements for each command."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from ..core.state_machine import OPEN_STATES, TaskState
from .delivery_queries import latency_summary
from .queries import Row, count_where, reading, select_all
from .transactions import Database

__all__ = [
    "count_waiting",
    "read_latencies",
    "read_task",
    "read_tasks",
    "sum_deliveries",
    "sum_tasks",
]

_TASK_LIST = (
    "task_id",
    "status",
    "attempt",
    "topic",
    "priority",
    "created_at",
    "updated_at",
    "finished_at",
    "deadline_at",
    "next_submit_at",
    "next_poll_at",
    "progress_percentage",
    "error_code",
    "error_message",
)


# --- tasks ---------------------------------------------------------------------------------------------------


def read_tasks(
    database: Database, *, statuses: Sequence[str] = (), since: datetime | None = None, limit: int
) -> list[Row]:
    """Tasks, newest first, without their results.

    Args:
        database: the application's database.
        statuses: only those in one of these states.
        since: only those created at or after this time.
        limit: how many at the most.
    """
    task = database.task_model
    query = sa.select(*(getattr(task, key).label(key) for key in _TASK_LIST)).order_by(task.id.desc()).limit(limit)
    if statuses:
        query = query.where(task.status.in_(statuses))
    if since is not None:
        query = query.where(task.created_at >= since)
    with reading(database) as read:
        return read.rows(query)


def read_task(database: Database, any_id: str) -> Row | None:
    """Every column of a task, by our id or by the creator's."""
    task = database.task_model
    ours_first = sa.case((task.task_id == any_id, 0), else_=1)
    query = (
        select_all(task)
        .where(sa.or_(task.task_id == any_id, task.creator_task_id == any_id))
        .order_by(ours_first)
        .limit(1)
    )
    with reading(database) as read:
        return read.row(query)


def sum_tasks(database: Database, now: datetime) -> list[Row]:
    """For each state, how many tasks there are, past their deadline, due for a question, due for submission."""
    task = database.task_model
    is_open = task.status.in_(_values(OPEN_STATES))
    query = sa.select(
        task.status.label("status"),
        sa.func.count().label("tasks"),
        count_where(sa.and_(is_open, task.deadline_at <= now)).label("overdue"),
        count_where(sa.and_(is_open, task.next_poll_at <= now)).label("due_for_poll"),
        count_where(sa.and_(task.status == TaskState.PENDING.value, task.next_submit_at <= now)).label(
            "due_for_submission"
        ),
    ).group_by(task.status)
    with reading(database) as read:
        return read.rows(query)


# --- deliveries ----------------------------------------------------------------------------------------------


def sum_deliveries(database: Database, *, since: datetime, now: datetime) -> list[Row]:
    """For each source and verdict: deliveries, requests behind them, those since a time, waiting and due retries."""
    delivery = database.delivery_model
    query = sa.select(
        delivery.source.label("source"),
        delivery.verdict.label("verdict"),
        sa.func.count().label("deliveries"),
        sa.func.sum(delivery.occurrences).label("requests"),
        count_where(delivery.received_at >= since).label("recent"),
        count_where(delivery.next_retry_at.is_not(None)).label("waiting_retries"),
        count_where(delivery.next_retry_at <= now).label("due_retries"),
    ).group_by(delivery.source, delivery.verdict)
    with reading(database) as read:
        return read.rows(query)


def read_latencies(database: Database, *, since: datetime, shares: Sequence[float]) -> Row:
    """Latencies since a time; see :func:`.delivery_queries.latency_summary`."""
    delivery = database.delivery_model
    with reading(database) as read:
        return read.rows(latency_summary(delivery, delivery.received_at >= since, shares=shares))[0]


def count_waiting(database: Database, *, due_before: datetime) -> Row:
    """What should have been done before a time: ``polls``, ``submissions``, ``retries``."""
    task, delivery = database.task_model, database.delivery_model
    tasks = sa.select(
        sa.func.count(sa.case((task.next_poll_at < due_before, 1))).label("polls"),
        sa.func.count(
            sa.case((sa.and_(task.status == TaskState.PENDING.value, task.next_submit_at < due_before), 1))
        ).label("submissions"),
    ).where(sa.or_(task.next_poll_at < due_before, task.next_submit_at < due_before))
    retries = sa.select(sa.func.count().label("retries")).where(delivery.next_retry_at < due_before)
    with reading(database) as read:
        return read.rows(tasks)[0] | read.rows(retries)[0]


def _values(states: Sequence[TaskState]) -> list[str]:
    return [state.value for state in states]
