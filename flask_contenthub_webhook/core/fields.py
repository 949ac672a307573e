"""The fields of a payload that nothing depends on: read in every spelling that senders use, else kept and noted.

A finished job must not be lost over a field that nobody reads, so a value of the wrong type stays as it came.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from ..errors import InvalidPayload
from .timestamps import TIMESTAMP_FORMS, read_timestamp

__all__ = [
    "ENVELOPE",
    "ERROR",
    "PERCENTAGE",
    "PROGRESS",
    "RESULT",
    "TEXT",
    "TIMESTAMP",
    "Notes",
    "Shape",
    "is_text",
    "read_as",
    "refuse",
]

_MAX_NOTES = 5
_MAX_COUNT = 2**53
"""Implementations disagree on JSON numbers beyond it (RFC 7493)."""
_MAX_PERCENTAGE = 100
_NUMERAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_MAX_NUMERAL = 64
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Shape:
    """A type of value.

    Args:
        name: for messages and the documentation.
        read: converts a value; raises ValueError if it is of another type.
        plain: a type whose values are read as themselves, which msgspec checks at once, whatever it contains.
        fields: the known fields of an object; others are allowed.
        items: the shape of each item of a list.
        written: the type of what senders should write, if that is not ``plain``; of an object, what they may write in
            its place.
    """

    name: str
    read: Callable[[Any], Any]
    plain: Any = None
    fields: Mapping[str, Shape] = field(default_factory=dict)
    items: Shape | None = None
    written: Any = None

    def __post_init__(self) -> None:
        self.is_plain(None)  # msgspec reads a type when it first meets it, which is not safe in several threads

    def is_plain(self, value: Any) -> bool:
        """Tell whether the value is as the shape would read it."""
        if self.plain is None:
            return False
        try:
            msgspec.convert(value, self.plain)
        except msgspec.ValidationError:
            return False
        return True


class Notes:
    """The fields of a payload that could not be read.

    Args:
        strict: paths of fields that must be readable.
    """

    def __init__(self, strict: Collection[str] = ()) -> None:
        self._strict = strict
        self._texts: list[str] = []
        self._count = 0

    def add(self, path: str, value: Any, expected: str) -> None:
        """Note a value that is kept as it came; the value itself is not in the note.

        Raises:
            InvalidPayload: the field must be readable.
        """
        if path in self._strict:
            refuse(path, value, expected)
        self._count += 1
        if self._count <= _MAX_NOTES:
            self._texts.append(f"`{path}` is {_kind(value)}, not {expected}")

    @property
    def texts(self) -> tuple[str, ...]:
        """The first notes, and the number of those left out."""
        left_out = self._count - _MAX_NOTES
        return (*self._texts, f"and {left_out} more") if left_out > 0 else tuple(self._texts)


def refuse(path: str, value: Any, expected: str) -> NoReturn:
    """Refuse an event over a field that must be readable.

    Raises:
        InvalidPayload: always, with the path.
    """
    found = "missing" if value is None else _kind(value)
    raise InvalidPayload(f"The event is not valid: expected {expected}, got {found} - at `{path}`.")


def read_as(shape: Shape, value: Any, path: str, notes: Notes) -> Any:
    """Return the value as the shape reads it, or as it came if that cannot be done, which is noted."""
    if shape.is_plain(value):
        return value
    try:
        found = shape.read(value)
    except ValueError:
        notes.add(path, value, shape.name)
        return value
    if shape.items is not None and isinstance(found, list):
        items = [read_as(shape.items, item, f"{path}[{index}]", notes) for index, item in enumerate(found)]
        return found if all(new is old for new, old in zip(items, found, strict=True)) else items
    if shape.fields and isinstance(found, dict):
        return _read_fields(shape.fields, found, path, notes)
    return found


def _read_fields(fields: Mapping[str, Shape], values: dict[str, Any], path: str, notes: Notes) -> dict[str, Any]:
    """Return an object with its known fields read; null is the same as absent. The object itself is not changed."""
    read = {
        name: read_as(shape, values[name], f"{path}.{name}", notes)
        for name, shape in fields.items()
        if values.get(name) is not None
    }
    return {**values, **read} if any(found is not values[name] for name, found in read.items()) else values


def is_text(value: Any) -> bool:
    """Return True for text that is not blank."""
    return isinstance(value, str) and bool(value.strip())


# --- types ---------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError


def _number(value: Any) -> int | float:
    if isinstance(value, str) and len(value) <= _MAX_NUMERAL and _NUMERAL.fullmatch(value):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError


def _count(value: Any) -> int:
    number = _number(value)
    if 0 <= number <= _MAX_COUNT and number == int(number):
        return number if isinstance(number, int) else int(number)
    raise ValueError


def _percentage(value: Any) -> int | float:
    number = _number(value)
    if 0 <= number <= _MAX_PERCENTAGE:
        return number
    raise ValueError


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise ValueError


def _list(value: Any) -> list[Any]:
    """An empty object is PHP's empty list, and the other way round."""
    if isinstance(value, list):
        return value
    if isinstance(value, tuple) or value == {}:
        return list(value)
    raise ValueError


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if value == []:
        return {}
    raise ValueError


