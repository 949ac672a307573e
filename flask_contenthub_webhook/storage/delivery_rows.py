"""The columns of a history row: what follows from how an event came, and what from the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ..core.received import ReceivedEvent, Source
from ..core.redaction import storable
from ..core.state_machine import Decision

__all__ = ["SETTLED", "decision_values", "delivery_values", "processing_times", "with_notes"]

SETTLED: Mapping[str, None] = {"error": None, "next_retry_at": None, "claimed_until": None}
"""Columns that an applied event no longer needs."""

_MAX_ADDRESS_LENGTH = 64
_MAX_NAME_LENGTH = 255
_ACCEPTED = 200
_NONE = timedelta()
_MILLISECOND = timedelta(milliseconds=1)


def delivery_values(
    received: ReceivedEvent, task_id: str, now: datetime, *, ahead: timedelta = _NONE
) -> dict[str, Any]:
    """Return the columns that follow from how an event came.

    Args:
        received: the event, with its time by the application's clock.
        task_id: our id of its task.
        now: the time by the database's clock.
        ahead: how far that is ahead of the application's.
    """
    arrived = min(received.received_at + ahead, now)
    values = {
        "task_id": task_id,
        "event": received.event.type,
        "attempt": received.attempt,
        "source": received.source.value,
        "scheme": received.scheme,
        "message_id": received.message_id,
        "tries": 1,
        "occurrences": 1,
        "replay_of": received.replay_of,
        "replayed_by": received.replayed_by and storable(received.replayed_by)[:_MAX_NAME_LENGTH],
        "occurred_at": received.event.occurred_at,
        "received_at": arrived,
        **processing_times(arrived, now),
        "answer_status": _ACCEPTED if received.source is Source.WEBHOOK else None,
        "remote_addr": received.remote_addr and received.remote_addr[:_MAX_ADDRESS_LENGTH],
        "headers": dict(received.headers),
        "body": received.body,
        "body_digest": received.digest,
    }
    if received.traceparent:
        values["traceparent"] = received.traceparent
    return values


def decision_values(decision: Decision, status_after: str) -> dict[str, Any]:
    """Return the columns that follow from the decision, except the task's previous state."""
    return {
        "verdict": decision.verdict.value,
        "reason": decision.reason or None,
        "status_after": str(status_after),
        "late": decision.late,
    }


def with_notes(decision: Decision, notes: Sequence[str]) -> Decision:
    """Add to a decision's reason the fields of the event that could not be read."""
    if not notes:
        return decision
    return replace(decision, reason=f"{decision.reason} Kept as it came: {'; '.join(notes)}.".lstrip())


def processing_times(arrived: datetime, now: datetime) -> dict[str, Any]:
    """Return when an event was decided, and how long after it arrived; never before, even if the clock was set."""
    return {"processed_at": now, "latency_ms": max(_NONE, now - arrived) / _MILLISECOND}
