"""Where events are applied: within the request, from the inbox, and once more when a human asks for it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..core.events import Event, parse_event
from ..core.received import Applied, Inbound, Source
from ..core.state_machine import Verdict
from ..core.strict_json import parse_object
from ..errors import (
    CreatorError,
    DatabaseUnavailable,
    DeliveryNotFound,
    HandlerFailed,
    ReplayRefused,
    RequestRefused,
)
from ..runtime.observers import tell_of_event
from ..storage.history import record_failure
from ..storage.inbox import Claimed
from ..storage.store import AlreadySettled
from ..storage.transactions import Trouble, core_transaction, trouble_of
from .accept import accept, accept_many, put_off
from .apply import apply_event
from .missing_result import fetch_missing_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..runtime.state import WebhookState
    from ..storage.store import Row

__all__ = ["RetryReport", "process", "process_many", "replay", "retry_due_deliveries", "work_off"]

logger = logging.getLogger(__name__)

_LEASE = 6
"""A claimed delivery is left alone for this many times WEBHOOK_TIMEOUT."""

_LONGEST_HOLD = 1.0
"""Seconds for which deliveries that were claimed together are kept, while others might work on them."""


@dataclass(slots=True)
class RetryReport:
    """What one pass over the deliveries that wait did.

    Args:
        claimed: deliveries that were due and ours.
        outcomes: how many of them ended with which verdict; ``failed`` are tried again later.
        interrupted: True where the database went away; what was left is given back, or tried again after the lease.
    """

    claimed: int = 0
    outcomes: Counter[Verdict] = field(default_factory=Counter)
    interrupted: bool = False


# --- what just came in -----------------------------------------------------------------------------------------


def process(state: WebhookState, inbound: Inbound) -> Applied:
    """Take an event that just came in: apply it, or leave it to a worker.

    Returns:
        What became of it; ``queued`` where a worker applies it, or where its missing result could not be fetched yet.

    Raises:
        RequestRefused: see :func:`.apply.apply_event` and :func:`.accept.accept`.
    """
    if state.settings.processing != "inline":
        return accept(state, inbound)
    return process_inline(state, inbound)


def process_many(state: WebhookState, batch: Sequence[Inbound]) -> list[Applied | RequestRefused]:
    """Take the events of one request: each in a transaction of its own, or all at once into the inbox.

    Raises:
        DatabaseUnavailable: none of them was taken.
        InboxFull: none of them was taken.
    """
    if state.settings.processing != "inline":
        return accept_many(state, batch)
    outcomes: list[Applied | RequestRefused] = []
    for inbound in batch:
        if outcomes and isinstance(outcomes[-1], DatabaseUnavailable):
            outcomes.append(DatabaseUnavailable())  # waiting once is enough
            continue
        try:
            outcomes.append(process_inline(state, inbound))
        except RequestRefused as refusal:
            outcomes.append(refusal)
    if outcomes and all(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes):
        raise DatabaseUnavailable
    return outcomes


def process_inline(state: WebhookState, inbound: Inbound) -> Applied:
    """Apply an event now, whatever WEBHOOK_PROCESSING says."""
    started = time.monotonic()
    try:
        return apply_event(state, fetch_missing_result(state, inbound))
    except CreatorError as error:
        return put_off(state, inbound, error.message)
    finally:
        _warn_if_slow(state, inbound, time.monotonic() - started)


def _warn_if_slow(state: WebhookState, inbound: Inbound, took: float) -> None:
    if took > state.settings.timeout:
        logger.warning(
            "Processing a callback took %.1f s, more than WEBHOOK_TIMEOUT (%g s).",
            took,
            state.settings.timeout,
            extra={"task_id": inbound.task_id, "event": inbound.event.type, "seconds": took},
        )


# --- what waits ------------------------------------------------------------------------------------------------


def retry_due_deliveries(state: WebhookState, *, limit: int = 100) -> RetryReport:
    """Apply what waits in the inbox and is due, and what handlers failed at; any number of processes may do so at once.

    Args:
        state: the application's state.
        limit: deliveries in one pass, at the most.
    """
    report = RetryReport()
    while report.claimed < limit and not report.interrupted:
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
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Claim some deliveries and apply them, one after the other; those of one task in the order of their arrival.

    Args:
        state: the application's state.
        report: is brought up to date.
        limit: deliveries, at the most.
        task_id: of this task only.
        is_stopped: asked before each delivery; when it says so, the rest is given back. It is, too, when handlers take
            so long that others had better take it.
    """
    claimed: list[Claimed] = []
    one: Claimed | None = None
    try:
        claimed += _claim(state, limit, task_id)
        began = time.monotonic()
        while claimed and not is_stopped() and time.monotonic() - began < _LONGEST_HOLD:
            one = claimed.pop(0)
            report.claimed += 1
            report.outcomes[_apply_claimed(state, one.row)] += 1
            if one.more and report.claimed < limit:
                claimed += _claim(state, 1, one.row["task_id"])
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        logger.warning("Deliveries that wait are left to the next pass.", exc_info=error)
        report.interrupted = True
        if one is not None and _is_of_others_making(error):
            claimed.insert(0, one)
    finally:
        _give_back(state, [one.row for one in claimed])


