"""Bodies for people: JSON set out over lines, other text as it is, anything else in hex; bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from .folding import folded
from .marks import marked

__all__ = ["MOST_READ", "Shown", "hex_dump", "show_body", "show_json"]

MOST_READ = 256 * 1024
"""Bytes of a body that are read to be shown."""
_MOST_SHOWN = 64 * 1024
_MOST_DUMPED = 4 * 1024
_DEEPEST = 24
"""Levels that are set in; a million brackets would be a terabyte of blanks."""

_PIECE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}:,]|[^][{}:,"\s]+')


@dataclass(frozen=True, slots=True)
class Shown:
    """A body, ready for a page.

    Args:
        html: what to show, escaped.
        kind: ``JSON``, ``text`` or ``bytes``.
        size: bytes of the whole.
        is_cut: whether there is more than is shown.
    """

    html: Markup
    kind: str
    size: int
    is_cut: bool


def show_body(beginning: bytes, size: int) -> Shown:
    """Show a body.

    Args:
        beginning: all of it, or its first :data:`MOST_READ` bytes.
        size: bytes of the whole.
    """
    try:
        text = _decoded(beginning, is_whole=len(beginning) == size)
    except UnicodeDecodeError:
        dump = hex_dump(beginning[:_MOST_DUMPED])
        return Shown(marked(dump), "bytes", size, size > _MOST_DUMPED)
    return show_json(text, size, is_whole=len(beginning) == size)


def show_json(text: str, size: int, *, is_whole: bool) -> Shown:
    """Show a text that may be JSON; what is cut, or is not JSON, stays as it came.

    Args:
        text: all of it, or its beginning.
        size: bytes or characters of the whole.
        is_whole: whether this is all of it.
    """
    if is_whole and _is_json(text):
        pretty = "".join(_bounded(_set_out(text), _MOST_SHOWN + 1))
        return Shown(folded(pretty[:_MOST_SHOWN]), "JSON", size, len(pretty) > _MOST_SHOWN)
    return Shown(marked(text[:_MOST_SHOWN]), "text", size, not is_whole or len(text) > _MOST_SHOWN)


def hex_dump(data: bytes) -> str:
    """Return bytes that are not text, 16 a line, with those that are ASCII beside them."""
    return "\n".join(
        f"{start:08x}  {line.hex(' '):<47}  {''.join(chr(byte) if 0x20 <= byte < 0x7F else '.' for byte in line)}"  # noqa: PLR2004
        for start in range(0, len(data), 16)
        for line in [data[start : start + 16]]
    )


def _decoded(beginning: bytes, *, is_whole: bool) -> str:
    """Decode UTF-8; the last character of a beginning may be cut in two."""
    try:
        return beginning.decode()
    except UnicodeDecodeError as error:
        if is_whole or error.end < len(beginning):
            raise
        return beginning[: error.start].decode()


def _is_json(text: str) -> bool:
    """Return True for an object or a list; numbers are not read, since they may have a million digits."""
    try:
        value = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict | list)


def _set_out(text: str) -> Iterator[str]:
    """Set JSON out over lines without reading it: every number and every repeated name stays as it was sent."""
    depth, previous = 0, ""
    for found in _PIECE.finditer(text):
        piece = found[0]
        if piece in {"}", "]"}:
            depth -= 1
            if previous not in {"{", "["}:
                yield _new_line(depth)
            yield piece
        else:
            if previous in {"{", "[", ","}:
                yield _new_line(depth)
            if piece in {"{", "["}:
                depth += 1
            yield ": " if piece == ":" else _readable(piece)
        previous = piece


def _new_line(depth: int) -> str:
    return "\n" + "  " * min(depth, _DEEPEST)


def _readable(piece: str) -> str:
    r"""Replace ``\u`` escapes in a string by their characters, except for those that JSON must escape."""
    return json.dumps(json.loads(piece), ensure_ascii=False) if piece[0] == '"' and "\\u" in piece else piece


def _bounded(parts: Iterator[str], most: int) -> Iterator[str]:
    length = 0
    for part in parts:
        yield part
        length += len(part)
        if length >= most:
            return
