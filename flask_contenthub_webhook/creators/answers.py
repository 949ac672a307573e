"""Parse content-creator's answers into reports: its envelope, states, results and refusals.

Everything is checked. An answer that is not valid raises :class:`~.errors.CreatorUnclear`, never another error, and is
never guessed at: a wrong ``missing`` would make a host give up a job that is still running.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from ..core.redaction import clean
from ..errors import CreatorUnclear
from .protocol import RemoteState, Report

__all__ = [
    "STATES",
    "creator_error",
    "error_words",
    "failure",
    "parse_json",
    "read_data",
    "read_row",
    "read_time",
    "result_fields",
    "row_id",
]

STATES: Mapping[str, RemoteState] = {
    "pending": RemoteState.OPEN,
    "running": RemoteState.OPEN,
    "waiting": RemoteState.OPEN,
    "completed": RemoteState.COMPLETED,
    "failed": RemoteState.FAILED,
    "cancelled": RemoteState.CANCELLED,
}
"""The creator's states, and ours."""

_NO_RESULT = frozenset({"taskId", "status", "error"})
_NO_REASON = "The creator reports that the job failed, without a reason."


def parse_json(text: bytes | str) -> Any:
    """Parse a creator's JSON leniently; a result is checked again when it is applied.

    Raises:
        CreatorUnclear: not UTF-8 or not JSON.
    """
    try:
        return json.loads(
            text.decode() if isinstance(text, bytes) else text, parse_constant=_refuse_constant, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise CreatorUnclear("The creator's answer is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise CreatorUnclear(f"The creator's answer is not JSON: {error.msg} at character {error.pos}.") from None
    except (ValueError, RecursionError):
        raise CreatorUnclear(
            "The creator's answer is nested too deeply, or contains a number that is too long."
        ) from None


def _refuse_constant(literal: str) -> NoReturn:
    raise CreatorUnclear(f"The creator's answer is not JSON: it contains {literal}.")


def _finite(literal: str) -> float:
    number = float(literal)
    return number if math.isfinite(number) else _refuse_constant(literal[:20])


def read_data(body: bytes) -> tuple[dict[str, Any], datetime | None]:
    """Return the ``data`` of a successful answer, and the creator's time if the answer has it.

    Raises:
        CreatorUnclear: not JSON, or not a success envelope.
    """
    envelope = parse_json(body)
    if not isinstance(envelope, dict):
        raise CreatorUnclear("The creator's answer is not a JSON object.")
    if envelope.get("success") is not True:
        raise CreatorUnclear("The creator's answer does not have `success: true`.")
    data = envelope.get("data")
    if not isinstance(data, dict):
        raise CreatorUnclear("The creator's answer has no object under `data`.")
    return data, read_time(envelope.get("timestamp"))


def creator_error(envelope: Any) -> dict[str, Any] | None:
    """Return the error object of a failure envelope, or None if this is not one."""
    if not isinstance(envelope, dict) or envelope.get("success") is not False:
        return None
    error = envelope.get("error")
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else None


def error_words(error: Mapping[str, Any]) -> str:
    """Format an error object as one sentence: the message, the code, and each field that was not accepted."""
    message, code, details = error.get("message"), error.get("code"), error.get("details")
    words = message if isinstance(message, str) and message.strip() else "no reason given"
    if isinstance(code, str | int):
        words += f" ({code})"
    fields = details.get("fields") if isinstance(details, dict) else None
    problems = [_field_words(field) for field in fields] if isinstance(fields, list) else []
    if any(problems):
        words += ": " + "; ".join(filter(None, problems))
    return clean(words)


def _field_words(field: Any) -> str:
    if not isinstance(field, dict) or not isinstance(field.get("message"), str):
        return ""
    path = field.get("path")
    if isinstance(path, list):
        path = ".".join(str(part) for part in path)
    return f"{path}: {field['message']}" if isinstance(path, str) and path else str(field["message"])


def row_id(row: Any) -> str | None:
    """Return the id of a task object, or None if it has none."""
    if isinstance(row, dict):
        for name in ("id", "taskId", "task_id"):
            if isinstance(row.get(name), str):
                return str(row[name])
    return None


def read_row(row: Mapping[str, Any], raw: bytes | None = None) -> Report:
    """Convert a task object to a report, with the ``raw`` answer that contained it, or else the object as JSON.

    Raises:
        CreatorUnclear: its state is missing or unknown.
    """
    status = row.get("status")
    state = STATES.get(status) if isinstance(status, str) else None
    if state is None:
        raise CreatorUnclear(f"The creator reports an unknown state: {clean(repr(status))}.")
    if raw is None:
        raw = json.dumps(row, separators=(",", ":")).encode()
    return Report(state=state, error=failure(row) if state is RemoteState.FAILED else None, raw=raw)


def failure(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the error object of a failed job, in the shape of a ``failed`` callback's."""
    for name in ("error", "errorMessage", "error_message"):
        said = data.get(name)
        if isinstance(said, dict):
            message = said.get("message")
            return {
                "type": "execution_error",
                **said,
                "message": message if isinstance(message, str) and message else _NO_REASON,
            }
        if isinstance(said, str) and said:
            return {"message": said, "type": "execution_error", **_details(data)}
    return {"message": _NO_REASON, "type": "execution_error", **_details(data)}


def _details(data: Mapping[str, Any]) -> dict[str, Any]:
    metrics = data.get("metrics")
    if not isinstance(metrics, dict):
        return {}
    duration, steps = metrics.get("duration"), metrics.get("stepsCompleted")
    details: dict[str, Any] = {}
    if isinstance(duration, int | float) and not isinstance(duration, bool):
        details["duration"] = duration
    if isinstance(steps, list):
        details["stepsCompleted"] = steps
    return {"details": details} if details else {}


def result_fields(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields that belong to the result, or None if there are none."""
    return {name: value for name, value in data.items() if name not in _NO_RESULT} or None


def read_time(value: Any) -> datetime | None:
    """Parse a time of the creator as aware UTC; without a zone it is UTC. None if it is not valid."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
