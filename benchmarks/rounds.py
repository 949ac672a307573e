"""Measuring: every contestant in turn, round after round, against gunicorns that all run from beginning to end."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.gunicorn import Gunicorn

from .callbacks import Signing, new_task_ids, request_bytes
from .databases import Database
from .load import generate

__all__ = ["BY_HAND", "CONTESTANTS", "Contestant", "Figures", "Ratio", "run_rounds"]

_CALLBACK = "/api/v1/content/callback/"
_WARM_UP = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to take callbacks.

    Args:
        name: for the table.
        factory: the application in :mod:`.hosts`, with ``{url}`` for the database's URL.
        path: where the callbacks go, up to the task id.
        signing: how they are signed.
        status: the state of the tasks before.
        effects: whether each callback must have its effect.
        history: the verdict of the delivery that each must leave.
        floors: the names of the contestants that it is compared with.
    """

    name: str
    factory: str
    path: str = _CALLBACK
    signing: Signing = "none"
    status: str = "processing"
    effects: bool = True
    history: str | None = "processed"
    floors: tuple[str, ...] = ()

    @property
    def is_extension(self) -> bool:
        """False for a floor."""
        return self.factory.startswith("product")

    @property
    def is_duplicate(self) -> bool:
        """True where the tasks are completed already."""
        return self.status == "completed"


BARE, BY_HAND, IN_SESSION = "bare floor", "same writes by hand", "the same in db.session"
SELECT_INSERT = "duplicate by hand"
_FLOORS = (BARE, BY_HAND, IN_SESSION)
CONTESTANTS = (
    Contestant(name=BARE, factory="floors({url!r})", path="/bare/", history=None),
    Contestant(name=BY_HAND, factory="floors({url!r})", path="/by-hand/", floors=(BARE,)),
    Contestant(name=IN_SESSION, factory="session_floor({url!r})", path="/session/", floors=(BARE, BY_HAND)),
    Contestant(name="extension, unsigned", factory="product({url!r})", floors=_FLOORS),
    Contestant(name="extension, url token", factory="product({url!r}, signed=True)", signing="url", floors=_FLOORS),
    Contestant(
        name="extension, contenthub header",
        factory="product({url!r}, signed=True)",
        signing="contenthub",
        floors=_FLOORS,
    ),
    Contestant(name="extension, ORM handler", factory="product({url!r}, handler='orm')", floors=_FLOORS),
    Contestant(
        name=SELECT_INSERT,
        factory="floors({url!r})",
        path="/duplicate/",
        status="completed",
        effects=False,
        history="duplicate",
    ),
    Contestant(
        name="extension, duplicate",
        factory="product({url!r})",
        status="completed",
        effects=False,
        history="duplicate",
        floors=(SELECT_INSERT,),
    ),
)


@dataclass(slots=True)
class Figures:
    """What was measured of one contestant on one database, a value for each round."""

    rates: list[float] = field(default_factory=list)
    """Callbacks per second."""
    cpu: list[float] = field(default_factory=list)
    """Processor seconds that gunicorn's workers took for one callback."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, of all callbacks."""
    generator: list[float] = field(default_factory=list)
    """The share of one processor that the load generator took."""

    def percentile(self, percent: int) -> float:
        """A percentile of the latencies."""
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


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


def run_rounds(
    database: Database,
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    requests: int,
    in_flight: int,
    workers: int,
    progress: Callable[[str], None],
) -> dict[str, Figures]:
    """Measure every contestant once a round.

    The order turns by one place each round, so that nobody always follows the same neighbour.

    Args:
        database: the one database of all.
        contestants: who takes part.
        rounds: how often.
        requests: callbacks in one round of one contestant.
        in_flight: callbacks that are under way at any time.
        workers: of each gunicorn, of the kind sync.
        progress: is told what is going on.
    """
    figures = {contestant.name: Figures() for contestant in contestants}
    with _servers(database, contestants, workers) as servers:
        for contestant in contestants:
            progress(f"warming up: {contestant.name}")
            _leg(database, contestant, servers[contestant.factory], Figures(), count=_WARM_UP, in_flight=in_flight)
        for number in range(rounds):
            turn = number % len(contestants)
            for contestant in (*contestants[turn:], *contestants[:turn]):
                progress(f"round {number + 1} of {rounds}: {contestant.name}")
                _leg(
                    database,
                    contestant,
                    servers[contestant.factory],
                    figures[contestant.name],
                    count=requests,
                    in_flight=in_flight,
                )
    return figures


@contextmanager
def _servers(database: Database, contestants: Sequence[Contestant], workers: int) -> Iterator[dict[str, Gunicorn]]:
    with ExitStack() as stack:
        yield {
            factory: stack.enter_context(
                Gunicorn(f"benchmarks.hosts:{factory.format(url=database.url)}", workers=workers, timeout=120)
            )
            for factory in dict.fromkeys(contestant.factory for contestant in contestants)
        }


def _leg(
    database: Database, contestant: Contestant, server: Gunicorn, into: Figures, *, count: int, in_flight: int
) -> None:
    """One turn of one contestant. It counts only where every request had its one effect."""
    task_ids = new_task_ids(count)
    database.fill(task_ids, status=contestant.status)
    messages = [request_bytes(contestant.path, task_id, contestant.signing) for task_id in task_ids]
    before = _cpu_seconds(server)
    load = generate(server.port, messages, in_flight=in_flight)
    used = _cpu_seconds(server) - before
    if load.failures:
        raise RuntimeError(f"{contestant.name}: {dict(load.failures)}\n{server.log[-4000:]}")
    database.check(task_ids, effects=contestant.effects, history=contestant.history)
    into.rates.append(count / load.seconds)
    into.cpu.append(used / count)
    into.latencies += load.latencies
    into.generator.append(load.cpu_seconds / load.seconds)


def _cpu_seconds(server: Gunicorn) -> float:
    """What the workers have taken so far; NaN where the system does not tell."""
    try:
        ticks = [Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in server.worker_pids()]
    except OSError:
        return float("nan")
    return sum(map(int, ticks)) / 1e9
