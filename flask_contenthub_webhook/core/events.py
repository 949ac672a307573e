"""The wire payload of a callback, turned into frozen, typed events.

The shapes are those that the real sender was seen to send; every field that it leaves out sometimes may be absent,
a field of the wrong type is refused with its path, and fields that nobody knows yet are kept in ``payload`` and
``result``. Nothing here knows Flask or SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec

from ..errors import InvalidPayload, UnknownEvent
from .filters import look_up

__all__ = [
    "BUILT_IN_EVENTS",
    "EVENT_NAME",
    "EVENT_NAME_RULE",
    "Completed",
    "Custom",
    "Event",
    "Failed",
    "Internal",
    "Progress",
    "error_of",
    "parse_event",
]

BUILT_IN_EVENTS = ("completed", "failed", "progress")
EVENT_NAME = r"(?!(?:submitted|cancelled|timed_out|retry|invalid_result)$)[a-z][a-z0-9_.-]{0,63}"
EVENT_NAME_RULE = (
    "an event type is lower case letters, digits, dot, dash and underscore, at most 64, and none of "
    "submitted, cancelled, timed_out, retry, invalid_result, which have signals of their own"
)
_MAX_ID_LENGTH = 255
_PLAUSIBLE_YEARS = range(1970, 2201)

Text = Annotated[str, msgspec.Meta(max_length=_MAX_ID_LENGTH, min_length=1)]
Number = int | float
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number of things; beyond 2^53 JSON numbers do not mean the same to everybody (RFC 7493)."""
Percentage = Annotated[float, msgspec.Meta(ge=0, le=100)]


# --- what is on the wire -------------------------------------------------------------------------------------


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
    # msgspec learns a shape when it is first used, and two threads that make it do so at once crash the process.
    msgspec.json.Decoder(_shape)


# --- what the application works with -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event about one task, whatever brought it.

    Args:
        type: ``completed``, ``failed``, ``progress`` or a custom type.
        task_id: the task as the sender names it; ours or the creator's id.
        occurred_at: when the sender built the event (aware, UTC), or None where it does not say.
        payload: the whole JSON object as it came.
    """

    type: str
    task_id: str
    occurred_at: datetime | None
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(Event):
    """The work is done.

    Args:
        result: the result object as it came, ``{}`` where there is none.
        missing: the required fields that the result lacks; not empty means that the callback is thin.
    """

    result: Mapping[str, Any]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """One attempt failed.

    Args:
        error: the error object as it came, with at least ``message``.
        retryable: False where the sender says that another attempt is pointless.
    """

    error: Mapping[str, Any]
    retryable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """A sign of life.

    Args:
        progress: the progress object as it came.
        percentage: 0 to 100.
    """

    progress: Mapping[str, Any]
    percentage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(Event):
    """An event of a type that the host declared; it changes no state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Internal(Event):
    """An event of our own making: ``submitted``, ``timed_out``, ``cancelled``, ``retry``."""


def parse_event(
    payload: Mapping[str, Any],
    *,
    custom_types: Collection[str] = (),
    required_fields: Collection[str] = ("content",),
) -> Event:
    """Check a payload and turn it into an event.

    Args:
        payload: the parsed JSON object.
        custom_types: event types beyond the built-in three.
        required_fields: result fields without which a ``completed`` is thin.

    Raises:
        InvalidPayload: a field is missing or of the wrong type; the message has its path.
        UnknownEvent: the type is neither built in nor in ``custom_types``.
    """
    type_ = payload.get("event")
    if type_ == "completed":
        return _completed(payload, required_fields)
    if type_ == "failed":
        return _failed(payload)
    if type_ == "progress":
        return _progress(payload)
    envelope = _convert(payload, _Envelope)
    if envelope.event not in custom_types:
        known = ", ".join([*BUILT_IN_EVENTS, *custom_types])
        raise UnknownEvent(f"The event type {envelope.event[:64]!a} is not known here; known: {known}.")
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


def _failed(payload: Mapping[str, Any]) -> Failed:
    wire = _convert(payload, _Failed)
    _check_status(wire)
    retryable = wire.error.details is None or wire.error.details.retryable is not False
    return Failed(**_common(wire, payload), error=payload["error"], retryable=retryable)


def _progress(payload: Mapping[str, Any]) -> Progress:
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
    """Aware UTC; a time without a zone is taken as UTC, which is what senders without zones mean.

    At the ends of the calendar a driver cannot read back what the database stored, once time zones are in play.
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
