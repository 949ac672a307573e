"""The answers of the HTTP contract, as JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Response

from ..core.received import Outcome
from ..core.state_machine import UNHEARD, Verdict
from ..engine.senders import Ignored
from ..errors import HandlerFailed, RequestRefused

__all__ = ["json_response", "refusal_response", "refused_item", "success_body"]

_encode = msgspec.json.Encoder().encode
_RECORDED = "The event was recorded; no handler was called."
_MESSAGES = {
    Verdict.PROCESSED: "The event was applied.",
    Verdict.DUPLICATE: "The event was applied before; nothing changed.",
    Verdict.IGNORED: "The event has no effect in the task's state; it is recorded.",
    Verdict.STALE: "The event belongs to an earlier attempt; recorded without effect.",
    Verdict.QUEUED: "The event was accepted and will be applied later.",
}


def success_body(outcome: Outcome) -> dict[str, Any]:
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


def ignored_body(ignored: Ignored) -> dict[str, Any]:
    """Return the body of a 200 for an event that is about no job of this application."""
    details = {"task_id": ignored.task_id, "status": None, "late": False, "will_retry": False}
    return {
        "success": True,
        "message": "The event has no effect; it is recorded.",
        "outcome": Verdict.IGNORED.value,
        "delivery_id": ignored.delivery_id,
        "details": {**details, "reason": ignored.reason},
    }


def refused_item(task_id: str, refusal: RequestRefused) -> dict[str, Any]:
    """Return the entry of a refused item in the answer to a batch."""
    return {"success": False, "task_id": task_id, "status": refusal.status, "error": _error(refusal)}


def refusal_response(refusal: RequestRefused) -> Response:
    """Return the answer to a refused request."""
    response = json_response({"success": False, "error": _error(refusal)}, refusal.status)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def json_response(body: dict[str, Any], status: int) -> Response:
    """Return any JSON answer."""
    return Response(_encode(body) + b"\n", status=status, mimetype="application/json")


def _error(refusal: RequestRefused) -> dict[str, Any]:
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if isinstance(refusal, HandlerFailed):
        error["delivery_id"] = refusal.delivery_id
    return error
