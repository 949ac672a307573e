"""Read history rows, and change their verdicts."""

from __future__ import annotations

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from ..core.received import ReceivedEvent, Row
from ..core.state_machine import Decision, Trigger, Verdict
from ..runtime.state import WebhookState
from ..storage.copies import Copies
from ..storage.database_errors import unavailable
from ..storage.delivery_rows import processing_times
from ..storage.rows import is_row_id

__all__ = ["read_delivery", "set_verdict", "settle_copies"]


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
        raise unavailable(error) from error


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
        raise unavailable(error) from error


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
