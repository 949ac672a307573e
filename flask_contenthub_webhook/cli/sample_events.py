"""Sample events in the form that content-creator sends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

__all__ = ["sample_event", "to_body"]


def sample_event(
    type_: str,
    task_id: str,
    now: datetime,
    *,
    result: Mapping[str, Any] | None = None,
    message: str | None = None,
    percentage: float = 50.0,
) -> dict[str, Any]:
    """Return the payload of an event of any type.

    Args:
        type_: ``completed``, ``failed``, ``progress`` or a custom type.
        task_id: the task it is about.
        now: its time.
        result: the result of a ``completed``, or of a custom event.
        message: the message of a ``failed`` or a ``progress``.
        percentage: of a ``progress``.
    """
    moment = now.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    event: dict[str, Any] = {"event": type_, "taskId": task_id, "workflowType": "content-creator"}
    if type_ in {"completed", "failed"}:
        event["status"] = type_
    event |= {"timestamp": moment, "metadata": {"topic": "A test event"}}
    match type_:
        case "completed":
            event["result"] = {"content": "# A test\n\nSent by `flask webhook send`."} if result is None else result
        case "failed":
            details = {"duration": 1, "stepsCompleted": []}
            text = "A test failure, sent by `flask webhook send`." if message is None else message
            event["error"] = {"message": text, "type": "execution_error", "details": details}
        case "progress":
            event["progress"] = {"percentage": percentage} | ({} if message is None else {"message": message})
        case _ if result is not None:
            event["result"] = result
    return event


def to_body(event: Mapping[str, Any]) -> bytes:
    """Encode an event as content-creator does."""
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
