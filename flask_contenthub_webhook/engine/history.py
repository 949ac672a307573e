"""Read history rows, restore their events, and change their verdicts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ..core.events import INTERNAL_EVENTS, Event, Internal, parse_event
from ..core.received import ReceivedEvent, Row, Source
from ..core.state_machine import Decision, Trigger, Verdict
from ..core.strict_json import parse_object
from ..errors import DatabaseUnavailable, ReplayRefused, RequestRefused
from ..runtime.state import WebhookState
from ..storage.copies import Copies
from ..storage.delivery_rows import processing_times
from ..storage.rows import is_row_id

__all__ = ["event_of_row", "read_delivery", "set_verdict", "settle_copies"]


def read_delivery(state: WebhookState, delivery_id: int) -> Row | None:
    """Read a delivery; None if there is none.

    Raises:
        DatabaseUnavailable: the database is down.
    """
    if not is_row_id(delivery_id):
        return None
    try:
        return state.database.ask(lambda tx: state.store.read_delivery(tx, delivery_id))
    except SQLAlchemyError as error:
        raise DatabaseUnavailable from error


def set_verdict(state: WebhookState, row: Row, verdict: Verdict, *, reason: str) -> None:
    """Set the final verdict of a delivery, so that it is not tried again.

    Raises:
        DatabaseUnavailable: nothing was written.
    """
    values = {"verdict": verdict.value, "reason": reason, "next_retry_at": None, "claimed_until": None}

    def write(tx: Connection) -> None:
        decided = processing_times(row["received_at"], state.store.now(tx)) if verdict is Verdict.DEAD else {}
        state.store.update_delivery(tx, row["id"], values | decided)

    try:
        state.database.write(write)
    except SQLAlchemyError as error:
        raise DatabaseUnavailable from error


def settle_copies(
    copies: Copies, tx: Connection, received: ReceivedEvent, decision: Decision, row: Row, *, attempt: int | None
) -> None:
    """Settle the copies of a message that failed before, and what it replays: they need no try of their own.

    Args:
        copies: the statement.
        tx: the transaction that applies the event.
        received: the event.
        decision: its effect.
        row: ``id`` and ``task_id`` of its delivery.
        attempt: the attempt that it belongs to.
    """
    is_settled = decision.verdict in {Verdict.PROCESSED, Verdict.DUPLICATE}
    message = (received.digest, received.message_id) if is_settled else (None, None)
    if message != (None, None) or received.replay_of is not None:
        of_attempt = None if received.trigger is Trigger.COMPLETED else attempt
        copies.settle(tx, row, message=message, attempt=of_attempt, replay_of=received.replay_of)


def event_of_row(state: WebhookState, row: Row, *, replayed_at: datetime | None = None) -> ReceivedEvent:
    """Restore the event of a history row from its raw body.

    Args:
        state: the application's state.
        row: the delivery.
        replayed_at: the time of a replay by a person; None for another try of the same delivery.

    Raises:
        ReplayRefused: the row was refused without authentication, or holds no valid event.
    """
    if row["verdict"] == Verdict.REJECTED and row["scheme"] is None:
        raise ReplayRefused(f"Delivery {row['id']} was refused ({row['error']}) and never authenticated.")
    if not row["body"] or row["task_id"] is None:
        raise ReplayRefused(f"Delivery {row['id']} has no body to replay.")
    return ReceivedEvent.from_row(row, _parse(state, row), replayed_at=replayed_at)


def _parse(state: WebhookState, row: Row) -> Event:
    try:
        payload = parse_object(bytes(row["body"]))
        if _is_our_own(row):
            return Internal(type=row["event"], task_id=row["task_id"], occurred_at=row["occurred_at"], payload=payload)
        return parse_event(
            payload,
            custom_types=state.custom_events,
            required_fields=state.settings.required_result_fields,
        )
    except RequestRefused as error:
        raise ReplayRefused(f"Delivery {row['id']} holds no valid event: {error.message}") from error


def _is_our_own(row: Row) -> bool:
    """Return True for an event that the extension made; a request has headers, and cannot pass for one."""
    return row["event"] in INTERNAL_EVENTS and row["source"] != Source.WEBHOOK and not row["headers"]
