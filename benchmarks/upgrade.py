"""`flask db upgrade` on a table in use: ``python -m benchmarks.upgrade --database postgresql --rows 1000000``.

The old application writes and reads, takes callbacks and polls, while its table is upgraded and while it is replaced by
the new code. Each step is shown with its lock, its duration and the longest waits meanwhile. The exit code is 1 if a
writer waited for a second, a reader for 0.3, or anything failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tests.support.live_hub.project import LiveHub
from tests.support.mariadb import MariaDBServer
from tests.support.postgres import PostgresServer
from tests.support.processes import PROJECT_ROOT

from .live_load import Load
from .live_table import fill
from .upgrade_steps import READERS, WRITERS, Step, read_steps, table_of

__all__ = ["Outcome", "measure", "open_database"]

TABLE = "content_generation_tasks"
LONGEST_WRITER, LONGEST_READER = 1.0, 0.3
_POSTGRESQL = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
_MARIADB = {"innodb-buffer-pool-size": "512M", "innodb-log-file-size": "1G", "log-bin": "binlog"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one upgrade did.

    Args:
        status: the exit code of the upgrade.
        output: what it printed.
        seconds: how long it took.
        steps: its statements.
        load: the application meanwhile.
        log_bytes: of the database's log.
    """

    status: int
    output: str
    seconds: float
    steps: list[Step]
    load: Load
    log_bytes: int

    @property
    def failures(self) -> list[str]:
        """Everything that an operator would not want."""
        writer, reader = self.load.longest(*WRITERS), self.load.longest(*READERS)
        failures = [f"the upgrade ended with {self.status}:\n{self.output}"] if self.status else []
        for what, count in list(self.load.errors.items())[:20]:
            meanwhile = ", ".join(f"`{step.statement[:60]}`" for step in self.steps if what in step.errors)
            failures.append(f"{count} times {what}; meanwhile: {meanwhile or 'nothing'}")
        if writer.seconds >= LONGEST_WRITER:
            failures.append(f"a writer waited {writer.seconds:.2f} s ({writer.name})")
        if reader.seconds >= LONGEST_READER:
            failures.append(f"a reader waited {reader.seconds:.2f} s ({reader.name})")
        return failures


def measure(url: str, folder: Path, *, rows: int, package: Path = PROJECT_ROOT, forgotten: float = 0) -> Outcome:
    """Upgrade one database.

    Args:
        url: an empty database.
        folder: an empty folder.
        rows: of the old table.
        package: a checkout whose revisions and new code are used.
        forgotten: seconds for which another session keeps a transaction open that has read a row.
    """
    hub = LiveHub(folder, url, package=package)
    hub.make_old_tables()
    engine = sa.create_engine(url)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        fill(engine, rows)
        hub.flask("webhook", "migrations", "install")
        before = stack.enter_context(hub.serve("old_application"))
        load = Load(url, rows, before.port)
        with load:
            _pass(2)
            log_bytes = _log_bytes(engine)
            with (folder / "output").open("wb") as output, _forgotten(engine, forgotten):
                started = time.monotonic()
                upgrade = hub.start_upgrade(output)
                stack.callback(_end, upgrade)
                if forgotten:
                    _pass(forgotten)
            status = upgrade.wait()
            seconds = time.monotonic() - started
            log_bytes = _log_bytes(engine) - log_bytes
            if not status:
                after = stack.enter_context(hub.serve("new_application"))
                load.move(after.port)
                before.stop()
                _pass(3)
        if not status:
            _check(engine, load)
    steps = read_steps(hub.statements, engine.dialect.name, load.waits, TABLE)
    return Outcome(status, (folder / "output").read_text(errors="replace"), seconds, steps, load, log_bytes)


@contextmanager
def open_database(kind: str, directory: Path, *, durable: bool) -> Iterator[str]:
    """The URL of a new database on a server of our own; where it is durable, it writes through to the disk."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'hub.sqlite3'}"
        return
    is_postgresql = kind == "postgresql"
    server: PostgresServer | MariaDBServer = (
        PostgresServer(durable=durable, settings=_POSTGRESQL)
        if is_postgresql
        else MariaDBServer(durable=durable, settings=_MARIADB)
    )
    with server:
        yield server.create_database()


def main() -> int:
    """Parse the options, run, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upgrade", description=__doc__)
    parser.add_argument("--database", choices=("postgresql", "mariadb", "sqlite"), default="postgresql")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the old table (default: %(default)s)")
    parser.add_argument("--forgotten", type=float, default=0, metavar="SECONDS", help="for which a transaction is open")
    parser.add_argument("--durable", action="store_true", help="wait for the disk")
    parser.add_argument("--base", metavar="COMMIT", help="run the revisions of this commit instead")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upgrade-")))
        package = stack.enter_context(_checkout(options.base, directory)) if options.base else PROJECT_ROOT
        url = stack.enter_context(open_database(options.database, directory, durable=options.durable))
        folder = directory / "hub"
        folder.mkdir()
        outcome = measure(url, folder, rows=options.rows, package=package, forgotten=options.forgotten)
    _show(options, outcome)
    return 1 if outcome.failures else 0


def _show(options: argparse.Namespace, outcome: Outcome) -> None:
    print(f"\n{options.database}, {options.rows:,} rows" + (f", revisions of {options.base}" if options.base else ""))
    print(*table_of(outcome.steps), sep="\n")
    load = outcome.load
    print(f"\n{outcome.seconds:.1f} s; {outcome.log_bytes / 2**20:,.0f} MiB of log")
    for kind in (*WRITERS, *READERS):
        longest = load.longest(kind)
        count = sum(wait.kind == kind for wait in load.waits)
        print(f"{kind}: {count:,}, the longest {longest.seconds:.3f} s ({longest.name})")
    print(*(outcome.failures or ["nobody waited for long, nothing failed"]), sep="\n")


def _check(engine: sa.Engine, load: Load) -> None:
    """Each callback that was answered with 200 has completed its task, whatever code took it."""
    with engine.connect() as connection:
        completed = sa.text(f"SELECT task_id FROM {TABLE} WHERE status = 'completed' AND completed_at IS NOT NULL")
        ended = sa.text(f"SELECT task_id FROM {TABLE} WHERE status = 'completed' AND finished_at > '2025-12-31'")
        found = {*connection.scalars(completed), *connection.scalars(ended)}
    if lost := set(load.completed) - found:
        raise RuntimeError(f"{len(lost)} callbacks had no effect, the first {min(lost)}")


@contextmanager
def _forgotten(engine: sa.Engine, seconds: float) -> Iterator[None]:
    if not seconds:
        yield
        return
    with engine.connect() as connection:
        connection.execute(sa.text(f"SELECT id FROM {TABLE} WHERE id = 1"))
        yield


@contextmanager
def _checkout(commit: str, directory: Path) -> Iterator[Path]:
    tree = directory / "base"
    git = ["git", "-C", str(PROJECT_ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", "--quiet", str(tree), commit], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _log_bytes(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        match connection.dialect.name:
            case "postgresql":
                return int(connection.scalar(sa.text("SELECT pg_current_wal_lsn() - '0/0'")) or 0)
            case "mysql":
                is_logged = connection.scalar(sa.text("SELECT @@log_bin"))
                rows = connection.execute(sa.text("SHOW BINARY LOGS")).all() if is_logged else []
                return sum(int(row[1]) for row in rows)
    return 0


def _pass(seconds: float) -> None:
    """Let the application run meanwhile."""
    time.sleep(seconds)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
