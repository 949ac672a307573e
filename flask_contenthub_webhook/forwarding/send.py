"""Send due forwards: claim one, post it with no transaction open, record the outcome.

Any number of processes may do so at once. If one dies between the request and its record, the forward is sent again
after its lease, under the same ``webhook-id``: at least once, and receivers can recognize a copy.
"""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from .. import signals
from ..core.backoff import jittered
from ..core.logs import get_logger
from ..core.signatures import (
    STANDARD_ID_HEADER,
    STANDARD_SIGNATURE_HEADER,
    STANDARD_TIMESTAMP_HEADER,
    sign_standard,
)
from ..core.stopping import DaemonThreads, is_stopping
from ..core.trace_headers import TRACE_HEADERS
from ..runtime.leases import renewed
from ..runtime.tracing import note, traced
from ..storage.failure_log import log_failure
from ..storage.forwards import DEAD, DELIVERED, WAITING
from .pauses import bring_forward, pause, push_back_what_came_since

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.rows import Row
    from .post import Answer

__all__ = ["ForwardReport", "forward_next", "send_due_forwards"]

logger = get_logger(__name__)

_LEASE_MARGIN = timedelta(seconds=30)
_LONGEST_PASS = 30.0
"""Seconds after which a pass starts no further request, so that it ends although there is always more."""
_LOOK_AGAIN = 1.0
"""Seconds between claims while requests are under way, so that a URL that hangs does not delay the others."""
_MOST_PATIENCE = timedelta(hours=1)
"""The longest Retry-After that is honoured."""


@dataclass(frozen=True, slots=True)
class ForwardReport:
    """The outcome of one pass.

    Args:
        claimed: the number of due forwards that this pass claimed.
        outcomes: how many of them were ``delivered``, are ``waiting`` for another try, are ``dead``, or were
            ``interrupted``: the database did not record them, and they are sent again after the lease.
    """

    claimed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


def send_due_forwards(state: WebhookState, *, limit: int = 1000) -> ForwardReport:
    """Send due forwards, several at a time, with at most ``limit`` requests."""
    if not state.settings.forward_secrets:
        return ForwardReport()  # nothing is ever sent unsigned
    push_back_what_came_since(state)
    first = _claim(state)
    return ForwardReport() if first is None else _send_side_by_side(state, first, limit)


def forward_next(state: WebhookState) -> None:
    """Send the next due forward, if there is one, and look again for those that found no free lane meanwhile."""
    forward = _claim(state) if state.settings.forward_secrets else None
    if forward is not None:
        _send(state, forward)
        state.forward_threads.submit(forward_next, state)


# --- one pass ------------------------------------------------------------------------------------------------


def _send_side_by_side(state: WebhookState, first: Row, limit: int) -> ForwardReport:
    """Send until nothing is due, or the pass has taken long enough."""
    side_by_side, began = state.settings.forward_concurrency, monotonic()
    claimed, outcomes = 0, Counter[str]()
    under_way: set[Future[str]] = set()
    due: Row | None = first
    with DaemonThreads(side_by_side, "contenthub-forward") as pool:
        while due is not None or under_way:
            if due is not None:
                claimed += 1
                under_way.add(pool.submit(_send, state, due))
            else:
                wait(under_way, timeout=_LOOK_AGAIN, return_when=FIRST_COMPLETED)
            done = {future for future in under_way if future.done()}
            under_way -= done
            outcomes.update(future.result() for future in done)
            has_room = len(under_way) < side_by_side and claimed < limit and monotonic() - began < _LONGEST_PASS
            due = _claim(state) if has_room and not is_stopping() else None
    return ForwardReport(claimed, outcomes)


def _claim(state: WebhookState) -> Row | None:
    """Claim the first due forward whose URL may be sent to, even if it is postponed and the URL answers again."""
    lanes, claimed = state.forward_lanes, _claim_due(state)
    if claimed is not None or lanes.are_full:
        return claimed
    open_again = set(lanes.postponed()).difference(lanes.closed(state.waited()))
    moved = sum(bring_forward(state, url) for url in open_again)
    return _claim_due(state) if moved else None


def _claim_due(state: WebhookState) -> Row | None:
    """Claim the first due forward whose URL may be sent to, for longer than a request takes."""
    lanes, lease = state.forward_lanes, _lease(state)
    with lanes.choosing:
        if lanes.are_full:
            return None
        try:
            with state.database.session() as session:
                claimed = state.outbox.claim(session, lease=lease, closed=lanes.closed(state.waited()))
                session.commit()
        except SQLAlchemyError as error:
            log_failure(state.database, logger, "No forward could be claimed; the next pass tries again.", error)
            return None
        if claimed is not None:
            lanes.enter(claimed["url"])
    return claimed


def _lease(state: WebhookState) -> timedelta:
    return timedelta(seconds=state.settings.forward_timeout) + _LEASE_MARGIN


def _renew(state: WebhookState, forward: Row) -> bool:
    """Extend the claim on a forward that is being sent; False if it was lost."""
    with state.database.session() as session:
        ours = state.outbox.renew(session, forward, state.store.now(session) + _lease(state))
        session.commit()
    return ours


# --- one forward ---------------------------------------------------------------------------------------------


