"""Entry of a new event: apply it within the request, or accept it for a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..core.events import Failed
from ..core.logs import get_logger
from ..core.received import Outcome, ReceivedEvent
from ..errors import CreatorError, DatabaseUnavailable, RequestRefused
from ..runtime.state import WebhookState
from .accept import accept, accept_many, defer
from .apply import apply_event
from .last_failures import ask_about_failure
from .missing_result import fetch_missing_result
from .patience import PATIENCE

__all__ = ["process", "process_inline", "process_many", "warn_if_slow"]

logger = get_logger(__name__)


def process(state: WebhookState, received: ReceivedEvent) -> Outcome:
    """Apply a new event, or store it for a worker.

    Returns:
        Its outcome; ``queued`` if a worker will apply it, or its missing result could not be fetched yet.

    Raises:
        RequestRefused: see :func:`.apply.apply_event` and :func:`.accept.accept`.
    """
    if state.settings.processing != "inline":
        return accept(state, received)
    return process_inline(state, received)


def process_many(state: WebhookState, batch: Sequence[ReceivedEvent]) -> list[Outcome | RequestRefused]:
    """Apply the events of one request, each in its own transaction, or store all of them for a worker.

    Raises:
        DatabaseUnavailable: none of them was applied or stored.
        InboxFull: none of them was stored.
    """
    if state.settings.processing != "inline":
        return accept_many(state, batch)
    outcomes: list[Outcome | RequestRefused] = []
    for received in batch:
        if outcomes and isinstance(outcomes[-1], DatabaseUnavailable):
            outcomes.append(outcomes[-1])  # waiting once is enough
            continue
        try:
            outcomes.append(process_inline(state, received))
        except RequestRefused as refusal:
            outcomes.append(refusal)
    if outcomes and isinstance(outcomes[0], DatabaseUnavailable):
        raise outcomes[0]
    return outcomes


def process_inline(state: WebhookState, received: ReceivedEvent) -> Outcome:
    """Apply an event now, whatever WEBHOOK_PROCESSING says."""
    started = time.monotonic()
    try:
        received = fetch_missing_result(state, received, patience=PATIENCE)
        if isinstance(received.event, Failed):
            received = ask_about_failure(state, received, patience=PATIENCE)
        return apply_event(state, received)
    except CreatorError as error:
        return defer(state, received, error.message)
    finally:
        warn_if_slow(state, received, time.monotonic() - started)


def warn_if_slow(state: WebhookState, received: ReceivedEvent, took: float) -> None:
    """Log that applying an event took longer than WEBHOOK_TIMEOUT."""
    if took > state.settings.timeout:
        logger.warning(
            "Processing a callback took %.1f s, more than WEBHOOK_TIMEOUT (%g s).",
            took,
            state.settings.timeout,
            extra={
                "task_id": received.task_id,
                "attempt": received.attempt,
                "event": received.event.type,
                "seconds": took,
            },
        )
