"""The state of tasks and queues, read from the database in six statements: over what waits, never over the history.

All rows that are open, waiting or dead are in a partial index, and counting stops at a limit; so a scrape costs the
same whether the history holds a thousand rows or a hundred million.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ...core.state_machine import OPEN_STATES, UNSETTLED, TaskState, Verdict
from ...storage.completion import literal
from ...storage.failure_groups import ACKNOWLEDGED
from ...storage.holds import HOLDS
from ...storage.inbox_statements import due_since
from ...storage.job_passes import is_pass, job_of
from ...storage.notes import PURGED
from ...storage.queries import count_where
from . import catalogue
from .catalogue import Metric

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["COUNT_LIMIT", "Reading", "read"]

Reading = Mapping[Metric, float | Mapping[str, float]]
"""The value of each gauge, or its values by label."""

COUNT_LIMIT = 100_000
"""Counting stops here."""
_MOST_ALERTS = 100
_WAITING = (Verdict.QUEUED, Verdict.FAILED)


def read(state: WebhookState) -> Reading:
    """Read everything in one transaction.

    Raises:
        SQLAlchemyError: the database is down, or a table is missing.
    """
    now, task, delivery = state.now(), state.task_model, state.delivery_model
    forward, alert = state.models.forward, state.models.alert
    with state.database.session() as session:
        tasks = _rows(session, task, _open_tasks(task, now))
        deliveries = _rows(
            session,
            delivery,
            _waiting(
                delivery,
                delivery.next_retry_at,
                delivery.verdict,
                now,
                since=due_since(delivery.next_retry_at, delivery.received_at),
            ),
        )
        forwards = _rows(session, forward, _waiting(forward, forward.next_try_at, forward.status, now))
        alerts = _rows(session, alert, _alerts_and_jobs(alert))
        dead_deliveries = _count_dead(session, delivery, delivery.verdict, among=UNSETTLED)
        dead_forwards = _count_dead(session, forward, forward.status)
    queues = (
        ("deliveries", deliveries, "due", "oldest"),
        ("polls", tasks, "due_polls", "oldest_poll"),
        ("submissions", tasks, "due_submissions", "oldest_submission"),
        ("forwards", forwards, "due", "oldest"),
    )
    return {
        catalogue.OPEN_TASKS: _by(tasks, "status", OPEN_STATES),
        catalogue.OVERDUE_TASKS: sum(row["overdue"] for row in tasks),
        catalogue.WAITING_DELIVERIES: _by(deliveries, "state", _WAITING),
        catalogue.DEAD_DELIVERIES: dead_deliveries,
        catalogue.WAITING_FORWARDS: sum(row["count"] for row in forwards),
        catalogue.DEAD_FORWARDS: dead_forwards,
        catalogue.DUE: {name: sum(row[due] for row in rows) for name, rows, due, _ in queues},
        catalogue.LONGEST_DUE: {name: _longest(rows, oldest, now) for name, rows, _, oldest in queues},
        catalogue.ALERT_RAISED: {row["name"]: row["raised"] for row in alerts if not is_pass(row["name"])},
        catalogue.LAST_PASS: _last_passes(alerts),
    }


def _last_passes(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, float]:
    return {job_of(row["name"]): row["checked_at"].timestamp() for row in rows if is_pass(row["name"])}


# --- the statements ------------------------------------------------------------------------------------------


def _alerts_and_jobs(alert: Any) -> sa.Select[Any]:
    """Select the rows of the alerts and of the last passes, without pauses of creators and notes."""
    columns = sa.select(alert.name, alert.raised, alert.checked_at)
    others = (alert.name.not_like(f"{prefix}%") for prefix in (HOLDS, ACKNOWLEDGED, PURGED))
    return columns.where(*others).limit(_MOST_ALERTS)


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
        count_where(open_.deadline_at <= now).label("overdue"),
        count_where(open_.next_poll_at <= now).label("due_polls"),
        sa.func.min(open_.next_poll_at).label("oldest_poll"),
        count_where(open_.next_submit_at <= now).label("due_submissions"),
        sa.func.min(open_.next_submit_at).label("oldest_submission"),
    ).group_by(open_.status)


def _waiting(model: Any, due_at: Any, state: Any, now: datetime, *, since: Any = None) -> sa.Select[Any]:
    """Select for each state: the rows that wait for a time, how many are due, and the oldest (by ``since``)."""
    since = due_at if since is None else since
    waiting = (
        sa.select(state.label("state"), since.label("due_at"))
        .select_from(model)
        .where(due_at.is_not(None))
        .order_by(due_at)
        .limit(COUNT_LIMIT)
        .subquery()
    ).c
    return sa.select(
        waiting.state.label("state"),
        sa.func.count().label("count"),
        count_where(waiting.due_at <= now).label("due"),
        sa.func.min(waiting.due_at).label("oldest"),
    ).group_by(waiting.state)


def _count_dead(session: Session, model: Any, state: Any, *, among: tuple[Verdict, ...] = ()) -> int:
    """Count the dead rows.

    The values are literals, since with bound parameters no partial index is used; and SQLite uses an index over several
    states only if the statement repeats its condition verbatim.
    """
    indexed = [state.in_([literal(value) for value in among])] if among else []
    dead = sa.select(model.id).where(state == literal(Verdict.DEAD), *indexed).limit(COUNT_LIMIT).subquery()
    rows = _rows(session, model, sa.select(sa.func.count().label("count")).select_from(dead))
    return int(rows[0]["count"])


def _rows(session: Session, model: Any, query: sa.Select[Any]) -> list[Mapping[str, Any]]:
    """Run a query in the database of the model."""
    return [dict(row) for row in session.execute(query, bind_arguments={"mapper": sa.inspect(model)}).mappings()]


# --- the results ---------------------------------------------------------------------------------------------


def _by(rows: list[Mapping[str, Any]], key: str, known: tuple[str, ...]) -> dict[str, int]:
    """Return the counts by state, zero for states without rows."""
    return {**dict.fromkeys(map(str, known), 0), **{row[key]: row["count"] for row in rows}}


def _longest(rows: list[Mapping[str, Any]], oldest: str, now: datetime) -> float:
    """Return the seconds for which the oldest row has been due."""
    times = [row[oldest] for row in rows if row[oldest] is not None]
    return max(0.0, (now - min(times)).total_seconds()) if times else 0.0