def _lease(state: WebhookState) -> timedelta:
    """Longer than handling one delivery may take."""
    settings = state.settings
    asking = 3 * settings.creator_timeout if state.creator is not None else 0
    return timedelta(seconds=_LEASE * settings.timeout + asking)


def _claim(state: WebhookState, limit: int, task_id: str | None) -> list[Claimed]:
    now = state.clock()
    with core_transaction(state) as unit:
        return state.store.inbox.claim(unit, now=now, until=now + _lease(state), limit=limit, task_id=task_id)


def _give_back(state: WebhookState, rows: Sequence[Row]) -> None:
    """Let others have what was not begun; where the database is away, its lease ends by itself."""
    if not rows:
        return
    try:
        with core_transaction(state) as unit:
            state.store.inbox.release(unit, rows)
    except SQLAlchemyError as error:
        logger.warning("%d deliveries could not be given back; their leases will end.", len(rows), exc_info=error)


def _is_of_others_making(error: Exception) -> bool:
    """Whether others kept the task, or the database, to themselves; what an event itself is at fault for counts."""
    cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
    return not isinstance(cause, SQLAlchemyError) or trouble_of(cause) is Trouble.BUSY


def _is_still_ours(state: WebhookState, row: Row) -> bool:
    """A delivery at the end of a batch may have waited for long; make sure that its lease lasts."""
    now: datetime = state.clock()
    if row["claimed_until"] - now > _lease(state) / 2:
        return True
    with core_transaction(state) as unit:
        return state.store.inbox.renew(unit, row, now + _lease(state))


def _apply_claimed(state: WebhookState, row: Row) -> Verdict:
    """One delivery that is ours."""
    if not _is_still_ours(state, row):
        return Verdict.QUEUED
    if row["tries"] > len(state.settings.retry_backoff):  # only a claim counts that far, see InboxStatements
        return _park(state, row, "Its worker died, or lost the database, each time that it was tried.")
    started = time.monotonic()
    try:
        inbound = _inbound_of(state, row, Source(row["source"]))
        try:
            inbound = fetch_missing_result(state, inbound)
        except CreatorError as error:
            _, verdict = record_failure(
                state, inbound, error.message, row, task_id=inbound.task_id, attempt=inbound.attempt
            )
            tell_of_event(state, inbound, verdict)
            return verdict
        verdict = apply_event(state, inbound, kept=row).verdict
        _warn_if_slow(state, inbound, time.monotonic() - started)
    except (AlreadySettled, HandlerFailed):
        return _verdict_of(state, row)
    except DatabaseUnavailable:
        raise
    except (RequestRefused, ReplayRefused) as error:
        logger.exception("Delivery %s can never be applied; it is parked.", row["id"])
        return _park(state, row, error.message)
    return verdict


