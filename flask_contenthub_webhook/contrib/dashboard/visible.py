"""Text from strangers, made to show what it holds and to do nothing else.

Escaping markup is not enough: control characters hide, and direction marks show a text in another order than it has.
Both become signs that can be seen.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

__all__ = ["hex_dump", "marked", "visible"]

_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but not tab and newline
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"  # nothing to see; other directions
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # line ends that are none, marks
    "\ud800-\udfff\U000e0000-\U000e007f"  # halves of characters, tags
)
_IN_LINES = re.compile(f"[{_HIDDEN}]")
_IN_A_LINE = re.compile(f"[\t\n{_HIDDEN}]")
_RUN = re.compile(f"[{_HIDDEN}]+")

_PICTURES = 0x2400
_DELETE, _PICTURE_OF_DELETE = 0x7F, 0x2421
_SPACE = 0x20


def visible(text: str, *, lines: bool = False) -> str:
    """The text with a sign for everything that could not be seen, such as ``␀`` and ``⟨U+202E⟩``.

    Args:
        text: from whomever.
        lines: leave newlines and tabs as they are.
    """
    return (_IN_LINES if lines else _IN_A_LINE).sub(lambda found: _sign(found[0]), text)


def marked(text: str) -> Markup:
    """Several lines as HTML, with the signs of :func:`visible` set apart from such signs in the text itself."""
    parts: list[str] = []
    end = 0
    for found in _RUN.finditer(text):
        signs = "".join(map(_sign, found[0]))
        parts += (escape(text[end : found.start()]), "<mark>", signs, "</mark>")
        end = found.end()
    return Markup("".join([*parts, escape(text[end:])]))  # noqa: S704 - every part is escaped, or a sign of ours


def hex_dump(data: bytes) -> str:
    """Bytes that are no text: 16 a line, with those that are ASCII beside them."""
    return "\n".join(
        f"{start:08x}  {line.hex(' '):<47}  {''.join(chr(byte) if 0x20 <= byte < 0x7F else '.' for byte in line)}"  # noqa: PLR2004
        for start in range(0, len(data), 16)
        for line in [data[start : start + 16]]
    )


def _sign(character: str) -> str:
    code = ord(character)
    if code < _SPACE:
        return chr(_PICTURES + code)
    return chr(_PICTURE_OF_DELETE) if code == _DELETE else f"⟨U+{code:04X}⟩"
