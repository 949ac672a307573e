"""The inbox: events that are accepted now and applied later, by a worker.

A request that is believed and well formed writes one delivery, commits, and answers 202. The delivery waits until a
worker claims it (:mod:`.worker`, Celery, or the scheduler) and gives it to the lifecycle. When too many wait, requests
are turned away, which the sender hears as 503, before the database drowns.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from ..core.backoff import jittered
from ..core.identity import attempt_spoken_for, check_belongs
from ..core.received import Applied, Inbound
from ..core.state_machine import TaskState, Trigger, Verdict
from ..errors import DatabaseUnavailable, RequestRefused, TaskNotFound
from ..storage.history import delivery_values
from ..storage.transactions import core_transaction, single_statement

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.rows import Row, Unit

__all__ = ["accept", "accept_many", "put_off"]

logger = logging.getLogger(__name__)


def accept(state: WebhookState, inbound: Inbound) -> Applied:
    """Write an event down for a worker, and wake one.

    Args:
        state: the application's state.
        inbound: a verified and parsed event.

    Returns:
        ``queued``, with the task's status as it is now.

    Raises:
        TaskNotFound: there is no such task.
        TaskMismatch: the payload names another task.
        InboxFull: too many events wait already.
        DatabaseUnavailable: nothing was written.
    """
    state.inbox.check(state)
    notify = state.inbox.may_notify()
    try:
        with single_statement(state) as unit:
            applied = _accept(state, unit, inbound, notify=notify)
    except SQLAlchemyError as error:
        logger.warning("The database did not take an event: %s", type(error).__name__, exc_info=error)
        raise DatabaseUnavailable from error
    state.inbox.count(1, notified=notify)
    state.wake(applied.task_id)
    return applied


def accept_many(state: WebhookState, batch: Sequence[Inbound]) -> list[Applied | RequestRefused]:
    """The same for the events of one request: one statement finds their tasks, one writes them, one commit.

    Returns:
        What became of each, in order; a refusal is the event's own.

    Raises:
        InboxFull: too many events wait already.
        DatabaseUnavailable: nothing was written.
    """
    state.inbox.check(state)
    now = state.clock()
    try:
        with core_transaction(state) as unit:
            tasks = state.store.find_tasks(unit, {inbound.task_id for inbound in batch})
            checked = [_checked(inbound, _found(inbound, tasks)) for inbound in batch]
            rows = [
                _values(state, inbound, now) | _told_by_task(state, unit, inbound, task)
                for inbound, task in zip(batch, checked, strict=True)
                if not isinstance(task, RequestRefused)
            ]
            kept = iter(state.store.insert_deliveries(unit, rows))
            if rows:
                state.store.inbox.notify(unit)
    except SQLAlchemyError as error:
        logger.warning("The database did not take a batch: %s", type(error).__name__, exc_info=error)
        raise DatabaseUnavailable from error
    outcomes = [task if isinstance(task, RequestRefused) else _queued(task, next(kept)) for task in checked]
    state.inbox.count(len(rows), notified=bool(rows))
    for task_id in {outcome.task_id for outcome in outcomes if isinstance(outcome, Applied)}:
        state.wake(task_id)
    return outcomes


def put_off(state: WebhookState, inbound: Inbound, reason: str) -> Applied:
    """Keep an event that cannot be applied yet, due for its first try after the first backoff.

    Args:
        state: the application's state.
        inbound: the event.
        reason: why it has to wait.

    Raises:
        TaskNotFound: there is no such task.
        TaskMismatch: the payload names another task.
        DatabaseUnavailable: nothing was written.
    """
    now = state.clock()
    due = now + jittered(state.settings.retry_backoff[0])
    try:
        with core_transaction(state) as unit:
            applied = _write_known(state, unit, inbound, now, due=due, reason=reason)
    except SQLAlchemyError as error:
        raise DatabaseUnavailable from error
    return applied


def _accept(state: WebhookState, unit: Unit, inbound: Inbound, *, notify: bool) -> Applied:
    """Nearly every event is its task's, so the row is written without a look at the task wherever SQL can tell."""
    now, ours = state.clock(), inbound.task_id
    named = None if inbound.bound_to_task or inbound.event.task_id == ours else inbound.event.task_id
    values = _values(state, inbound, now)
    kept = None
    if named is not None:
        del values["attempt"]
    if named is not None or not _is_about_whatever_runs(inbound):
        kept = state.store.inbox.accept(unit, ours, values, creator_task_id=named, notify=notify)
    if kept is None:
        applied = _write_known(state, unit, inbound, now, due=state.inbox.first_due(state, now))
        if notify:
            state.store.inbox.notify(unit)
        return applied
    delivery_id, status = kept
    return Applied(verdict=Verdict.QUEUED, delivery_id=delivery_id, task_id=ours, status=TaskState(status))


def _write_known(
    state: WebhookState, unit: Unit, inbound: Inbound, now: datetime, *, due: datetime, reason: str | None = None
) -> Applied:
    task = _checked(inbound, state.store.read_task(unit, inbound.task_id, by_any_id=inbound.by_any_id))
    if isinstance(task, RequestRefused):
        raise task
    values = _values(state, inbound, now) | {"next_retry_at": due, "reason": reason}
    values |= _told_by_task(state, unit, inbound, task)
    return _queued(task, state.store.insert_delivery(unit, values)["id"], reason or "")


def _found(inbound: Inbound, tasks: Mapping[str, Row]) -> Row | None:
    task = tasks.get(inbound.task_id)
    return task if task is not None and (inbound.by_any_id or task["task_id"] == inbound.task_id) else None


def _checked(inbound: Inbound, task: Row | None) -> Row | RequestRefused:
    if task is None:
        return TaskNotFound()
    try:
        check_belongs(inbound, task)
    except RequestRefused as refusal:
        return refusal
    return task


def _values(state: WebhookState, inbound: Inbound, now: datetime) -> dict[str, Any]:
    """The row of an event that waits, as far as the event tells."""
    return delivery_values(inbound, inbound.task_id, now) | {
        "late": False,
        "processed_at": None,
        "latency_ms": None,
        "verdict": Verdict.QUEUED.value,
        "tries": 0,
        "next_retry_at": state.inbox.first_due(state, now),
    }


def _told_by_task(state: WebhookState, unit: Unit, inbound: Inbound, task: Row) -> dict[str, Any]:
    """The rest of the row.

    However long an event waits, it cannot speak for an attempt that began after it came. Only a copy of what was
    applied already names none: then the history tells what it is, as it does where nothing waits.
    """
    attempt = attempt_spoken_for(inbound, task)
    if attempt is None and _is_about_whatever_runs(inbound):
        is_copy = state.store.was_applied(unit, task["task_id"], inbound.digest, inbound.message_id)
        attempt = None if is_copy else task["attempt"]
    return {"task_id": task["task_id"], "attempt": attempt, "status_before": task["status"]}


def _is_about_whatever_runs(inbound: Inbound) -> bool:
    """Whether it matters for which attempt an event speaks, and the request does not say."""
    return inbound.attempt is None and inbound.trigger not in {Trigger.COMPLETED, Trigger.CUSTOM}


def _queued(task: Row, delivery_id: int, reason: str = "") -> Applied:
    return Applied(
        verdict=Verdict.QUEUED,
        delivery_id=delivery_id,
        task_id=task["task_id"],
        status=TaskState(task["status"]),
        reason=reason,
    )
