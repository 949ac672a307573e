"""The JSON that the creator writes, in its own key order: callbacks, task rows, the envelope of its API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .ledger import TaskRecord

__all__ = [
    "WORKFLOW_TYPE",
    "completed_body",
    "error_answer",
    "failed_body",
    "iso_time",
    "success_answer",
    "task_row",
    "to_json",
]

WORKFLOW_TYPE = "content-creator"

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def completed_body(
    task_id: str,
    metadata: Mapping[str, str],
    result: Mapping[str, Any],
    *,
    at: datetime,
    workflow_type: str = WORKFLOW_TYPE,
) -> bytes:
    """Return the body of a ``completed`` callback."""
    return to_json({**_opening("completed", task_id, metadata, at, workflow_type), "result": result})


def failed_body(
    task_id: str,
    metadata: Mapping[str, str],
    message: str,
    *,
    at: datetime,
    duration: int,
    workflow_type: str = WORKFLOW_TYPE,
) -> bytes:
    """Return the body of a ``failed`` callback; the duration is in milliseconds."""
    error = {"message": message, "type": "execution_error", "details": {"duration": duration, "stepsCompleted": []}}
    return to_json({**_opening("failed", task_id, metadata, at, workflow_type), "error": error})


def success_answer(data: Any, *, at: datetime) -> bytes:
    """Return the answer to an API call that succeeded."""
    return to_json({"success": True, "data": data, "timestamp": iso_time(at)})


def error_answer(message: str, code: str, *, at: datetime, fields: list[dict[str, str]] | None = None) -> bytes:
    """Return the answer to an API call that was refused."""
    error: dict[str, Any] = {"message": message, "code": code}
    if fields is not None:
        error["details"] = {"fields": fields}
    return to_json({"success": False, "error": error, "timestamp": iso_time(at)})


def task_row(record: TaskRecord, *, postgres: bool) -> dict[str, Any]:
    """Return a task as the API shows it; the audience is always ``general`` on SQLite and empty on PostgreSQL."""
    row: dict[str, Any] = {"id": record.id}
    if not postgres:
        row["type"] = WORKFLOW_TYPE
    row |= {
        "status": record.state,
        "mode": record.mode,
        "priority": record.priority,
        "topic": record.topic,
        "requirements": record.requirements,
        "targetAudience": "" if postgres else "general",
    }
    if postgres:
        row["hardConstraints"] = {}
        if record.error is not None:
            row["errorMessage"] = record.error
    else:
        row |= {"currentStep": None, "workerId": None, "errorMessage": record.error}
    row |= {"createdAt": iso_time(record.created_at), "updatedAt": iso_time(record.updated_at)}
    if record.finished_at is not None:
        row["completedAt"] = iso_time(record.finished_at)
    return row


def iso_time(at: datetime) -> str:
    """Return a time as JavaScript writes it: UTC, milliseconds, ``Z``."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def to_json(value: Any) -> bytes:
    """Return compact UTF-8 JSON as ``JSON.stringify`` writes it: only lone surrogates are escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _opening(event: str, task_id: str, metadata: Mapping[str, str], at: datetime, workflow_type: str) -> dict[str, Any]:
    return {
        "event": event,
        "taskId": task_id,
        "workflowType": workflow_type,
        "status": event,
        "timestamp": iso_time(at),
        "metadata": dict(metadata),
    }
