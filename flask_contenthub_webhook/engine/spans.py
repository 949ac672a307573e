"""The span of an event, where the host has set up a tracer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ..core.received import Outcome, ReceivedEvent, Row
from ..core.trace_headers import current_traceparent
from ..runtime.tracing import note, traced
from ..storage.traces import traceparent_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..runtime.state import WebhookState

__all__ = ["accept_in_span", "apply_in_span", "link_to_submission"]

T = TypeVar("T")


def apply_in_span(
    state: WebhookState, received: ReceivedEvent, kept: Row | None, apply: Callable[[], Outcome]
) -> Outcome:
    """Apply an event in a span; one that has waited goes on in the trace in which it arrived."""
    origin = None if kept is None else kept["traceparent"]
    name = f"apply {received.event.type}"
    facts = {"task_id": received.task_id, "source": received.source.value}
    with traced(state.tracing, name, "consumer", origin=origin, nested=True, **facts):
        outcome = _running([received], apply)
        note(
            state.tracing,
            task_id=outcome.task_id,
            delivery_id=outcome.delivery_id,
            verdict=outcome.verdict.value,
            status=outcome.status.value,
        )
        return outcome


def accept_in_span(state: WebhookState, batch: Sequence[ReceivedEvent], accept: Callable[[], T]) -> T:
    """Store events for a worker in a span, which their rows name."""
    one = batch[0] if len(batch) == 1 else None
    name, facts = ("accept batch", {}) if one is None else (f"accept {one.event.type}", {"task_id": one.task_id})
    with traced(state.tracing, name, "producer", nested=True, **facts):
        return _running(batch, accept)


def link_to_submission(state: WebhookState, tx: Connection, task: Row) -> None:
    """Link the current span to the one in which a task was submitted."""
    if state.tracing is not None:
        known = "traceparent" in task
        origin = task["traceparent"] if known else traceparent_of(tx, state.store.tasks, task["task_id"])
        state.tracing.link(origin)


def _running(batch: Sequence[ReceivedEvent], run: Callable[[], T]) -> T:
    """Run with the events marked as traced; their rows get the span's name, if it has one."""
    for received in batch:
        received.traceparent = current_traceparent() or ""
    try:
        return run()
    finally:
        for received in batch:
            received.traceparent = None
