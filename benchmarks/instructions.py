"""``python -m benchmarks.instructions``: the processor's instructions for one callback, counted by valgrind.

A clock counts what else the machine does; this does not, and shows a change of one per cent on a busy machine. It says
nothing of waiting, and of a database server nothing at all, so the database is SQLite, whose work is in the process.
Needs valgrind.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from .callbacks import new_task_ids, request_bytes
from .contestants import CONTESTANTS, Contestant
from .databases import open_database
from .in_process import build, call, environ_of

_FEW, _MANY = 40, 140
_COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--only", metavar="WORD", default="", help="of the extension, only what has this in its name")
    parser.add_argument("--run", choices=[one.name for one in CONTESTANTS], help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=_FEW, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        _run(_by_name(options.run), options.requests)
        return
    if shutil.which("valgrind") is None:
        parser.error("There is no command valgrind; install it, on Debian with apt-get install valgrind.")
    _compare([one for one in CONTESTANTS if one.is_extension and not one.is_extra and options.only in one.name])


def _by_name(name: str) -> Contestant:
    return next(one for one in CONTESTANTS if one.name == name)


def _compare(chosen: list[Contestant]) -> None:
    floors = {floor: _instructions(floor) for floor in dict.fromkeys(name for one in chosen for name in one.aims)}
    table = Table(title="SQLite: instructions for one callback of 6 KB", title_justify="left")
    for heading in ("", "thousands", *floors):
        table.add_column(heading, justify="right" if heading else "left")
    for name, count in floors.items():
        table.add_row(name, f"{count / 1000:,.0f}", *("" for _ in floors))
    for one in chosen:
        count = _instructions(one.name)
        ratios = (f"{floors[name] / count:.3f}" if name in one.aims else "" for name in floors)
        table.add_row(one.name, f"{count / 1000:,.0f}", *ratios)
    Console().print(table)


def _instructions(name: str) -> float:
    """Return the instructions for one callback: the difference of two runs, so that the start is in neither."""
    few, many = (_count(name, requests) for requests in (_FEW, _MANY))
    return (many - few) / (_MANY - _FEW)


def _count(name: str, requests: int) -> int:
    valgrind = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
    ours = (sys.executable, "-m", "benchmarks.instructions", "--run", name, "--requests", str(requests))
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    ran = subprocess.run((*valgrind, *ours), env=environment, capture_output=True, text=True, check=False)
    found = _COUNTED.search(ran.stderr)
    if ran.returncode or found is None:
        raise RuntimeError(f"{name} ended with {ran.returncode} under valgrind:\n{ran.stderr[-2000:]}")
    return int(found[1].replace(",", ""))


def _run(contestant: Contestant, requests: int) -> None:
    """Send some callbacks through the contestant's application."""
    with open_database("sqlite", durable=False) as database:
        task_ids = new_task_ids(_MANY)
        database.fill(task_ids, status=contestant.status_before)
        app = build(contestant, database)
        for task_id in task_ids[:requests]:
            environ = environ_of(request_bytes(contestant.path, task_id, contestant.signing))
            call(app, environ, answer=contestant.answer)


if __name__ == "__main__":
    main()
