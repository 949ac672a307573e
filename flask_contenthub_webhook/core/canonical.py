"""Canonical forms of a JSON body, which a ``contenthub`` sender may have signed instead of the bytes it sent.

Python's ``json.dumps`` and JavaScript's ``JSON.stringify`` differ in how they write numbers, order keys and escape
text, so the object alone does not determine the signed bytes. Each form here is produced by a real sender.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring
from typing import Any, TypeAlias

__all__ = ["MAX_BYTES", "MAX_VALUES", "canonical_forms", "canonical_json"]

MAX_BYTES = 2 * 1024 * 1024
"""Largest body that has canonical forms: each form is a copy, and one emoji makes it four bytes per character."""

MAX_VALUES = 100_000
"""Most values in a body that has canonical forms: they are computed before the sender is authenticated, so the work
that a stranger can cause is bounded."""

_KeyOrder: TypeAlias = Callable[[str], Any]


def canonical_json(payload: Any, *, ensure_ascii: bool = True) -> bytes:
    """Write a value as the original package does: sorted keys, no blanks.

    Args:
        payload: a value that :func:`json.dumps` accepts.
        ensure_ascii: escape everything that is not ASCII, as the original does.

    Raises:
        TypeError, ValueError, RecursionError: as :func:`json.dumps` does.
    """
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=ensure_ascii).encode()


def canonical_forms(body: bytes) -> Iterator[bytes]:
    """Yield the distinct canonical forms of a JSON body that differ from the body itself, lazily.

    In this order: Python's with ASCII escapes, Python's in UTF-8, JavaScript's with objects rebuilt from sorted keys,
    JavaScript's with keys written in sorted order. The last two differ where keys look like array indexes.

    Args:
        body: the raw bytes of the request.

    Yields:
        Candidate messages. A body that is not JSON, nests too deeply or is too large yields nothing, and a form that
        cannot be written is omitted; nothing raises.
    """
    if len(body) > MAX_BYTES or sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        return
    seen = {body}
    for form in (_python_escaped, _python_utf8, _javascript_rebuilt, _javascript_sorted):
        try:
            message = form(body.decode())
        except (ValueError, RecursionError):
            continue
        if message not in seen:
            seen.add(message)
            yield message


# --- the forms -----------------------------------------------------------------------------------------------


def _python_escaped(text: str) -> bytes:
    return canonical_json(_parse(text))


def _python_utf8(text: str) -> bytes:
    return canonical_json(_parse(text), ensure_ascii=False)


def _javascript_rebuilt(text: str) -> bytes:
    return _javascript(text, _rebuilt_order)


def _javascript_sorted(text: str) -> bytes:
    return _javascript(text, _utf16)


# --- JavaScript ----------------------------------------------------------------------------------------------

_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_MAX_ARRAY_INDEX = 2**32 - 2
_CONSTANTS = {True: "true", False: "false", None: "null"}


class _Number(str):
    """A number as spelled in the body: a JavaScript sender wrote it by the same rules by which it signs."""

    __slots__ = ()


def _javascript(text: str, order: _KeyOrder) -> bytes:
    # JSON.stringify escapes a lone surrogate as \udxxx, which is what backslashreplace makes of it.
    return _write(_parse(text, number=_Number), order).encode(errors="backslashreplace")


def _write(value: Any, order: _KeyOrder) -> str:
    match value:
        case _Number():
            return value
        case str():
            return encode_basestring(value)
        case dict():
            keys = sorted(value, key=order)
            return "{" + ",".join([f"{encode_basestring(key)}:{_write(value[key], order)}" for key in keys]) + "}"
        case list():
            return "[" + ",".join([_write(item, order) for item in value]) + "]"
        case _:
            return _CONSTANTS[value]


def _utf16(key: str) -> bytes:
    # Array.prototype.sort compares UTF-16 code units; Python compares code points.
    return key.encode("utf-16-be", "surrogatepass")


def _rebuilt_order(key: str) -> tuple[int, bytes]:
    # An object lists its array indexes first, in numeric order, whatever order they were put in.
    if _ARRAY_INDEX.fullmatch(key) and int(key) <= _MAX_ARRAY_INDEX:
        return int(key), b""
    return _MAX_ARRAY_INDEX + 1, _utf16(key)


# --- parsing -------------------------------------------------------------------------------------------------


def _parse(text: str, number: Callable[[str], Any] | None = None) -> Any:
    return json.loads(text, parse_constant=_refuse, parse_int=number, parse_float=number)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
