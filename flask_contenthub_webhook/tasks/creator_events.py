"""Convert a creator's reports to the events that its callbacks would have been.

Polls and submit responses are then processed like callbacks. A result that the parser refuses makes the task fail with
``INVALID_RESULT``, so that it is not requested forever; the answer is kept.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..core.events import Event, parse_event
from ..core.received import ReceivedEvent, Source
from ..core.redaction import storable
from ..core.strict_json import check_value
from ..creators.protocol import RemoteState, Report
from ..errors import RequestRefused

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.store import Row

__all__ = ["event_of_report", "failed_event", "lost_event", "unanswered_event"]

_MAX_KEPT_ANSWER = 100_000


def event_of_report(state: WebhookState, task: Row, report: Report, source: Source) -> ReceivedEvent | None:
    """Return the event of a report; None if the job is still open or unknown."""
    creator_task_id = task["creator_task_id"]
    match report.state:
        case RemoteState.COMPLETED:
            payload = {"event": "completed", "taskId": creator_task_id, "result": report.result or {}}
        case RemoteState.FAILED:
            payload = {"event": "failed", "taskId": creator_task_id, "error": report.error or {}}
        case RemoteState.CANCELLED:
            payload = _failure(
                creator_task_id, "CANCELLED_BY_CREATOR", "The job was cancelled at the creator.", retryable=False
            )
        case _:
            return None
    fields = state.settings_for(task).required_result_fields
    return _received(state, task, _parse(creator_task_id, payload, report.raw, fields), source)


def lost_event(state: WebhookState, task: Row) -> ReceivedEvent:
    """Return the failure of a job that the creator accepted and no longer knows."""
    return _given_up(state, task, "LOST_BY_CREATOR", "The creator accepted the job, but no longer knows it.")


def unanswered_event(state: WebhookState, task: Row) -> ReceivedEvent:
    """Return the failure of an attempt whose submission was not answered, at its deadline."""
    message = "The answer to the submission was lost, and nothing was heard of the job until its deadline."
    return _given_up(state, task, "SUBMISSION_UNANSWERED", message)


def failed_event(
    state: WebhookState, task: Row, *, code: str, message: str, details: Mapping[str, Any], source: Source
) -> ReceivedEvent:
    """Return a failure that another attempt would repeat; the creator's ``details`` become ``details.said``."""
    payload = _failure(task["creator_task_id"], code, message, retryable=False, said=dict(details))
    try:
        check_value(payload)
        json.dumps(payload, allow_nan=False)
    except (RequestRefused, TypeError, ValueError):  # no database could keep the creator's words
        payload = _failure(task["creator_task_id"], storable(code), storable(message), retryable=False)
    return _received(state, task, parse_event(payload), source)


def _given_up(state: WebhookState, task: Row, code: str, message: str) -> ReceivedEvent:
    """Return a failure that the poller finds, and that another attempt may mend."""
    payload = _failure(task["creator_task_id"], code, message, retryable=True)
    return _received(state, task, parse_event(payload), Source.POLL)


def _parse(creator_task_id: str, payload: dict[str, Any], raw: bytes, fields: Collection[str]) -> Event:
    try:
        check_value(payload)
        json.dumps(payload, allow_nan=False)
        return parse_event(payload, required_fields=fields)
    except (RequestRefused, TypeError, ValueError) as refusal:
        kept = raw[:_MAX_KEPT_ANSWER].decode("utf-8", errors="replace").replace("\0", "\ufffd")
        message = f"The creator's answer is not a valid result: {refusal}"
        invalid = _failure(creator_task_id, "INVALID_RESULT", message, retryable=False)
        return parse_event({**invalid, "answer": kept})


def _failure(creator_task_id: str, code: str, message: str, *, retryable: bool, **details: Any) -> dict[str, Any]:
    error = {"code": code, "type": code.lower(), "message": message, "details": {**details, "retryable": retryable}}
    return {"event": "failed", "taskId": creator_task_id, "error": error}


def _received(state: WebhookState, task: Row, event: Event, source: Source) -> ReceivedEvent:
    return ReceivedEvent(
        task_id=task["task_id"],
        event=event,
        source=source,
        received_at=state.clock(),
        attempt=task["attempt"],
        task_is_authenticated=True,
        body=json.dumps(event.payload, ensure_ascii=False, separators=(",", ":")).encode(),
    )