def _image(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("url"), str)):
        return value
    raise ValueError


def _step(value: Any) -> Any:
    return value if isinstance(value, str) else _number(value)


def _steps(value: Any) -> Any:
    return value if isinstance(value, list) else _count(value)


def _kind(value: Any) -> str:
    names = {str: "text", list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


_FINITE = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
_WITHIN_100 = Meta(ge=0, le=_MAX_PERCENTAGE)

TEXT = Shape("text", _text, str)
NUMBER = Shape("a number", _number, int | _FINITE)
COUNT = Shape("a whole number from 0 to 2^53", _count, Annotated[int, Meta(ge=0, le=_MAX_COUNT)])
PERCENTAGE = Shape("a number from 0 to 100", _percentage, Annotated[int, _WITHIN_100] | Annotated[float, _WITHIN_100])
BOOLEAN = Shape("a boolean", _boolean, bool)
LIST = Shape("a list", _list, list)
OBJECT = Shape("an object", _object, dict)
TIMESTAMP = Shape(f"a time from 1970 to 2200 in {TIMESTAMP_FORMS}", read_timestamp, written=str | int | float)


def _object_with(**fields: Shape) -> Shape:
    return Shape("an object", _object, _plain_object(fields), fields=fields)


def _plain_object(fields: Mapping[str, Shape], **required: type) -> Any:
    """Return the type of objects of which each known field is plain, absent, or null."""
    optional = [(name, shape.plain | None, None) for name, shape in fields.items()]
    return msgspec.defstruct("PlainObject", [*required.items(), *optional])


# --- objects -------------------------------------------------------------------------------------------------

ENVELOPE = _object_with(workflowType=TEXT, metadata=OBJECT)
"""Optional fields of every event, beside ``timestamp`` and ``status``."""

_IMAGE: Mapping[str, Shape] = {"localPath": TEXT, "prompt": TEXT, "width": NUMBER, "height": NUMBER, "format": TEXT}
_IMAGE_OR_URL = Shape(
    "a URL or an object with `url`", _image, str | _plain_object(_IMAGE, url=str), fields=_IMAGE, written=str
)
RESULT = _object_with(
    content=TEXT,
    htmlContent=TEXT,
    images=Shape("a list", _list, list[_IMAGE_OR_URL.plain], items=_IMAGE_OR_URL),  # type: ignore[name-defined]
    qualityScore=NUMBER,
    wordCount=COUNT,
    metrics=_object_with(tokensUsed=NUMBER, cost=NUMBER, duration=NUMBER, stepsCompleted=LIST),
)
ERROR = _object_with(
    type=TEXT,
    code=Shape("text or a number", _step, str, written=str | int | _FINITE),
    details=_object_with(duration=NUMBER, stepsCompleted=LIST, retryable=BOOLEAN),
)
"""Optional fields of the error object, beside ``message``."""
PROGRESS = _object_with(
    message=TEXT,
    stage=TEXT,
    currentStep=Shape("text or a number", _step, str, written=str | int | _FINITE),
    totalSteps=COUNT,
    completedSteps=Shape("a whole number or a list", _steps, list, written=COUNT.plain | list),
)
"""Optional fields of the progress object, beside ``percentage``."""
