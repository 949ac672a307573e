"""What people see: the table as it grows, the summary, and what to try next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from example_app.demo.captures import Answer
from example_app.demo.checks import Check
from example_app.demo.scenes import Scene

HEADINGS = ("Sent", "Vouched for by", "Answer", "Task", "Contents")
COLUMNS = (32, 14, 22, 17, 11)
WIDTH = 100
"""Columns where the output is no terminal."""
CHROME = 5
"""Lines of a live table that are not its rows."""
LINES_OF_A_ROW = 4

LABELS = {"pending_review": "in review"}
NEXT = (
    ("make serve", "run it on port 8000, with a database that stays, and get curl lines that work"),
    ("open http://127.0.0.1:8000", "review, approve and publish what your callbacks brought"),
    ("flask --app example_app shell", "db.session.scalars(db.select(Delivery)).all(); webhook.replay(1)"),
    ("example_app/handlers.py", "all that happens in this application because of a callback"),
    ("README.md", "how to put the extension into your own"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a scene, beside what was expected of it."""

    scene: Scene
    answers: tuple[Answer, ...]
    states: tuple[str, ...]
    contents: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        """In what it differs from what was promised; nothing, if all is well."""
        answers = [str(answer) for answer in self.answers]
        expected = list(self.scene.answers)
        if self.scene.at_once:
            answers, expected = sorted(answers), sorted(expected)
        pairs = {
            "answered": (in_short(answers), in_short(expected)),
            "task": (", ".join(self.states), ", ".join(self.scene.states)),
            "contents": (in_words(self.contents), in_words(self.scene.contents)),
        }
        return [f"{what}: {found}; promised: {want}" for what, (found, want) in pairs.items() if found != want]


@dataclass(slots=True)
class Stage:
    """The table: rows of results, under the names of their acts."""

    console: Console
    rows: list[Result | str] = field(default_factory=list)
    _live: Live | None = None

    @property
    def results(self) -> list[Result]:
        return [row for row in self.rows if isinstance(row, Result)]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show the end of the table while it grows, where there is a terminal; at the end, show all of it."""
        if self.console.is_terminal:
            with Live(console=self.console, transient=True, auto_refresh=False) as self._live:
                yield
            self._live = None
        else:
            yield
        self.console.print(self._table(self.rows))

    def announce(self, act: str) -> None:
        self.rows.append(act)

    def show(self, result: Result) -> None:
        self.rows.append(result)
        if self._live is not None:
            fitting = max(1, (self.console.height - CHROME) // LINES_OF_A_ROW)
            self._live.update(self._table(self.rows[-fitting:]), refresh=True)

    def _table(self, rows: Sequence[Result | str]) -> Group:
        """Columns of fixed width, and below each row, over the whole width, the reason."""
        lines: list[RenderableType] = [_columns(*HEADINGS, style="bold"), Rule(style="dim")]
        for row in rows:
            lines += [Text(f"\n{row}", "bold underline")] if isinstance(row, str) else _lines(row)
        return Group(*lines, "")


def _columns(*cells: Text | str, style: str = "") -> Table:
    grid = Table.grid(padding=(0, 1))
    *folding, last = COLUMNS
    for width in folding:
        grid.add_column(width=width, overflow="fold")
    grid.add_column(width=last, no_wrap=True)
    grid.add_row(*cells, style=style)
    return grid


def _lines(result: Result) -> list[RenderableType]:
    scene = result.scene
    cells = _columns(
        Text(scene.sent),
        Text(scene.by),
        _coloured(in_short([str(answer) for answer in result.answers], "\n"), result.answers),
        Text("\n".join(result.states)),
        Text(in_words(result.contents)),
    )
    why = Text(scene.why, "dim")
    if result.problems:
        why = Text(f"NOT AS PROMISED: {'; '.join(result.problems)}", "bold red")
    return ["", cells, Padding(why, (0, 0, 0, 4))]


def _coloured(text: str, answers: Sequence[Answer]) -> Text:
    worst = max(answer.status for answer in answers)
    colour = {2: "green", 4: "yellow"}.get(worst // 100, "red")
    return Text(text, colour)


def in_short(answers: Sequence[str], separator: str = ", ") -> str:
    """Answers with the number of each: `200 processed, 3x 200 stale`."""
    return separator.join(
        answer if number == 1 else f"{number}x {answer}" for answer, number in Counter(answers).items()
    )


def in_words(contents: Sequence[str]) -> str:
    """Review statuses with the number of each: `1 approved`."""
    return ", ".join(f"{number} {LABELS.get(status, status)}" for status, number in Counter(contents).items()) or "none"


def _next_steps() -> Table:
    grid = Table.grid(padding=(0, 2))
    for command, purpose in NEXT:
        grid.add_row(Text(command, "bold"), Text(purpose))
    return grid


def conclude(console: Console, results: Sequence[Result], checks: Sequence[Check], took: float) -> list[str]:
    """Print the summary, and return what is not as promised."""
    broken = [f"{result.scene.sent}: {problem}" for result in results for problem in result.problems]
    broken += [f"{check.promise}: {check.found}" for check in checks if not check.kept]
    for check in checks:
        mark = "[green]ok[/]    " if check.kept else "[bold red]BROKEN[/]"
        console.print(f"{mark} {escape(check.promise)} [dim]({escape(check.found)})[/]")
    as_promised = sum(not result.problems for result in results)
    console.print(f"\n{as_promised} of {len(results)} scenes went as promised, in {took:.1f} s.")
    if broken:
        console.print("\n[bold red]The demo failed.[/] Not as promised:")
        for line in broken:
            console.print(f"  - {escape(line)}", style="red")
    else:
        console.print(Panel(_next_steps(), title="Try next", title_align="left"))
    return broken
