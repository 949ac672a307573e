"""Queries for tasks, and the figures of `stats`: a fixed number of statements for each command."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from ..core.events import BUG_IN_CREATOR
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
    "sum_open_tasks",
    "sum_tasks",
]

_TASK_LIST = (
    "task_id",
    "creator_name",
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


def read_tasks(
    database: Database,
    *,
    statuses: Sequence[str] = (),
    creators: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    text: str | None = None,
    limit: int,
) -> list[Row]:
    """Return the newest tasks, without their results.

    Args:
        database: the application's database.
        statuses: states; none matches all.
        creators: names of creators, as the tasks have them; empty text stands for none, and no name matches all.
        since: the earliest time of creation.
        until: the time before which they were created.
        text: a part of the topic or of the error.
        limit: the greatest number of tasks.
    """
    task = database.task_model
    query = sa.select(*(getattr(task, key).label(key) for key in _TASK_LIST)).order_by(task.id.desc()).limit(limit)
    if statuses:
        query = query.where(task.status.in_(statuses))
    if creators:
        query = query.where(sa.func.coalesce(task.creator_name, "").in_(creators))
    if since is not None:
        query = query.where(task.created_at >= since)
    if until is not None:
        query = query.where(task.created_at < until)
    if text:
        texts = (task.topic, task.error_code, task.error_message)
        query = query.where(sa.or_(*(column.icontains(text, autoescape=True) for column in texts)))
    with reading(database) as read:
        return read.rows(query)


def read_task(database: Database, any_id: str) -> Row | None:
    """Return every attribute of a task, found by our id or by the service's."""
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
    """Count, for each state, all tasks, those past their deadline, due for a poll, and due for submission."""
    task = database.task_model
    is_open = task.status.in_([state.value for state in OPEN_STATES])
    is_pending = task.status == TaskState.PENDING.value
    query = sa.select(
        task.status.label("status"),
        sa.func.count().label("tasks"),
        count_where(sa.and_(is_open, task.deadline_at <= now)).label("overdue"),
        count_where(sa.and_(is_open, task.next_poll_at <= now)).label("due_for_poll"),
        count_where(sa.and_(is_pending, task.next_submit_at <= now)).label("due_for_submission"),
    ).group_by(task.status)
    with reading(database) as read:
        return read.rows(query)


def sum_deliveries(database: Database, *, since: datetime, now: datetime) -> list[Row]:
    """Count, for each source and verdict, deliveries, requests, recent deliveries, waiting and due retries."""
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
    """Summarise the latencies since a time; see :func:`.delivery_queries.latency_summary`."""
    delivery = database.delivery_model
    with reading(database) as read:
        return read.rows(latency_summary(delivery, delivery.received_at >= since, shares=shares))[0]


def sum_open_tasks(database: Database) -> list[Row]:
    """Count open tasks by creator and address: all, those that met a bug, and those handed to nobody."""
    task = database.task_model
    is_pending = task.status == TaskState.PENDING.value
    query = (
        sa.select(
            task.creator_name.label("creator"),
            task.creator_address.label("address"),
            sa.func.count().label("tasks"),
            count_where(task.error_code == BUG_IN_CREATOR).label("bugs"),
            sa.func.max(sa.case((task.error_code == BUG_IN_CREATOR, task.error_message))).label("bug"),
            count_where(sa.and_(is_pending, task.next_submit_at.is_(None))).label("handed_to_nobody"),
        )
        .where(task.next_poll_at.is_not(None), task.status.in_([state.value for state in OPEN_STATES]))
        .group_by(task.creator_name, task.creator_address)
    )
    with reading(database) as read:
        return read.rows(query)


def count_waiting(database: Database, *, due_before: datetime) -> Row:
    """Count overdue ``polls``, ``submissions`` and ``retries``."""
    task, delivery = database.task_model, database.delivery_model
    is_pending = task.status == TaskState.PENDING.value
    tasks = sa.select(
        count_where(task.next_poll_at < due_before).label("polls"),
        count_where(sa.and_(is_pending, task.next_submit_at < due_before)).label("submissions"),
    ).where(sa.or_(task.next_poll_at < due_before, task.next_submit_at < due_before))
    retries = sa.select(sa.func.count().label("retries")).where(delivery.next_retry_at < due_before)
    with reading(database) as read:
        return read.rows(tasks)[0] | read.rows(retries)[0]
