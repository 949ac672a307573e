"""What people see of the first act: the table as it grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from example_app.demo.captures import Answer
from example_app.demo.scenes import Scene

HEADINGS = ("Sent", "Vouched for by", "Answer", "Task", "Contents")
WIDTHS = (32, 14, 22, 17, 11)
CHROME = 5
"""Lines of a live table that are not its rows."""
LINES_OF_A_ROW = 4

LABELS = {"pending_review": "in review"}


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

    @property
    def problems(self) -> list[str]:
        """What is not as promised, in any scene."""
        return [f"{result.scene.sent}: {problem}" for result in self.results for problem in result.problems]

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
        lines: list[RenderableType] = [columns(HEADINGS, WIDTHS, style="bold"), Rule(style="dim")]
        for row in rows:
            lines += [Text(f"\n{row}", "bold underline")] if isinstance(row, str) else _lines(row)
        return Group(*lines, "")


def columns(cells: Sequence[Text | str], widths: Sequence[int], style: str = "") -> Table:
    """A row of cells in columns of fixed width, of which the last does not wrap."""
    grid = Table.grid(padding=(0, 1))
    *folding, last = widths
    for width in folding:
        grid.add_column(width=width, overflow="fold")
    grid.add_column(width=last, no_wrap=True)
    grid.add_row(*cells, style=style)
    return grid


def _lines(result: Result) -> list[RenderableType]:
    scene = result.scene
    cells = (
        scene.sent,
        scene.by,
        _coloured(in_short([str(answer) for answer in result.answers], "\n"), result.answers),
        "\n".join(result.states),
        in_words(result.contents),
    )
    why = Text(scene.why, "dim")
    if result.problems:
        why = Text(f"NOT AS PROMISED: {'; '.join(result.problems)}", "bold red")
    return ["", columns(cells, WIDTHS), Padding(why, (0, 0, 0, 4))]


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
