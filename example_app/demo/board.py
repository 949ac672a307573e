"""The second act while it is played: a square for each task, and who settled them; without a terminal, plain lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from example_app.demo.fates import OPEN, OVER, SETTLERS, Fate

COLOURS = {
    "pending": "bright_black",
    "submitted": "yellow",
    "processing": "cyan",
    "completed": "green",
    "failed": "red",
    "timeout": "magenta",
}
FIGURES = (*OPEN, *OVER, *SETTLERS)
A_LINE_EVERY = 1.0
"""Seconds between two plain lines, at the least."""


class Board:
    """Shows how the tasks stand.

    Args:
        console: where.
        total: how many tasks there will be.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._began = time.monotonic()
        self._live: Live | None = None
        self._printed: dict[str, int] = {}
        self._printed_at = 0.0

    @property
    def seconds(self) -> float:
        """Since the curtain rose."""
        return time.monotonic() - self._began

    @contextmanager
    def open(self) -> Iterator[None]:
        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False) as self._live:
                yield
            self._live = None
        else:
            self._print_line(" time", FIGURES)
            yield

    def tell(self, news: str) -> None:
        """Something happened that the figures do not show."""
        self._console.print(Text(f"{self.seconds:4.1f}s {news}", "bold"))

    def show(self, fates: Sequence[Fate]) -> None:
        """How the tasks stand now."""
        if self._live is not None:
            self._live.update(self._picture(fates), refresh=True)
            return
        figures = _figures(fates)
        is_over = len(fates) == self._total and all(fate.is_settled for fate in fates)
        if figures != self._printed and (is_over or self.seconds - self._printed_at >= A_LINE_EVERY):
            self._printed, self._printed_at = figures, self.seconds
            self._print_line(f"{self.seconds:4.1f}s", figures.values())

    def _print_line(self, time_: str, cells: Iterable[object]) -> None:
        words = [f"{cell!s:>{len(name)}}" for name, cell in zip(FIGURES, cells, strict=True)]
        self._console.print(Text(" ".join([time_, *words])))

    def _picture(self, fates: Sequence[Fate]) -> Group:
        squares = Text()
        for fate in fates:
            squares.append("■ ", COLOURS.get(fate.status, ""))
        squares.append("· " * (self._total - len(fates)), "bright_black")
        counts = _figures(fates)
        figures = Table.grid(padding=(0, 2))
        figures.add_row(Text(f"{self.seconds:4.1f}s", "bold"), _counted(counts, (*OPEN, *OVER)))
        figures.add_row(Text("settled by", "dim"), _counted(counts, SETTLERS))
        return Group("", Padding(squares, (0, 2)), "", Padding(figures, (0, 2)), "")


def _figures(fates: Sequence[Fate]) -> dict[str, int]:
    """How many tasks are in each state, and how many were settled by whom."""
    counts = Counter(fate.status for fate in fates) + Counter(fate.settled_by or "" for fate in fates)
    return {name: counts[name] for name in FIGURES}


def _counted(counts: Mapping[str, int], names: Sequence[str]) -> Text:
    words = Text()
    for name in names:
        words.append(f"{name} {counts[name]:<4}", COLOURS.get(name, "bold") if counts[name] else "bright_black")
    return words
