"""Parse the payload of a callback into frozen, typed events; :data:`EVENT_TYPES` is the table of the built-in types.

The shapes are those that the real sender was observed to send. Fields that it sometimes omits are optional, a field of
the wrong type is refused with its path, and unknown fields are kept in ``payload`` and ``result``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from blinker import NamedSignal

from .. import signals
from ..errors import InvalidPayload, UnknownEvent
from .filters import look_up
from .state_machine import Trigger

__all__ = [
    "BUILT_IN_EVENTS",
    "EVENT_NAME",
    "EVENT_NAME_RULE",
    "EVENT_TYPES",
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
EVENT_NAME = rf"(?!(?:{'|'.join(_RESERVED)})$)[a-z][a-z0-9_.-]{{0,63}}"
EVENT_NAME_RULE = (
    "an event type has at most 64 lower-case letters, digits, dots, dashes and underscores, and is none of the "
    f"reserved {', '.join(_RESERVED)}"
)
_MAX_ID_LENGTH = 255
_PLAUSIBLE_YEARS = range(1970, 2201)

Text = Annotated[str, msgspec.Meta(max_length=_MAX_ID_LENGTH, min_length=1)]
Number = int | float
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A count; implementations disagree on JSON numbers beyond 2^53 (RFC 7493)."""
Percentage = Annotated[float, msgspec.Meta(ge=0, le=100)]


# --- shapes on the wire --------------------------------------------------------------------------------------


