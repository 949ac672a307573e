"""The answers of the HTTP contract, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
from flask import Response
from msgspec import Meta

from ..config.keys import MODES
from ..core.received import Outcome
from ..core.state_machine import UNHEARD, TaskState, Verdict
from ..errors import HandlerFailed, RequestRefused

if TYPE_CHECKING:
    from ..engine.senders import Ignored

__all__ = [
    "Accepted",
    "Answered",
    "Health",
    "Refused",
    "RefusedItem",
    "ignored_body",
    "json_response",
    "refusal_response",
    "refused_item",
    "success_body",
]

_encode = msgspec.json.Encoder().encode
_RECORDED = "The event was recorded; no handler was called."
_MESSAGES = {
    Verdict.PROCESSED: "The event was applied.",
    Verdict.DUPLICATE: "The event was applied before; nothing changed.",
    Verdict.IGNORED: "The event has no effect in the task's state; it is recorded.",
    Verdict.STALE: "The event belongs to an earlier attempt; recorded without effect.",
    Verdict.QUEUED: "The event was accepted and will be applied later.",
}
_Status = Annotated[str, Meta(extra_json_schema={"enum": [state.value for state in TaskState]})]
_Outcome = Annotated[str, Meta(extra_json_schema={"enum": [verdict.value for verdict in _MESSAGES]})]
_Mode = Annotated[str, Meta(extra_json_schema={"enum": list(MODES)})]


class Details(TypedDict):
    """The effect of an event."""

    task_id: str | None
    status: _Status | None
    late: bool
    will_retry: bool
    reason: str | None


class Accepted(TypedDict):
    """An event was accepted."""

    success: Literal[True]
    message: str
    outcome: _Outcome
    delivery_id: int
    details: Details
    task_id: NotRequired[str]


class Error(TypedDict):
    """The reason of a refusal."""

    code: str
    message: str
    delivery_id: NotRequired[int | None]


class Refused(TypedDict):
    """A request was refused."""

    success: Literal[False]
    error: Error


class RefusedItem(Refused):
    """An item of a batch was refused."""

    task_id: str
    status: int


class Answered(TypedDict):
    """A batch was answered, item by item."""

    success: bool
    message: str
    results: list[Any]
    """Of each item an :class:`Accepted`, or a :class:`RefusedItem`; msgspec knows no unions of these."""


class Health(TypedDict):
    """The set-up of this process."""

    status: Literal["ok"]
    webhook_enabled: bool
    signature_required: bool
    processing: _Mode


def success_body(outcome: Outcome) -> Accepted:
    """Return the body of a 200 or 202."""
    return {
        "success": True,
        "message": _RECORDED if outcome.reason.startswith(UNHEARD) else _MESSAGES[outcome.verdict],
        "outcome": outcome.verdict.value,
        "delivery_id": outcome.delivery_id,
        "details": {
            "task_id": outcome.task_id,
            "status": outcome.status.value,
            "late": outcome.late,
            "will_retry": outcome.will_retry,
            "reason": outcome.reason or None,
        },
    }


def ignored_body(ignored: Ignored) -> Accepted:
    """Return the body of a 200 for an event that is about no job of this application."""
    return {
        "success": True,
        "message": "The event has no effect; it is recorded.",
        "outcome": Verdict.IGNORED.value,
        "delivery_id": ignored.delivery_id,
        "details": {
            "task_id": ignored.task_id,
            "status": None,
            "late": False,
            "will_retry": False,
            "reason": ignored.reason,
        },
    }


def refused_item(task_id: str, refusal: RequestRefused) -> RefusedItem:
    """Return the entry of a refused item in the answer to a batch."""
    return {"success": False, "task_id": task_id, "status": refusal.status, "error": _error(refusal)}


def refusal_response(refusal: RequestRefused) -> Response:
    """Return the answer to a refused request."""
    body: Refused = {"success": False, "error": _error(refusal)}
    response = json_response(body, refusal.status)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def json_response(body: Mapping[str, Any], status: int) -> Response:
    """Return any JSON answer."""
    return Response(_encode(body) + b"\n", status=status, content_type="application/json")


def _error(refusal: RequestRefused) -> Error:
    error: Error = {"code": refusal.code, "message": refusal.message}
    if isinstance(refusal, HandlerFailed):
        error["delivery_id"] = refusal.delivery_id
    return error
