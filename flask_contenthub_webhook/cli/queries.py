"""What the commands read from the two tables: SQLAlchemy selects of columns, a fixed number of them per command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flask_contenthub_webhook.database import unit_of_work
from flask_contenthub_webhook.transitions import OPEN_STATES, TaskState, Verdict

if TYPE_CHECKING:
    from flask_contenthub_webhook.state import WebhookState

__all__ = [
    "DeliveryFilter",
    "Row",
    "count_expired",
    "count_matching",
    "count_waiting",
    "read_deliveries",
    "read_delivery",
    "read_latencies",
    "read_task",
    "read_tasks",
    "replayable_ids",
    "sum_deliveries",
    "sum_tasks",
]

Row = dict[str, Any]

_BODIES = {"body", "headers"}
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries are meant; what is empty does not narrow.

    Args:
        task_id: of this task.
        events: of one of these event types.
        verdicts: with one of these verdicts.
        sources: brought by one of these.
        since: received at or after this time.
    """

    task_id: str | None = None
    events: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    since: datetime | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every delivery is meant."""
        return not (self.task_id or self.events or self.verdicts or self.sources or self.since)

    def conditions(self, model: Any) -> list[sa.ColumnElement[bool]]:
        """The WHERE of this filter."""
        conditions: list[sa.ColumnElement[bool]] = []
        if self.task_id:
            conditions.append(model.task_id == self.task_id)
        for column, values in (
            (model.event, self.events),
            (model.verdict, self.verdicts),
            (model.source, self.sources),
        ):
            if values:
                conditions.append(column.in_(values))
        if self.since is not None:
            conditions.append(model.received_at >= self.since)
        return conditions


# --- tasks ---------------------------------------------------------------------------------------------------


def read_tasks(
    state: WebhookState, *, statuses: Sequence[str] = (), since: datetime | None = None, limit: int
) -> list[Row]:
    """Tasks, newest first, without their results.

    Args:
        state: the application's state.
        statuses: only those in one of these states.
        since: only those created at or after this time.
        limit: how many at the most.
    """
    task = state.task_model
    query = sa.select(*(getattr(task, key).label(key) for key in _TASK_LIST)).order_by(task.id.desc()).limit(limit)
    if statuses:
        query = query.where(task.status.in_(statuses))
    if since is not None:
        query = query.where(task.created_at >= since)
    return _rows(state, task, query)


def read_task(state: WebhookState, any_id: str) -> Row | None:
    """Every column of a task, by our id or by the creator's."""
    task = state.task_model
    ours_first = sa.case((task.task_id == any_id, 0), else_=1)
    query = (
        _select_all(task)
        .where(sa.or_(task.task_id == any_id, task.creator_task_id == any_id))
        .order_by(ours_first)
        .limit(1)
    )
    return next(iter(_rows(state, task, query)), None)


def sum_tasks(state: WebhookState, now: datetime) -> list[Row]:
    """For each state, how many tasks there are, past their deadline, due for a question, due for submission."""
    task = state.task_model
    is_open = task.status.in_(_values(OPEN_STATES))
    query = sa.select(
        task.status.label("status"),
        sa.func.count().label("tasks"),
        _count_where(sa.and_(is_open, task.deadline_at <= now)).label("overdue"),
        _count_where(sa.and_(is_open, task.next_poll_at <= now)).label("due_for_poll"),
        _count_where(sa.and_(task.status == TaskState.PENDING.value, task.next_submit_at <= now)).label(
            "due_for_submission"
        ),
    ).group_by(task.status)
    return _rows(state, task, query)


# --- deliveries ----------------------------------------------------------------------------------------------


def read_deliveries(state: WebhookState, chosen: DeliveryFilter, *, before: int | None = None, limit: int) -> list[Row]:
    """Deliveries, newest first, without headers and bodies.

    Args:
        state: the application's state.
        chosen: which.
        before: only those with a smaller id, the last one of the page before.
        limit: how many at the most.
    """
    delivery = state.delivery_model
    query = _select_all(delivery, without=_BODIES).where(*chosen.conditions(delivery))
    if before is not None:
        query = query.where(delivery.id < before)
    return _rows(state, delivery, query.order_by(delivery.id.desc()).limit(limit))


def read_delivery(state: WebhookState, delivery_id: int) -> Row | None:
    """Every column of a delivery."""
    delivery = state.delivery_model
    return next(iter(_rows(state, delivery, _select_all(delivery).where(delivery.id == delivery_id))), None)


def count_matching(state: WebhookState, chosen: DeliveryFilter) -> Row:
    """How many deliveries match (``matching``), can be replayed (``replayable``), and the newest id (``newest``)."""
    delivery = state.delivery_model
    query = sa.select(
        sa.func.count().label("matching"),
        _count_where(_can_be_replayed(delivery)).label("replayable"),
        sa.func.max(delivery.id).label("newest"),
    ).where(*chosen.conditions(delivery))
    return _rows(state, delivery, query)[0]


