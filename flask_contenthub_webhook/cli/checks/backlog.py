"""Overdue work, which shows that no scheduler is running, or that it cannot keep up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ...storage.task_queries import count_waiting
from ..terminal import counted
from .findings import DoctorContext, Finding, check, ok, warn

__all__ = ["check_backlog"]

_PATIENCE = timedelta(minutes=5)
_NOUNS = {
    "polls": ("poll", "polls"),
    "submissions": ("submission", "submissions"),
    "retries": ("delivery retry", "delivery retries"),
}


@check("background work", needs_schema=True)
def check_backlog(context: DoctorContext) -> Iterator[Finding]:
    """Count the work that has been due for more than five minutes."""
    waiting = count_waiting(context.state.database, due_before=context.state.clock() - _PATIENCE)
    late = [counted(waiting[key], *noun) for key, noun in _NOUNS.items() if waiting[key]]
    if late:
        yield warn(
            f"Overdue by more than five minutes: {', '.join(late)}. No scheduler is running, or it cannot keep up.",
            "Run `flask webhook scheduler` as a service, or set WEBHOOK_SCHEDULER_ENABLED=true; if one is running, "
            "look at its log.",
        )
    else:
        yield ok("Nothing is overdue by more than five minutes.")
