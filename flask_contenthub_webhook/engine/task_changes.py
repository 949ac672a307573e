"""Changes of the task's row: pure functions from an event, a decision and a row to column values."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime, timedelta
from typing import Any, assert_never

from ..config.settings import Settings
from ..core.backoff import jittered
from ..core.events import Completed, Event, Failed, Progress, error_of
from ..core.filters import pick
from ..core.received import ReceivedEvent, Row
from ..core.state_machine import Decision, TaskState, Trigger

__all__ = ["attempt_timeout", "changes_of", "due_at", "has_time_left", "stored_result", "submission_lease"]

_LEASE_MARGIN = timedelta(seconds=10)

_MOST_EARLIER_NAMES = 50
"""Attempts whose names a task keeps; events signed for earlier ones no longer belong to it."""


def changes_of(
    received: ReceivedEvent,
    decision: Decision,
    task: Row,
    *,
    settings: Settings,
    now: datetime,
    sender: str | None = None,
) -> dict[str, Any]:
    """Return the columns of a task that an event changes, with their new values.

    Args:
        received: the event.
        decision: the state machine's, about this event and this row.
        task: the row as it was read.
        settings: the app's configuration.
        now: the time of the change.
        sender: the name of its creator in callback URLs.
    """
    changes: dict[str, Any] = {"updated_at": now}
    if decision.to is not None:
        changes["status"] = decision.to.value
    event = received.event
    match decision.to:
        case TaskState.COMPLETED:
            changes |= _settled(now)
            changes |= {"result": stored_result(event, settings), "error_code": None, "error_message": None}
        case TaskState.FAILED:
            changes |= _settled(now) | _error_columns(event)
        case TaskState.PENDING if received.trigger is Trigger.RETRY:
            changes |= _next_attempt(event, task, settings, due=now, sender=sender) | {"finished_at": None}
        case TaskState.PENDING:
            due = now + _backoff(task, settings)
            changes |= _next_attempt(event, task, settings, due=due, sender=sender) | _error_columns(event)
        case TaskState.SUBMITTED:
            changes |= _accepted(event, task, settings, now)
        case TaskState.PROCESSING:
            changes |= _sign_of_life(event, task, settings, now)
        case TaskState.TIMEOUT | TaskState.CANCELLED:
            changes |= _settled(now)
        case None:
            changes |= _changes_without_transition(received, task, settings, now)
        case never:
            assert_never(never)
    return changes


def stored_result(event: Event, settings: Settings) -> dict[str, Any]:
    """Return the result fields that the task row keeps (WEBHOOK_STORED_RESULT_FIELDS)."""
    result = event.result if isinstance(event, Completed) else {}
    kept = settings.stored_result_fields
    return dict(result) if kept is None else pick(result, kept)


def _changes_without_transition(
    received: ReceivedEvent, task: Row, settings: Settings, now: datetime
) -> dict[str, Any]:
    match received.trigger:
        case Trigger.SUBMITTED:
            return _accepted(received.event, task, settings, now)
        case (
            Trigger.PROGRESS
            | Trigger.COMPLETED
            | Trigger.FAILED
            | Trigger.INVALID_RESULT
            | Trigger.TIMED_OUT
            | Trigger.CANCELLED
            | Trigger.RETRY
            | Trigger.CUSTOM
        ):
            return {}
        case never:
            assert_never(never)


def _settled(now: datetime) -> dict[str, Any]:
    return {"finished_at": now, "next_poll_at": None, "next_submit_at": None}


def _error_columns(event: Event) -> dict[str, Any]:
    error = error_of(event)
    code = error.get("code")
    if code is None:
        code = error.get("type")
    return {"error_code": None if code is None else str(code)[:64], "error_message": str(error["message"])}


def _accepted(event: Event, task: Row, settings: Settings, now: datetime) -> dict[str, Any]:
    """Start the attempt's deadline, and the time until its first poll: the creator has the job, or may have it."""
    said = event.payload
    was_lost = "reason" in said
    changes = {
        "creator_task_id": said.get("creator_task_id", task["creator_task_id"]),
        "submitted_at": now,
        "submitting_since": (task["submitting_since"] or now) if was_lost else None,
        "next_submit_at": None,
        "next_poll_at": now + _patience(task, settings),
        "polls": 0,
        "deadline_at": now + attempt_timeout(task, settings),
    }
    return changes | {key: said[key] for key in ("creator_address", "error_code", "error_message") if key in said}


def _patience(task: Row, settings: Settings) -> timedelta:
    """Return the time from a sign of life to the next poll."""
    return settings.poll_grace if task["callback_url"] is not None else settings.poll_interval


