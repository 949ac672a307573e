"""The rule that a sender vouches only for tasks that were submitted to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.received import ReceivedEvent, Row
from ..errors import TaskMismatch

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["check_sender", "may_be_anothers"]


def may_be_anothers(state: WebhookState, received: ReceivedEvent) -> bool:
    """Tell whether the task has to be read to see that its events may come in our own format."""
    return state.registry.has_readers and received.came_by_callback


def check_sender(state: WebhookState, received: ReceivedEvent, task: Row) -> None:
    """Check that an event in our own format is not about a task of a service that reports in its own words.

    Raises:
        TaskMismatch: only that service vouches for the task.
    """
    if may_be_anothers(state, received) and (reader := state.registry.reader_of(task)) is not None:
        raise TaskMismatch(f"The task was submitted to {reader.name}, which reports in its own words.")
