"""The promises that stored rows keep, and the finding that one of them does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import product
from typing import Final, Self

from .state_machine import TaskState, TaskView, Trigger, Verdict, decide

__all__ = ["ALLOWED_CHANGES", "BUILT_IN_CHANGES", "Finding", "Promise"]


class Promise(StrEnum):
    """What a row promises.

    Attributes:
        words: the promise, as a sentence.
    """

    words: str

    def __new__(cls, name: str, words: str) -> Self:
        """Make a promise from its name in the output of ``flask webhook audit`` and its words."""
        promise = str.__new__(cls, name)
        promise._value_ = name
        promise.words = words
        return promise

    COMPLETED_ONCE = "completed-once", "A completed task has exactly one processed completion."
    FINAL = "final", "A completed task stays completed."
    EXPLAINED = "explained", "The history of a task leads to its status."
    ATTEMPTS = "attempts", "Each new attempt of a task, and each try of a forward, has its row."
    ONE_TRANSACTION = "one-transaction", "A processed delivery and the change of its task committed together."
    ALLOWED = "allowed", "A processed delivery changed its task as the state machine allows."
    BELIEVED = "believed", "What changed a task was authenticated, if signatures are required."
    ASKED = "asked", "An open task has a time at which it is polled."
    ENDS = "ends", "An open task ends at some time, whatever happens."
    TRIED = "tried", "An event that waits has a time at which it is tried."
    CLAIM_ENDS = "claim-ends", "A claim on an event ends."
    CONSISTENT = "consistent", "The columns of a row do not contradict each other."
    POINTS = "points", "An id in a row names a row."
    FORWARDED_EVENT = "forwarded-event", "A forward has its processed event."
    SENT = "sent", "A forward that waits has a time at which it is sent."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A row that breaks a promise.

    Args:
        promise: the broken one.
        table: ``task``, ``delivery``, ``forward`` or ``try``.
        id: the row's primary key.
        task_id: our id of the task that it is about, if it is about one.
        message: what is wrong, in a sentence.
    """

    promise: Promise
    table: str
    id: int
    task_id: str | None
    message: str


Change = tuple[str, str, str]
"""The type of an event, and the task's status before and after it."""

_EVENTS: Final = {trigger: trigger.value for trigger in Trigger if trigger is not Trigger.CUSTOM} | {
    Trigger.INVALID_RESULT: "completed"
}
_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)


def _changes() -> Iterator[Change]:
    """Yield every change that the state machine can decide for an event that is not the host's own."""
    for (trigger, event), status, retries, retryable in product(_EVENTS.items(), TaskState, (0, 1), (False, True)):
        view = TaskView(status=status, attempt=1, max_retries=retries)
        decision = decide(trigger, view, retryable=retryable, percentage=1.0, occurred_at=_MOMENT)
        if decision.verdict is Verdict.PROCESSED and not decision.refused:
            yield event, status.value, (decision.to or status).value


ALLOWED_CHANGES: Final = frozenset(_changes())
"""Every change that the state machine allows, for events that are not the host's own."""
BUILT_IN_CHANGES: Final = tuple(sorted(set(_EVENTS.values())))
"""Types of events that change a status; the host's own change none."""
