"""`flask db upgrade` or `downgrade`, killed at one statement after the other, and begun again.

Each run is a process: a fork of this one, which holds no connection. ``python -m tests.migration.cuts`` makes every
journey on every kind of database, and prints a table, and what differs from a run that nobody killed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tests.migration import old_contenthub
from tests.migration.hosts import MigratingHost
from tests.migration.snapshots import rows_of, schema_of
from tests.support.mariadb import MariaDBServer
from tests.support.postgres import PostgresServer

SHAPES = ("empty", "old", "half", "killed")
JOURNEYS = tuple(f"{shape}{way}" for shape in SHAPES for way in ("", "-down"))
DATABASES = ("sqlite", "postgresql", "mariadb")
ROWS = 30
_READING = re.compile(r"\s*(SELECT(?!.*setval)|SHOW|PRAGMA|EXPLAIN|SET )", re.IGNORECASE | re.DOTALL)


@dataclass
class Journey:
    """A database before, and the way that it goes.

    Args:
        folder: an empty one.
        url: an empty database, made anew for each run.
        shape: of the database before: without a table, with the old one, half-way at our first revision, or in the
            middle of everything, where a first process was killed.
        down: go back to the host's own revision.
    """

    folder: Path
    url: str
    shape: str
    down: bool = False
    _killed_at: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._output = self.folder / "output"
        models = None if self.shape == "empty" else old_contenthub.models
        with redirect_stdout(io.StringIO()):  # "Creating directory ... done"
            self._host = MigratingHost(self.folder, self.url, models=models)  # it connects in the forks alone
        if models is not None:
            self._host.write_revision("0001", None, old_contenthub.CREATE, old_contenthub.DROP)
        self._host.install()

    def learn(self) -> tuple[list[str], Any]:
        """Go without being killed, and return the points at which one could be, and what the database holds then."""
        points = self._points()
        wanted = self.snapshot()
        if self.shape == "killed":
            self._killed_at = len(points) // 2
            points = self._points()
        return points, wanted

    def cut(self, point: int) -> None:
        """Go, be killed there, and go again."""
        self._prepare()
        self._kill(point)
        self._run(self._go)

    def snapshot(self) -> Any:
        """Return all that the database holds now."""
        file = self.folder / "snapshot"

        def look() -> None:
            with sa.create_engine(self.url).connect() as connection:
                file.write_text(json.dumps({"schema": schema_of(connection), "rows": rows_of(connection)}))

        self._run(look)
        return json.loads(file.read_text())

    def _points(self) -> list[str]:
        journal = self.folder / "journal"
        journal.write_text("")
        self._prepare()
        self._run(lambda: self._go(Points(journal=journal)))
        return journal.read_text().splitlines()

    def _kill(self, point: int) -> None:
        status = in_a_child(lambda: self._go(Points(kill_at=point)), self._output)
        if status != -signal.SIGKILL:
            raise AssertionError(f"the process was not killed, it ended with {status}")

    def _prepare(self) -> None:
        def prepare() -> None:
            empty(self.url)
            host = self._host
            if self.shape != "empty":
                host.upgrade("0001")
                old_contenthub.fill(host, ROWS)
            if self.shape == "half":
                host.upgrade("contenthub0001")
            elif self.down:
                host.upgrade()

        self._run(prepare)
        if self._killed_at is not None:
            self._kill(self._killed_at)

    def _go(self, points: Points | None = None) -> None:
        if points is not None:
            points.watch(self._host.engine)
        if self.down:
            self._host.downgrade("base" if self.shape == "empty" else "0001")
        else:
            self._host.upgrade()

    def _run(self, work: Callable[[], object]) -> None:
        if status := in_a_child(work, self._output):
            raise AssertionError(f"it ended with {status}: {self._output.read_text()[-1000:]}")


class Points:
    """Counts what changes the database: before and after each statement, and before each COMMIT.

    Args:
        kill_at: the point at which the process is killed.
        journal: a file for a line about each.
    """

    def __init__(self, *, kill_at: int | None = None, journal: Path | None = None) -> None:
        self._kill_at = kill_at
        self._journal = journal
        self._count = 0

    def watch(self, engine: sa.Engine) -> None:
        """Count from now on."""
        sa.event.listen(engine, "before_cursor_execute", lambda *args: self._at("before", args[2]))
        sa.event.listen(engine, "after_cursor_execute", lambda *args: self._at("after", args[2]))
        sa.event.listen(engine, "commit", lambda *_: self._at("before", "COMMIT"))

    def _at(self, side: str, statement: str) -> None:
        if _READING.match(statement):
            return
        if self._journal is not None:
            with self._journal.open("a") as file:
                file.write(f"{side} {' '.join(statement.split())[:200]}\n")
        if self._count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._count += 1


def in_a_child(work: Callable[[], object], output: Path) -> int:
    """Do it in a fork of this process, and return its exit status, negative for a signal."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            work()
        except BaseException:  # noqa: BLE001 - whatever it is, this is a process of its own
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def empty(url: str) -> None:
    """Make the database as new."""
    made = sa.make_url(url)
    if made.get_backend_name() == "sqlite":
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{made.database}{suffix}").unlink(missing_ok=True)
        return
    engine = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(sa.text(f"SELECT pg_terminate_backend(pid, 10000) {others}"))
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        else:
            connection.execute(sa.text(f"DROP DATABASE {made.database}"))
            connection.execute(sa.text(f"CREATE DATABASE {made.database} CHARACTER SET utf8mb4"))


