"""The state machine: the states, the transition table as data, and the one function that reads it.

Pure on purpose: no Flask, no SQL, no clock. Webhook, poll, submit response, replay, timeout and cancel all ask
:func:`decide`, and nothing else in the package chooses a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

__all__ = [
    "COMPLETED_BEFORE",
    "COMPLETED_NOW",
    "HEARD",
    "OPEN_STATES",
    "TERMINAL_STATES",
    "TRANSITIONS",
    "UNHEARD",
    "UNSETTLED",
    "Decision",
    "Rule",
    "TaskState",
    "TaskView",
    "Trigger",
    "Verdict",
    "decide",
]


class TaskState(StrEnum):
    """The state of a task."""

    PENDING = "pending"
    SUBMITTED = "submitted"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


OPEN_STATES: Final = (TaskState.PENDING, TaskState.SUBMITTED, TaskState.PROCESSING)
TERMINAL_STATES: Final = (TaskState.COMPLETED, TaskState.FAILED, TaskState.TIMEOUT, TaskState.CANCELLED)


class Trigger(StrEnum):
    """The cause of a transition."""

    PROGRESS = "progress"
    COMPLETED = "completed"
    FAILED = "failed"
    INVALID_RESULT = "invalid_result"
    """The creator says completed, but has no usable result: a failure that another attempt would only repeat."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SUBMITTED = "submitted"
    """The creator accepted the current attempt."""
    RETRY = "retry"
    """The host wants another attempt of a task that did not succeed."""
    CUSTOM = "custom"


class Verdict(StrEnum):
    """The outcome of an event, as its delivery records it."""

    PROCESSED = "processed"
    DUPLICATE = "duplicate"
    IGNORED = "ignored"
    STALE = "stale"
    QUEUED = "queued"
    FAILED = "failed"
    DEAD = "dead"
    REJECTED = "rejected"
    REPLAYED = "replayed"


UNSETTLED: Final = (Verdict.QUEUED, Verdict.FAILED, Verdict.DEAD)
"""Verdicts of deliveries that have had no effect yet."""
HEARD: Final = (Verdict.PROCESSED, Verdict.STALE)
"""Verdicts of messages that must have no effect when they come again: applied, or too old for the current attempt."""


class Rule(StrEnum):
    """A cell of the transition table."""

    PROGRESS = "to processing, if it is new"
    COMPLETE = "to completed"
    COMPLETE_LATE = "to completed, late"
    RETRY_OR_FAIL = "to pending with the next attempt, or to failed"
    FAIL = "to failed"
    TIME_OUT = "to timeout"
    CANCEL = "to cancelled"
    SUBMIT = "to submitted"
    RETRY = "to pending with the next attempt"
    RECORD = "no change of state"
    DUPLICATE = "duplicate"
    IGNORE = "ignored"
    REFUSE = "an error"


def _row(open_: Rule, *, completed: Rule, failed: Rule, timeout: Rule, cancelled: Rule) -> dict[TaskState, Rule]:
    return dict.fromkeys(OPEN_STATES, open_) | {
        TaskState.COMPLETED: completed,
        TaskState.FAILED: failed,
        TaskState.TIMEOUT: timeout,
        TaskState.CANCELLED: cancelled,
    }


TRANSITIONS: Final[dict[Trigger, dict[TaskState, Rule]]] = {
    Trigger.PROGRESS: _row(
        Rule.PROGRESS, completed=Rule.IGNORE, failed=Rule.IGNORE, timeout=Rule.IGNORE, cancelled=Rule.IGNORE
    ),
    Trigger.COMPLETED: _row(
        Rule.COMPLETE,
        completed=Rule.DUPLICATE,
        failed=Rule.COMPLETE_LATE,
        timeout=Rule.COMPLETE_LATE,
        cancelled=Rule.IGNORE,
    ),
    Trigger.FAILED: _row(
        Rule.RETRY_OR_FAIL, completed=Rule.IGNORE, failed=Rule.DUPLICATE, timeout=Rule.FAIL, cancelled=Rule.IGNORE
    ),
    Trigger.INVALID_RESULT: _row(
        Rule.FAIL, completed=Rule.IGNORE, failed=Rule.DUPLICATE, timeout=Rule.FAIL, cancelled=Rule.IGNORE
    ),
    Trigger.TIMED_OUT: _row(
        Rule.TIME_OUT, completed=Rule.IGNORE, failed=Rule.IGNORE, timeout=Rule.DUPLICATE, cancelled=Rule.IGNORE
    ),
    Trigger.CANCELLED: _row(
        Rule.CANCEL, completed=Rule.REFUSE, failed=Rule.REFUSE, timeout=Rule.REFUSE, cancelled=Rule.DUPLICATE
    ),
    Trigger.SUBMITTED: _row(
        Rule.IGNORE, completed=Rule.IGNORE, failed=Rule.IGNORE, timeout=Rule.IGNORE, cancelled=Rule.IGNORE
    )
    | {
        TaskState.PENDING: Rule.SUBMIT,
        TaskState.SUBMITTED: Rule.DUPLICATE,
        TaskState.PROCESSING: Rule.RECORD,  # its first progress was faster than the answer to the submission
    },
    Trigger.RETRY: _row(
        Rule.REFUSE, completed=Rule.REFUSE, failed=Rule.RETRY, timeout=Rule.RETRY, cancelled=Rule.RETRY
    ),
    Trigger.CUSTOM: _row(
        Rule.RECORD, completed=Rule.RECORD, failed=Rule.RECORD, timeout=Rule.RECORD, cancelled=Rule.RECORD
    ),
}

