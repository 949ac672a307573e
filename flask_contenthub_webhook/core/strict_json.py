"""Strict JSON: refuses what two parsers could read differently or a database could not store.

RFC 8259 permits, or parsers accept, duplicate names, ``NaN``, lone surrogates and numbers of any length, on which
senders and receivers disagree. A callback is parsed once, strictly, and all other code can rely on plain values.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from ..errors import InvalidJSON, InvalidPayload

__all__ = [
    "MAX_DEPTH",
    "MAX_NUMBER_LENGTH",
    "MAX_VALUES",
    "UNSTORABLE",
    "check_value",
    "holds_more_values",
    "parse_object",
]

MAX_DEPTH = 64
"""Nesting limit of objects and lists."""
MAX_NUMBER_LENGTH = 64
"""Longest number, in characters."""
MAX_VALUES = 250_000
"""Limit of values in one body: 16 MiB of ``[],[],`` would otherwise take half a gigabyte once parsed."""

_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_TEXT = re.compile(rb'"[^"]*"?')
"""A string without escapes; an unterminated one extends to the end."""
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""Characters that a database refuses, or cannot be encoded."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a body that must be one JSON object.

    Args:
        body: the raw bytes of a request.

    Raises:
        InvalidJSON: not UTF-8, not JSON, or JSON that is refused; the message says what and where.
        InvalidPayload: JSON, but not an object.
    """
    if len(body) > MAX_VALUES and holds_more_values(body, MAX_VALUES):  # each value takes at least one byte
        raise InvalidJSON(f"The body contains more than {MAX_VALUES} values.")
    if body.startswith(_BYTE_ORDER_MARKS):
        raise InvalidJSON("The body begins with a byte order mark; it must be UTF-8 without one.")
    try:
        text = body.decode("utf-8")
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"The body is not UTF-8: byte {error.start} is invalid.") from None
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"The body is not JSON: {error.msg} at character {error.pos}.") from None
    except RecursionError:
        raise InvalidJSON(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    if not isinstance(value, dict):
        raise InvalidPayload(f"The body must be a JSON object, not {_kind(value)}.")
    if "\\u" in text or text.count("{") + text.count("[") > MAX_DEPTH:
        check_value(value)
    return value


def holds_more_values(body: bytes, most: int) -> bool:
    """Count the marks that start or separate values; those inside strings are excluded only if that could matter."""
    if _count_marks(body, 0, len(body)) <= most:
        return False
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = end = 0
    for texts, text in enumerate(_TEXT.finditer(plain), 1):  # one pass without copies, whatever the body
        marks += _count_marks(plain, end, text.start())
        end = text.end()
        if marks > most or texts > 2 * most + 2:
            return True
    return marks + _count_marks(plain, end, len(plain)) > most


def _count_marks(body: bytes, start: int, end: int) -> int:
    return body.count(b",", start, end) + body.count(b"[", start, end) + body.count(b"{", start, end)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InvalidJSON(f"The name {_shown(repeated)} occurs twice in one object.")
    return value


def _integer(literal: str) -> int:
    if len(literal) > MAX_NUMBER_LENGTH:
        _refuse_length(literal)
    return int(literal)


def _float(literal: str) -> float:
    if len(literal) > MAX_NUMBER_LENGTH:
        _refuse_length(literal)
    number = float(literal)
    if math.isinf(number):
        raise InvalidJSON(f"The number {literal} is too large.")
    return number


def _refuse_length(literal: str) -> NoReturn:
    raise InvalidJSON(f"A number has {len(literal)} characters; at most {MAX_NUMBER_LENGTH} are accepted.")


def _constant(literal: str) -> float:
    raise InvalidJSON(f"{literal} is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def check_value(value: Any, path: str = "$", depth: int = 1) -> None:
    """Refuse a parsed value that is nested too deeply or cannot be stored; the recursion ends at MAX_DEPTH.

    Raises:
        InvalidJSON: the message says what and where.
    """
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, dict | list | tuple):
        if depth > MAX_DEPTH:
            raise InvalidJSON(f"The body is nested deeper than {MAX_DEPTH} levels.")
        if isinstance(value, dict):
            for name, item in value.items():
                place = f"{path}.{_shown(str(name))}"
                _check_text(str(name), place)
                check_value(item, place, depth + 1)
        else:
            for index, item in enumerate(value):
                check_value(item, f"{path}[{index}]", depth + 1)


def _check_text(text: str, path: str) -> None:
    if found := UNSTORABLE.search(text):
        what = "a NUL character" if found[0] == "\0" else "half of a surrogate pair"
        raise InvalidJSON(f"The text at {path} contains {what}, which cannot be stored.")


def _shown(name: str) -> str:
    """Shorten a name for an error message, and escape what is not printable ASCII."""
    return ascii(name[:40])[1:-1]


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
