"""What both acts end with: the checks, and at the very end what to try next, or what is broken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from example_app.demo.checks import Check

NEXT = (
    ("make serve", "run it on port 8000, with a database that stays, and get curl lines that work"),
    ("make serve CREATOR=simulator", "the same with a creator that goes wrong now and then: order, and watch"),
    ("open http://127.0.0.1:8000", "order, review, approve and publish what your callbacks brought"),
    ("flask --app example_app webhook", "look at tasks and deliveries, replay, simulate, and more; in .venv/bin"),
    ("example_app/handlers.py", "all that happens in this application because of a callback"),
    ("README.md", "how to put the extension into your own"),
)


def show_checks(console: Console, checks: Iterable[Check]) -> list[str]:
    """Print the checks, and return the promises that were not kept."""
    broken = []
    for check in checks:
        mark = "[green]ok[/]    " if check.kept else "[bold red]BROKEN[/]"
        console.print(f"{mark} {escape(check.promise)} [dim]({escape(check.found)})[/]")
        if not check.kept:
            broken.append(f"{check.promise}: {check.found}")
    return broken


def conclude(console: Console, broken: Sequence[str], seconds: float) -> None:
    """The last lines of the demo."""
    if broken:
        console.print("\n[bold red]The demo failed.[/] Not as promised:")
        for line in broken:
            console.print(f"  - {escape(line)}", style="red")
        return
    console.print(f"All of it took {seconds:.1f} s.")
    console.print(Panel(_next_steps(), title="Try next", title_align="left"))


def _next_steps() -> Table:
    grid = Table.grid(padding=(0, 2))
    for command, purpose in NEXT:
        grid.add_row(Text(command, "bold"), Text(purpose))
    return grid
