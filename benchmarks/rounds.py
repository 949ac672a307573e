"""Measuring: every contestant in turn, round after round, against gunicorns that all run from beginning to end."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.support.gunicorn import Gunicorn

from .callbacks import new_task_ids, request_bytes
from .contestants import Contestant
from .databases import Database
from .load import Load, LoadGenerator

__all__ = ["SERVINGS", "Figures", "Ratio", "Serving", "cpu_seconds", "percentile", "run_rounds", "serve"]

_WARM_UP = 100
_SLICE = 50
"""Callbacks in one turn; a multiple of this makes a round."""


class Serving(NamedTuple):
    """A way to run gunicorn."""

    name: str
    workers: int
    threads: int

    @property
    def worker_class(self) -> str:
        """As gunicorn names it."""
        return "sync" if self.threads == 1 else "gthread"


SERVINGS = (Serving("2 sync workers", 2, 1), Serving("gthread, 2 workers of 4 threads", 2, 4))


@dataclass(slots=True)
class Figures:
    """What was measured of one contestant on one database, a value for each round."""

    rates: list[float] = field(default_factory=list)
    """Callbacks per second."""
    cpu: list[float] = field(default_factory=list)
    """Processor seconds that gunicorn's workers took for one callback."""
    p50: list[float] = field(default_factory=list)
    """Seconds."""
    p99: list[float] = field(default_factory=list)
    """Seconds."""
    generator: list[float] = field(default_factory=list)
    """The share of one processor that the load generator took."""

    def add(self, turns: _Turns) -> None:
        """A round."""
        count = len(turns.latencies)
        self.rates.append(count / turns.seconds)
        self.cpu.append(turns.cpu / count)
        self.p50.append(percentile(turns.latencies, 50))
        self.p99.append(percentile(turns.latencies, 99))
        self.generator.append(turns.generator / turns.seconds)


@dataclass(slots=True)
class _Turns:
    """The turns of one contestant in one round; seconds."""

    seconds: float = 0.0
    cpu: float = 0.0
    generator: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def add(self, load: Load, cpu: float) -> None:
        self.seconds += load.seconds
        self.cpu += cpu
        self.generator += load.cpu_seconds
        self.latencies += load.latencies


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two contestants compared round by round."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        """The ratios of values that were measured in the same rounds."""
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        return cls(statistics.median(ratios), ratios[0], ratios[-1])

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def run_rounds(
    database: Database,
    contestants: Sequence[Contestant],
    serving: Serving,
    *,
    rounds: int,
    requests: int,
    in_flight: int,
    progress: Callable[[str], None],
) -> dict[str, Figures]:
    """Measure every contestant in every round, in many short turns.

    What else a machine does comes and goes within seconds. So a round is cut into slices of a fraction of a second, in
    each of which everybody has a turn, and contestants are compared within a round. The order turns by one place each
    slice, and is reversed in every second one: nobody always follows the same neighbour.

    Args:
        database: the one database of all.
        contestants: who takes part.
        serving: how.
        rounds: how often.
        requests: callbacks in one round of one contestant.
        in_flight: callbacks that are under way at any time.
        progress: is told what is going on.
    """
    figures = {contestant.name: Figures() for contestant in contestants}
    groups = [
        [one for one in contestants if one.kind == kind] for kind in dict.fromkeys(one.kind for one in contestants)
    ]
    with LoadGenerator() as generator, _servers(database, contestants, serving) as servers:
        progress("warming up")
        for group in groups:
            _round(database, group, servers, generator, requests=_WARM_UP, in_flight=in_flight)
        for number in range(rounds):
            for group in groups:
                progress(f"round {number + 1} of {rounds}: {group[0].kind}")
                measured = _round(database, group, servers, generator, requests=requests, in_flight=in_flight)
                for contestant, one in zip(group, measured, strict=True):
                    figures[contestant.name].add(one)
    return figures


def _round(
    database: Database,
    group: Sequence[Contestant],
    servers: Mapping[str, Gunicorn],
    generator: LoadGenerator,
    *,
    requests: int,
    in_flight: int,
) -> list[_Turns]:
    """One round of contestants of one kind; it counts only where every request had its one effect."""
    task_ids = [new_task_ids(requests) for _ in group]
    database.fill([task_id for ids in task_ids for task_id in ids], status=group[0].status_before)
    turns = [_Turns() for _ in group]
    for number, first in enumerate(range(0, requests, _SLICE)):
        for place in _order(len(group), number):
            contestant, server = group[place], servers[group[place].name]
            ids = task_ids[place][first : first + _SLICE]
            messages = [request_bytes(contestant.path, task_id, contestant.signing) for task_id in ids]
            before = cpu_seconds(server.worker_pids())
            load = generator.play(server.port, messages, in_flight=in_flight, answer=contestant.answer)
            if load.failures:
                raise RuntimeError(f"{contestant.name}: {dict(load.failures)}\n{server.log[-4000:]}")
            turns[place].add(load, cpu_seconds(server.worker_pids()) - before)
    _check(database, group, task_ids)
    return turns


def _check(database: Database, group: Sequence[Contestant], task_ids: Sequence[Sequence[str]]) -> None:
    everybody = list(zip(group, task_ids, strict=True))
    database.check(
        {group[0].status_after: [task_id for _, ids in everybody for task_id in ids]},
        effects=[task_id for one, ids in everybody if one.has_effects for task_id in ids],
        history=[(task_id, one.verdict) for one, ids in everybody if one.verdict is not None for task_id in ids],
    )


def _order(count: int, number: int) -> list[int]:
    turned = [(place + number) % count for place in range(count)]
    return turned[::-1] if number % 2 else turned


@contextmanager
def _servers(database: Database, contestants: Sequence[Contestant], serving: Serving) -> Iterator[dict[str, Gunicorn]]:
    """One for each: whoever shared one would find it warmer than the others do theirs."""
    with ExitStack() as stack:
        yield {
            contestant.name: stack.enter_context(serve(contestant.factory, database, serving))
            for contestant in contestants
        }


def serve(factory: str, database: Database, serving: Serving) -> Gunicorn:
    """A gunicorn for one of the applications, not started yet."""
    return Gunicorn(
        f"benchmarks.hosts:{factory.format(url=database.url)}",
        workers=serving.workers,
        worker_class=serving.worker_class,
        threads=serving.threads,
        timeout=120,
        options=("--preload",),  # nothing is connected before the fork, and it starts in half the time
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile of measured values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def cpu_seconds(pids: Sequence[int]) -> float:
    """What processes have taken so far, with all their threads; NaN where the system does not tell."""
    try:
        threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
        nanoseconds = [int((thread / "schedstat").read_text().split()[0]) for thread in threads]
    except OSError:
        return float("nan")
    return sum(nanoseconds) / 1e9