_OF_ONE_ATTEMPT = {
    Trigger.PROGRESS,
    Trigger.FAILED,
    Trigger.INVALID_RESULT,
    Trigger.TIMED_OUT,
    Trigger.SUBMITTED,
}
_TARGETS = {
    Rule.COMPLETE: TaskState.COMPLETED,
    Rule.COMPLETE_LATE: TaskState.COMPLETED,
    Rule.FAIL: TaskState.FAILED,
    Rule.TIME_OUT: TaskState.TIMEOUT,
    Rule.CANCEL: TaskState.CANCELLED,
    Rule.SUBMIT: TaskState.SUBMITTED,
    Rule.RETRY: TaskState.PENDING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """The facts about a task that a decision needs.

    Args:
        status: its state.
        attempt: the current attempt, from 1.
        max_retries: attempts allowed after the first.
        percentage: the last stored progress of this attempt, 0 to 100, or None.
        progress_at: when the sender built that progress, or None.
    """

    status: TaskState
    attempt: int
    max_retries: int
    percentage: float | None = None
    progress_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The effect of an event on a task.

    Args:
        verdict: processed, duplicate, ignored or stale.
        to: the new state; None if it does not change.
        will_retry: True if the failed attempt is followed by another.
        late: True if a task that had been given up completes after all.
        refused: True if the state does not allow it, and the caller must be told.
        reason: an explanation for the history; empty if the verdict is enough.
    """

    verdict: Verdict
    to: TaskState | None = None
    will_retry: bool = False
    late: bool = False
    refused: bool = False
    reason: str = ""


def decide(
    trigger: Trigger,
    task: TaskView,
    *,
    attempt: int | None = None,
    seen_before: bool = False,
    retryable: bool = True,
    percentage: float | None = None,
    occurred_at: datetime | None = None,
    has_time_left: bool = False,
) -> Decision:
    """Decide the effect of an event on a task.

    Args:
        trigger: the kind of event.
        task: the task as it is now.
        attempt: the attempt that the event belongs to; None means the current one.
        seen_before: an identical event was already applied to this task.
        retryable: False if the sender rules out another attempt.
        percentage: of a progress event.
        occurred_at: when the sender built the event.
        has_time_left: the task's deadline was moved after the scheduler found it expired.
    """
    rule = TRANSITIONS[trigger][task.status]
    if trigger in _OF_ONE_ATTEMPT and attempt is not None and attempt != task.attempt:
        verdict = Verdict.STALE if task.status in OPEN_STATES else Verdict.IGNORED
        return Decision(verdict, reason=f"It belongs to attempt {attempt}; the current attempt is {task.attempt}.")
    if seen_before:
        return Decision(Verdict.DUPLICATE, reason="An identical event was applied before.")
    match rule:
        case Rule.DUPLICATE | Rule.IGNORE | Rule.REFUSE:
            verdict = Verdict.DUPLICATE if rule is Rule.DUPLICATE else Verdict.IGNORED
            return Decision(verdict, refused=rule is Rule.REFUSE, reason=f"The task is already {task.status}.")
        case Rule.TIME_OUT if has_time_left:
            return Decision(Verdict.IGNORED, reason="The task has a new deadline.")
        case Rule.RECORD:
            return Decision(Verdict.PROCESSED)
        case Rule.PROGRESS:
            return _progress(task, percentage, occurred_at)
        case Rule.RETRY_OR_FAIL if retryable and task.attempt <= task.max_retries:
            return Decision(Verdict.PROCESSED, TaskState.PENDING, will_retry=True)
        case Rule.RETRY_OR_FAIL:
            return Decision(Verdict.PROCESSED, TaskState.FAILED)
        case _:
            return Decision(Verdict.PROCESSED, _TARGETS[rule], late=rule is Rule.COMPLETE_LATE)


def _progress(task: TaskView, percentage: float | None, occurred_at: datetime | None) -> Decision:
    """Progress only moves forward: by percentage, and at the same percentage by the sender's time."""
    stored, new = task.percentage, percentage if percentage is not None else 0.0
    if stored is not None:
        if new < stored:
            return Decision(Verdict.IGNORED, reason=f"Progress stands at {stored:g} %, this says {new:g} %.")
        if new == stored and not _is_later(occurred_at, task.progress_at):
            return Decision(Verdict.IGNORED, reason=f"Progress already stands at {stored:g} %.")
    return Decision(Verdict.PROCESSED, TaskState.PROCESSING)


def _is_later(new: datetime | None, stored: datetime | None) -> bool:
    return new is not None and (stored is None or new > stored)


UNHEARD: Final = "No handler was called: none subscribes to such an event."
"""The reason of a custom event that is recorded, and forwarded, and has no other effect."""
COMPLETED_NOW: Final = decide(Trigger.COMPLETED, TaskView(status=TaskState.SUBMITTED, attempt=1, max_retries=0))
"""The effect of a ``completed`` on any open task."""
COMPLETED_BEFORE: Final = decide(Trigger.COMPLETED, TaskView(status=TaskState.COMPLETED, attempt=1, max_retries=0))
"""Its effect on any completed task."""
