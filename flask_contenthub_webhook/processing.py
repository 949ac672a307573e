"""Where events are applied: inline, the retry of failed deliveries, and the replay that a human asks for."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from .database import unit_of_work
from .errors import (
    CreatorError,
    DatabaseUnavailable,
    DeliveryNotFound,
    HandlerFailed,
    ReplayRefused,
    RequestRefused,
)
from .events import Event, parse_event
from .history import queue, record_failure
from .inbound import Applied, Inbound, Source
from .lifecycle import apply_event
from .strict_json import parse_object
from .thin import fetch_missing_result
from .transitions import Verdict

if TYPE_CHECKING:
    from .state import WebhookState
    from .store import Row

__all__ = ["RetryReport", "process", "replay", "retry_due_deliveries"]

logger = logging.getLogger(__name__)

_LEASE = 6
"""A claimed delivery is left alone for this many times WEBHOOK_TIMEOUT."""


@dataclass(frozen=True, slots=True)
class RetryReport:
    """What one pass over the failed deliveries did.

    Args:
        claimed: deliveries that were due and ours.
        outcomes: how many of them ended with which verdict; ``failed`` are tried again later.
        interrupted: True where the database went away; what was left is tried again after the lease.
    """

    claimed: int
    outcomes: Counter[Verdict] = field(default_factory=Counter)
    interrupted: bool = False


def process(state: WebhookState, inbound: Inbound) -> Applied:
    """Apply an event that just came in, within the request.

    Returns:
        What became of it; ``queued`` where its missing result could not be fetched yet.

    Raises:
        RequestRefused: see :func:`.lifecycle.apply_event`.
    """
    started = time.monotonic()
    try:
        return apply_event(state, fetch_missing_result(state, inbound))
    except CreatorError as error:
        return queue(state, inbound, error.message)
    finally:
        took = time.monotonic() - started
        if took > state.settings.timeout:
            logger.warning(
                "Processing a callback took %.1f s, more than WEBHOOK_TIMEOUT (%g s).",
                took,
                state.settings.timeout,
                extra={"task_id": inbound.task_id, "event": inbound.event.type, "seconds": took},
            )


def retry_due_deliveries(state: WebhookState, *, limit: int = 100) -> RetryReport:
    """Try again what handlers failed at and what is due now; any number of processes may do so at once.

    Args:
        state: the application's state.
        limit: deliveries in one pass, at the most.
    """
    claimed, outcomes = 0, Counter[Verdict]()
    try:
        while claimed < limit and (delivery_id := _claim_one(state)) is not None:
            claimed += 1
            outcomes[_retry(state, delivery_id)] += 1
    except (DatabaseUnavailable, SQLAlchemyError) as error:
        logger.warning("Failed deliveries are left to the next pass.", exc_info=error)
        return RetryReport(claimed, outcomes, interrupted=True)
    return RetryReport(claimed, outcomes)


def _claim_one(state: WebhookState) -> int | None:
    """Claim the delivery that is due first, for longer than handling it may take."""
    settings, now = state.settings, state.clock()
    seconds = _LEASE * settings.timeout + (3 * settings.creator_timeout if state.creator is not None else 0)
    with unit_of_work(state) as session:
        claimed = state.store.claim_retries(session, now=now, until=now + timedelta(seconds=seconds), limit=1)
        session.commit()
    return claimed[0] if claimed else None


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
    applied = process(state, _inbound_of(state, row, Source.REPLAY))
    if applied.verdict is not Verdict.QUEUED and row["verdict"] in {Verdict.FAILED, Verdict.DEAD}:
        _set_verdict(state, delivery_id, Verdict.REPLAYED, reason=f"Replayed as delivery {applied.delivery_id}.")
    return applied


def _retry(state: WebhookState, delivery_id: int) -> Verdict:
    row = _read(state, delivery_id)
    if row is None:  # purged between the claim and now
        return Verdict.IGNORED
    try:
        inbound = _inbound_of(state, row, Source(row["source"]))
        try:
            inbound = fetch_missing_result(state, inbound)
        except CreatorError as error:
            record_failure(state, inbound, error.message, delivery_id, task_id=inbound.task_id, attempt=inbound.attempt)
            return Verdict.FAILED
        return apply_event(state, inbound, delivery_id=delivery_id).verdict
    except HandlerFailed:
        again = _read(state, delivery_id)
        return Verdict(again["verdict"]) if again is not None else Verdict.IGNORED
    except DatabaseUnavailable:
        raise
    except (RequestRefused, ReplayRefused) as error:
        logger.exception("Delivery %s can never be applied; it is parked.", delivery_id)
        _set_verdict(state, delivery_id, Verdict.DEAD, reason=error.message)
        return Verdict.DEAD


def _read(state: WebhookState, delivery_id: int) -> Row | None:
    try:
        with unit_of_work(state) as session:
            return state.store.read_delivery(session, delivery_id)
    except SQLAlchemyError as error:
        raise DatabaseUnavailable from error


def _set_verdict(state: WebhookState, delivery_id: int, verdict: Verdict, *, reason: str) -> None:
    values = {"verdict": verdict.value, "reason": reason, "next_retry_at": None}
    try:
        with unit_of_work(state) as session:
            state.store.update_delivery(session, delivery_id, values)
            session.commit()
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
