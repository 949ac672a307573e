"""Apply the deliveries that wait: new ones from the inbox, and those whose handlers failed, when their try is due."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from .. import signals
from ..core.received import ReceivedEvent, Row
from ..core.state_machine import Verdict
from ..core.stopping import is_stopping
from ..errors import CreatorError, DatabaseUnavailable, HandlerFailed, ReplayRefused, RequestRefused, TransitionRefused
from ..runtime.leases import renewed
from ..runtime.state import WebhookState
from ..storage.database_errors import Trouble, trouble_of
from ..storage.failure_log import log_failure
from ..storage.inbox import Claimed
from ..storage.inbox_statements import LOST
from ..storage.store import AlreadySettled
from .apply import apply_event
from .failed_tries import FailedTry
from .failures import record_failure
from .history import read_delivery, set_verdict
from .last_failures import ask_about_failure
from .missing_result import fetch_missing_result
from .process import warn_if_slow
from .restore import event_of_row
from .senders import NotOurs, unread_event

__all__ = ["RetryReport", "retry_due_deliveries", "work_off"]

logger = logging.getLogger(__name__)

_LEASE = 6
"""A claimed delivery is left alone for this many times WEBHOOK_TIMEOUT."""


@dataclass(slots=True)
class RetryReport:
    """The outcome of one pass over the deliveries that wait.

    Args:
        claimed: the number of due deliveries that this pass claimed.
        outcomes: the number of them for each verdict; ``failed`` ones are tried again later.
        interrupted: True if the database went down; the rest is given back, or tried again after the lease.
    """

    claimed: int = 0
    outcomes: Counter[Verdict] = field(default_factory=Counter)
    interrupted: bool = False


def retry_due_deliveries(state: WebhookState, *, limit: int = 100) -> RetryReport:
    """Apply the due deliveries in the inbox, new and failed ones; any number of processes may do so at once.

    Args:
        state: the application's state.
        limit: the greatest number of deliveries.
    """
    report = RetryReport()
    while report.claimed < limit and not report.interrupted and not is_stopping():
        before = report.claimed
        work_off(state, report, limit=min(state.settings.worker_batch, limit - before))
        if report.claimed == before:
            break
    return report


def work_off(
    state: WebhookState,
    report: RetryReport,
    *,
    limit: int,
    task_id: str | None = None,
    is_stopped: Callable[[], bool] = is_stopping,
    longest_hold: float = 1.0,
) -> None:
    """Claim some deliveries and apply them, one after the other; those of one task in the order of their arrival.

    Args:
        state: the application's state.
        report: updated with each delivery.
        limit: the greatest number of deliveries.
        task_id: claim deliveries of this task only.
        is_stopped: called before each delivery; once it returns True, the rest is given back.
        longest_hold: seconds after which the rest is given back, so that other workers can apply it.
    """
    claimed: list[Claimed] = []
    one: Claimed | None = None
    try:
        claimed += _claim(state, limit, task_id)
        began = time.monotonic()
        while claimed and not is_stopped() and time.monotonic() - began < longest_hold:
            one = claimed.pop(0)
            report.claimed += 1
            with renewed(partial(_hold, state, one.row, claimed), every=_lease(state) / 3):
                verdict = _apply_claimed(state, one.row)
            report.outcomes[verdict] += 1
            if one.more and report.claimed < limit:
                claimed += _claim(state, 1, one.row["task_id"])
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        if isinstance(error, SQLAlchemyError):  # the other was logged where it was raised
            log_failure(state.database, logger, "Deliveries that wait are left to the next pass.", error)
        report.interrupted = True
        if one is not None and _caused_by_contention(error):
            claimed.insert(0, one)
    finally:
        _give_back(state, [one.row for one in claimed])


def _lease(state: WebhookState) -> timedelta:
    """Return the length of a claim: longer than handling one delivery may take."""
    settings = state.settings
    asking = 3 * settings.creator_timeout if state.creator is not None else 0
    return timedelta(seconds=_LEASE * settings.timeout + asking)


def _claim(state: WebhookState, limit: int, task_id: str | None) -> list[Claimed]:
    lease = _lease(state)
    return state.database.write(lambda tx: state.store.inbox.claim(tx, lease=lease, limit=limit, task_id=task_id))


def _give_back(state: WebhookState, rows: Sequence[Row]) -> None:
    """Release the claims on what was not begun; if the database is down, the leases run out."""
    if not rows:
        return
    try:
        state.database.write(lambda tx: state.store.inbox.release(tx, rows))
    except SQLAlchemyError as error:
        log_failure(state.database, logger, "Deliveries could not be given back; their leases will end.", error)


def _hold(state: WebhookState, row: dict[str, Any], waiting: list[Claimed]) -> bool:
    """Extend the claim on a delivery that takes long, and give back those that wait behind it in this thread."""
    rest = [one.row for one in waiting]
    waiting.clear()
    _give_back(state, rest)
    _renew(state, row)
    return True


def _renew(state: WebhookState, row: dict[str, Any]) -> bool:
    until = state.now() + _lease(state)
    if not state.database.write(lambda tx: state.store.inbox.renew(tx, row, until)):
        return False
    row["claimed_until"] = until
    return True


def _caused_by_contention(error: Exception) -> bool:
    """Return True if other transactions, not this event, caused the error; its try then does not count."""
    cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
    return not isinstance(cause, SQLAlchemyError) or trouble_of(cause) is Trouble.BUSY


def _is_still_ours(state: WebhookState, row: dict[str, Any]) -> bool:
    """Extend a claim that is half over, as at the end of a batch; False if it was lost."""
    return bool(row["claimed_until"] - state.now() > _lease(state) / 2) or _renew(state, row)


def _apply_claimed(state: WebhookState, row: dict[str, Any]) -> Verdict:
    """Apply a claimed delivery; return its verdict."""
    if not _is_still_ours(state, row):
        return Verdict.QUEUED
    # More tries alone may come from a longer WEBHOOK_RETRY_BACKOFF, under which another one was promised.
    if row["error"] == LOST and row["tries"] > len(state.settings.retry_backoff):
        return _park(state, row, "Its worker died, or lost the database, each time that it was tried.")
    started = time.monotonic()
    try:
        received: ReceivedEvent | None = None
        try:
            received = fetch_missing_result(state, received := event_of_row(state, row))
        except CreatorError as error:
            received = received or unread_event(state, row)
            _, verdict = record_failure(
                state, received, FailedTry(error.message), row, task_id=received.task_id, attempt=received.attempt
            )
            signals.send_quietly(signals.event_handled, state.app, received=received, verdict=verdict)
            return verdict
        verdict = apply_event(state, ask_about_failure(state, received), kept=row).verdict
        warn_if_slow(state, received, time.monotonic() - started)
    except (AlreadySettled, HandlerFailed):
        return _verdict_of(state, row)
    except DatabaseUnavailable:
        raise
    except NotOurs as refusal:
        set_verdict(state, row, Verdict.IGNORED, reason=refusal.message)
        return Verdict.IGNORED
    except TransitionRefused as refusal:  # a cancellation, of a task that has ended meanwhile
        set_verdict(state, row, Verdict.IGNORED, reason=refusal.message)
        return Verdict.IGNORED
    except (RequestRefused, ReplayRefused) as error:
        logger.exception("Delivery %s can never be applied; it is parked.", row["id"])
        return _park(state, row, error.message)
    return verdict


def _verdict_of(state: WebhookState, row: Row) -> Verdict:
    now = read_delivery(state, row["id"])
    return Verdict.IGNORED if now is None else Verdict(now["verdict"])  # None: purged meanwhile


def _park(state: WebhookState, row: Row, reason: str) -> Verdict:
    set_verdict(state, row, Verdict.DEAD, reason=reason)
    return Verdict.DEAD