class _Wire(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A shape on the wire; fields beyond it are allowed."""


class _Envelope(_Wire, frozen=True, kw_only=True):
    event: Text
    task_id: Text
    timestamp: datetime | None = None
    workflow_type: str | None = None
    status: str | None = None
    metadata: dict[str, Any] | None = None


class _Image(_Wire, frozen=True, kw_only=True):
    url: str
    local_path: str | None = None
    prompt: str | None = None
    width: Number | None = None
    height: Number | None = None
    format: str | None = None


class _Metrics(_Wire, frozen=True, kw_only=True):
    tokens_used: Number | None = None
    cost: Number | None = None
    duration: Number | None = None
    steps_completed: list[Any] | None = None


class _Result(_Wire, frozen=True, kw_only=True):
    content: str | None = None
    html_content: str | None = None
    images: list[_Image | str] | None = None
    quality_score: Number | None = None
    word_count: Count | None = None
    metrics: _Metrics | None = None


class _Completed(_Envelope, frozen=True, kw_only=True):
    result: _Result | msgspec.UnsetType = msgspec.UNSET


class _ErrorDetails(_Wire, frozen=True, kw_only=True):
    duration: Number | None = None
    steps_completed: list[Any] | None = None
    retryable: bool | None = None


class _Error(_Wire, frozen=True, kw_only=True):
    message: str
    type: str | None = None
    code: str | int | None = None
    details: _ErrorDetails | None = None


class _Failed(_Envelope, frozen=True, kw_only=True):
    error: _Error


class _ProgressReport(_Wire, frozen=True, kw_only=True):
    percentage: Percentage
    message: str | None = None
    stage: str | None = None
    current_step: str | Number | None = None
    total_steps: int | None = None
    completed_steps: int | list[Any] | None = None


class _Progress(_Envelope, frozen=True, kw_only=True):
    progress: _ProgressReport


for _shape in (_Envelope, _Completed, _Failed, _Progress):
    # msgspec prepares a shape at first use, and two threads that cause this at once crash the process.
    msgspec.json.Decoder(_shape)


# --- events ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event about a task, from any source.

    Args:
        type: ``completed``, ``failed``, ``progress`` or a custom type.
        task_id: the sender's id of the task: ours or the creator's.
        occurred_at: when the sender built the event (aware, UTC), or None if unknown.
        payload: the complete JSON object as received.
    """

    type: str
    task_id: str
    occurred_at: datetime | None
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(Event):
    """The work is done.

    Args:
        result: the result object as received, ``{}`` if there is none.
        missing: the required fields that the result lacks.
    """

    result: Mapping[str, Any]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """An attempt failed.

    Args:
        error: the error object as received, with at least ``message``.
        retryable: False if the sender says that another attempt is pointless.
    """

    error: Mapping[str, Any]
    retryable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """A sign of life.

    Args:
        progress: the progress object as received.
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
        InvalidPayload: a field is missing or of the wrong type; the message has its path.
        UnknownEvent: the type is neither built-in nor in ``custom_types``.
    """
    type_ = payload.get("event")
    if isinstance(type_, str) and (built_in := EVENT_TYPES.get(type_)):
        event: Event = built_in.parse(payload, required_fields)
        return event
    envelope = _convert(payload, _Envelope)
    if envelope.event not in custom_types:
        known = ", ".join([*BUILT_IN_EVENTS, *custom_types])
        raise UnknownEvent(f"The event type {envelope.event[:64]!a} is not known; known: {known}.")
    return Custom(**_common(envelope, payload))


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
    wire = _convert(payload, _Completed)
    _check_status(wire)
    result = payload.get("result", {})
    missing = tuple(name for name in required_fields if _is_empty(look_up(result, name)))
    return Completed(**_common(wire, payload), result=result, missing=missing)


def _failed(payload: Mapping[str, Any], _required_fields: Collection[str]) -> Failed:
    wire = _convert(payload, _Failed)
    _check_status(wire)
    retryable = wire.error.details is None or wire.error.details.retryable is not False
    return Failed(**_common(wire, payload), error=payload["error"], retryable=retryable)


def _progress(payload: Mapping[str, Any], _required_fields: Collection[str]) -> Progress:
    wire = _convert(payload, _Progress)
    return Progress(**_common(wire, payload), progress=payload["progress"], percentage=wire.progress.percentage)


W = TypeVar("W", bound=_Envelope)


def _convert(payload: Mapping[str, Any], shape: type[W]) -> W:
    try:
        return msgspec.convert(payload, shape)
    except msgspec.ValidationError as error:
        raise InvalidPayload(f"The event is not valid: {error}.") from None


def _common(wire: _Envelope, payload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": wire.event,
        "task_id": wire.task_id,
        "occurred_at": _to_utc(wire.timestamp),
        "payload": payload,
    }


def _to_utc(moment: datetime | None) -> datetime | None:
    """Convert to aware UTC; a time without a zone is taken as UTC, which is what such senders mean.

    At the ends of the calendar, drivers cannot read back what the database stored once time zones are involved.
    """
    if moment is None:
        return None
    if moment.year not in _PLAUSIBLE_YEARS:
        raise InvalidPayload(f"The event is not valid: the year {moment.year} is out of range - at `$.timestamp`.")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _check_status(wire: _Envelope) -> None:
    if wire.status is not None and wire.status != wire.event:
        raise InvalidPayload(
            f"The event is not valid: `status` is {wire.status[:40]!a}, but `event` is '{wire.event}' - at `$.status`."
        )


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
    """

    event: type[E]
    parse: Callable[[Mapping[str, Any], Collection[str]], E]
    trigger: Callable[[E], Trigger]
    signal: NamedSignal
    one_attempt: bool


EVENT_TYPES: Mapping[str, EventType[Any]] = {
    "completed": EventType(
        event=Completed,
        parse=_completed,
        trigger=lambda event: Trigger.INVALID_RESULT if event.missing else Trigger.COMPLETED,
        signal=signals.task_completed,
        one_attempt=False,
    ),
    "failed": EventType(
        event=Failed,
        parse=_failed,
        trigger=lambda _: Trigger.FAILED,
        signal=signals.task_failed,
        one_attempt=True,
    ),
    "progress": EventType(
        event=Progress,
        parse=_progress,
        trigger=lambda _: Trigger.PROGRESS,
        signal=signals.task_progress,
        one_attempt=True,
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
