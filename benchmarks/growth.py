"""What one callback costs as the tables grow: ``python -m benchmarks.growth``.

Two databases, a small and a large one, on the same server; in this process, the same callback for the one and for the
other in turn, so that whatever else happens in the machine meets both. Then the plans of all statements.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from flask import Flask
from rich.console import Console
from rich.table import Table

from flask_contenthub_webhook.core.state_machine import Verdict
from flask_contenthub_webhook.engine.retry import RetryReport, work_off
from flask_contenthub_webhook.runtime.state import get_state

from .callbacks import new_task_ids, request_bytes
from .contestants import CONTESTANTS, Contestant
from .databases import EXPLAINED, Database, Kind, open_databases
from .grown import add_open_tasks, add_waiting, grow, grown_task_id, settle
from .in_process import build, call, engine_of, environ_of
from .plans import Plan, explain, watch_statements
from .rounds import percentile

__all__ = ["Host"]

_AIM = 1.15
_WARM_UP = 30
_INLINE = next(one for one in CONTESTANTS if one.name == "unsigned")
_DUPLICATE = next(one for one in CONTESTANTS if one.name == "duplicate")
_ACCEPTED = next(one for one in CONTESTANTS if one.name == "accepted, unsigned")


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each large table (default: %(default)s)")
    parser.add_argument("--small", type=int, default=1_000, help="of each small table (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=1_500, help="of each kind (default: %(default)s)")
    parser.add_argument("--waiting", type=int, default=10_000, help="in the inbox of the last test (%(default)s)")
    parser.add_argument("--databases", nargs="+", choices=EXPLAINED, default=EXPLAINED, help="default: both")
    parser.add_argument("--plans", type=Path, metavar="FILE", help="write the query plans into this page, too")
    options = parser.parse_args()
    console = Console(width=140)
    plans: dict[str, dict[str, list[Plan]]] = {}
    for name in options.databases:
        plans[name] = _measure(console, name, options)
        _show_plans(console, name, plans[name])
    if options.plans:
        options.plans.write_text(_page(plans, options.rows), encoding="utf-8")


def _measure(console: Console, name: Kind, options: argparse.Namespace) -> dict[str, list[Plan]]:
    with open_databases(name, 2, durable=False, in_memory=False) as (small, large), ExitStack() as stack:
        hosts = []
        for database, rows in ((small, options.small), (large, options.rows)):
            started = time.monotonic()
            grow(database, rows)
            console.print(f"{name}: {rows:,} rows in {time.monotonic() - started:.0f} s", style="dim")
            hosts.append(Host(database, rows, options.requests + _WARM_UP))
            stack.callback(hosts[-1].close)
        for number in range(options.requests + _WARM_UP):
            for host in hosts[:: 1 if number % 2 else -1]:
                host.run(number)
        _show_times(console, f"{name}, {options.requests} of each kind", hosts, options)
        plans = hosts[1].plans()
        _show_claims(console, name, hosts[1], options.waiting)
        return plans


def _show_claims(console: Console, name: str, host: Host, waiting: int) -> None:
    """A claim in an inbox that filled so fast that the statistics still say that it is empty; and with new ones."""
    host.fill_inbox(waiting)
    before = host.time_claim()
    settle(host.database)
    after = host.time_claim()
    console.print(
        f"{name}: claiming 20 of {waiting:,} that wait took {before * 1e3:.1f} ms with the statistics of an empty "
        f"inbox, {after * 1e3:.1f} ms with new ones (medians).",
        style="bold",
    )


@dataclass(slots=True)
class Host:
    """Applications on one of the databases, and what their callbacks took.

    Args:
        database: was made to :func:`.grown.grow`.
        rows: to how many.
        count: callbacks of each kind that will come.
    """

    database: Database
    rows: int
    count: int
    taken: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _open: list[str] = field(default_factory=list)
    _inline: Flask = field(init=False)
    _worker: Flask = field(init=False)
    _random: random.Random = field(default_factory=lambda: random.Random(4))

    def __post_init__(self) -> None:
        self._open = new_task_ids(2 * self.count + 2)
        add_open_tasks(self.database, self._open)
        self._inline, self._worker = build(_INLINE, self.database), build(_ACCEPTED, self.database)

    def run(self, number: int) -> None:
        """One callback of each kind."""
        for name, one in self._kinds(2 * number):
            started = time.perf_counter()
            one()
            self.taken[name].append(time.perf_counter() - started)

    def fill_inbox(self, count: int) -> None:
        """Events that wait, as many as tasks, all due."""
        task_ids = new_task_ids(count)
        add_open_tasks(self.database, task_ids)
        add_waiting(self.database, task_ids)

    def time_claim(self, times: int = 7) -> float:
        """The median time of a claim of 20, with what it needs around it; rolled back."""
        state, taken = get_state(self._worker), []
        for _ in range(times):
            started = time.perf_counter()
            with state.database.session() as session:
                claimed = state.store.inbox.claim(session, lease=timedelta(minutes=1), limit=20)
                taken.append(time.perf_counter() - started)
            if len(claimed) != 20:
                raise RuntimeError(f"{len(claimed)} claimed, not 20")
        return statistics.median(taken)

    def plans(self) -> dict[str, list[Plan]]:
        """Of every statement of one callback of each kind."""
        plans: dict[str, list[Plan]] = {}
        for name, one in self._kinds(2 * self.count):
            with (
                watch_statements(engine_of(self._inline)) as inline,
                watch_statements(engine_of(self._worker)) as worker,
            ):
                one()
            plans[name] = [explain(self.database.engine, statement) for statement in (*inline, *worker)]
        return plans

    def close(self) -> None:
        """Give back the connections."""
        for app in (self._inline, self._worker):
            engine_of(app).dispose()

    def _kinds(self, number: int) -> Iterator[tuple[str, Callable[[], None]]]:
        """A callback of each kind, prepared."""
        anywhere = grown_task_id(self._random.randint(1, self.rows))
        yield "completed, inline", self._callback(self._inline, _INLINE, self._open[number])
        yield "duplicate", self._callback(self._inline, _DUPLICATE, anywhere)
        yield "accepted for a worker", self._callback(self._worker, _ACCEPTED, self._open[number + 1])
        yield "claimed and applied", self._work_off
        yield "looks of the worker and the limit", self._look

    def _callback(self, app: Flask, contestant: Contestant, task_id: str) -> Callable[[], None]:
        environ = environ_of(request_bytes(contestant.path, task_id, contestant.signing))
        return lambda: call(app, environ, answer=contestant.answer)

    def _work_off(self) -> None:
        report = RetryReport()
        work_off(get_state(self._worker), report, limit=1)
        if report.outcomes != {Verdict.PROCESSED: 1}:
            raise RuntimeError(f"the worker should have found one event: {report}")

    def _look(self) -> None:
        state = get_state(self._worker)
        with state.database.session() as session:
            state.store.inbox.is_anything_due(session)
            state.store.inbox.count_waiting(session, most=50_000)


def _show_times(console: Console, title: str, hosts: Sequence[Host], options: argparse.Namespace) -> None:
    small, large = hosts
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("one callback")
    for heading in (f"µs at {options.small:,} rows", f"at {options.rows:,}", f"x (aim {_AIM})", "x of the p90"):
        table.add_column(heading, justify="right")
    for kind, times in small.taken.items():
        few, many = times[_WARM_UP:], large.taken[kind][_WARM_UP:]
        ratio = statistics.median(many) / statistics.median(few)
        table.add_row(
            kind,
            f"{statistics.median(few) * 1e6:,.0f}",
            f"{statistics.median(many) * 1e6:,.0f}",
            f"{ratio:.2f}" if ratio <= _AIM else f"[red]missed {ratio:.2f}[/]",
            f"{percentile(many, 90) / percentile(few, 90):.2f}",
        )
    console.print(table)


def _show_plans(console: Console, name: str, plans: dict[str, list[Plan]]) -> None:
    for kind, statements in plans.items():
        console.print(f"\n{name}, {kind}", style="bold")
        for plan in statements:
            console.print(plan.statement, style="cyan", markup=False)
            for line in plan.lines or ["(no lookup)"]:
                console.print(f"    {line}", markup=False, highlight=False)
            if plan.scanned:
                console.print(f"    reads all of {', '.join(plan.scanned)}", style="red")
    scanned = sorted({table for statements in plans.values() for plan in statements for table in plan.scanned})
    console.print(
        f"\n{name}: {f'NO INDEX for {scanned}' if scanned else 'every lookup uses an index'}.\n", style="bold"
    )


def _page(plans: dict[str, dict[str, list[Plan]]], rows: int) -> str:
    lines = [
        "# Query plans",
        "",
        "How the databases find the rows of every statement that a callback issues, with",
        f"{rows:,} rows in the task table and in the history. Written by",
        "`python -m benchmarks.growth --plans docs/query-plans.md`; long lists of columns are left out.",
    ]
    for name, kinds in plans.items():
        lines += ["", f"## {'SQLite' if name == 'sqlite' else 'PostgreSQL'}"]
        for kind, statements in kinds.items():
            lines += ["", f"### {kind.capitalize()}"]
            for plan in statements:
                lines += ["", "```text", plan.statement, "", *(plan.lines or ["(no lookup)"]), "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
