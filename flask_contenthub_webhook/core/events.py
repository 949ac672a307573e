"""Parse the payload of a callback into frozen, typed events; :data:`EVENT_TYPES` is the table of the built-in types.

Strict is what an effect needs: ``event``, ``taskId``, the required fields of a result, the message of a failure, the
percentage of a progress. Any other field is read in every spelling that senders use, and kept as it came and noted if
that cannot be done (:mod:`.fields`). Unknown fields are kept in ``payload`` and ``result``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar

from blinker import NamedSignal

from .. import signals
from ..errors import InvalidPayload, UnknownEvent
from .fields import (
    ENVELOPE,
    ERROR,
    PERCENTAGE,
    PROGRESS,
    RESULT,
    TEXT,
    TIMESTAMP,
    Notes,
    Shape,
    is_text,
    read_as,
    refuse,
)
from .filters import look_up
from .state_machine import Trigger

__all__ = [
    "BUG_IN_CREATOR",
    "BUILT_IN_EVENTS",
    "EVENT_NAME",
    "EVENT_NAME_RULE",
    "EVENT_TYPES",
    "INTERNAL_EVENTS",
    "LOST_BY_CREATOR",
    "MAX_ID_LENGTH",
    "NOT_STORABLE",
    "SUBMISSION_UNANSWERED",
    "Completed",
    "Custom",
    "Event",
    "EventType",
    "Failed",
    "Internal",
    "Progress",
    "error_of",
    "parse_event",
    "trigger_of",
]

_RESERVED = ("submitted", "cancelled", "timed_out", "retry", "invalid_result")
"""Names of our own events."""
INTERNAL_EVENTS = frozenset(_RESERVED) - {"invalid_result"}
"""Those of them that have a history row under their name."""
EVENT_NAME = rf"(?!(?:{'|'.join(_RESERVED)})$)[a-z][a-z0-9_.-]{{0,63}}"
EVENT_NAME_RULE = (
    "an event type has at most 64 lower-case letters, digits, dots, dashes and underscores, and is none of the "
    f"reserved {', '.join(_RESERVED)}"
)
LOST_BY_CREATOR = "LOST_BY_CREATOR"
SUBMISSION_UNANSWERED = "SUBMISSION_UNANSWERED"
NOT_STORABLE = "NOT_STORABLE"
"""The ``error_code`` of a task whose result the database can never store."""
BUG_IN_CREATOR = "BUG_IN_CREATOR"
"""The ``error_code`` of an open task at which a method of the creator raised an unexpected exception."""
MAX_ID_LENGTH = 255
_ID = f"text of 1 to {MAX_ID_LENGTH} characters"


# --- events ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event about a task, from any source.

    Args:
        type: ``completed``, ``failed``, ``progress`` or a custom type.
        task_id: the sender's id of the task: ours or the creator's.
        occurred_at: when the sender built the event (aware, UTC), or None if unknown.
        payload: the complete JSON object as received.
        notes: the fields that could not be read and are kept as they came.
    """

    type: str
    task_id: str
    occurred_at: datetime | None
    payload: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(Event):
    """The work is done.

    Args:
        result: the result object with its known fields read, ``{}`` if there is none.
        missing: the required fields that the result lacks.
    """

    result: Mapping[str, Any]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """An attempt failed.

    Args:
        error: the error object with its known fields read, with at least ``message``.
        retryable: False if the sender says that another attempt is pointless.
    """

    error: Mapping[str, Any]
    retryable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """A sign of life.

    Args:
        progress: the progress object with its known fields read.
        percentage: 0 to 100.
    """

    progress: Mapping[str, Any]
    percentage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(Event):
    """An event of a type that the host declared; it does not change the task's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Internal(Event):
    """An event that the extension itself creates: ``submitted``, ``timed_out``, ``cancelled``, ``retry``."""


def parse_event(
    payload: Mapping[str, Any],
    *,
    custom_types: Collection[str] = (),
    required_fields: Collection[str] = ("content",),
) -> Event:
    """Check a payload and convert it to an event.

    Args:
        payload: the parsed JSON object.
        custom_types: event types beyond the built-in three.
        required_fields: result fields that a ``completed`` must have.

    Raises:
        InvalidPayload: a field that the event needs is missing or of the wrong type; the message has its path.
        UnknownEvent: the type is neither built-in nor in ``custom_types``.
    """
    type_ = payload.get("event")
    if isinstance(type_, str) and (built_in := EVENT_TYPES.get(type_)):
        event: Event = built_in.parse(payload, required_fields)
        return event
    name = _needed_id(payload, "event")
    if name not in custom_types:
        known = ", ".join([*BUILT_IN_EVENTS, *custom_types])
        raise UnknownEvent(f"The event type {name[:64]!a} is not known; known: {known}.")
    notes = Notes()
    return Custom(**_common(payload, notes), notes=notes.texts)


def error_of(event: Event) -> Mapping[str, Any]:
    """Return the error object of a failure; for a completion without a usable result, one of our own."""
    if isinstance(event, Failed):
        return event.error
    missing = ", ".join(event.missing) if isinstance(event, Completed) else ""
    return {
        "code": "INVALID_RESULT",
        "type": "invalid_result",
        "message": f"The creator reported completion without a usable result; missing: {missing}.",
    }


def _completed(payload: Mapping[str, Any], required_fields: Collection[str]) -> Completed:
    notes = Notes(strict=_strict_paths(tuple(required_fields)))
    common = _common(payload, notes)
    _check_status(payload, notes)
    given = payload.get("result")
    result = {} if given is None else read_as(RESULT, given, "$.result", notes)
    missing = tuple(name for name in required_fields if _is_empty(look_up(result, name)))
    return Completed(**common, result=result, missing=missing, notes=notes.texts)


@lru_cache(maxsize=64)
def _strict_paths(required_fields: tuple[str, ...]) -> frozenset[str]:
    return frozenset({"$.result", *(f"$.result.{name}" for name in required_fields)})


def _failed(payload: Mapping[str, Any], _required_fields: Collection[str]) -> Failed:
    notes = Notes()
    common = _common(payload, notes)
    _check_status(payload, notes)
    given = payload.get("error")
    if is_text(given):
        given = {"message": given}
    if not isinstance(given, dict):
        refuse("$.error", given, "an object with `message`, or text")
    if not isinstance(given.get("message"), str):
        refuse("$.error.message", given.get("message"), "text")
    error = read_as(ERROR, given, "$.error", notes)
    retryable = look_up(error, "details.retryable") is not False
    return Failed(**common, error=error, retryable=retryable, notes=notes.texts)


def _progress(payload: Mapping[str, Any], _required_fields: Collection[str]) -> Progress:
    notes = Notes(strict={"$.progress.percentage"})
    common = _common(payload, notes)
    _check_status(payload, notes)
    given = payload.get("progress")
    if not isinstance(given, dict):
        refuse("$.progress", given, "an object with `percentage`")
    percentage = read_as(PERCENTAGE, given.get("percentage"), "$.progress.percentage", notes)
    progress = read_as(PROGRESS, given, "$.progress", notes)
    return Progress(**common, progress=progress, percentage=percentage, notes=notes.texts)


def _common(payload: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    type_, task_id = _needed_id(payload, "event"), _needed_id(payload, "taskId")
    read_as(ENVELOPE, payload, "$", notes)
    moment = payload.get("timestamp")
    found = None if moment is None else read_as(TIMESTAMP, moment, "$.timestamp", notes)
    occurred_at = found if isinstance(found, datetime) else None
    return {"type": type_, "task_id": task_id, "payload": payload, "occurred_at": occurred_at}


def _needed_id(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        refuse(f"$.{name}", value, _ID)
    return value


def _check_status(payload: Mapping[str, Any], notes: Notes) -> None:
    """Refuse a status that contradicts the event; any other word for it is noted."""
    status, event = payload.get("status"), payload["event"]
    name = status.lower() if isinstance(status, str) else status
    if name in (None, event):
        return
    if isinstance(name, str) and name in EVENT_TYPES:
        raise InvalidPayload(f"The event is not valid: `status` is '{name}', but `event` is '{event}' - at `$.status`.")
    notes.add("$.status", status, f"'{event}'")


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


# --- the table -----------------------------------------------------------------------------------------------

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType(Generic[E]):
    """A built-in event type.

    Args:
        event: the class of its events.
        parse: converts a payload, given the fields that a result must have; raises InvalidPayload.
        trigger: returns what an event asks of the state machine.
        signal: sent in the transaction when such an event takes effect.
        one_attempt: True if an event of an earlier attempt must have no effect.
        part: the object of its own in the payload.
        shape: the fields of that object that need not be readable.
        needed: those that must be.
    """

    event: type[E]
    parse: Callable[[Mapping[str, Any], Collection[str]], E]
    trigger: Callable[[E], Trigger]
    signal: NamedSignal
    one_attempt: bool
    part: str
    shape: Shape
    needed: Mapping[str, Shape] = field(default_factory=dict)


EVENT_TYPES: Mapping[str, EventType[Any]] = {
    "completed": EventType(
        event=Completed,
        parse=_completed,
        trigger=lambda event: Trigger.INVALID_RESULT if event.missing else Trigger.COMPLETED,
        signal=signals.task_completed,
        one_attempt=False,
        part="result",
        shape=RESULT,
    ),
    "failed": EventType(
        event=Failed,
        parse=_failed,
        trigger=lambda _: Trigger.FAILED,
        signal=signals.task_failed,
        one_attempt=True,
        part="error",
        shape=ERROR,
        needed={"message": TEXT},
    ),
    "progress": EventType(
        event=Progress,
        parse=_progress,
        trigger=lambda _: Trigger.PROGRESS,
        signal=signals.task_progress,
        one_attempt=True,
        part="progress",
        shape=PROGRESS,
        needed={"percentage": PERCENTAGE},
    ),
}
"""The built-in event types by name; tests/integration/test_event_types.py checks that each has its effect."""
BUILT_IN_EVENTS = tuple(EVENT_TYPES)
_BY_CLASS = {entry.event: entry for entry in EVENT_TYPES.values()}


def trigger_of(event: Event) -> Trigger:
    """Return what an event asks of the state machine.

    Raises:
        KeyError: its class is not in :data:`EVENT_TYPES`.
    """
    if isinstance(event, Internal):
        return Trigger(event.type)
    if isinstance(event, Custom):
        return Trigger.CUSTOM
    return _BY_CLASS[type(event)].trigger(event)
