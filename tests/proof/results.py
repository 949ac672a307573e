"""The result of a part of the proof, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PAGE", "PartResult", "table_of", "write_table"]

PAGE = Path(__file__).parents[2] / "docs" / "proof.md"
_BEGIN, _END = "<!-- table: begin -->\n", "<!-- table: end -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """What a part enumerated.

    Args:
        part: its name.
        cases: the number of cases.
        stories: one for each violation, in words.
        seconds: the time it took.
        counts: further figures by name, such as states and transitions.
    """

    part: str
    cases: int
    stories: tuple[str, ...] = ()
    seconds: float
    counts: Mapping[str, int] = field(default_factory=dict)


def table_of(results: Sequence[PartResult]) -> Iterator[str]:
    """Return the lines of the table."""
    yield "| part | cases | counted | time | violations |"
    yield "|---|---:|---|---:|---:|"
    for result in results:
        counts = ", ".join(f"{name} {count:,}" for name, count in result.counts.items())
        minutes, seconds = divmod(round(result.seconds), 60)
        yield f"| {result.part} | {result.cases:,} | {counts} | {minutes}:{seconds:02} min | {len(result.stories)} |"


def write_table(results: Sequence[PartResult], page: Path = PAGE) -> None:
    """Put the table into its page, between its markers; rows of parts that were not run stay as they are."""
    before, rest = page.read_text("utf-8").split(_BEGIN)
    old, after = rest.split(_END)
    head, line, *new = table_of(results)
    rows = {_part_of(row): row for row in [*old.splitlines()[2:], *new]}
    page.write_text("\n".join([before + _BEGIN + head, line, *rows.values(), _END]) + after, "utf-8")


def _part_of(row: str) -> str:
    return row.split("|")[1].strip()
