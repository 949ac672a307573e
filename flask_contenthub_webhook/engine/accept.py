"""The inbox: events that are accepted now and applied later, by a worker.

A verified and well-formed request writes one delivery, commits, and answers 202. The delivery waits until a worker
(:mod:`.worker`, Celery, or the scheduler) claims and applies it. While too many wait, new events are refused with 503.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from ..core.backoff import jittered
from ..core.received import Outcome, ReceivedEvent, Row, attempt_of, check_belongs
from ..core.state_machine import TaskState, Trigger, Verdict
from ..errors import RequestRefused, TaskNotFound
from ..storage.database_errors import row_refusal
from ..storage.delivery_rows import delivery_values
from ..storage.failure_log import refusal_of
from ..storage.inbox_statements import at_once
from .belonging import check_sender, may_be_anothers
from .spans import accept_in_span

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..runtime.state import WebhookState

__all__ = ["accept", "accept_many", "defer"]

logger = logging.getLogger(__name__)

_QUEUED = 202


def accept(state: WebhookState, received: ReceivedEvent) -> Outcome:
    """Store an event for a worker, and wake one.

    Args:
        state: the application's state.
        received: a verified and parsed event.

    Returns:
        ``queued``, with the task's status as it is now.

    Raises:
        TaskNotFound: there is no such task.
        TaskMismatch: the payload names another task.
        InboxFull: too many events wait already.
        EventNotStorable: the database can never store it.
        DatabaseUnavailable: nothing was written.
    """
    if state.tracing is not None and received.traceparent is None:
        return accept_in_span(state, [received], partial(accept, state, received))
    state.backpressure.admit()
    notify = state.backpressure.may_notify()
    try:
        applied = state.database.write_one(lambda tx: _accept(state, tx, received, notify=notify))
    except SQLAlchemyError as error:
        raise refusal_of(state.database, logger, "The database did not take an event.", error) from error
    state.backpressure.added(1, notified=notify)
    state.wake(applied.task_id)
    return applied


def accept_many(state: WebhookState, batch: Sequence[ReceivedEvent]) -> list[Outcome | RequestRefused]:
    """Store the events of one request: one statement finds their tasks, one writes them, one commit.

    Returns:
        The outcome of each, in order, or its refusal.

    Raises:
        InboxFull: too many events wait already.
        DatabaseUnavailable: nothing was written.
    """
    if state.tracing is not None and batch and batch[0].traceparent is None:
        return accept_in_span(state, batch, partial(accept_many, state, batch))
    state.backpressure.admit()
    try:
        outcomes = state.database.write(lambda tx: _accept_many(state, tx, batch))
    except SQLAlchemyError as error:
        if row_refusal(error) is not None:  # of one of them, or of all in one statement
            return [_accept_alone(state, received) for received in batch]
        raise refusal_of(state.database, logger, "The database did not take a batch.", error) from error
    kept = sum(isinstance(outcome, Outcome) for outcome in outcomes)
    state.backpressure.added(kept, notified=bool(kept))
    for task_id in {outcome.task_id for outcome in outcomes if isinstance(outcome, Outcome)}:
        state.wake(task_id)
    return outcomes


def defer(state: WebhookState, received: ReceivedEvent, reason: str) -> Outcome:
    """Store an event that cannot be applied yet; its first try is due after the first backoff.

    Args:
        state: the application's state.
        received: the event.
        reason: why it has to wait.

    Raises:
        TaskNotFound: there is no such task.
        TaskMismatch: the payload names another task.
        EventNotStorable: the database can never store it.
        DatabaseUnavailable: nothing was written.
    """
    if state.tracing is not None and received.traceparent is None:
        return accept_in_span(state, [received], partial(defer, state, received, reason))
    try:
        return state.database.write(lambda tx: _defer(state, tx, received, reason))
    except SQLAlchemyError as error:
        raise refusal_of(state.database, logger, "The database did not take an event.", error) from error


def _defer(state: WebhookState, tx: Connection, received: ReceivedEvent, reason: str) -> Outcome:
    now, ahead = state.store.clock.now_and_ahead(tx)
    due = now + jittered(state.settings.retry_backoff[0])
    return _write_known(state, tx, received, now, ahead, due=due, reason=reason)


def _accept(state: WebhookState, tx: Connection, received: ReceivedEvent, *, notify: bool) -> Outcome:
    """Write the row without reading the task first, unless one statement cannot determine the task and the attempt."""
    now, ahead = state.store.clock.now_and_ahead(tx)
    ours = received.task_id
    named = None if received.task_is_authenticated or received.event.task_id == ours else received.event.task_id
    kept = None
    if (named is not None or not _lacks_attempt(state, received)) and not may_be_anothers(state, received):
        values = _values(state, received, now, ahead)
        if named is not None:
            del values["attempt"]
        kept = state.store.inbox.accept(tx, ours, values, creator_task_id=named, notify=notify)
    if kept is None:
        applied = _write_known(state, tx, received, now, ahead, due=_first_due(state, now))
        if notify:
            state.store.inbox.notify(tx)
        return applied
    delivery_id, status = kept
    return Outcome(verdict=Verdict.QUEUED, delivery_id=delivery_id, task_id=ours, status=TaskState(status))


def _accept_alone(state: WebhookState, received: ReceivedEvent) -> Outcome | RequestRefused:
    """Store one event of a batch that was not stored as a whole."""
    try:
        return accept(state, received)
    except RequestRefused as refusal:
        return refusal


def _accept_many(state: WebhookState, tx: Connection, batch: Sequence[ReceivedEvent]) -> list[Outcome | RequestRefused]:
    now, ahead = state.store.clock.now_and_ahead(tx)
    tasks = state.store.find_tasks(tx, {received.task_id for received in batch})
    checked = [_checked(state, received, _found(received, tasks)) for received in batch]
    rows = [
        _values(state, received, now, ahead) | _task_columns(state, tx, received, task)
        for received, task in zip(batch, checked, strict=True)
        if not isinstance(task, RequestRefused)
    ]
    kept = iter(state.store.insert_deliveries(tx, rows))
    if rows:
        state.store.inbox.notify(tx)
    return [task if isinstance(task, RequestRefused) else _queued(task, next(kept)) for task in checked]


def _write_known(
    state: WebhookState,
    tx: Connection,
    received: ReceivedEvent,
    now: datetime,
    ahead: timedelta,
    *,
    due: datetime,
    reason: str | None = None,
) -> Outcome:
    task = _checked(
        state, received, state.store.read_task(tx, received.task_id, id_may_be_creators=received.id_may_be_creators)
    )
    if isinstance(task, RequestRefused):
        raise task
    values = _values(state, received, now, ahead) | {"next_retry_at": due, "reason": reason}
    values |= _task_columns(state, tx, received, task)
    return _queued(task, state.store.insert_delivery(tx, values)["id"], reason or "")


def _first_due(state: WebhookState, now: datetime) -> datetime:
    """Return when the sweep may take a new event: at once, or after the time that Celery has for it."""
    return now + state.settings.celery_grace if state.settings.processing == "celery" else at_once(now)


def _found(received: ReceivedEvent, tasks: Mapping[str, Row]) -> Row | None:
    task = tasks.get(received.task_id)
    return task if task is not None and (received.id_may_be_creators or task["task_id"] == received.task_id) else None


def _checked(state: WebhookState, received: ReceivedEvent, task: Row | None) -> Row | RequestRefused:
    if task is None:
        return TaskNotFound()
    try:
        check_belongs(received, task)
        check_sender(state, received, task)
    except RequestRefused as refusal:
        return refusal
    return task


def _values(state: WebhookState, received: ReceivedEvent, now: datetime, ahead: timedelta) -> dict[str, Any]:
    """Return the columns of a waiting delivery that follow from the event alone."""
    values = delivery_values(received, received.task_id, now, ahead=ahead)
    return values | {
        "answer_status": values["answer_status"] and _QUEUED,
        "late": False,
        "processed_at": None,
        "latency_ms": None,
        "verdict": Verdict.QUEUED.value,
        "tries": 0,
        "next_retry_at": _first_due(state, now),
    }


def _task_columns(state: WebhookState, tx: Connection, received: ReceivedEvent, task: Row) -> dict[str, Any]:
    """Return the columns that follow from the task.

    An event without an attempt gets the current one, so that it cannot count for an attempt that begins while it waits.
    A copy of an applied message gets none: when it is applied, the history identifies it.
    """
    attempt = attempt_of(received, task)
    if attempt is None and _lacks_attempt(state, received):
        is_copy = state.store.was_applied(tx, task, received.digest, received.message_id)
        attempt = None if is_copy else task["attempt"]
    return {"task_id": task["task_id"], "attempt": attempt, "status_before": task["status"]}


def _lacks_attempt(state: WebhookState, received: ReceivedEvent) -> bool:
    """Return True if the effect of an event may depend on its attempt, and the request does not name one."""
    if received.attempt is not None or received.trigger is Trigger.CUSTOM:
        return False
    return received.trigger is not Trigger.COMPLETED or state.registry.fields_differ


def _queued(task: Row, delivery_id: int, reason: str = "") -> Outcome:
    return Outcome(
        verdict=Verdict.QUEUED,
        delivery_id=delivery_id,
        task_id=task["task_id"],
        status=TaskState(task["status"]),
        reason=reason,
    )
