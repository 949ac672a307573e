"""Replay deliveries by hand: one, or many, each in its own transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..core.received import Outcome
from ..errors import DatabaseUnavailable, DeliveryNotFound, HandlerFailed, WebhookError
from ..runtime.state import WebhookState
from .history import read_delivery
from .process import process_inline
from .restore import event_of_row

__all__ = ["BulkReplay", "replay", "replay_each"]


def replay(state: WebhookState, delivery_id: int, *, by: str | None = None) -> Outcome:
    """Apply the event of a delivery again, as a new delivery with the source ``replay``.

    A failed or dead delivery becomes ``replayed``, and is not tried again, in the transaction in which its replay is
    applied or turns out to need no effect, be it now or at a later try.

    Args:
        state: the application's state.
        delivery_id: the history row.
        by: who asks for it, for the history.

    Raises:
        DeliveryNotFound: there is no such row.
        ReplayRefused: the row was refused without authentication, or holds no valid event.
        CreatorError: the creator that translates its body cannot do so now.
        HandlerFailed: a handler raised again; the new row is tried again later.
        DatabaseUnavailable: nothing was written.
    """
    row = read_delivery(state, delivery_id)
    if row is None:
        raise DeliveryNotFound(f"There is no delivery {delivery_id}.")
    received = event_of_row(state, row, replayed_at=state.clock())
    received.replayed_by = by
    return process_inline(state, received)


@dataclass(slots=True)
class BulkReplay:
    """The outcome of several replays.

    Args:
        replayed: for each, the ``id`` that was replayed, and the new ``delivery_id``, ``task_id``, ``verdict``,
            ``status``.
        verdicts: the number of replays for each verdict.
        failures: for each, its ``id``, the ``code`` and ``error`` of the failure, and the new ``delivery_id`` if the
            handlers failed again.
        interrupted: True if the database went down; the remaining deliveries were not replayed.
    """

    replayed: list[dict[str, Any]] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False


def replay_each(
    state: WebhookState,
    delivery_ids: Iterable[int],
    *,
    by: str | None = None,
    after_each: Callable[[], object] = lambda: None,
) -> BulkReplay:
    """Replay deliveries one after the other; one that fails does not stop the others.

    Args:
        state: the application's state.
        delivery_ids: the deliveries, in this order.
        by: who asks for it, for the history.
        after_each: called after each replay, for a progress bar.
    """
    report = BulkReplay()
    for delivery_id in delivery_ids:
        try:
            applied = replay(state, delivery_id, by=by)
        except WebhookError as error:
            report.failures.append({"id": delivery_id, "code": error.code, **_failure(error)})
            if isinstance(error, DatabaseUnavailable):
                report.interrupted = True
                break
        else:
            report.verdicts[applied.verdict.value] += 1
            report.replayed.append(
                {
                    "id": delivery_id,
                    "delivery_id": applied.delivery_id,
                    "task_id": applied.task_id,
                    "verdict": applied.verdict.value,
                    "status": applied.status.value,
                }
            )
        after_each()
    return report


def _failure(error: WebhookError) -> dict[str, Any]:
    """Return the words of a failure, and where it is kept."""
    if isinstance(error, HandlerFailed):
        return {"error": error.failure or error.message, "delivery_id": error.delivery_id}
    return {"error": error.message, "delivery_id": None}
