"""History rows: what is kept of an event, and what happens to the row when its handlers fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..core.backoff import jittered
from ..core.received import Inbound
from ..core.state_machine import Decision, Verdict
from .transactions import core_transaction

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from .rows import Row

__all__ = [
    "SETTLED",
    "decision_values",
    "delivery_values",
    "is_secret_name",
    "processing_times",
    "record_failure",
    "redacted_body",
    "redacted_headers",
]

SETTLED: Mapping[str, None] = {"error": None, "next_retry_at": None, "claimed_until": None}
"""What an event that waited, and has had its effect, does not need any more."""

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
        "replay_of": inbound.replay_of,
        "occurred_at": inbound.event.occurred_at,
        "received_at": inbound.received_at,
        **processing_times(inbound, now),
        "remote_addr": inbound.remote_addr and inbound.remote_addr[:_MAX_ADDRESS_LENGTH],
        "headers": dict(inbound.headers),
        "body": inbound.body,
        "body_digest": inbound.digest,
    }


def decision_values(decision: Decision, status_after: str) -> dict[str, Any]:
    """The columns that follow from what was decided, but for the state that the task had before."""
    return {
        "verdict": decision.verdict.value,
        "reason": decision.reason or None,
        "status_after": str(status_after),
        "late": decision.late,
    }


def processing_times(inbound: Inbound, now: datetime) -> dict[str, Any]:
    """When an event was given its effect, and how long after it was accepted."""
    return {"processed_at": now, "latency_ms": (now - inbound.received_at) / timedelta(milliseconds=1)}


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
    if is_secret_name(name):
        return _REDACTED
    if "token=" in value:  # a proxy may repeat the URL, in Referer or X-Original-URI
        return _TOKEN_PARAMETER.sub(rf"\1{_REDACTED}", value)
    return value


@lru_cache(maxsize=256)
def is_secret_name(name: str) -> bool:
    """Whether what goes by this name proves who somebody is."""
    return _SECRET_NAME.search(name) is not None


def record_failure(
    state: WebhookState, inbound: Inbound, error: str, kept: Row | None, *, task_id: str, attempt: int | None
) -> tuple[int, Verdict]:
    """Keep an event whose handlers failed, in a transaction of its own, due for another try.

    Args:
        state: the application's state.
        inbound: the event.
        error: what was raised, for people.
        kept: the row of an earlier try; None writes a new one.
        task_id: our id of its task.
        attempt: the attempt that it spoke for when it came; a later try must not take it for a later attempt's.

    Returns:
        The id of the row, and its verdict: failed, or dead.
    """
    now = state.clock()
    tries = 1 if kept is None else kept["tries"] + 1
    outcome = {
        "tries": tries,
        "error": _storable(error),
        "processed_at": now,
        "claimed_until": None,
        **_next_try(state, inbound, tries, now),
    }
    with core_transaction(state) as unit:
        if kept is None:
            values = {**delivery_values(inbound, task_id, now), "late": False, "attempt": attempt, **outcome}
            kept = state.store.insert_delivery(unit, values)
        else:
            state.store.update_delivery(unit, kept["id"], outcome)
    return int(kept["id"]), Verdict(outcome["verdict"])


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
