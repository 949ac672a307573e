"""Restore the event of a history row from its raw body."""

from __future__ import annotations

from datetime import datetime

from ..core.events import INTERNAL_EVENTS, Event, Internal, parse_event
from ..core.received import ReceivedEvent, Row, Source
from ..core.state_machine import Verdict
from ..core.strict_json import parse_object
from ..errors import ReplayRefused, RequestRefused
from ..runtime.state import WebhookState
from . import senders

__all__ = ["event_of_row"]


def event_of_row(state: WebhookState, row: Row, *, replayed_at: datetime | None = None) -> ReceivedEvent:
    """Restore the event of a history row from its raw body.

    Args:
        state: the application's state.
        row: the delivery.
        replayed_at: the time of a replay by a person; None for another try of the same delivery.

    Raises:
        ReplayRefused: the row was refused without authentication, or holds no valid event.
        CreatorError: the creator that translates its body cannot do so now.
        RequestRefused: what it says cannot be matched with its task.
    """
    if row["verdict"] == Verdict.REJECTED and row["scheme"] is None:
        raise ReplayRefused(f"Delivery {row['id']} was refused ({row['error']}) and never authenticated.")
    if senders.is_in_own_words(row):
        return senders.restore(state, row, replayed_at=replayed_at)
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
            required_fields=state.registry.common_fields,
        )
    except RequestRefused as error:
        raise ReplayRefused(f"Delivery {row['id']} holds no valid event: {error.message}") from error


def _is_our_own(row: Row) -> bool:
    """Return True for an event that the extension made; a request has headers, and cannot pass for one."""
    return row["event"] in INTERNAL_EVENTS and row["source"] != Source.WEBHOOK and not row["headers"]
