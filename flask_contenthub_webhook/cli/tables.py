"""Tables in plain columns: one line for a row where the terminal is wide enough, otherwise at most two.

Ids and verdicts are never cut; a long event type, and the text of the second line, end in "…" where the line ends.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from ..core.redaction import escaped

__all__ = ["Column", "Listing", "Printed", "facts_of", "lines_of"]

_GAP = 2
_INDENT = 4
_LEAST_TEXT = 40
"""Columns that the text at the end of a line needs; with less, it gets a line of its own."""
_LEAST_NOTE = 8


class Column(NamedTuple):
    """A column: its heading, the value of a row in it, and whether it is aligned to the right."""

    heading: str
    value: Callable[[Any], object]
    right: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """The columns of a list, for wide and for narrow terminals.

    Args:
        wide: all columns; the last one is a text of any length.
        narrow: the columns of the first of two lines; the last one moves to the second line if it does not fit.
        note: the text of the second line; if it is empty, there is none.
    """

    wide: Sequence[Column]
    narrow: Sequence[Column]
    note: Callable[[Any], str]

    def prepare(self, rows: Sequence[Any], width: int | None) -> Printed:
        """Choose the layout that suits some rows; later rows are printed in the same one.

        Args:
            rows: the rows that are known.
            width: of the terminal, in columns; None: one line for each row, whatever its length.
        """
        if width is None:
            return Printed(self.wide, rows)
        wide = Printed(self.wide, rows, width=width)
        return wide if wide.least <= width else Printed(self.narrow, rows, width=width, note=self.note)


class Printed:
    """A table with the widths of its columns.

    Args:
        columns: the columns.
        rows: the rows that the widths are made for.
        width: of the terminal, in columns; None: lines of any length.
        note: the text of a second line; without one, the last column is the text, cut where the line ends.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Iterable[Any],
        *,
        width: int | None = None,
        note: Callable[[Any], str] | None = None,
    ) -> None:
        self._columns, self._width, self._note = columns, width, note
        self._widths = [_cells(column.heading) for column in columns]
        for row in rows:
            self._widths = [max(*pair) for pair in zip(self._widths, map(_cells, self._values(row)), strict=True)]
        self._gap, self._moved = _GAP, False
        if note is not None and width is not None:
            self._fit(width)

    @property
    def least(self) -> int:
        """The width that the table needs with a short text at the end of each line."""
        *others, text = self._widths
        return sum(others) + _GAP * len(others) + min(text, _LEAST_TEXT)

    def heading(self) -> str:
        """Return the line above the rows."""
        return self._line([column.heading for column in self._first_line])

    def row(self, row: Any) -> Iterator[str]:
        """Yield the lines of a row."""
        values = self._values(row)
        text = "" if self._note is None else escaped(self._note(row))
        if not self._moved:
            yield self._line(values)
            if text:
                yield f"{'':{_INDENT}}{_cut(text, self._left(_INDENT))}"
            return
        yield self._line(values[:-1])
        moved = f"{'':{_INDENT}}{values[-1]}"
        left = self._left(_cells(moved) + _GAP)
        yield f"{moved}{'':{_GAP}}{_cut(text, left)}" if text and left >= _LEAST_NOTE else moved

    @property
    def _first_line(self) -> Sequence[Column]:
        return self._columns[:-1] if self._moved else self._columns

    def _fit(self, width: int) -> None:
        """Make room: smaller gaps, then the last column on the second line, then a shorter column at the end."""
        if self._taken(self._gap) > width:
            self._gap = 1
        if self._taken(self._gap) > width:
            self._gap, self._moved = _GAP, True
        if (over := self._taken(self._gap) - width) > 0:
            last = len(self._first_line) - 1
            self._widths[last] = max(1, self._widths[last] - over)

    def _taken(self, gap: int) -> int:
        widths = self._widths[: len(self._first_line)]
        return sum(widths) + gap * (len(widths) - 1)

    def _left(self, taken: int) -> int:
        return 0 if self._width is None else max(1, self._width - taken)

    def _values(self, row: Any) -> list[str]:
        return ["" if (value := column.value(row)) is None else escaped(value) for column in self._columns]

    def _line(self, values: Sequence[str]) -> str:
        columns, shown = self._first_line, list(values)
        if self._width is not None:
            end = len(columns) - 1
            before = sum(max(self._widths[i], _cells(shown[i])) + self._gap for i in range(end))
            if self._moved or self._note is None:
                shown[end] = _cut(shown[end], self._left(before))
        padded = (
            _pad(value, self._widths[i], right=column.right)
            for i, (column, value) in enumerate(zip(columns, shown, strict=True))
        )
        return (" " * self._gap).join(padded).rstrip()


def lines_of(headings: Sequence[str], rows: Iterable[Sequence[object]], width: int | None) -> Iterator[str]:
    """Lay out a table whose last column goes to a second line where the terminal is too narrow.

    Args:
        headings: of the columns; one that begins with ``>`` is aligned to the right.
        rows: the cells.
        width: as for :meth:`Listing.prepare`.
    """
    columns = [
        Column(heading.lstrip(">"), itemgetter(i), heading.startswith(">")) for i, heading in enumerate(headings)
    ]
    known = [*rows]
    last = columns[-1]
    listing = Listing(columns, columns[:-1] or columns, lambda row: "" if last.value(row) is None else str(row[-1]))
    printed = listing.prepare(known, width)
    yield printed.heading()
    for row in known:
        yield from printed.row(row)


def facts_of(facts: Iterable[tuple[str, object]], width: int | None) -> Iterator[str]:
    """Lay out names and values, one pair a line, without those that have no value; long values are folded."""
    known = [(name, escaped(value)) for name, value in facts if value is not None and value != ""]
    names = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        line = f"{name:<{names}}  {value}"
        if width is None or _cells(line) <= width:
            yield line
        else:
            yield from textwrap.wrap(
                line, width, subsequent_indent=" " * (names + 2), break_long_words=False, break_on_hyphens=False
            )


def _cells(text: str) -> int:
    """Return the columns that a text takes; Chinese characters take two, accents that stand over another take none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _pad(text: str, width: int, *, right: bool) -> str:
    filling = " " * (width - _cells(text))
    return filling + text if right else text + filling


def _cut(text: str, width: int) -> str:
    if _cells(text) <= width:
        return text
    while text and _cells(text) > width - 1:
        text = text[: max(0, min(len(text) - 1, width - 1))]
    return f"{text.rstrip()}…"
