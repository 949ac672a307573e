"""History rows: what is kept of an event, and what happens to the row when its handlers fail."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from .backoff import jittered
from .database import unit_of_work
from .errors import DatabaseUnavailable, TaskNotFound
from .inbound import Applied, Inbound
from .transitions import TaskState, Verdict

if TYPE_CHECKING:
    from .state import WebhookState

__all__ = ["delivery_values", "queue", "record_failure", "redacted_body", "redacted_headers"]

_SECRET_NAME = re.compile(
    r"auth|cookie|token|secret|signature|password|session|csrf|api-?key|client-cert", re.IGNORECASE
)
_TOKEN_FIELD = re.compile(rb'("token"\s*:\s*")[^"]*')
_TOKEN_PARAMETER = re.compile(r"([?&]token=)[^&#\s\"]*")
_REDACTED = "[redacted]"
_MAX_HEADERS = 64
_MAX_HEADER_LENGTH = 1000
_MAX_ADDRESS_LENGTH = 64
_MAX_ERROR_LENGTH = 10_000


def delivery_values(inbound: Inbound, task_id: str, now: datetime) -> dict[str, Any]:
    """The columns of a history row that follow from how an event came."""
    return {
        "task_id": task_id,
        "event": inbound.event.type,
        "attempt": inbound.attempt,
        "source": inbound.source.value,
        "scheme": inbound.scheme,
        "message_id": inbound.message_id,
        "tries": 1,
        "occurrences": 1,
        "late": False,
        "replay_of": inbound.replay_of,
        "occurred_at": inbound.event.occurred_at,
        "received_at": inbound.received_at,
        "processed_at": now,
        "latency_ms": (now - inbound.received_at) / timedelta(milliseconds=1),
        "remote_addr": inbound.remote_addr and inbound.remote_addr[:_MAX_ADDRESS_LENGTH],
        "headers": dict(inbound.headers),
        "body": inbound.body,
        "body_digest": inbound.digest,
    }


def redacted_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Request headers for the history: nothing that proves who somebody is, and bounded in number and length."""
    kept: dict[str, str] = {}
    for name, value in headers:
        if len(kept) == _MAX_HEADERS:
            break
        kept[name[:_MAX_HEADER_LENGTH]] = _redacted(name, value)[:_MAX_HEADER_LENGTH]
    return kept


def redacted_body(body: bytes) -> bytes:
    """A body without the tokens that the items of a batch carry; for bodies that could not be taken apart."""
    return _TOKEN_FIELD.sub(rb"\1[redacted]", body)


def _redacted(name: str, value: str) -> str:
    if _is_secret(name):
        return _REDACTED
    if "token=" in value:  # a proxy may repeat the URL, in Referer or X-Original-URI
        return _TOKEN_PARAMETER.sub(rf"\1{_REDACTED}", value)
    return value


@lru_cache(maxsize=256)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def record_failure(
    state: WebhookState, inbound: Inbound, error: str, delivery_id: int | None, *, task_id: str, attempt: int | None
) -> int:
    """Keep an event whose handlers failed, in a transaction of its own, due for another try.

    Args:
        state: the application's state.
        inbound: the event.
        error: what was raised, for people.
        delivery_id: the row of an earlier try; None writes a new one.
        task_id: our id of its task.
        attempt: the attempt that it spoke for when it came; a later try must not take it for a later attempt's.

    Returns:
        The id of the row.
    """
    now = state.clock()
    with unit_of_work(state) as session:
        earlier = None if delivery_id is None else state.store.read_delivery(session, delivery_id)
        tries = 1 if earlier is None else earlier["tries"] + 1
        outcome = {
            "tries": tries,
            "error": _storable(error),
            "processed_at": now,
            **_next_try(state, inbound, tries, now),
        }
        if earlier is None:
            values = {**delivery_values(inbound, task_id, now), "attempt": attempt, **outcome}
            kept = state.store.insert_delivery(session, values)
        else:
            state.store.update_delivery(session, earlier["id"], outcome)
            kept = earlier
        session.commit()
    return int(kept["id"])


def queue(state: WebhookState, inbound: Inbound, reason: str) -> Applied:
    """Keep an event that cannot be applied yet, due for its first try after the first backoff.

    Args:
        state: the application's state.
        inbound: the event.
        reason: why it has to wait.

    Raises:
        DatabaseUnavailable: nothing was written.
    """
    now = state.clock()
    try:
        with unit_of_work(state) as session:
            task = state.store.read_task(session, inbound.task_id, by_any_id=inbound.by_any_id)
            if task is None:
                raise TaskNotFound
            outcome = {
                "verdict": Verdict.QUEUED.value,
                "reason": reason,
                "tries": 0,
                "next_retry_at": now + jittered(state.settings.retry_backoff[0]),
            }
            attempt = task["attempt"] if inbound.attempt is None else inbound.attempt
            values = {**delivery_values(inbound, task["task_id"], now), "attempt": attempt, **outcome}
            kept = state.store.insert_delivery(session, values)
            session.commit()
    except SQLAlchemyError as error:
        raise DatabaseUnavailable from error
    return Applied(
        verdict=Verdict.QUEUED,
        delivery_id=kept["id"],
        task_id=task["task_id"],
        status=TaskState(task["status"]),
        reason=reason,
    )


def _storable(error: str) -> str:
    """Any text, made fit for any database: no NUL, no half surrogate pairs, bounded."""
    bounded = error[:_MAX_ERROR_LENGTH].replace("\0", "\\x00")
    return bounded.encode("utf-8", errors="backslashreplace").decode("utf-8")[:_MAX_ERROR_LENGTH]


def _next_try(state: WebhookState, inbound: Inbound, tries: int, now: datetime) -> dict[str, Any]:
    """After the last backoff the delivery is parked as dead, for a human to replay.

    An event of our own making has no body; whoever made it (the poller, the host) makes it again.
    """
    backoff = state.settings.retry_backoff
    if not inbound.body:
        return {"verdict": Verdict.FAILED.value, "next_retry_at": None}
    if tries > len(backoff):
        return {"verdict": Verdict.DEAD.value, "next_retry_at": None}
    return {"verdict": Verdict.FAILED.value, "next_retry_at": now + jittered(backoff[tries - 1])}
