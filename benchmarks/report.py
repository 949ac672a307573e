"""The tables."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from .claims import Claims
from .contestants import Contestant
from .profiling import InProcess, Profile
from .rounds import Figures, Ratio
from .statements import Asked

__all__ = ["show_claims", "show_figures", "show_in_process", "show_profile", "show_statements"]


P99_AIM = 1.3
CLAIM_AIM = 0.85


def show_figures(
    console: Console, title: str, contestants: Sequence[Contestant], figures: Mapping[str, Figures]
) -> None:
    """Rates and latencies as they were, then the ratios beside what they should be."""
    console.print(_absolute(title, contestants, figures))
    console.print(_ratios(contestants, figures))
    generator = max(share for contestant in contestants for share in figures[contestant.name].generator)
    console.print(
        "Medians of the rounds; ratios within a round: median (lowest to highest). CPU: of gunicorn's workers, for one "
        "callback.\nrate and CPU: more than 1 is quicker than the floor. p99: less than 1 is quicker. "
        f"The load generator took at most {generator:.0%} of one processor.\n",
        style="dim",
    )


def _absolute(title: str, contestants: Sequence[Contestant], figures: Mapping[str, Figures]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("req/s", "p50 ms", "p99 ms", "CPU µs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for contestant in contestants:
        own = figures[contestant.name]
        table.add_row(
            contestant.name,
            f"{statistics.median(own.rates):,.0f}",
            f"{statistics.median(own.p50) * 1e3:.1f}",
            f"{statistics.median(own.p99) * 1e3:.1f}",
            f"{statistics.median(own.cpu) * 1e6:,.0f}",
        )
    return table


def _ratios(contestants: Sequence[Contestant], figures: Mapping[str, Figures]) -> Table:
    table = Table()
    for heading in ("", "against"):
        table.add_column(heading)
    for heading in ("rate", "aim", "CPU", f"p99 (aim {P99_AIM})"):
        table.add_column(heading, justify="right", no_wrap=True)
    for contestant in contestants:
        ours = figures[contestant.name]
        for name, aim in contestant.aims.items():
            floor = figures[name]
            rate, p99 = Ratio.of(ours.rates, floor.rates), Ratio.of(ours.p99, floor.p99)
            table.add_row(
                contestant.name,
                name,
                _judged(rate, aim is None or rate.median >= aim),
                "" if aim is None else f"{aim:.2f}",
                str(Ratio.of(floor.cpu, ours.cpu)),
                _judged(p99, p99.median <= P99_AIM),
            )
    return table


def _judged(ratio: Ratio, is_reached: bool) -> str:
    return f"[{'green' if is_reached else 'red'}]{'' if is_reached else 'missed '}{ratio}[/]"


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


def show_claims(console: Console, title: str, measured: Sequence[Claims]) -> None:
    """Claims against those by hand, in process."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("ms", "by hand, ms", "by hand / ours", "aim", "statements", "by hand"):
        table.add_column(heading, justify="right")
    for one in measured:
        ratio = Ratio.of(one.by_hand, one.ours)
        table.add_row(
            one.name,
            f"{statistics.median(one.ours) * 1e3:.2f}",
            f"{statistics.median(one.by_hand) * 1e3:.2f}",
            _judged(ratio, ratio.median >= CLAIM_AIM),
            f"{CLAIM_AIM:.2f}",
            str(one.statements),
            str(one.statements_by_hand),
        )
    console.print(table)


def show_in_process(console: Console, title: str, times: Mapping[str, InProcess], floor: str) -> None:
    """Medians without a server."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("µs", f"x {floor}", "CPU µs", "CPU x"):
        table.add_column(heading, justify="right")
    for name, one in times.items():
        table.add_row(
            name,
            f"{one.wall:,.0f}",
            f"{times[floor].wall / one.wall:.2f}",
            f"{one.cpu:,.0f}",
            f"{times[floor].cpu / one.cpu:.2f}",
        )
    console.print(table)


def show_profile(console: Console, title: str, ours: Profile, floor: Profile, *, lines: int = 40) -> None:
    """Where the time of one callback goes, beside that of the floor's."""
    console.print(_beside(f"{title}: by layer, µs", ours.layers, floor.layers, lines=lines))
    console.print(_beside(f"{title}: by module, what differs most, µs", ours.modules, floor.modules, lines=lines))
    for order, rows in (
        ("the way of a callback", ours.functions),
        ("by their own time", sorted(ours.functions, key=lambda hot: -hot.own)),
    ):
        table = Table(title=f"{title}: the extension's functions, {order}", title_justify="left", title_style="bold")
        table.add_column("")
        for heading in ("calls", "own µs", "with what it calls, µs"):
            table.add_column(heading, justify="right")
        for hot in rows[:lines]:
            table.add_row(hot.name, f"{hot.calls:.1f}", f"{hot.own:.1f}", f"{hot.total:.1f}")
        console.print(table)


def _beside(title: str, ours: Mapping[str, float], floor: Mapping[str, float], *, lines: int) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("extension", "floor", "more"):
        table.add_column(heading, justify="right")
    more = {name: ours.get(name, 0.0) - floor.get(name, 0.0) for name in {*ours, *floor}}
    for name in sorted(more, key=lambda name: -abs(more[name]))[:lines]:
        table.add_row(name, f"{ours.get(name, 0):.1f}", f"{floor.get(name, 0):.1f}", f"{more[name]:+.1f}")
    table.add_section()
    table.add_row("all", f"{sum(ours.values()):.1f}", f"{sum(floor.values()):.1f}", f"{sum(more.values()):+.1f}")
    return table
