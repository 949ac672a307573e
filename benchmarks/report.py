"""The tables."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from .profiling import Hot, Profile
from .rounds import Contestant, Figures, Ratio
from .statements import Asked

__all__ = ["show_figures", "show_in_process", "show_profile", "show_statements"]


def show_figures(
    console: Console, title: str, contestants: Sequence[Contestant], figures: Mapping[str, Figures]
) -> None:
    """Rates, latencies and ratios of one database."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("req/s", "p50 ms", "p99 ms", "CPU µs"):
        table.add_column(heading, justify="right", no_wrap=True)
    floors = list(dict.fromkeys(floor for contestant in contestants for floor in contestant.floors))
    by_hand = floors[:2][-1]  # of two that are written by hand the one that does more
    table.add_column("CPU x", justify="right")
    for floor in floors:
        table.add_column(f"x {floor}", justify="right")
    for contestant in contestants:
        own = figures[contestant.name]
        cells = [
            f"{statistics.median(own.rates):,.0f}",
            f"{own.percentile(50) * 1e3:.1f}",
            f"{own.percentile(99) * 1e3:.1f}",
            f"{statistics.median(own.cpu) * 1e6:,.0f}",
        ]
        own_floor = by_hand in contestant.floors
        cells.append(f"{Ratio.of(figures[by_hand].cpu, own.cpu).median:.2f}" if own_floor else "")
        for floor in floors:
            if floor not in contestant.floors:
                cells.append("")
                continue
            rate = Ratio.of(own.rates, figures[floor].rates)
            cells.append(f"[bold]{rate.median:.2f}[/] ({rate.low:.2f} to {rate.high:.2f})")
        table.add_row(contestant.name, *cells)
    console.print(table)
    generator = max(share for contestant in contestants for share in figures[contestant.name].generator)
    console.print(
        "x: the ratio of the rates in the same round, median (lowest to highest). CPU: of gunicorn's workers, for one "
        f"callback; CPU x: the same as a ratio to {by_hand}.\n"
        f"The load generator took at most {generator:.0%} of one processor.\n",
        style="dim",
    )


def show_statements(console: Console, title: str, asked: Mapping[str, Asked]) -> None:
    """What one callback asks of one database."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("SQL statements", justify="right")
    table.add_column("round trips", justify="right")
    table.add_column("which")
    for name, one in asked.items():
        inside = Counter(statement in {"BEGIN", "COMMIT", "ROLLBACK"} for statement in one.statements)
        count = f"{inside[False]} + {inside[True]}"
        table.add_row(name, count, "-" if one.round_trips is None else str(one.round_trips), ", ".join(one.statements))
    console.print(table)
    console.print("Statements + BEGIN and COMMIT.\n", style="dim")


def show_in_process(console: Console, title: str, times: Mapping[str, float], floor: str) -> None:
    """Medians without a server."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("µs", justify="right")
    table.add_column(f"x {floor}", justify="right")
    for name, microseconds in times.items():
        table.add_row(name, f"{microseconds:,.0f}", f"{times[floor] / microseconds:.2f}")
    console.print(table)


def show_profile(console: Console, title: str, result: Profile, *, lines: int = 25) -> None:
    """Where the time of one callback went."""
    console.print(_profile_table(f"{title}: by library", result.libraries[:lines]))
    console.print(_profile_table(f"{title}: the package's functions", result.functions[:lines]))


def _profile_table(title: str, rows: Sequence[Hot]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("calls", "own µs", "with what it calls, µs"):
        table.add_column(heading, justify="right")
    for hot in rows:
        table.add_row(hot.name, f"{hot.calls:.1f}", f"{hot.own:.1f}", f"{hot.total:.1f}")
    return table
