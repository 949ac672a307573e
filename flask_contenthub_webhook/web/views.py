"""The blueprint: three routes, each as short as the way of a callback allows."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import wraps
from typing import Any

import msgspec
from flask import Blueprint, Request, Response, request

from .. import signals
from ..core.events import parse_event
from ..core.received import Applied, Inbound, Source
from ..core.signatures import Credentials, Verified, verify
from ..core.state_machine import Verdict
from ..core.strict_json import parse_object
from ..engine.process import process, process_many
from ..errors import (
    DatabaseUnavailable,
    HandlerFailed,
    InboxFull,
    InvalidPayload,
    RequestRefused,
    SignatureMissing,
    TaskNotFound,
)
from ..runtime.refusals import Refusal
from ..runtime.state import WebhookState, get_state
from ..storage.history import redacted_body, redacted_headers
from .batches import BatchItem, split_batch
from .guards import check_guards, drop_body, read_body

__all__ = ["blueprint"]

logger = logging.getLogger(__name__)

blueprint = Blueprint("contenthub_webhook", __name__)

_encode = msgspec.json.Encoder().encode
_ATTEMPT = re.compile(r"[1-9][0-9]{0,8}")
_TASK_ID = re.compile(r"[\x21-\x7e]{1,255}")
_MESSAGES = {
    Verdict.PROCESSED: "The event was applied.",
    Verdict.DUPLICATE: "The event was applied before; nothing changed.",
    Verdict.IGNORED: "The event has no effect in the task's state; it is recorded.",
    Verdict.STALE: "The event speaks for an earlier attempt; it is recorded.",
    Verdict.QUEUED: "The event is kept and applied later.",
}


@dataclass(slots=True)
class _Request:
    """What is known so far of the request at hand; a refusal is recorded with as much of it as there is."""

    state: WebhookState
    request: Request
    received_at: datetime
    task_id: str | None = None
    attempt: int | None = None
    body: bytes = b""
    was_read: bool = False
    verified: Verified | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def read_body(self) -> None:
        """Read the raw body, once."""
        self.was_read = True
        self.body = read_body(self.state.settings, self.request)

    @property
    def scheme(self) -> str | None:
        return None if self.verified is None else self.verified.scheme


View = Callable[..., Response]


def _answering(view: Callable[..., dict[str, Any]]) -> View:
    """Turn what a view returns, or the refusal it raises, into the answer of the HTTP contract."""

    @wraps(view)
    def answer(**arguments: Any) -> Response:
        state = get_state()
        real: Request = request._get_current_object()  # type: ignore[attr-defined]
        current = _Request(state, real, state.clock(), headers=redacted_headers(real.headers.items()))
        try:
            body = view(current, **arguments)
            return _json(body, 202 if body.get("outcome") == Verdict.QUEUED else 200)
        except RequestRefused as refusal:
            if not current.was_read:
                drop_body(state.settings, real)
            _record(current, refusal)
            return _refusal(refusal)

    return answer


@blueprint.post("/callback/<path:task_id>", strict_slashes=False, merge_slashes=False)
@_answering
def callback(current: _Request, task_id: str) -> dict[str, Any]:
    """One event about one task."""
    state = current.state
    current.task_id = task_id = task_id.removesuffix("/")
    check_guards(state, current.request)
    current.read_body()
    attempt, token = current.request.args.get("attempt"), current.request.args.get("token")
    current.attempt = _attempt(attempt)
    current.verified = _verify(current, state.settings.signature_schemes, task_id, token)
    payload = parse_object(current.body)
    inbound = _inbound(current, payload, task_id, attempt, by_any_id=False)
    return _success(process(state, inbound))


@blueprint.post("/callbacks", strict_slashes=False, merge_slashes=False)
@_answering
def batch(current: _Request) -> dict[str, Any]:
    """Many events, each applied in a transaction of its own, with a verdict for each in the same order."""
    state = current.state
    check_guards(state, current.request)
    current.read_body()
    over_the_body = tuple(scheme for scheme in state.settings.signature_schemes if scheme != "url")
    if over_the_body:
        current.verified = _verify(current, over_the_body, "", None, required=False)
    verdicts = _batch_verdicts(current, split_batch(parse_object(current.body)))
    return {
        "success": all(verdict["success"] for verdict in verdicts),
        "message": f"{sum(verdict['success'] for verdict in verdicts)} of {len(verdicts)} events were taken.",
        "results": verdicts,
    }


@blueprint.get("/health", strict_slashes=False, merge_slashes=False)
def health() -> Response:
    """Whether this process answers, and how it is set up; asks no database and tells no secrets."""
    settings = get_state().settings
    return _json(
        {
            "status": "ok",
            "webhook_enabled": settings.enabled,
            "signature_required": settings.require_signature,
            "processing": settings.processing,
        },
        200,
    )


# --- the steps -----------------------------------------------------------------------------------------------


def _verify(
    current: _Request, schemes: tuple[str, ...], task_id: str, token: str | None, *, required: bool = True
) -> Verified | None:
    """Who sent this; None for an unsigned request where those are allowed."""
    settings = current.state.settings
    verified = verify(
        Credentials(
            headers=current.request.headers, body=current.body, token=token, task_id=task_id, attempt=current.attempt
        ),
        schemes=schemes,
        secrets=settings.secrets,
        tolerance=settings.signature_tolerance,
        now=current.received_at,
    )
    if verified is None and required and settings.require_signature:
        raise SignatureMissing
    return verified


def _inbound(
    current: _Request, payload: dict[str, Any], task_id: str, attempt: str | None, *, by_any_id: bool
) -> Inbound:
    state, verified = current.state, current.verified
    if attempt is not None and current.attempt is None:
        raise InvalidPayload(f"`attempt` must be a whole number from 1, not {attempt[:40]!a}.")
    event = parse_event(
        payload, custom_types=state.custom_events, required_fields=state.settings.required_result_fields
    )
    if not _TASK_ID.fullmatch(task_id):  # no id of ours; some databases would choke on it
        raise TaskNotFound
    return Inbound(
        task_id=task_id,
        event=event,
        source=Source.WEBHOOK,
        received_at=current.received_at,
        attempt=current.attempt,
        bound_to_task=current.scheme == "url",
        by_any_id=by_any_id,
        scheme=current.scheme,
        message_id=verified.message_id if verified is not None else None,
        body=current.body,
        headers=current.headers,
        remote_addr=current.request.remote_addr,
    )


def _batch_verdicts(batch: _Request, items: Sequence[BatchItem | InvalidPayload]) -> list[dict[str, Any]]:
    """A verdict for each item, in order; what is wrong with one is its own."""
    requests = [_item_request(batch, item) for item in items]
    believed = [_believe_item(current, item) for current, item in zip(requests, items, strict=True)]
    taken = iter(process_many(batch.state, [one for one in believed if isinstance(one, Inbound)]))
    verdicts: list[dict[str, Any]] = []
    for current, one in zip(requests, believed, strict=True):
        outcome = next(taken) if isinstance(one, Inbound) else one
        if isinstance(outcome, Applied):
            verdicts.append(_success(outcome) | {"task_id": current.task_id})
        else:
            _record(current, outcome)
            verdicts.append(_refused_item(current.task_id or "", outcome))
    return verdicts


def _item_request(batch: _Request, item: BatchItem | InvalidPayload) -> _Request:
    """One item, as if it had come alone."""
    current = _Request(batch.state, batch.request, batch.received_at, headers=batch.headers, verified=batch.verified)
    if isinstance(item, BatchItem):
        current.task_id, current.body, current.attempt = item.task_id, item.body, _attempt(item.attempt)
    return current


def _believe_item(current: _Request, item: BatchItem | InvalidPayload) -> Inbound | RequestRefused:
    if isinstance(item, InvalidPayload):
        return item
    try:
        if current.verified is None:
            schemes = tuple(scheme for scheme in current.state.settings.signature_schemes if scheme == "url")
            current.verified = _verify(current, schemes, item.task_id, item.token)
        return _inbound(current, dict(item.payload), item.task_id, item.attempt, by_any_id=current.scheme != "url")
    except RequestRefused as refusal:
        return refusal


def _refused_item(task_id: str, refusal: RequestRefused) -> dict[str, Any]:
    return {"success": False, "task_id": task_id, "status": refusal.status, "error": _error(refusal)}


def _attempt(text: str | None) -> int | None:
    return int(text) if text is not None and _ATTEMPT.fullmatch(text) else None


# --- the answers ---------------------------------------------------------------------------------------------


def _success(applied: Applied) -> dict[str, Any]:
    return {
        "success": True,
        "message": _MESSAGES[applied.verdict],
        "outcome": applied.verdict.value,
        "delivery_id": applied.delivery_id,
        "details": {
            "task_id": applied.task_id,
            "status": applied.status.value,
            "late": applied.late,
            "will_retry": applied.will_retry,
            "reason": applied.reason or None,
        },
    }


def _error(refusal: RequestRefused) -> dict[str, Any]:
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if isinstance(refusal, HandlerFailed):
        error["delivery_id"] = refusal.delivery_id
    return error


def _refusal(refusal: RequestRefused) -> Response:
    response = _json({"success": False, "error": _error(refusal)}, refusal.status)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def _json(body: dict[str, Any], status: int) -> Response:
    return Response(_encode(body) + b"\n", status=status, mimetype="application/json")


def _record(current: _Request, refusal: RequestRefused) -> None:
    """Make a refusal visible: in the log, in the history (bounded), and to the host."""
    logger.warning(
        "Callback refused: %s",
        refusal.code,
        extra={"code": refusal.code, "status": refusal.status, "remote_addr": current.request.remote_addr},
    )
    if isinstance(refusal, HandlerFailed | DatabaseUnavailable | InboxFull):
        return
    current.state.rejections.record(
        current.state,
        Refusal(
            code=refusal.code,
            message=refusal.message,
            received_at=current.received_at,
            task_id=current.task_id,
            attempt=current.attempt,
            scheme=current.scheme,
            message_id=None if current.verified is None else current.verified.message_id,
            remote_addr=current.request.remote_addr,
            headers=current.headers,
            body=redacted_body(current.body) if current.task_id is None else current.body,
        ),
    )
    signals.send_quietly(
        signals.callback_rejected,
        current.state.app,
        reason=refusal.code,
        status=refusal.status,
        request={
            "method": current.request.method,
            "path": current.request.path,
            "remote_addr": current.request.remote_addr,
            "content_length": current.request.content_length,
            "user_agent": current.request.headers.get("User-Agent"),
        },
    )
