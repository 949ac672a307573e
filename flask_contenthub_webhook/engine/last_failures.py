"""A failure that would end a task for good: the creator is asked once more before a callback is believed.

A callback may be forged, or sent by mistake, or be about a try that the service repeats. What ends a task must be true.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..core.events import Failed
from ..core.received import ReceivedEvent, Row, Source, attempt_of
from ..core.state_machine import Decision, TaskState, Verdict
from ..creators.protocol import RemoteState, Report
from ..errors import CreatorError, DatabaseUnavailable
from .patience import in_time

if TYPE_CHECKING:
    from ..creators.guarded import GuardedCreator
    from ..runtime.state import WebhookState

__all__ = ["ask_about_failure", "denied"]

_LATE = "The callback says failed; the creator did not say in time whether that is so."


def ask_about_failure(state: WebhookState, received: ReceivedEvent, *, patience: float | None = None) -> ReceivedEvent:
    """Return the event, marked as denied if it would end its task and the creator does not say that the job failed.

    A creator that cannot tell now confirms it by that. A job that is done is polled next.

    Args:
        state: the application's state.
        received: any event.
        patience: seconds to wait for the creator; None waits for as long as its calls take.

    Raises:
        DatabaseUnavailable: the task could not be read.
    """
    if not isinstance(received.event, Failed) or received.source is not Source.WEBHOOK or state.creator is None:
        return received
    try:
        task = state.database.ask(
            lambda tx: state.store.read_task(tx, received.task_id, id_may_be_creators=received.id_may_be_creators)
        )
        if task is None or not _would_end(state, received, task):
            return received
        service = state.service_of(task)
        if service is None or service.pause.is_on():
            return received
        name = task["creator_task_id"]
        try:
            report = in_time(lambda: _ask(service, name), patience, late=_LATE)
        except CreatorError:
            return received
        if report.state not in {RemoteState.OPEN, RemoteState.COMPLETED}:
            return received
        if report.state is RemoteState.COMPLETED:
            now: datetime = state.now()
            state.database.write(lambda tx: state.store.compare_and_set(tx, task, {"next_poll_at": now}))
    except SQLAlchemyError as error:
        raise DatabaseUnavailable from error
    return dataclasses.replace(received, denial=f"The service was asked, and says that the job is {report.state}.")


def denied(decision: Decision, received: ReceivedEvent) -> Decision:
    """Return the decision, or, for an event that the creator denies, that it has no effect."""
    if not received.denial or decision.verdict is not Verdict.PROCESSED:
        return decision
    return Decision(Verdict.IGNORED, reason=received.denial)


def _would_end(state: WebhookState, received: ReceivedEvent, task: Row) -> bool:
    """Tell whether the failure is the last one of a submitted job whose name is known."""
    is_submitted = task["status"] in {TaskState.SUBMITTED, TaskState.PROCESSING}
    if not is_submitted or task["submitting_since"] is not None or task["creator_task_id"] is None:
        return False
    if attempt_of(received, task) not in {None, task["attempt"]}:
        return False
    most = state.settings.max_retries if task["max_retries"] is None else task["max_retries"]
    is_retryable = isinstance(received.event, Failed) and received.event.retryable
    return not is_retryable or task["attempt"] > most


def _ask(service: GuardedCreator, name: str) -> Report:
    report = service.statuses([name]).get(name)
    return service.status(name) if report is None else report
