"""Output for people: tables and progress bars, and text from strangers that cannot steer the terminal."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from textwrap import wrap
from typing import Any

import click

from ..core.redaction import escaped
from ..storage.queries import Row
from .tables import Listing, facts_of, lines_of

__all__ = ["Screen", "counted", "escaped", "moment", "moment_in_brief", "pretty", "user_of_terminal"]

_LEAST_ROOM = 40
"""Columns of a text behind a lead, however narrow the terminal is."""


def pretty(value: Any) -> str:
    """Return JSON over several lines, every character readable or escaped."""
    return escaped(json.dumps(value, ensure_ascii=False, indent=2, default=str), lines=True)


def counted(number: int, one: str, many: str) -> str:
    """Return a number and its noun."""
    return f"{number} {one if number == 1 else many}"


def moment(at: datetime | None) -> str:
    """Return a time to the second, in UTC."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def moment_in_brief(at: datetime | None) -> str:
    """Return a time of this year without the year, and only the date of another year, in UTC."""
    if at is None:
        return ""
    at = at.astimezone(UTC)
    return f"{at:%m-%d %H:%M:%S}" if at.year == datetime.now(UTC).year else f"{at:%Y-%m-%d}"


def user_of_terminal() -> str:
    """Return who runs the command, for the history."""
    try:
        return f"{getpass.getuser()}, by flask webhook"
    except (OSError, KeyError):  # the user has no name
        return "flask webhook"


class Screen:
    """A person's terminal: columns that fit it, and a progress bar if rich is installed.

    Args:
        wide: print lists with one line for each row, however wide.
    """

    def __init__(self, *, wide: bool = False) -> None:
        self._width = _width()
        self._list_width = None if wide else self._width

    def say(self, text: str) -> None:
        """Print a line, or several."""
        click.echo(escaped(text, lines=True))

    def hanging(self, lead: str, text: str) -> None:
        """Print a text behind a lead, in lines of whole words that fit the terminal, below one another."""
        indent, text = len(click.unstyle(lead)), escaped(text)
        if self._width is not None:
            room = max(self._width - indent, _LEAST_ROOM)
            text = f"\n{'':<{indent}}".join(wrap(text, room, break_long_words=False, break_on_hyphens=False))
        click.echo(lead + text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
        """Print a table; control characters in its cells are escaped.

        Args:
            columns: the headings; one that begins with ``>`` is aligned to the right. The last column goes to a line of
                its own where the terminal is too narrow.
            rows: the cells.
            title: the text above it.
        """
        if title is not None:
            click.echo(title)
        heading, *lines = lines_of(columns, rows, self._width)
        click.secho(heading, bold=True)
        for line in lines:
            click.echo(line)

    def listing(self, listing: Listing, rows: Sequence[Row], *, title: str | None = None) -> Callable[[Row], None]:
        """Print a list, and return a function that prints one more row."""
        if title is not None:
            click.echo(title)
        printed = listing.prepare(rows, self._list_width)

        def add(row: Row) -> None:
            for line in printed.row(row):
                click.echo(line)

        click.secho(printed.heading(), bold=True)
        for row in rows:
            add(row)
        return add

    def facts(self, facts: Iterable[tuple[str, object]]) -> None:
        """Print names and values, one pair a line, without those that have no value."""
        for line in facts_of(facts, self._width):
            click.echo(line)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar on stderr while the block runs, on a terminal and with rich.

        Yields:
            A function that takes the number of steps that were done.
        """
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            yield lambda _: None
            return
        errors = Console(stderr=True, highlight=False)
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
            disable=not errors.is_terminal,
        ) as progress:
            bar = progress.add_task(what, total=total)
            yield lambda done: progress.advance(bar, done)


def _width() -> int | None:
    """Return the width of the terminal, or that of COLUMNS; None for a pipe, whose reader wants whole lines."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return shutil.get_terminal_size().columns
    return None