def replayable_ids(state: WebhookState, chosen: DeliveryFilter, *, after: int, up_to: int, limit: int) -> list[int]:
    """Ids of deliveries that hold an event somebody vouched for, oldest first.

    Args:
        state: the application's state.
        chosen: which.
        after: only greater ids, the last one of the batch before.
        up_to: no greater ids: replays are deliveries themselves, and are not to be replayed in their turn.
        limit: how many at the most.
    """
    delivery = state.delivery_model
    query = (
        sa.select(delivery.id.label("id"))
        .where(*chosen.conditions(delivery), _can_be_replayed(delivery), delivery.id > after, delivery.id <= up_to)
        .order_by(delivery.id)
        .limit(limit)
    )
    return [row["id"] for row in _rows(state, delivery, query)]


def count_expired(state: WebhookState, before: datetime) -> int:
    """How many deliveries a purge would delete."""
    delivery = state.delivery_model
    query = sa.select(sa.func.count().label("n")).where(delivery.received_at < before, delivery.next_retry_at.is_(None))
    return int(_rows(state, delivery, query)[0]["n"])


def sum_deliveries(state: WebhookState, *, since: datetime, now: datetime) -> list[Row]:
    """For each source and verdict: deliveries, requests behind them, those since a time, waiting and due retries."""
    delivery = state.delivery_model
    query = sa.select(
        delivery.source.label("source"),
        delivery.verdict.label("verdict"),
        sa.func.count().label("deliveries"),
        sa.func.sum(delivery.occurrences).label("requests"),
        _count_where(delivery.received_at >= since).label("recent"),
        _count_where(delivery.next_retry_at.is_not(None)).label("waiting_retries"),
        _count_where(delivery.next_retry_at <= now).label("due_retries"),
    ).group_by(delivery.source, delivery.verdict)
    return _rows(state, delivery, query)


def read_latencies(state: WebhookState, *, since: datetime, shares: Sequence[float]) -> Row:
    """Latencies of the callbacks that were applied since a time: ``count``, ``p0.5`` and so on, ``max``, in ms.

    A percentile is the smallest latency that at least that share of the callbacks does not exceed.
    """
    delivery = state.delivery_model
    ranked = (
        sa.select(
            delivery.latency_ms.label("latency"),
            sa.func.cume_dist().over(order_by=delivery.latency_ms).label("share"),
        )
        .where(
            delivery.verdict == Verdict.PROCESSED.value,
            delivery.source == "webhook",
            delivery.received_at >= since,
            delivery.latency_ms.is_not(None),
        )
        .subquery()
    )
    query = sa.select(
        sa.func.count().label("count"),
        *(sa.func.min(sa.case((ranked.c.share >= share, ranked.c.latency))).label(f"p{share:g}") for share in shares),
        sa.func.max(ranked.c.latency).label("max"),
    )
    return _rows(state, delivery, query)[0]


def count_waiting(state: WebhookState, *, due_before: datetime) -> Row:
    """What should have been done before a time: ``polls``, ``submissions``, ``retries``."""
    task, delivery = state.task_model, state.delivery_model
    tasks = sa.select(
        sa.func.count(sa.case((task.next_poll_at < due_before, 1))).label("polls"),
        sa.func.count(
            sa.case((sa.and_(task.status == TaskState.PENDING.value, task.next_submit_at < due_before), 1))
        ).label("submissions"),
    ).where(sa.or_(task.next_poll_at < due_before, task.next_submit_at < due_before))
    retries = sa.select(sa.func.count().label("retries")).where(delivery.next_retry_at < due_before)
    return _rows(state, task, tasks)[0] | _rows(state, delivery, retries)[0]


# --- how -----------------------------------------------------------------------------------------------------


def _can_be_replayed(delivery: Any) -> sa.ColumnElement[bool]:
    """It holds a body, and nobody refused it unseen; the rest shows when it is tried."""
    return sa.and_(
        sa.func.length(delivery.body) > 0,
        delivery.task_id.is_not(None),
        sa.or_(delivery.verdict != Verdict.REJECTED.value, delivery.scheme.is_not(None)),
    )


def _count_where(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((condition, 1)))


def _values(states: Sequence[TaskState]) -> list[str]:
    return [state.value for state in states]


def _select_all(model: Any, *, without: set[str] | None = None) -> sa.Select[Any]:
    keys = [attribute.key for attribute in sa.inspect(model).column_attrs]
    return sa.select(*(getattr(model, key).label(key) for key in keys if key not in (without or ())))


def _rows(state: WebhookState, model: Any, query: Any) -> list[Row]:
    """Read in a transaction of its own, from the database that the model lives in."""
    with unit_of_work(state) as session:
        return [dict(row) for row in session.execute(query, bind_arguments={"mapper": sa.inspect(model)}).mappings()]
