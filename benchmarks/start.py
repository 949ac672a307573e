"""What the extension adds to the start of a process: ``python -m benchmarks.start``.

Whole processes take turns: one that imports what the extension stands on, one that imports the extension as well, and
those that register it on an application, with nothing switched on and with each part that is imported only when it is.
The exit code is 1 if an aim is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["FLOOR", "STARTS", "Cost", "measure", "medians"]

IMPORT_AIM, MEMORY_AIM, REGISTER_AIM = 1.10, 5.0, 10.0
_MIB = 1024.0

_FLOOR = "import flask, flask_sqlalchemy, flask_migrate, blinker, apscheduler.schedulers.background\n"
_IMPORT = _FLOOR + "import flask_contenthub_webhook\n"
_REGISTER = """
db, app = flask_sqlalchemy.SQLAlchemy(), flask.Flask("started")
app.config.update({settings!r}, SQLALCHEMY_DATABASE_URI="sqlite://", WEBHOOK_ENABLED=True)
app.config.update(WEBHOOK_SECRET_KEY="kJ8s0dKq2nPz7vRt5mXw9yBc3gHf6lQa")
db.init_app(app)
webhook = flask_contenthub_webhook.ContentHubWebhook()
began = time.process_time()
webhook.init_app(app, db)
took = time.process_time() - began
"""
_FORWARDING = {"WEBHOOK_FORWARD_URLS": ["https://example.com/"], "WEBHOOK_FORWARD_SECRET": "whsec_" + "Zm9y" * 9}


def _registering(**settings: object) -> str:
    return _IMPORT + _REGISTER.format(settings=settings)


FLOOR, OURS, REGISTERED = "what it stands on", "the extension, imported", "registered, nothing switched on"
STARTS: Mapping[str, str] = {
    FLOOR: _FLOOR,
    OURS: _IMPORT,
    REGISTERED: _registering(),
    "registered, a creator over HTTP": _registering(CREATOR_API_BASE_URL="http://127.0.0.1:9"),
    "registered, forwarding": _registering(**_FORWARDING),
    "registered, the scheduler": _registering(WEBHOOK_SCHEDULER_ENABLED=True),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took.

    Args:
        cpu: seconds of processor time, of the whole process.
        memory: MiB that were resident at its end.
        register: milliseconds of processor time of ``init_app``.
    """

    cpu: float
    memory: float
    register: float


def measure(starts: Mapping[str, str], *, rounds: int) -> dict[str, list[Cost]]:
    """Start each process once a round; the order is reversed in every second one.

    Raises:
        CalledProcessError: one of them failed.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in starts}
    with tempfile.TemporaryDirectory() as cache:
        for code in starts.values():  # so that everything is compiled, as after an installation
            _start(code, Path(cache))
        for number in range(rounds):
            for name in sorted(starts, key=list(starts).index, reverse=bool(number % 2)):
                costs[name].append(_start(starts[name], Path(cache)))
    return costs


def medians(costs: Mapping[str, list[Cost]]) -> dict[str, tuple[float, float, float, float]]:
    """Return for each start the ratio of processor time to the floor of its round, its lowest and highest, and MiB."""
    floor = costs[FLOOR]
    found = {}
    for name, own in costs.items():
        ratios = sorted(cost.cpu / base.cpu for cost, base in zip(own, floor, strict=True))
        memory = statistics.median(cost.memory - base.memory for cost, base in zip(own, floor, strict=True))
        found[name] = (statistics.median(ratios), ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4], memory)
    return found


def _start(code: str, cache: Path) -> Cost:
    script = (
        f"import time\ntook = 0.0\n{code}\n"
        "used, pages = time.process_time(), int(open('/proc/self/statm').read().split()[1])\nprint(used, pages, took)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300
    )
    cpu, pages, took = done.stdout.split()
    return Cost(float(cpu), int(pages) * os.sysconf("SC_PAGE_SIZE") / 1024 / _MIB, float(took) * 1000)


def _show(console: Console, costs: Mapping[str, list[Cost]]) -> bool:
    """Print the table, and tell whether every aim was reached."""
    table = Table(title=f"start of a process, {len(costs[FLOOR])} rounds", title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("CPU ms", "to the floor", "MiB more", "init_app ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    found = medians(costs)
    for name, own in costs.items():
        ratio, low, high, memory = found[name]
        registering = statistics.median(cost.register for cost in own)
        table.add_row(
            name,
            f"{statistics.median(cost.cpu for cost in own) * 1000:.0f}",
            "" if name == FLOOR else f"{ratio:.2f} ({low:.2f} to {high:.2f})",
            "" if name == FLOOR else f"{memory:.1f}",
            f"{registering:.1f}" if registering else "",
        )
    console.print(table)
    console.print(
        f"Medians of processor time; ratios within a round, with quartiles. Aims: import {IMPORT_AIM:.2f} and "
        f"{MEMORY_AIM:g} MiB, init_app with nothing switched on {REGISTER_AIM:g} ms.",
        style="dim",
    )
    registering = statistics.median(cost.register for cost in costs[REGISTERED])
    return found[OURS][0] <= IMPORT_AIM and found[OURS][3] <= MEMORY_AIM and registering <= REGISTER_AIM


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=31, help="starts of each process (default: %(default)s)")
    console = Console()
    console.width = max(console.width, 100)
    if not _show(console, measure(STARTS, rounds=parser.parse_args().rounds)):
        sys.exit(1)


if __name__ == "__main__":
    main()
