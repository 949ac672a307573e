"""Convert a creator's reports to the events that its callbacks would have been.

Polls and submit responses are then processed like callbacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.events import LOST_BY_CREATOR, NOT_STORABLE, SUBMISSION_UNANSWERED, Event, parse_event
from ..core.received import Outcome, ReceivedEvent, Source
from ..core.redaction import storable
from ..core.strict_json import check_value
from ..creators.protocol import RemoteState, Report
from ..engine.apply import apply_event
from ..engine.reports import event_of, failure
from ..errors import EventNotStorable, RequestRefused

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.store import Row

__all__ = ["apply_report", "event_of_report", "failed_event", "lost_event", "unanswered_event"]


def event_of_report(state: WebhookState, task: Row, report: Report, source: Source) -> ReceivedEvent | None:
    """Return the event of a report; None if the job is still open or unknown."""
    if report.state is RemoteState.OPEN:
        return None
    event = event_of(report, task["creator_task_id"], state.settings_for(task).required_result_fields)
    return None if event is None else _received(state, task, event, source)


def lost_event(state: WebhookState, task: Row) -> ReceivedEvent:
    """Return the failure of a job that the creator accepted and no longer knows."""
    return _given_up(state, task, LOST_BY_CREATOR, "The creator accepted the job, but no longer knows it.")


def unanswered_event(state: WebhookState, task: Row, *, is_missing: bool = False) -> ReceivedEvent:
    """Return the failure of an attempt whose submission was not answered: at its deadline, or as the job is missing."""
    what = "the creator does not have the job" if is_missing else "nothing was heard of the job until its deadline"
    message = f"The answer to the submission was lost, and {what}."
    return _given_up(state, task, SUBMISSION_UNANSWERED, message)


def failed_event(
    state: WebhookState, task: Row, *, code: str, message: str, details: Mapping[str, Any], source: Source
) -> ReceivedEvent:
    """Return a failure that another attempt would repeat; the creator's ``details`` become ``details.said``."""
    payload = failure(task["creator_task_id"], code, message, retryable=False, said=dict(details))
    try:
        check_value(payload)
        json.dumps(payload, allow_nan=False)
    except (RequestRefused, TypeError, ValueError):  # no database could keep the creator's words
        payload = failure(task["creator_task_id"], storable(code), storable(message), retryable=False)
    return _received(state, task, parse_event(payload), source)


def apply_report(state: WebhookState, received: ReceivedEvent) -> Outcome:
    """Apply a report; one that the database can never store fails the task, so that it is not asked for again.

    Raises:
        RequestRefused: as :func:`.apply.apply_event`.
    """
    try:
        return apply_event(state, received)
    except EventNotStorable as refusal:
        payload = failure(received.event.task_id, NOT_STORABLE, refusal.message, retryable=False)
        failed = replace(received, event=parse_event(payload), digest=None, body=_written(payload))
        return apply_event(state, failed)


def _given_up(state: WebhookState, task: Row, code: str, message: str) -> ReceivedEvent:
    """Return a failure that the poller finds, and that another attempt may mend."""
    payload = failure(task["creator_task_id"], code, message, retryable=True)
    return _received(state, task, parse_event(payload), Source.POLL)


def _received(state: WebhookState, task: Row, event: Event, source: Source) -> ReceivedEvent:
    return ReceivedEvent(
        task_id=task["task_id"],
        event=event,
        source=source,
        received_at=state.clock(),
        attempt=task["attempt"],
        task_is_authenticated=True,
        body=_written(event.payload),
    )


def _written(payload: Mapping[str, Any]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