def differences(wanted: Any, found: Any) -> list[str]:
    """Say what is in the one snapshot and not in the other."""
    said = [f"schema lacks {line}" for line in wanted["schema"] if line not in found["schema"]]
    said += [f"schema has {line}" for line in found["schema"] if line not in wanted["schema"]]
    for table in sorted({*wanted["rows"], *found["rows"]}):
        one, other = wanted["rows"].get(table, []), found["rows"].get(table, [])
        if len(one) != len(other):
            said.append(f"{table} has {len(other)} rows, not {len(one)}")
        for before, after in zip(one, other, strict=False):
            changed = {name: (before.get(name), after.get(name)) for name in {*before, *after}}
            said += [
                f"{table} {before.get('id')}: {name} is {now}, not {was}"
                for name, (was, now) in sorted(changed.items())
                if was != now
            ]
    return said


def spread(count: int, most: int) -> list[int]:
    """Return at most so many of the points, evenly."""
    if count <= most:
        return list(range(count))
    return sorted({(2 * each + 1) * count // (2 * most) for each in range(most)})


@dataclass(frozen=True)
class Outcome:
    """What came of a journey.

    Args:
        journey: its name.
        database: its kind.
        points: at which the process could be killed.
        cuts: at which it was.
        wrong: what differed after a cut.
    """

    journey: str
    database: str
    points: int
    cuts: int
    wrong: list[str]


def cut_everywhere(url: str, name: str, *, most: int) -> Outcome:
    """Make a journey once for each of its points, at most so many, with a cut there."""
    folder = Path(tempfile.mkdtemp(prefix="cuts-"))
    shape, _, way = name.partition("-")
    wrong: list[str] = []
    try:
        journey = Journey(folder, url, shape, down=way == "down")
        points, wanted = journey.learn()
        chosen = spread(len(points), most)
        for point in chosen:
            try:
                journey.cut(point)
                found = differences(wanted, journey.snapshot())
            except AssertionError as error:
                found = [str(error)]
            if found:
                wrong.append("\n    ".join([f"{point} {points[point]}", *found[:10]]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(name, sa.make_url(url).get_backend_name(), len(points), len(chosen), wrong)


@contextmanager
def new_database(kind: str) -> Iterator[str]:
    """The URL of a database on a server of our own."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="cuts-") as folder:
            yield f"sqlite:///{folder}/hub.sqlite3"
        return
    with PostgresServer() if kind == "postgresql" else MariaDBServer() as server:
        yield server.create_database()


def table_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each journey, and a column for each database: points, and how many were wrong."""
    databases = list(dict.fromkeys(each.database for each in outcomes))
    cells = {(each.journey, each.database): f"{each.cuts} of {each.points}, {len(each.wrong)}" for each in outcomes}
    lines = [f"| journey | {' | '.join(databases)} |", "|---" * (1 + len(databases)) + "|"]
    for journey in dict.fromkeys(each.journey for each in outcomes):
        found = [cells.get((journey, database), "") for database in databases]
        lines.append(f"| {journey} | {' | '.join(found)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.migration.cuts", description=__doc__)
    parser.add_argument("journeys", nargs="*", metavar="JOURNEY", help=f"{', '.join(JOURNEYS)}; default: all")
    parser.add_argument("--url", help="of a database that may be emptied; default: one of each kind, on new servers")
    parser.add_argument("--database", choices=DATABASES, action="append", help="only this kind")
    parser.add_argument("--most", type=int, default=1_000_000, help="cuts of each journey, evenly over the points")
    options = parser.parse_args()
    if unknown := set(options.journeys) - set(JOURNEYS):
        parser.error(f"there is no journey {', '.join(sorted(unknown))}")
    outcomes: list[Outcome] = []
    for database in [options.url] if options.url else options.database or DATABASES:
        with nullcontext(options.url) if options.url else new_database(database) as url:
            for name in options.journeys or JOURNEYS:
                began = time.monotonic()
                outcomes.append(cut_everywhere(url, name, most=options.most))
                took = time.monotonic() - began
                print(f"{outcomes[-1].database} {name}: {outcomes[-1].cuts} cuts, {took:.0f} s", file=sys.stderr)  # noqa: T201
                print(*outcomes[-1].wrong, sep="\n", end="", flush=True)  # noqa: T201
    print("Cuts of points, and how many went wrong:", "", *table_of(outcomes), sep="\n")  # noqa: T201
    return 1 if any(each.wrong for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
