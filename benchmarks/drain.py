"""How fast a worker applies what waits in the inbox, against a loop by hand: ``python -m benchmarks.drain``.

Both are processes of their own with the same threads and batches. They take turns on one database: a round fills the
inbox at once, and the rate is that between the first and the last event applied, by the history's own times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from .background import running
from .callbacks import captured_body, new_task_ids
from .databases import DATABASES, Database, Kind, open_database
from .hosts import complete_by_hand, contents, deliveries, engine_options, tune
from .latency_host import DATABASE, PROCESSING
from .rounds import Ratio, cpu_seconds

__all__: list[str] = []

AIM = 0.90
_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
_LEASE = timedelta(minutes=10)
_PATIENCE = 180.0


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drain", description=__doc__)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES, help="default: all")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--events", type=int, default=1_000, help="of a round (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--by-hand", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.by_hand:
        _apply_by_hand(options.by_hand, threads=options.threads, batch=options.batch)
        return
    for name in options.databases:
        with open_database(name, durable=False) as database:
            _measure(Console(width=120), name, database, options)


@dataclass(slots=True)
class _Side:
    """Who applies, and what each round took: events a second, and seconds of processor time for one."""

    name: str
    command: Sequence[str]
    announced: str
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, database: Database, events: int, *, counts: bool) -> None:
        """Apply one inbox, in a new process."""
        task_ids = new_task_ids(events)
        database.fill(task_ids, status="processing")
        environment = {DATABASE: database.url, PROCESSING: "worker"}
        with running(self.command, environment, announced=self.announced) as pid:
            before = cpu_seconds([pid])
            with database.engine.begin() as connection:
                connection.execute(sa.insert(deliveries), [_waiting(task_id) for task_id in task_ids])
            self._wait_for_effects(database, events)
            after = cpu_seconds([pid])
        database.check(
            {"completed": task_ids}, effects=task_ids, history=[(task_id, "processed") for task_id in task_ids]
        )
        if counts:
            with database.engine.connect() as connection:
                first, last = connection.execute(
                    sa.select(sa.func.min(deliveries.c.processed_at), sa.func.max(deliveries.c.processed_at))
                ).one()
            self.rates.append((events - 1) / (last - first).total_seconds())
            self.cpu.append((after - before) / events)

    def _wait_for_effects(self, database: Database, events: int) -> None:
        """Look seldom: the looks compete with what is measured."""
        end = time.monotonic() + _PATIENCE
        while True:
            with database.engine.connect() as connection:
                there = connection.scalar(sa.select(sa.func.count()).select_from(contents))
            if there == events:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: {there} effects after {_PATIENCE:g} s, not {events}")
            time.sleep(0.1)


def _waiting(task_id: str) -> dict[str, Any]:
    """The row of an event that was accepted."""
    return {
        "task_id": task_id,
        "event": "completed",
        "attempt": 1,
        "source": "webhook",
        "verdict": "queued",
        "tries": 0,
        "next_retry_at": _AT_ONCE,
        "received_at": datetime.now(UTC),
        "status_before": "processing",
        "headers": {"Content-Type": "application/json"},
        "body": captured_body(task_id),
    }


def _measure(console: Console, name: Kind, database: Database, options: argparse.Namespace) -> None:
    how = ["--threads", str(options.threads), "--batch", str(options.batch)]
    worker = ["flask", "--app", "benchmarks.latency_host:app", "webhook", "worker", *how]
    by_hand = ["benchmarks.drain", "--by-hand", database.url, *how]
    ours, theirs = _Side("the worker", worker, "The worker runs"), _Side("by hand", by_hand, "ready")
    for number in range(options.rounds + 1):
        for side in (ours, theirs) if number % 2 else (theirs, ours):
            side.run(database, options.events, counts=number > 0)
    title = f"{name}: {options.events:,} events that wait, {options.threads} threads, batches of {options.batch}"
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("", "events/s", "CPU µs"):
        table.add_column(heading, justify="right" if heading else "left")
    for side in (theirs, ours):
        table.add_row(side.name, f"{statistics.median(side.rates):,.0f}", f"{statistics.median(side.cpu) * 1e6:,.0f}")
    console.print(table)
    rate = Ratio.of(ours.rates, theirs.rates)
    judged = f"[green]{rate}[/]" if rate.median >= AIM else f"[red]missed {rate}[/]"
    console.print(f"rate {judged}, aim {AIM}; processor time, by hand / ours: {Ratio.of(theirs.cpu, ours.cpu)}\n")


# --- by hand -------------------------------------------------------------------------------------------------


def _apply_by_hand(url: str, *, threads: int, batch: int) -> None:
    """Claim batches, and apply their events one by one, until the process is stopped."""
    engine = sa.create_engine(url, **{**engine_options(url), "pool_size": threads})
    tune(engine)
    print("ready", flush=True)
    loops = [threading.Thread(target=_loop, args=(engine, batch)) for _ in range(threads)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()


def _loop(engine: sa.Engine, batch: int) -> None:
    d = deliveries.c
    due = sa.select(d.id, d.task_id, d.body, d.received_at).where(d.next_retry_at <= sa.bindparam("at_now"))
    due = due.order_by(d.next_retry_at, d.id).limit(batch).with_for_update(skip_locked=True)
    taken: dict[str, Any] = {"next_retry_at": sa.bindparam("at_end"), "claimed_until": sa.bindparam("at_end")}
    returns = engine.dialect.update_returning
    take = sa.update(deliveries).values(taken)
    claim = take.where(d.id.in_(due.with_only_columns(d.id))).returning(*due.selected_columns)
    done = sa.update(deliveries).where(d.id == sa.bindparam("at_id"))
    while True:
        now = datetime.now(UTC)
        times = {"at_now": now, "at_end": now + _LEASE}
        with engine.begin() as connection:
            claimed: Sequence[Any] = connection.execute(claim if returns else due, times).all()
            if claimed and not returns:
                connection.execute(take.where(d.id.in_([row.id for row in claimed])), times)
        if not claimed:
            time.sleep(0.05)
        for row in claimed:
            with engine.begin() as connection:
                _apply(connection, row, done)


def _apply(connection: sa.Connection, row: Any, done: sa.Update) -> None:
    payload = json.loads(row.body)
    now = datetime.now(UTC)
    before = complete_by_hand(connection, row.task_id, payload, now)
    if before is None:
        sys.exit(f"The task {row.task_id} was not open.")
    values: Mapping[str, Any] = {
        "at_id": row.id,
        "verdict": "processed",
        "tries": 1,
        "next_retry_at": None,
        "claimed_until": None,
        "status_before": before,
        "status_after": "completed",
        "processed_at": now,
        "latency_ms": (now - row.received_at) / timedelta(milliseconds=1),
    }
    connection.execute(done, values)
    connection.execute(sa.insert(contents), {"task_id": row.task_id, "body": payload["result"]["content"]})


if __name__ == "__main__":
    main()
