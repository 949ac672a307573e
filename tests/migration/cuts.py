"""`flask db upgrade` or `downgrade`, killed at one statement after the other, and begun again.

Each run is a process: a fork of this one, which holds no connection. ``python -m tests.migration.cuts URL
[SHAPE ...] [--down] [--most N]`` prints what differs from a run that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from tests.migration import old_contenthub
from tests.migration.hosts import MigratingHost
from tests.migration.snapshots import rows_of, schema_of

SHAPES = ("empty", "old", "half")
ROWS = 30
_READING = re.compile(r"\s*(SELECT(?!.*setval)|SHOW|PRAGMA|EXPLAIN|SET )", re.IGNORECASE | re.DOTALL)


@dataclass
class Journey:
    """A database before, and the way that it goes.

    Args:
        folder: an empty one.
        url: an empty database, made anew for each run.
        shape: of the database before: without a table, with the old one, or after our first revision.
        down: go back to the host's own revision.
    """

    folder: Path
    url: str
    shape: str
    down: bool = False

    def __post_init__(self) -> None:
        self._run(lambda: self._host(init=True))

    def points(self) -> list[str]:
        """Go without being killed, and return the points at which one could be."""
        journal = self.folder / "journal"
        self._prepare()
        self._run(lambda: self._go(Points(journal=journal)))
        return journal.read_text().splitlines()

    def cut(self, point: int) -> None:
        """Go, be killed there, and go again."""
        self._prepare()
        status = in_a_child(lambda: self._go(Points(kill_at=point)))
        if status != -signal.SIGKILL:
            raise AssertionError(f"the process was not killed, it ended with {status}")
        self._run(self._go)

    def snapshot(self) -> Any:
        """Return all that the database holds now."""
        file = self.folder / "snapshot"

        def look() -> None:
            with sa.create_engine(self.url).connect() as connection:
                file.write_text(json.dumps({"schema": schema_of(connection), "rows": rows_of(connection)}))

        self._run(look)
        return json.loads(file.read_text())

    def _prepare(self) -> None:
        def prepare() -> None:
            empty(self.url)
            host = self._host()
            if self.shape != "empty":
                host.upgrade("0001")
                old_contenthub.fill(host, ROWS)
            if self.down:
                host.upgrade()
            elif self.shape == "half":
                host.upgrade("contenthub0001")

        self._run(prepare)

    def _go(self, points: Points | None = None) -> None:
        host = self._host()
        if points is not None:
            points.watch(host.engine)
        if self.down:
            host.downgrade("base" if self.shape == "empty" else "0001")
        else:
            host.upgrade()

    def _host(self, *, init: bool = False) -> MigratingHost:
        models = None if self.shape == "empty" else old_contenthub.models
        host = MigratingHost(self.folder, self.url, models=models, init=init)
        if init:
            if self.shape != "empty":
                host.write_revision("0001", None, old_contenthub.CREATE, old_contenthub.DROP)
            host.install()
        return host

    def _run(self, work: Callable[[], object]) -> None:
        if status := in_a_child(work):
            raise AssertionError(f"it ended with {status}")


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


def in_a_child(work: Callable[[], object]) -> int:
    """Do it in a fork of this process, and return its exit status, negative for a signal."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)  # our report alone is on the standard output
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


def cut_everywhere(url: str, shape: str, *, down: bool, most: int) -> list[str]:
    """Return what differs after the cuts, at most so many."""
    folder = Path(tempfile.mkdtemp(prefix="cuts-"))
    wrong: list[str] = []
    try:
        journey = Journey(folder, url, shape, down=down)
        points = journey.points()
        wanted = journey.snapshot()
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
    print(f"{shape}{' down' if down else ''}: {len(points)} points, {len(chosen)} cuts, {len(wrong)} wrong", flush=True)  # noqa: T201
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.migration.cuts", description=__doc__)
    parser.add_argument("url", help="of a database that may be emptied")
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help="empty, old or half; default: all three")
    parser.add_argument("--down", action="store_true")
    parser.add_argument("--most", type=int, default=1_000_000, help="cuts of each shape, evenly over the points")
    options = parser.parse_args()
    wrong = [
        each
        for shape in options.shapes or SHAPES
        for each in cut_everywhere(options.url, shape, down=options.down, most=options.most)
    ]
    print(*wrong, sep="\n")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
