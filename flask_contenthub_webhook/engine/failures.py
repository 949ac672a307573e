"""Keep an event whose handlers failed: the history row alone, with the error and the time of the next try."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from .. import signals
from ..core.backoff import jittered
from ..core.logs import get_logger
from ..core.received import ReceivedEvent, Row
from ..core.state_machine import Verdict
from ..errors import DatabaseUnavailable, EventNotStorable, HandlerFailed, without_parameters
from ..runtime.state import WebhookState
from ..storage.database_errors import row_refusal
from ..storage.delivery_rows import delivery_values, processing_times
from ..storage.failure_log import log_failure, refusal_of
from .failed_tries import FailedTry, storable_error
from .handlers import HandlerError

__all__ = ["keep_failure", "record_failure"]

logger = get_logger(__name__)


def keep_failure(
    state: WebhookState, received: ReceivedEvent, error: HandlerError, kept: Row | None
) -> HandlerFailed | EventNotStorable | DatabaseUnavailable:
    """Write the history row of a rolled-back event alone, so that the event is tried again.

    A row that the database can never store is not: its event is refused.
    """
    failed_try = FailedTry.of(error, [*state.settings.secrets, *state.settings.forward_secrets])
    try:
        delivery_id, verdict = record_failure(
            state, received, failed_try, kept, task_id=error.task_id, attempt=error.attempt
        )
    except SQLAlchemyError as trouble:
        message = "The failure could not be recorded; the sender must send the event again."
        return refusal_of(state.database, logger, message, trouble)
    logger.error(
        "A handler failed; the event is kept and tried again.",
        exc_info=without_parameters(error.__cause__ or error),
        extra={
            "task_id": error.task_id,
            "attempt": error.attempt,
            "event": received.event.type,
            "handler": error.handler,
        },
    )
    signals.send_quietly(signals.event_handled, state.app, received=received, verdict=verdict)
    try:
        _announce(state, delivery_id)
    except SQLAlchemyError as trouble:
        message = "The database went away after a failure was recorded; receivers may not have heard of it."
        log_failure(state.database, logger, message, trouble)
    failed = HandlerFailed()
    failed.delivery_id, failed.failure = delivery_id, failed_try.error
    return failed


def _announce(state: WebhookState, delivery_id: int) -> None:
    if not signals.delivery_processed.receivers:
        return
    with state.database.session() as session:
        delivery = session.get(state.delivery_model, delivery_id)
        if delivery is None:
            return
        values = state.store.read_task(session, delivery.task_id)
        signals.send_quietly(
            signals.delivery_processed,
            state.app,
            clean_up=session.rollback,
            delivery=delivery,
            task=None if values is None else state.store.tasks.object_from_row(session, values),
            outcome=delivery.verdict,
        )


def record_failure(
    state: WebhookState,
    received: ReceivedEvent,
    failed: FailedTry,
    kept: Row | None,
    *,
    task_id: str,
    attempt: int | None,
) -> tuple[int, Verdict]:
    """Keep an event whose handlers failed, in a transaction of its own, due for another try.

    Args:
        state: the application's state.
        received: the event.
        failed: the run of the handlers.
        kept: the row of an earlier try; None writes a new one.
        task_id: our id of its task.
        attempt: the attempt that it belonged to when it came; a later try must not apply it to a later attempt.

    Returns:
        The id of the row, and its verdict: failed, or dead.
    """
    tries = 1 if kept is None else kept["tries"] + 1

    def write(tx: Connection, failed: FailedTry = failed) -> tuple[int, Verdict]:
        now, ahead = state.store.clock.now_and_ahead(tx)
        outcome = _next_try(state, tries, now)
        verdict = Verdict(outcome["verdict"])
        outcome |= {"tries": tries, "error": storable_error(failed.error), "claimed_until": None}
        outcome["failed_tries"] = failed.entry(tries, now, None if kept is None else kept["failed_tries"])
        if kept is None:
            arrival = delivery_values(received, task_id, now, ahead=ahead)
            if arrival["answer_status"] is not None:
                outcome["answer_status"] = HandlerFailed.status
            values = {**arrival, "late": False, "attempt": attempt, **outcome}
            return int(state.store.insert_delivery(tx, values)["id"]), verdict
        state.store.update_delivery(tx, kept["id"], {**processing_times(received.received_at, now), **outcome})
        return int(kept["id"]), verdict

    try:
        return state.database.write(write)
    except SQLAlchemyError as refused:
        if row_refusal(refused) is None or failed.in_ascii() == failed:
            raise
        return state.database.write(
            lambda tx: write(tx, failed.in_ascii())
        )  # its column may have a small character set


def _next_try(state: WebhookState, tries: int, now: datetime) -> dict[str, Any]:
    """Schedule the next try; after the last one the delivery is parked as dead, for a person to replay."""
    backoff = state.settings.retry_backoff
    if tries > len(backoff):
        return {"verdict": Verdict.DEAD.value, "next_retry_at": None}
    return {"verdict": Verdict.FAILED.value, "next_retry_at": now + jittered(backoff[tries - 1])}