def _send(state: WebhookState, forward: Row) -> str:
    """Post one forward, and return the recorded outcome."""
    name, facts = f"forward {forward['event']}", {"task_id": forward["task_id"], "forward_id": forward["id"]}
    with traced(state.tracing, name, "client", origin=forward["traceparent"], try_number=forward["tries"], **facts):
        return _send_now(state, forward)


def _send_now(state: WebhookState, forward: Row) -> str:
    lanes, url, began = state.forward_lanes, forward["url"], state.waited()
    try:
        with renewed(lambda: _renew(state, forward), every=_lease(state) / 3):
            answer: Answer = state.post(url, bytes(forward["body"]), _headers(state, forward, state.clock()))
    except BaseException:
        lanes.leave(url)
        raise
    left_alone = None
    if answer.error is None:
        lanes.succeeded(url, after_failures=forward["tries"] > 1)
    elif answer.final:
        lanes.leave(url)
    else:
        left_alone = lanes.failed(url, state.waited())
    status, wait = _outcome(state, forward, answer)
    _log(forward, answer, status)
    failed = None if answer.error is None else str(answer.status or "no answer")
    note(state.tracing, outcome=status, status_code=answer.status, error=failed)
    try:
        settled = _record(state, forward, answer, status, wait=wait, took=state.waited() - began)
    except SQLAlchemyError as error:
        message = "An answer was not recorded; the event is sent again."
        log_failure(state.database, logger, message, error, extra=_names(forward))
        return "interrupted"
    if left_alone is not None:
        pause(state, url, left_alone)
    elif answer.error is None and lanes.wants_postponed(url):
        bring_forward(state, url)
    signals.send_quietly(signals.forward_tried, state.app, status=status)
    if settled and status != WAITING:
        _tell(state, forward["id"], status)
    return status


def _headers(state: WebhookState, forward: Row, now: datetime) -> dict[str, str]:
    """Return the headers of Standard Webhooks, with a signature for each secret, and those of the trace."""
    body, message_id, timestamp = bytes(forward["body"]), forward["message_id"], int(now.timestamp())
    signatures = (sign_standard(body, secret, message_id, timestamp) for secret in state.settings.forward_secrets)
    return {
        STANDARD_ID_HEADER: message_id,
        STANDARD_TIMESTAMP_HEADER: str(timestamp),
        STANDARD_SIGNATURE_HEADER: " ".join(signatures),
        **TRACE_HEADERS.get(),
    }


def _outcome(state: WebhookState, forward: Row, answer: Answer) -> tuple[str, timedelta]:
    """Return the status of a forward after a try, and how long to wait for the next one."""
    if answer.error is None:
        return DELIVERED, timedelta()
    backoff, tries = state.settings.retry_backoff, forward["tries"]
    if answer.final or tries > len(backoff):
        return DEAD, timedelta()
    return WAITING, max(jittered(backoff[tries - 1]), _asked_for(answer.retry_after, state.clock()))


def _asked_for(retry_after: str | None, now: datetime) -> timedelta:
    """Return the time of a Retry-After header, in seconds or as a date; at most an hour."""
    text = (retry_after or "").strip()
    try:
        if text.isascii() and text.isdigit():
            asked = timedelta(seconds=int(text[:9]))
        else:
            date = parsedate_to_datetime(text)
            asked = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError):
        return timedelta()
    return min(max(asked, timedelta()), _MOST_PATIENCE)


def _record(
    state: WebhookState, forward: Row, answer: Answer, status: str, *, wait: timedelta, took: timedelta
) -> bool:
    attempt = {
        "duration_ms": answer.duration_ms,
        "address": answer.address,
        "status_code": answer.status,
        "error": answer.error,
        "request_headers": dict(answer.sent),
        "response_headers": dict(answer.headers) or None,
        "response_body": answer.body,
    }
    with state.database.session() as session:
        now = state.store.now(session)
        due, finished = (now + wait, None) if status == WAITING else (None, now)
        changes = {"status": status, "next_try_at": due, "finished_at": finished}
        settled = state.outbox.settle(session, forward, changes)
        state.outbox.add_attempt(session, forward["id"], {**attempt, "started_at": now - took})
        session.commit()
    return settled


def _tell(state: WebhookState, forward_id: int, outcome: str) -> None:
    if not signals.forward_finished.receivers:
        return
    with state.database.session() as session:
        values = state.outbox.read(session, forward_id)
        if values is not None:
            forward = state.outbox.forwards.object_from_row(session, values)
            signals.send_quietly(
                signals.forward_finished, state.app, clean_up=session.rollback, forward=forward, outcome=outcome
            )


def _log(forward: Row, answer: Answer, status: str) -> None:
    """Log the outcome, without the URL and the receiver's words, which may contain secrets."""
    level = logging.INFO if answer.error is None else logging.WARNING
    came = answer.error if answer.status is None else f"HTTP {answer.status}"
    logger.log(level, "Forward %s is %s: %s", forward["id"], status, came, extra=_names(forward))


def _names(forward: Row) -> dict[str, Any]:
    return {"forward_id": forward["id"], "task_id": forward["task_id"], "event": forward["event"]}
