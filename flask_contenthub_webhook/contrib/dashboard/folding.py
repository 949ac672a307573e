"""JSON in colours, with parts that fold; without a script, and copied as it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup

from .marks import marked

__all__ = ["folded"]

_DEEPEST = 3
"""Levels that fold: each is a stop for the keyboard."""
_LINE = re.compile(r'( *)("[^"\\]*(?:\\.[^"\\]*)*")?(: )?(.*)', re.DOTALL)


def folded(pretty: str) -> Markup:
    """Return JSON as HTML; its text is the same.

    Args:
        pretty: set out over lines, a bracket that opens at the end of a line and one that closes at the beginning; it
            may be cut anywhere.
    """
    lines = pretty.split("\n")
    ends = _ends(lines)
    html: list[str] = []
    closing: list[int] = []
    for number, line in enumerate(lines):
        if closing and closing[-1] == number:
            html.append("</details>")
            closing.pop()
        new_line = "\n" if number + 1 < len(lines) else ""
        end = ends.get(number, 0)
        if end - number > 2 and len(closing) < _DEEPEST:  # noqa: PLR2004 - more than one line is in it
            html.append(f'<details class="fold" open><summary>{_coloured(line)}{new_line}</summary>')
            closing.append(end)
        else:
            html.append(_coloured(line) + new_line)
    return Markup("".join([*html, "</details>" * len(closing)]))  # noqa: S704 - each part is escaped


def _ends(lines: Sequence[str]) -> dict[int, int]:
    """Return for each line that opens a bracket the number of the line that closes it."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for number, line in enumerate(lines):
        if opened and line.lstrip(" ")[:1] in {"}", "]"}:
            ends[opened.pop()] = number
        if line[-1:] in {"{", "["}:
            opened.append(number)
    return ends | dict.fromkeys(opened, len(lines))


def _coloured(line: str) -> str:
    match = _LINE.fullmatch(line)
    if match is None:
        return marked(line)
    blanks, text, colon, rest = match.groups(default="")
    if text and colon:
        return f'{blanks}<span class="j-name">{marked(text)}</span>: {_value(rest)}'
    return blanks + _value(text + colon + rest)


def _value(text: str) -> str:
    bare, comma = (text[:-1], ",") if text.endswith(",") else (text, "")
    kind = "string" if bare.startswith('"') else "" if not bare or bare[0] in "{[}]" else "literal"
    html = marked(bare)
    return (f'<span class="j-{kind}">{html}</span>' if kind else str(html)) + comma
