"""Everything that the demo prints more than once, or redraws: tables, the progress of the loop, checks, the end."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout

from flask import Flask
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table as Grid
from rich.text import Text

from example_app.demo.expectations import OPEN, SETTLED, SETTLERS, Check, Outcome, Part
from example_app.server import migrate_database

COLOURS = {
    "pending": "bright_black",
    "submitted": "yellow",
    "processing": "cyan",
    "completed": "green",
    "failed": "red",
    "timeout": "magenta",
}
FIGURES = (*OPEN, *SETTLED, *SETTLERS)
LINE_INTERVAL = 1.0
"""Least number of seconds between two plain lines of progress."""
NEXT_STEPS = {
    "make demo ARGS=--verbose": "every request, and what became of it",
    "make serve CREATOR=simulator": "order from a creator that goes wrong, and watch",
    "README.md": "add the extension to your own application",
}


def set_up(app: Flask, details: Console) -> None:
    """Run the migrations of the application, and print which, if details are printed."""
    with redirect_stdout(io.StringIO()) if details.quiet else nullcontext():
        migrate_database(app)


class Table:
    """A table of columns of fixed width, printed row by row, with a note below each row.

    Args:
        console: where to print.
        columns: the width of each column by its heading.
    """

    def __init__(self, console: Console, columns: Mapping[str, int]) -> None:
        self._console = console
        self._widths = tuple(columns.values())
        console.print(self._grid(tuple(columns), "bold"), Rule(style="dim"))

    def print_title(self, title: str) -> None:
        self._console.print(Text(f"\n{title}", "bold underline"))

    def print_row(self, cells: Sequence[Text | str], note: Text) -> None:
        self._console.print("", self._grid(cells), Padding(note, (0, 0, 0, 4)), sep="\n")

    def _grid(self, cells: Sequence[Text | str], style: str = "") -> Grid:
        grid = Grid.grid(padding=(0, 1))
        *folding, last = self._widths
        for width in folding:
            grid.add_column(width=width, overflow="fold")
        grid.add_column(width=last, no_wrap=True)
        grid.add_row(*cells, style=style)
        return grid


class Progress:
    """The states of the loop's tasks while it runs: a square for each task, or plain lines without a terminal.

    Args:
        console: a terminal to draw on, or not a terminal.
        details: where to print news, and plain lines; if it is not the console, the squares vanish at the end.
        total: how many tasks there will be.
    """

    def __init__(self, console: Console, details: Console, total: int) -> None:
        self._console = console
        self._details = details
        self._total = total
        self._started = time.monotonic()
        self._live: Live | None = None
        self._printed: dict[str, int] = {}
        self._printed_at = 0.0

    @property
    def seconds(self) -> float:
        """The time since the start."""
        return time.monotonic() - self._started

    @contextmanager
    def open(self) -> Iterator[None]:
        if self._console.is_terminal:
            is_transient = self._details is not self._console
            with Live(console=self._console, auto_refresh=False, transient=is_transient) as self._live:
                yield
            self._live = None
        else:
            self._print_line(" time", FIGURES)
            yield

    def print_news(self, news: str) -> None:
        self._details.print(Text(f"{self.seconds:4.1f}s {news}", "bold"))

    def show(self, outcomes: Sequence[Outcome]) -> None:
        """Show the tasks as they are now; the last plain line is printed in any case."""
        counts = Counter(it.task.status for it in outcomes) + Counter(it.settled_by or "" for it in outcomes)
        figures = {name: counts[name] for name in FIGURES}
        if self._live is not None:
            self._live.update(self._picture(outcomes, figures), refresh=True)
            return
        is_over = len(outcomes) == self._total and all(outcome.is_settled for outcome in outcomes)
        if figures != self._printed and (is_over or self.seconds - self._printed_at >= LINE_INTERVAL):
            self._printed, self._printed_at = figures, self.seconds
            self._print_line(f"{self.seconds:4.1f}s", figures.values())

    def _print_line(self, time_: str, cells: Iterable[object]) -> None:
        words = [f"{cell!s:>{len(name)}}" for name, cell in zip(FIGURES, cells, strict=True)]
        self._details.print(Text(" ".join([time_, *words])))

    def _picture(self, outcomes: Sequence[Outcome], figures: Mapping[str, int]) -> Group:
        drawn = [Text("■", COLOURS.get(outcome.task.status, "")) for outcome in outcomes]
        to_come = [Text("·", "bright_black")] * (self._total - len(outcomes))
        squares = Text(" ").join([*drawn, *to_come])
        grid = Grid.grid(padding=(0, 1))
        grid.add_row(Text(f"{self.seconds:4.1f}s", "bold"), _counted(figures, (*OPEN, *SETTLED)))
        grid.add_row(Text("by", "dim"), _counted(figures, SETTLERS))
        return Group("", squares, "", grid, "")


def contents_in_words(outcomes: Iterable[Outcome]) -> str:
    """Return the review statuses with the number of each, such as `1 approved`."""
    statuses = Counter(content.review_status for outcome in outcomes for content in outcome.contents)
    words = [f"{number} {status.replace('pending_', 'in ')}" for status, number in statuses.items()]
    return ", ".join(words) or "none"


def print_checks(console: Console, checks: Iterable[Check]) -> list[str]:
    """Print the checks, and return those that failed."""
    failed = []
    grid = Grid.grid(padding=(0, 2))
    for promise, found, kept in checks:
        words = Text(promise).append(f" ({found})", "dim")
        grid.add_row(Text("ok", "green") if kept else Text("BROKEN", "bold red"), words)
        if not kept:
            failed.append(f"{promise}: {found}")
    console.print(grid)
    return failed


def print_answer(console: Console, parts: Sequence[Part], seconds: float, kept: str) -> None:
    """Print what failed; or that all is well, what was tried, and what to try next.

    Args:
        console: where to print.
        parts: those that have run.
        seconds: how long that took.
        kept: the DATABASE_URL of the history.
    """
    if failures := [failure for part in parts for failure in part.failures]:
        console.print("\n[bold red]The demo failed.[/] Not as expected:")
        for failure in failures:
            console.print(f"  - {escape(failure)}", style="red")
        return
    console.print(f"\n[bold green]Every promise was kept[/], in {seconds:.1f} s.\n")
    for part in parts:
        console.print(Text(part.story))
        console.print(Text(part.outcome, "bold"))
        print_checks(console, part.checks)
        console.print()
    console.print("[bold]Every callback of this run[/], with its verdict and reason, in your browser:")
    console.print(f"  make serve DATABASE_URL={escape(kept)}", soft_wrap=True)
    console.print("  and open http://127.0.0.1:8000/webhooks/\n")
    grid = Grid.grid(padding=(0, 2))
    for command, purpose in NEXT_STEPS.items():
        grid.add_row(Text(command, "bold"), Text(purpose))
    console.print("Try next:", grid, sep="\n")


def _counted(figures: Mapping[str, int], names: Sequence[str]) -> Text:
    colours = [COLOURS.get(name, "bold") if figures[name] else "bright_black" for name in names]
    words = [Text(f"{name} {figures[name]:<2}", colour) for name, colour in zip(names, colours, strict=True)]
    return Text(" ").join(words)
