"""The second act afterwards: for each thing that went wrong one task, who settled it, and why it came out right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from example_app.demo.fates import Fate
from example_app.demo.orders import PARTS
from example_app.demo.stage import columns, in_words

HEADINGS = ("What goes wrong", "What reached us", "Settled by", "Task", "Contents")
WIDTHS = (22, 35, 10, 18, 11)


def show_verdicts(console: Console, fates: Sequence[Fate]) -> None:
    """One task for each part, in the order in which they were played."""
    console.print(columns(HEADINGS, WIDTHS, style="bold"), Rule(style="dim"))
    for fate in _instructive(fates):
        part = fate.order.part
        console.print()
        console.print(
            columns(
                (
                    part.wrong,
                    "\n".join(_arrivals(fate)) or "nothing",
                    fate.settled_by or "nobody",
                    _in_words(fate),
                    in_words([status for status, _ in fate.contents]),
                ),
                WIDTHS,
            )
        )
        console.print(Padding(Text(part.why, "dim"), (0, 0, 0, 4)))
    console.print()


def _instructive(fates: Sequence[Fate]) -> Iterator[Fate]:
    for part in PARTS:
        of_part = [fate for fate in fates if fate.order.part is part]
        typical = [fate for fate in of_part if fate.settled_by == part.typical]
        yield from (typical or of_part)[:1]


def _arrivals(fate: Fate) -> list[str]:
    """All but the creator's taking the job, which is no news."""
    return [str(arrival) for arrival in fate.arrivals if arrival.event != "submitted"]


def _in_words(fate: Fate) -> str:
    words = fate.status
    if fate.attempt > 1:
        words += f", attempt {fate.attempt}"
    return f"{words} ({fate.error_code})" if fate.status == "failed" and fate.error_code else words
