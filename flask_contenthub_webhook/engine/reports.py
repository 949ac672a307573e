"""A creator's report as the event that its callback would have been, wherever the report comes from."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from ..core.events import Event, parse_event
from ..core.strict_json import check_value
from ..creators.protocol import RemoteState, Report
from ..errors import RequestRefused

__all__ = ["event_of", "failure"]

_MAX_KEPT_ANSWER = 100_000


def event_of(report: Report, name: str, required_fields: Collection[str]) -> Event | None:
    """Return the event of a report; None if the job is open and there is no progress, or is unknown.

    A result that the parser refuses makes the task fail with ``INVALID_RESULT``, so that it is not requested forever;
    the answer is kept.

    Args:
        report: what the creator says.
        name: of the job or the task that it is about.
        required_fields: result fields that a completion must have.
    """
    match report.state:
        case RemoteState.COMPLETED:
            payload: dict[str, Any] = {"event": "completed", "taskId": name, "result": report.result or {}}
        case RemoteState.FAILED:
            payload = {"event": "failed", "taskId": name, "error": report.error or {}}
        case RemoteState.CANCELLED:
            message = "The job was cancelled at the creator."
            payload = failure(name, "CANCELLED_BY_CREATOR", message, retryable=False)
        case RemoteState.OPEN if report.progress is not None:
            payload = {"event": "progress", "taskId": name, "progress": {"percentage": 0, **report.progress}}
        case _:
            return None
    try:
        check_value(payload)
        json.dumps(payload, allow_nan=False)
        return parse_event(payload, required_fields=required_fields)
    except (RequestRefused, TypeError, ValueError) as refusal:
        if report.state is RemoteState.OPEN:
            return None
        kept = report.raw[:_MAX_KEPT_ANSWER].decode("utf-8", errors="replace").replace("\0", "\ufffd")
        message = f"The creator's answer is not a valid result: {refusal}"
        return parse_event({**failure(name, "INVALID_RESULT", message, retryable=False), "answer": kept})


def failure(name: str, code: str, message: str, *, retryable: bool, **details: Any) -> dict[str, Any]:
    """Return the payload of a failure of our own making.

    Args:
        name: of the job or the task that it is about.
        code: of the error.
        message: for people.
        retryable: True if another attempt may mend it.
        **details: of the error.
    """
    error: Mapping[str, Any] = {
        "code": code,
        "type": code.lower(),
        "message": message,
        "details": {**details, "retryable": retryable},
    }
    return {"event": "failed", "taskId": name, "error": error}
