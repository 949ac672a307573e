"""``python -m benchmarks``: the extension against the floors, in one run. Only the ratios mean anything elsewhere."""

from __future__ import annotations

import argparse
import os
import time

from rich.console import Console

from .databases import DATABASES, Database, open_database
from .profiling import profile, time_in_process
from .report import show_figures, show_in_process, show_profile, show_statements
from .rounds import BY_HAND, CONTESTANTS, run_rounds
from .statements import count_statements

_WIDTH = 150
_QUICK_ROUNDS, _QUICK_REQUESTS = 3, 150


def main() -> None:
    """Parse the options and run."""
    parser = _parser()
    options = parser.parse_args()
    if options.only is not None and not any(one.is_extension and options.only in one.name for one in CONTESTANTS):
        parser.error(f"--only: nothing has {options.only!r} in its name.")
    if options.quick:
        options.rounds, options.requests = _QUICK_ROUNDS, _QUICK_REQUESTS
    console = Console()
    console.width = max(console.width, _WIDTH)
    started = time.monotonic()
    for name in options.databases:
        with open_database(name, durable=options.durable) as database:
            if options.profile:
                _profile(console, name, database, options)
            else:
                _measure(console, name, database, options)
    console.print(f"{time.monotonic() - started:.0f} s, {os.cpu_count()} processors.", style="dim")


def _measure(console: Console, name: str, database: Database, options: argparse.Namespace) -> None:
    chosen = [one for one in CONTESTANTS if one.is_extension and (options.only or "") in one.name]
    contestants = [one for one in CONTESTANTS if one in chosen or any(one.name in other.floors for other in chosen)]
    asked = {contestant.name: count_statements(database, contestant) for contestant in contestants}
    with console.status("starting the servers") as status:
        figures = run_rounds(
            database,
            contestants,
            rounds=options.rounds,
            requests=options.requests,
            in_flight=options.in_flight,
            workers=options.workers,
            progress=lambda text: status.update(f"{name}: {text}"),
        )
    title = f"{name}: callbacks of 6 KB, {options.workers} sync workers, {options.rounds} x {options.requests}; medians"
    for what, duplicate in (("completed", False), ("duplicates", True)):
        group = [one for one in contestants if one.is_duplicate == duplicate]
        if group:
            show_figures(console, f"{title}, {what}", group, figures)
    show_statements(console, f"{name}: one callback", asked)


def _profile(console: Console, name: str, database: Database, options: argparse.Namespace) -> None:
    fresh = [contestant for contestant in CONTESTANTS if not contestant.is_duplicate]
    times = time_in_process(database, fresh, requests=options.requests)
    show_in_process(console, f"{name}: one callback in process, median of {options.requests}", times, BY_HAND)
    for contestant in (one for one in fresh if one.name in {BY_HAND, "extension, unsigned"}):
        result = profile(database, contestant, requests=options.requests)
        show_profile(console, f"{name}: {contestant.name}, cProfile", result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="how often everybody has a turn (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="callbacks in each turn (default: %(default)s)")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES, help="default: both")
    parser.add_argument("--workers", type=int, default=2, help="of each gunicorn (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=6, help="callbacks under way at once (default: %(default)s)")
    parser.add_argument("--durable", action="store_true", help="let PostgreSQL wait for the disk")
    parser.add_argument("--only", metavar="WORD", help="of the extension, only what has this in its name")
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    return parser


if __name__ == "__main__":
    main()
