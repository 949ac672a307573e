"""From acceptance to effect, under half of the maximum load: ``python -m benchmarks.latency``.

A real gunicorn accepts, a real worker applies. First the highest rate that both sustain together; then half of it, at
fixed times of arrival, however fast the answers are; then the same with a handler that takes 2 s for every 50th event.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from tests.support.gunicorn import Gunicorn

from .background import running
from .callbacks import new_task_ids, request_bytes
from .databases import EXPLAINED, Database, open_database
from .hosts import contents, deliveries
from .latency_host import BROKER, DATABASE, PROCESSING, SLOW
from .load import Load, LoadGenerator
from .rounds import Ratio, percentile

Mode = Literal["worker", "celery"]

_WARM_UP = 200
_IN_FLIGHT = 6
_EVERY = 50
_PAIRS = 3
"""Turns without and with slow handlers."""
_PATIENCE = 180.0


class _Engine(NamedTuple):
    """How many apply events, and how many each takes at once (Celery: one)."""

    threads: int
    batch: int


_USUAL = _Engine(4, 20)
_FOR_SLOW = _Engine(16, 1)
"""Handlers that take long need more threads, and must not have others waiting behind them in a batch."""


class _Latencies(NamedTuple):
    """Milliseconds: of the answers, and from acceptance to effect of the events whose handler is quick."""

    responses: list[float]
    effects: list[float]

    @classmethod
    def of(cls, parts: Iterable[_Latencies]) -> _Latencies:
        """Those of all parts."""
        responses, effects = zip(*parts, strict=True)
        return cls(list(chain.from_iterable(responses)), list(chain.from_iterable(effects)))


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--mode", choices=("worker", "celery"), default="worker", help="default: %(default)s")
    parser.add_argument("--databases", nargs="+", choices=EXPLAINED, default=EXPLAINED, help="default: both")
    parser.add_argument("--requests", type=int, default=3_000, help="to find the maximum (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="at half of it (default: %(default)s)")
    parser.add_argument("--rate", type=float, help="a second, instead of half of the maximum")
    options = parser.parse_args()
    console = Console(width=120)
    for name in options.databases:
        with open_database(name, durable=False) as database, _broker(options.mode) as broker:
            _measure(console, f"{name}, {options.mode}", database, broker, options)


def _measure(console: Console, title: str, database: Database, broker: str | None, options: argparse.Namespace) -> None:
    environment = {DATABASE: database.url, PROCESSING: options.mode} | ({BROKER: broker} if broker else {})
    server = Gunicorn("benchmarks.latency_host:app", env=environment, timeout=120)
    with LoadGenerator() as generator, server:
        bench = _Bench(database, server, generator)
        with _applying(options.mode, environment, _USUAL):
            bench.at_once(_WARM_UP)
            most = options.rate * 2 if options.rate else bench.at_once(options.requests)
            console.print(f"{title}: accepted and applied at most {most:.0f} a second", style="bold")
            rate = most / 2
            rows = {"quick handlers": bench.at_rate(rate, options.seconds, slow=False)}
        with _applying(options.mode, environment, _FOR_SLOW):
            bench.at_once(_WARM_UP)
            plain, slow = zip(
                *(
                    [bench.at_rate(rate, options.seconds / _PAIRS, slow=slow) for slow in (False, True)]
                    for _ in range(_PAIRS)
                ),
                strict=True,
            )
    rows["the same, more threads"] = _Latencies.of(plain)
    rows["every 50th takes 2 s"] = _Latencies.of(slow)
    _show(console, f"{title}: {rate:.0f} a second for {options.seconds:g} s", rows)
    ratio = Ratio.of(*([percentile(one.responses, 99) for one in some] for some in (slow, plain)))
    console.print(f"p99 of the answers while every 50th handler takes 2 s: {ratio} times that without.")
    console.print(
        "Effect: from acceptance to the change of state, of events whose handler is quick. More threads: "
        f"{_FOR_SLOW.threads}, which take one event at a time; else {_USUAL.threads} and {_USUAL.batch}.\n",
        style="dim",
    )


class _Bench(NamedTuple):
    """A database, the server before it, and who sends."""

    database: Database
    server: Gunicorn
    generator: LoadGenerator

    def at_once(self, count: int) -> float:
        """As fast as they are accepted; how many a second were accepted and applied."""
        task_ids = self._prepare(count)
        started = time.monotonic()
        self._check(self.generator.play(self.server.port, _messages(task_ids), in_flight=_IN_FLIGHT, answer=202))
        self._wait_for_effects(count)
        return count / (time.monotonic() - started)

    def at_rate(self, rate: float, seconds: float, *, slow: bool) -> _Latencies:
        """At a fixed rate, accepted and applied."""
        task_ids = self._prepare(int(rate * seconds), slow=slow)
        load = self.generator.play_at(self.server.port, _messages(task_ids), rate=rate, answer=202)
        self._check(load)
        self._wait_for_effects(len(task_ids))
        with self.database.engine.connect() as connection:
            quick = sa.select(deliveries.c.latency_ms).where(deliveries.c.task_id.not_like(f"{SLOW}%"))
            effects = list(connection.scalars(quick))
        return _Latencies([latency * 1e3 for latency in load.latencies], effects)

    def _prepare(self, count: int, *, slow: bool = False) -> list[str]:
        """New tasks, in their order; none of the quick ones begins as the slow ones do."""
        marks = [SLOW if slow and number % _EVERY == _EVERY - 1 else "0000" for number in range(count)]
        task_ids = [mark + task_id[4:] for mark, task_id in zip(marks, new_task_ids(count), strict=True)]
        self.database.fill(task_ids, status="processing")
        return task_ids

    def _check(self, load: Load) -> None:
        if load.failures:
            raise RuntimeError(f"{dict(load.failures)}\n{self.server.log[-4000:]}")

    def _wait_for_effects(self, count: int) -> None:
        """Look seldom: the looks compete with what is measured."""
        deadline = time.monotonic() + _PATIENCE
        while (there := self._count_effects()) != count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{there} effects after {_PATIENCE:g} s, not {count}")
            time.sleep(0.05)

    def _count_effects(self) -> int:
        with self.database.engine.connect() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(contents)) or 0)


def _messages(task_ids: Sequence[str]) -> list[bytes]:
    return [request_bytes("/api/v1/content/callback/", task_id, "none") for task_id in task_ids]


# --- who applies -----------------------------------------------------------------------------------------------


@contextmanager
def _broker(mode: Mode) -> Iterator[str | None]:
    """The URL of a Redis of its own, where one is needed."""
    if mode == "worker":
        yield None
        return
    redis: Any = importlib.import_module("tests.support.redis")
    with redis.RedisServer() as server:
        yield server.url


@contextmanager
def _applying(mode: Mode, environment: dict[str, str], engine: _Engine) -> Iterator[None]:
    """A worker, or a Celery worker, as a process of its own; it is stopped in order at the end."""
    if mode == "worker":
        command = ["flask", "--app", "benchmarks.latency_host:app", "webhook", "worker"]
        command += ["--threads", str(engine.threads), "--batch", str(engine.batch)]
        announced = "The worker runs"
    else:
        command = ["celery", "--app", "benchmarks.latency_host:celery_app", "worker", "--loglevel", "INFO"]
        command += ["--pool", "threads", "--concurrency", str(engine.threads)]
        announced = " ready."
    with running(command, environment, announced=announced):
        yield


def _show(console: Console, title: str, rows: dict[str, _Latencies]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("milliseconds")
    for what in ("answer", "effect"):
        for percent in (50, 95, 99):
            table.add_column(f"{what} p{percent}", justify="right")
    for name, latencies in rows.items():
        cells = [
            f"{percentile(values, percent):.1f}"
            for values in (latencies.responses, latencies.effects)
            for percent in (50, 95, 99)
        ]
        table.add_row(name, *cells)
    console.print(table)


if __name__ == "__main__":
    main()
