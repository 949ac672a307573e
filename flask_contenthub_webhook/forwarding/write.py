"""Write forwards of an event into the outbox, in the transaction that applies the event."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import event as sa_event
from sqlalchemy.orm import Session

from ..core.events import Event, Failed, Internal, error_of
from ..core.filters import leave_out, matches, pick
from ..core.forward_targets import ForwardTarget, read_targets
from ..core.late import late
from ..core.logs import get_logger
from ..core.state_machine import Decision, TaskState
from ..core.trace_headers import current_traceparent

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.rows import Row
    from .send import forward_next
else:
    (forward_next,) = late(f"{__package__}.send", "forward_next")

__all__ = ["forwarded_event", "write_forwards"]

logger = get_logger(__name__)

_ALWAYS = ("event", "taskId", "timestamp")
_KICKS = "contenthub_webhook_forwards"
_OWN_ENDINGS = {
    TaskState.TIMEOUT: {"code": "TIMED_OUT", "message": "The task ran out of time."},
    TaskState.CANCELLED: {"code": "CANCELLED", "message": "The task was cancelled."},
}


def write_forwards(
    state: WebhookState, session: Session, event: Event, decision: Decision, *, task: Row, delivery: Row
) -> None:
    """Write one row for each URL that gets the event; they commit with the event's effect or not at all."""
    now = state.store.now(session)
    payload = forwarded_event(event, decision, task_id=task["task_id"], now=now)
    if payload is None:
        return
    rows = [
        {
            "delivery_id": delivery["id"],
            "task_id": task["task_id"],
            "event": payload["event"],
            "url": target.url,
            "message_id": f"msg_{uuid.uuid4().hex}",
            "body": body_for(target, payload),
            "status": "waiting",
            "tries": 0,
            "next_try_at": now,
            "created_at": now,
            "traceparent": current_traceparent(),
        }
        for target in _targets(state, task)
        if payload["event"] in target.events and matches(payload, target.where)
    ]
    if rows:
        state.outbox.insert(session, rows)
        _send_after_the_commit(session, state, len(rows))
        if not state.settings.submit_threads:
            state.store.inbox.notify(session)  # a scheduler will send them


def forwarded_event(event: Event, decision: Decision, *, task_id: str, now: datetime) -> dict[str, Any] | None:
    """Return the payload that receivers get, or None if nothing is forwarded: the sender's own, under our task id.

    Failed attempts that will be retried are not forwarded. A task that ended without an event of the sender (no usable
    result, timeout, cancellation) is forwarded as ``failed``, so that receivers know two endings instead of five.
    """
    match decision.to:
        case TaskState.TIMEOUT | TaskState.CANCELLED as ending:
            payload: dict[str, Any] = _failure(_OWN_ENDINGS[ending])
        case TaskState.FAILED if not isinstance(event, Failed):
            payload = _failure(error_of(event))
        case TaskState.COMPLETED | TaskState.FAILED | TaskState.PROCESSING:
            payload = dict(event.payload)
        case None if not isinstance(event, Internal):
            payload = dict(event.payload)
        case _:
            return None
    moment = payload.get("timestamp") or now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    ours = {"event": payload["event"], "taskId": task_id, "timestamp": moment}
    return ours | payload | ours


def body_for(target: ForwardTarget, payload: dict[str, Any]) -> bytes:
    """Return the body for one URL."""
    sent = payload
    if target.include:
        sent = pick(sent, (*_ALWAYS, *target.include))
    if target.exclude:
        sent = leave_out(sent, [path for path in target.exclude if path not in _ALWAYS])
    return json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()


def _failure(error: Any) -> dict[str, Any]:
    code = str(error["code"])
    details = {"retryable": False}
    return {"event": "failed", "status": "failed", "error": {"type": code.lower(), **error, "details": details}}


def _targets(state: WebhookState, task: Row) -> Iterable[ForwardTarget]:
    """Return the application's targets and the task's own, which take precedence."""
    own: tuple[ForwardTarget, ...] = ()
    try:
        own = read_targets(task["forward_to"] or ())
    except ValueError as error:  # written by hand; the event itself must not fail
        logger.error("The task's forward_to %s; it is passed over.", error, extra={"task_id": task["task_id"]})  # noqa: TRY400
    return {target.url: target for target in (*state.settings.forward_to, *own)}.values()


# --- at once -------------------------------------------------------------------------------------------------


def _send_after_the_commit(session: Session, state: WebhookState, rows: int) -> None:
    session.info.setdefault(_KICKS, []).append((state, rows))
    if not sa_event.contains(session, "after_commit", _kick):
        sa_event.listen(session, "after_commit", _kick)


def _kick(session: Session) -> None:
    if session.get_nested_transaction() is None:  # releasing a savepoint is not a commit
        for state, rows in session.info.pop(_KICKS, ()):
            state.look_again()
            for _ in range(rows):
                state.forward_threads.submit(forward_next, state)