def _sign_of_life(event: Event, task: Row, settings: Settings, now: datetime) -> dict[str, Any]:
    if not isinstance(event, Progress):
        return {}
    return {
        "progress": dict(event.progress),
        "progress_percentage": event.percentage,
        "progress_at": event.occurred_at,
        "next_poll_at": now + settings.poll_grace,
        "polls": 0,
        "times_missing": 0,
        **_confirmation(event, task, settings, now),
    }


def _confirmation(event: Event, task: Row, settings: Settings, now: datetime) -> dict[str, Any]:
    """Record that a job runs of whose submission there is no answer yet, and its name if the event has it."""
    if task["submitting_since"] is None:
        return {}
    changes: dict[str, Any] = {"next_submit_at": None}
    if task["submitted_at"] is None:
        changes |= {"submitted_at": now, "deadline_at": now + attempt_timeout(task, settings)}
    if event.task_id != task["task_id"]:
        changes |= {"creator_task_id": event.task_id, "submitting_since": None}
    return changes


def _next_attempt(event: Event, task: Row, settings: Settings, *, due: datetime, sender: str | None) -> dict[str, Any]:
    """Go back to pending: a new attempt is due, and gets its full time from then on."""
    earlier = list(task["earlier_creator_task_ids"] or ())
    name = task["creator_task_id"]
    if isinstance(event, Failed) and task["submitting_since"] is not None and event.task_id != task["task_id"]:
        name = event.task_id  # the answer that had it is missing
    if name is not None:
        earlier = [*earlier, name][-_MOST_EARLIER_NAMES:]
    attempt = task["attempt"] + 1
    return {
        "attempt": attempt,
        "creator_task_id": _name_of_attempt(task["task_id"], attempt),
        "earlier_creator_task_ids": earlier,
        "callback_url": _callback_url(task, settings, attempt, sender),
        "submitted_at": None,
        "submitting_since": None,
        "submit_tries": 0,
        "polls": 0,
        "times_missing": 0,
        "progress": None,
        "progress_percentage": None,
        "progress_at": None,
        **due_at(due, task, settings),
    }


def due_at(due: datetime, task: Row, settings: Settings) -> dict[str, Any]:
    """Return the columns of an attempt that is submitted at a time, and gets its full time from then on."""
    return {
        "next_submit_at": due,
        "next_poll_at": due + settings.poll_grace,
        "deadline_at": due + attempt_timeout(task, settings),
    }


def _callback_url(task: Row, settings: Settings, attempt: int, sender: str | None) -> str | None:
    """Return the URL for an attempt; a task that was made by hand gets its first one, if callbacks are on."""
    if task["callback_url"] is not None:
        return settings.callback_urls.address(task["callback_url"], task["task_id"], attempt, sender)
    if not settings.enabled or settings.callback_base_url is None:
        return None
    return settings.callback_urls.build(task["task_id"], attempt, sender=sender)


def _name_of_attempt(task_id: str, attempt: int) -> str:
    """Return a fresh UUID for an attempt, since the creator takes a repeated id for the same run.

    It follows from the task and the attempt: if a backup is restored, the attempt has the name under which the service
    may have it already, and is found.
    """
    return str(uuid.UUID(bytes=hashlib.sha256(f"{task_id}/{attempt}".encode()).digest()[:16], version=4))


def _backoff(task: Row, settings: Settings) -> timedelta:
    return jittered(settings.retry_backoff[min(task["attempt"], len(settings.retry_backoff)) - 1])


def attempt_timeout(task: Row, settings: Settings) -> timedelta:
    """Return the time that one attempt of a task may take."""
    seconds = task["timeout_seconds"]
    return settings.task_timeout if seconds is None else timedelta(seconds=seconds)


def submission_lease(settings: Settings) -> timedelta:
    """Return the length of a claim for submission: longer than a usual call takes; it is renewed while one goes on."""
    return timedelta(seconds=settings.creator_submit_wait + 2 * settings.creator_timeout) + _LEASE_MARGIN


def has_time_left(task: Row, settings: Settings, now: datetime) -> bool:
    """Tell whether an open task is before its deadline.

    A task that waits for its submission has used none of its time. One that is being handed over, however short its
    time, first gets the answer, or is looked for by the sweep that follows a killed process. One without a deadline,
    made by hand, has the time of one attempt from its creation.
    """
    deadline = task["deadline_at"]
    if deadline is None:
        deadline = task["created_at"] + attempt_timeout(task, settings)
    if task["status"] == TaskState.PENDING and task["next_submit_at"] is not None:
        if task["submitting_since"] is None:
            return True
        deadline = max(deadline, task["submitting_since"] + 2 * submission_lease(settings))
    return bool(deadline > now)
