"""The process ends before and after each statement, COMMIT and call, on every path; then another one goes on."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path as Folder
from typing import Any

from flask_contenthub_webhook.core.state_machine import Verdict
from tests.migration.cuts import cut_everywhere
from tests.support.host import Host
from tests.support.receiver import Receiver
from tests.support.submission import reconcile

from .crash_world import World
from .databases import database
from .paths import PATHS, Path
from .points import DIED, Points, in_a_child
from .results import PartResult
from .rows import Rows
from .side_by_side import Kept, Share, prove_on_each

__all__ = ["prove"]

_SLICE_SECONDS = 7.0
"""Of each kind of database, in a slice."""
_TRIES = 3
"""Of reaching a point, since threads take their turns as they like."""
_ENOUGH = 10
_HEARD = {Verdict.QUEUED, Verdict.PROCESSED, Verdict.FAILED, Verdict.REPLAYED}


class Enumeration:
    """Ends a process at each point of one path.

    Args:
        world: the applications.
        path: the path.
        kind: of the database.
    """

    def __init__(self, world: World, path: Path, kind: str) -> None:
        self._world, self._path, self._kind = world, path, kind
        self.stories: list[str] = []
        world.keeps_names, world.finds = path.keeps_names, path.finds
        world.books.clear()
        world.observer.publisher.broken = False
        self._known = path.prepare(self._world_of_observer())
        self._books = world.books.text
        self._rows = Rows(world.observer.engine, world.observer.db.metadata)
        self.points = self._see()

    def _world_of_observer(self) -> World:
        self._world.prepare(self._world.observer)
        return self._world

    def run(self, points: Sequence[str]) -> int:
        """End a process at each of these; return how many did end there."""
        ended = sum(self._cut(point) for point in points)
        self._rows.empty()
        return ended

    def _see(self) -> list[str]:
        """Return the points of a process that nobody ends."""
        self._begin()
        status, seen = in_a_child(lambda: self._act(Points(first_only=self._path.first_only)))
        if status:
            self.stories.append(f"{self._title}: the process that nobody ended ended with {status}")
            return []
        self._check_act()
        self._judge("nowhere")
        return list(seen)

    def _check_act(self) -> None:
        """See that the process did what it was to do, before anybody else can make up for it."""
        rows = [row for task in self._world.observer.tasks() for row in self._world.observer.deliveries(task.task_id)]
        if missing := Counter(self._path.leaves) - Counter(row.event for row in rows if row.verdict in _HEARD):
            self.stories.append(f"{self._title}: the process that nobody ended left no row of {', '.join(missing)}")

    def _cut(self, point: str) -> bool:
        status = 0
        for _ in range(_TRIES):
            self._begin()
            status, _seen = in_a_child(lambda: self._act(Points(point, first_only=self._path.first_only)))
            if status == DIED:
                self._judge(point)
                return True
        self.stories.append(f"{self._title}: the process never came to {point}, and ended with {status}")
        return False

    def _begin(self) -> None:
        self._rows.put_back()
        self._world.books.text = self._books
        self._world.received = len(self._world.receiver.requests)

    def _act(self, points: Points) -> list[str]:
        host = self._world.prepare(self._victim, processing=self._path.processing)
        points.watch(host)
        self._path.act(host, self._known)
        return points.seen

    @property
    def _victim(self) -> Host:
        return self._world.celery_victim if self._path.by_celery else self._world.victim

    def _inherit(self) -> list[str]:
        """Do what the next process does, and the caller who got no answer."""
        host = self._world.prepare(self._world.heir)
        if self._path.away:
            host.clock.advance(self._path.away)
            reconcile(host)  # the poller may come before the sweep
        wrong: list[str] = []
        if self._path.again is not None:
            wrong += self._again(host)
        return wrong + self._world.go_on(host)

    def _again(self, host: Host) -> list[str]:
        assert self._path.again is not None
        said: Any = self._path.again(host, self._known)
        return said if isinstance(said, list) else []

    def _judge(self, point: str) -> None:
        status, said = in_a_child(self._inherit)
        wrong = list(said or ())
        if status:
            wrong.append(f"the next process ended with {status}")
        wrong += self._world.broken(has_history=self._path.has_history)
        ends = {task.status for task in self._world.observer.tasks()}
        if not ends or not ends <= self._path.ends:
            wrong.append(f"the tasks are {sorted(ends)}, and may be {sorted(self._path.ends)}")
        if wrong:
            self.stories.append("\n".join([f"{self._title}, ended {point}:", *self._lines(), *_broken(wrong)]))

    def _lines(self) -> Iterator[str]:
        for line in self._world.lines():
            yield f"  {line}"

    @property
    def _title(self) -> str:
        return f"{self._path.name}, on {self._kind}"


def _broken(wrong: Sequence[str]) -> Iterator[str]:
    for line in wrong:
        yield f"  BROKEN: {line}"


def prove(*, whole: bool, databases: Sequence[str], say: Callable[[str], None]) -> PartResult:
    """End a process at every point of every path, on every kind of database; in a slice, at some of them."""
    return prove_on_each("crash points", end_everywhere, databases, whole=whole, say=say)


def end_everywhere(kind: str, share: Share | None) -> Kept:
    """End a process at the points on one kind of database: of a share of the paths, or at some of each path."""
    kept, started = Kept(), time.monotonic()
    with ExitStack() as stack:
        folder = Folder(stack.enter_context(tempfile.TemporaryDirectory(prefix="proof-")))
        receiver = stack.enter_context(Receiver())
        world = World(stack.enter_context(database(kind)), folder, receiver)
        stack.callback(world.close)
        for number, path in enumerate(PATHS if share is None else share.of(PATHS)):
            one = Enumeration(world, path, kind)
            chosen = _spread(one.points, number) if share is None else one.points
            ended = one.run(chosen)
            kept.counts += Counter({"paths": 1, "points seen": len(one.points), "cases": ended})
            if ended != len(chosen):
                kept.stories.append(f"{path.name}, on {kind}: of {len(chosen)} points, {ended} were ended at")
            kept.stories += one.stories
            is_late = share is None and time.monotonic() - started > _SLICE_SECONDS
            if is_late or len(kept.stories) >= _ENOUGH:
                break
    figures = ", ".join(f"{count:,} {name}" for name, count in kept.counts.items())
    kept.lines.append(f"{kind}: {figures}, {len(kept.stories)} stories, {time.monotonic() - started:.0f} s")
    for journey in share.of(("old", "old-down")) if share is not None else ():
        _cut_migration(kind, kept, journey)
    return kept


def _spread(points: Sequence[str], number: int) -> Sequence[str]:
    """Return a few of the points, other ones of each path."""
    return points[number % 7 :: max(1, len(points) // 3)]


def _cut_migration(kind: str, kept: Kept, journey: str) -> None:
    """End a migration at every point, from a table of an earlier version."""
    started = time.monotonic()
    with database(kind) as url:
        outcome = cut_everywhere(url, journey, most=sys.maxsize)
    kept.stories += [f"migration {journey}, on {kind}, ended at {wrong}" for wrong in outcome.wrong]
    kept.counts += Counter({"paths": 1, "points seen": outcome.points, "cases": outcome.cuts})
    kept.lines.append(f"{kind}, migration {journey}: {outcome.cuts} points, {time.monotonic() - started:.0f} s")