def _verdict_of(state: WebhookState, row: Row) -> Verdict:
    now = _read(state, row["id"])
    return Verdict.IGNORED if now is None else Verdict(now["verdict"])  # None: purged meanwhile


def _park(state: WebhookState, row: Row, reason: str) -> Verdict:
    _set_verdict(state, row["id"], Verdict.DEAD, reason=reason)
    return Verdict.DEAD


# --- once more -------------------------------------------------------------------------------------------------


def replay(state: WebhookState, delivery_id: int) -> Applied:
    """Apply the event of a delivery again, as a new delivery with the source ``replay``.

    A failed or dead delivery whose replay has an effect, or finds that none is left to have, becomes ``replayed`` and
    is not tried again; one whose replay has to wait stays as it is.

    Args:
        state: the application's state.
        delivery_id: the history row.

    Raises:
        DeliveryNotFound: there is no such row.
        ReplayRefused: the row holds no event that anybody vouched for.
        HandlerFailed: a handler raised again; the new row is tried again later.
        DatabaseUnavailable: nothing was written.
    """
    row = _read(state, delivery_id)
    if row is None:
        raise DeliveryNotFound(f"There is no delivery {delivery_id}.")
    applied = process_inline(state, _inbound_of(state, row, Source.REPLAY))
    if applied.verdict is not Verdict.QUEUED and row["verdict"] in {Verdict.FAILED, Verdict.DEAD}:
        _set_verdict(state, delivery_id, Verdict.REPLAYED, reason=f"Replayed as delivery {applied.delivery_id}.")
    return applied


def _read(state: WebhookState, delivery_id: int) -> Row | None:
    try:
        with core_transaction(state, writes=False) as unit:
            return state.store.read_delivery(unit, delivery_id)
    except SQLAlchemyError as error:
        raise DatabaseUnavailable from error


def _set_verdict(state: WebhookState, delivery_id: int, verdict: Verdict, *, reason: str) -> None:
    values = {"verdict": verdict.value, "reason": reason, "next_retry_at": None, "claimed_until": None}
    try:
        with core_transaction(state) as unit:
            state.store.update_delivery(unit, delivery_id, values)
    except SQLAlchemyError as error:
        raise DatabaseUnavailable from error


def _inbound_of(state: WebhookState, row: Row, source: Source) -> Inbound:
    """The event of a history row, parsed from its raw body again."""
    if row["verdict"] == Verdict.REJECTED and row["scheme"] is None:
        raise ReplayRefused(f"Delivery {row['id']} was refused ({row['error']}), and nobody vouched for it.")
    if not row["body"] or row["task_id"] is None:
        raise ReplayRefused(f"Delivery {row['id']} holds no body to replay.")
    return Inbound(
        task_id=row["task_id"],
        event=_parse(state, row),
        source=source,
        received_at=state.clock() if source is Source.REPLAY else row["received_at"],
        attempt=row["attempt"],
        bound_to_task=row["verdict"] != Verdict.REJECTED or row["scheme"] == "url",
        scheme=row["scheme"],
        message_id=row["message_id"],
        body=bytes(row["body"]),
        headers=row["headers"] or {},
        remote_addr=row["remote_addr"],
        replay_of=row["id"] if source is Source.REPLAY else row["replay_of"],
        was_kept=True,
    )


def _parse(state: WebhookState, row: Row) -> Event:
    try:
        return parse_event(
            parse_object(bytes(row["body"])),
            custom_types=state.custom_events,
            required_fields=state.settings.required_result_fields,
        )
    except RequestRefused as error:
        raise ReplayRefused(f"Delivery {row['id']} holds no valid event: {error.message}") from error
