"""Canonical forms of a JSON body: what a ``contenthub`` sender may have signed, and what identifies a message.

Python's ``json.dumps`` and JavaScript's ``JSON.stringify`` differ in how they write numbers, order keys and escape
text, so the object alone does not determine the signed bytes. Each form here is produced by a real sender.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring
from typing import Any, TypeAlias

import msgspec

from .strict_json import holds_more_values

__all__ = ["MAX_BYTES", "MAX_VALUES", "canonical_forms", "canonical_json", "message_digest"]

MAX_BYTES = 96 * 1024
"""Largest body that has canonical forms. They are computed before the sender is authenticated; so bounded, a refusal
costs at most five times what it costs without them."""

MAX_VALUES = 300
"""Most values in a body that has canonical forms, for the same reason. One costs as much as a 300th of the bytes, so a
body of half the size may have half as many."""

_ENCODER = msgspec.json.Encoder(order="sorted")
_KeyOrder: TypeAlias = Callable[[str], Any]


_LONG_TEXT = 64 * 1024
"""Characters from which on a text in a message is hashed on its own."""


def canonical_json(payload: Any, *, ensure_ascii: bool = True) -> bytes:
    """Write a value as the original package does: sorted keys, no blanks.

    Args:
        payload: a value that :func:`json.dumps` accepts.
        ensure_ascii: escape everything that is not ASCII, as the original does.

    Raises:
        TypeError, ValueError, RecursionError: as :func:`json.dumps` does.
    """
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=ensure_ascii).encode()


def message_digest(payload: Any, *, size: int) -> str:
    """Return the identity of a message: SHA-256, in hex, of its content written in one way.

    Every spelling that verifies under one signature has the same digest: each form of :func:`canonical_forms` means
    what the body means. So has the same message signed raw and in a canonical form, alone and in a batch.

    Args:
        payload: the parsed object.
        size: bytes of the body that it was parsed from.
    """
    short = _without_long_texts(payload, levels=3) if size > _LONG_TEXT else payload
    try:
        content = _ENCODER.encode(short)
    except (TypeError, ValueError, OverflowError):  # what msgspec does not write: a lone surrogate in a poll's answer
        content = canonical_json(short)
    return hashlib.sha256(content).hexdigest()


def _without_long_texts(value: Any, levels: int) -> Any:
    """Replace long texts by their digests, so that an article is not copied as a whole once more."""
    if isinstance(value, str) and len(value) > _LONG_TEXT:
        digest = hashlib.sha256()
        for start in range(0, len(value), _LONG_TEXT):
            digest.update(value[start : start + _LONG_TEXT].encode("utf-8", "surrogatepass"))
        return {"\0": digest.hexdigest()}  # no message has such a name
    if isinstance(value, dict) and levels:
        return {name: _without_long_texts(item, levels - 1) for name, item in value.items()}
    return value


def canonical_forms(body: bytes) -> Iterator[bytes]:
    """Yield the distinct canonical forms of a JSON body that differ from the body itself, lazily.

    In this order: Python's with ASCII escapes, Python's in UTF-8, JavaScript's with objects rebuilt from sorted keys,
    JavaScript's with keys written in sorted order. The last two differ if keys look like array indexes.

    Args:
        body: the raw bytes of the request.

    Yields:
        Candidate messages. A body that is not JSON, nests too deeply or is too large yields nothing, and a form that
        cannot be written is omitted; nothing raises.
    """
    if len(body) > MAX_BYTES or _costs_too_much(body):
        return
    try:
        text, seen = body.decode(), {body}
    except UnicodeDecodeError:
        return
    for forms in (_python, _javascript):
        try:
            for message in forms(text):
                if message not in seen:
                    seen.add(message)
                    yield message
        except (ValueError, RecursionError):
            continue


def _costs_too_much(body: bytes) -> bool:
    # Escaped, DEL is six bytes and an emoji twelve; escapes take time to read and to write.
    dear = 5 * body.count(b"\x7f") + 8 * body.count(b"\xf0") + body.count(b"\\")
    left = MAX_BYTES - len(body) - dear
    return left < 0 or holds_more_values(body, left * MAX_VALUES // MAX_BYTES)


# --- Python --------------------------------------------------------------------------------------------------


def _python(text: str) -> Iterator[bytes]:
    value = _parse(text)
    escaped = canonical_json(value)
    yield escaped
    if b"\\u" in escaped:
        yield canonical_json(value, ensure_ascii=False)


# --- JavaScript ----------------------------------------------------------------------------------------------

_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_MAX_ARRAY_INDEX = 2**32 - 2
_CONSTANTS = {True: b"true", False: b"false", None: b"null"}


class _Number(str):
    """A number as spelled in the body: a JavaScript sender wrote it by the same rules by which it signs."""

    __slots__ = ()


def _javascript(text: str) -> Iterator[bytes]:
    value = _parse(text, number=_Number)
    for order in (_rebuilt_order, _utf16) if _has_array_index(value) else (_utf16,):
        yield _write(value, order)


def _write(value: Any, order: _KeyOrder) -> bytes:
    match value:
        case _Number():
            return value.encode()
        case str():
            return _write_text(value)
        case dict():
            keys = sorted(value, key=order)
            return b"{" + b",".join([_write_text(key) + b":" + _write(value[key], order) for key in keys]) + b"}"
        case list():
            return b"[" + b",".join([_write(item, order) for item in value]) + b"]"
        case _:
            return _CONSTANTS[value]


def _write_text(text: str) -> bytes:
    try:
        return _ENCODER.encode(text)
    except UnicodeEncodeError:  # JSON.stringify escapes a lone surrogate as \udxxx
        return encode_basestring(text).encode(errors="backslashreplace")


def _has_array_index(value: Any) -> bool:
    match value:
        case dict():
            return any(key[:1].isdigit() or _has_array_index(item) for key, item in value.items())
        case list():
            return any(map(_has_array_index, value))
        case _:
            return False


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
