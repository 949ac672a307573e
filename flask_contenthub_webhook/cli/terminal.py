"""Output for people: rich tables and progress bars, and text from strangers that cannot steer the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from ..core.redaction import escaped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["Screen", "counted", "escaped", "moment", "pretty"]

_WIDTH_OF_A_PIPE = 200


def pretty(value: Any) -> str:
    """Return JSON over several lines, every character readable or escaped."""
    return escaped(json.dumps(value, ensure_ascii=False, indent=2, default=str), lines=True)


def counted(number: int, one: str, many: str) -> str:
    """Return a number and its noun."""
    return f"{number} {one if number == 1 else many}"


def moment(at: datetime | None) -> str:
    """Return a time to the second, in UTC."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


class Screen:
    """A person's terminal. Create it before any work, so that a missing rich stops nothing halfway.

    Raises:
        ClickException: rich is not installed.
    """

    def __init__(self) -> None:
        try:
            from rich.console import Console
        except ImportError:
            raise click.ClickException(
                "Tables and progress bars need rich: pip install 'flask-contenthub-webhook[cli]'. "
                "Without it, use --json."
            ) from None
        self._console = _sized(Console(highlight=False))
        self._errors = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Print a line, or several."""
        click.echo(escaped(text, lines=True))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
        """Print a table; cells are escaped, and markup in them has no effect.

        Args:
            columns: the headings; one that begins with ``>`` is aligned to the right, one with ``!`` is never folded.
            rows: the cells.
            title: what stands above it.
        """
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in columns:
            right, whole = column.startswith(">"), column.startswith("!")
            table.add_column(column.lstrip(">!"), justify="right" if right else "left", no_wrap=right or whole)
        for row in rows:
            table.add_row(*(Text("" if cell is None else escaped(cell)) for cell in row))
        self._console.print(table)

    def facts(self, facts: Iterable[tuple[str, object]]) -> None:
        """Print names and values, one pair a line, without those that have no value."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column()
        for name, value in facts:
            if value is not None and value != "":
                table.add_row(name, Text(escaped(value)))
        self._console.print(table)

    def progress(self) -> Progress:
        """Return a progress bar on stderr that vanishes at the end; it shows only on a terminal."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._errors,
            transient=True,
            disable=not self._errors.is_terminal,
        )


def _sized(console: Console) -> Console:
    """Widen a console on a pipe, which has no width; a narrow guess would cut ids into pieces."""
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH_OF_A_PIPE
    return console
