"""``python -m benchmarks``: the extension against the floors, in one run. Only the ratios mean anything elsewhere."""

from __future__ import annotations

import argparse
import os
import time

from rich.console import Console

from .claims import measure_claims
from .contestants import (
    ACCEPTANCE,
    BY_HAND,
    COMPLETED,
    CONTESTANTS,
    DUPLICATES,
    INSERT,
    SELECT_INSERT,
    Contestant,
)
from .databases import DATABASES, Database, open_database
from .profiling import profile, time_in_process
from .report import show_claims, show_figures, show_in_process, show_profile, show_statements
from .rounds import SERVINGS, run_rounds
from .statements import count_statements

_WIDTH = 150
PROFILED = (
    (COMPLETED, BY_HAND, "unsigned"),
    (DUPLICATES, SELECT_INSERT, "duplicate"),
    (ACCEPTANCE, INSERT, "accepted, unsigned"),
)
_QUICK_ROUNDS, _QUICK_REQUESTS = 3, 50
_CLAIMS = 200


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
    contestants = _chosen(options)
    for serving in (one for one in SERVINGS if options.serving in {None, one.worker_class}):
        with console.status("starting the servers") as status:
            figures = run_rounds(
                database,
                contestants,
                serving,
                rounds=options.rounds,
                requests=options.requests,
                in_flight=options.in_flight,
                progress=lambda text: status.update(f"{name}: {text}"),
            )
        title = f"{name}, {serving.name}: callbacks of 6 KB, {options.rounds} rounds of {options.requests}"
        show_figures(console, title, contestants, figures)
    show_statements(
        console, f"{name}: one callback", {one.name: count_statements(database, one) for one in contestants}
    )
    show_claims(console, f"{name}: a claim of some events that wait", measure_claims(database, rounds=_CLAIMS))


def _chosen(options: argparse.Namespace) -> list[Contestant]:
    """The contestants that are asked for, and their floors."""
    word = options.only or ""
    chosen = [one for one in CONTESTANTS if one.is_extension and word in one.name and (word or not one.is_extra)]
    floors = {name for one in chosen for name in one.aims}
    return [one for one in CONTESTANTS if one in chosen or one.name in floors or (options.all and not word)]


def _profile(console: Console, name: str, database: Database, options: argparse.Namespace) -> None:
    for kind, floor, ours in PROFILED:
        group = [one for one in CONTESTANTS if one.kind == kind]
        times = time_in_process(database, group, requests=options.requests)
        title = f"{name}, {kind}"
        show_in_process(console, f"{title}: one callback in process, median of {options.requests}", times, floor)
        profiles = {
            one.name: profile(database, one, requests=options.requests, measured=times[one.name].wall)
            for one in group
            if one.name in {floor, ours}
        }
        show_profile(console, f"{title}: {ours}", profiles[ours], profiles[floor])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="how often everybody has a turn (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="callbacks in each turn (default: %(default)s)")
    parser.add_argument(
        "--databases", nargs="+", choices=DATABASES, default=DATABASES, help="default: all that are here"
    )
    parser.add_argument("--serving", choices=[one.worker_class for one in SERVINGS], help="default: both")
    parser.add_argument("--in-flight", type=int, default=6, help="callbacks under way at once (default: %(default)s)")
    parser.add_argument("--durable", action="store_true", help="wait for the disk")
    parser.add_argument("--only", metavar="WORD", help="of the extension, only what has this in its name")
    parser.add_argument("--all", action="store_true", help="those, too, that only explain")
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    return parser


if __name__ == "__main__":
    main()
