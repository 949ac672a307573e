"""`flask webhook worker` as processes, on a database that events are accepted into by the test itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from flask_contenthub_webhook import default_models

from .processes import PROJECT_ROOT, Guard, clean_environment, wait_until
from .raw_http import callback, completed
from .web_database import HostDatabase
from .web_host import Content, db
from .worker_host import create_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_DELIVERIES, _CONTENTS = default_models(db)[1].__table__, Content.__table__
_WAITING = _DELIVERIES.c.next_retry_at.is_not(None)


class Worker:
    """One process.

    Args:
        environment: of the host.
        log_path: where it says what it does.
        arguments: of the command.
    """

    command, runs = "worker", "The worker runs"

    def __init__(self, environment: dict[str, str], log_path: Path, *arguments: str) -> None:
        self._command = [
            *(sys.executable, "-m", "flask", "--app", "tests.support.worker_host", "webhook", self.command),
            *arguments,
        ]
        self._environment, self.log_path = environment, log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start, and return when its threads run."""
        before = self.log.count(self.runs)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=PROJECT_ROOT,
                env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), PYTHONUNBUFFERED="1", **self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = Guard(self._process.pid, signal.SIGKILL)
        runs = lambda: self.log.count(self.runs) > before  # noqa: E731
        try:
            wait_until(runs, timeout=60, what=f"the {self.command} did not start", log=lambda: self.log)
        except BaseException:
            self.end(signal.SIGKILL)
            raise
        return self

    def end(self, number: signal.Signals, timeout: float = 30) -> int:
        """Send a signal, and return the exit code."""
        assert self._process is not None
        assert self._guard is not None
        self._process.send_signal(number)
        try:
            return self._process.wait(timeout)
        finally:
            self._guard.release()
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None


class Site:
    """A database, an application in this process that accepts events into it, and workers.

    Args:
        url: an empty database.
        directory: where logs and the switches of the host may be.
        env: of the workers.
    """

    def __init__(self, url: str, directory: Path, **env: str) -> None:
        self.database = HostDatabase(url).create()
        self.app = create_app(DATABASE_URL=url, TESTING=True)
        self.directory = directory
        self.switch, self.clock_offset = directory / "switch", directory / "offset"
        self.env = {
            "DATABASE_URL": url,
            "WEBHOOK_PROCESSING": "worker",
            "TEST_HOST_SWITCH": str(self.switch),
            "TEST_CLOCK_OFFSET": str(self.clock_offset),
            "TEST_HOST_BUSY_TIMEOUT": "30",
            **env,
        }
        self.workers: list[Worker] = []

    def start(self, count: int = 1, *, threads: int = 2) -> list[Worker]:
        """Start workers."""
        started = [
            Worker(self.env, self.directory / f"worker-{len(self.workers) + number}.log", "--threads", str(threads))
            for number in range(count)
        ]
        self.workers += started
        return [worker.start() for worker in started]

    def post(self, task_id: str, body: bytes) -> int:
        """Send one event; what was acknowledged is in the database."""
        return self.app.test_client().post(callback(task_id), data=body, content_type="application/json").status_code

    def complete(self, task_ids: Iterable[str]) -> list[str]:
        """A result for each of these; those that were acknowledged."""
        return [task_id for task_id in task_ids if self.post(task_id, completed(task_id)) == 202]

    def wait(self, condition: Callable[[], object], what: str, timeout: float = 120) -> None:
        wait_until(condition, timeout=timeout, what=what, log=lambda: "\n".join(w.log[-3000:] for w in self.workers))

    def wait_until_done(self, timeout: float = 120) -> None:
        """Until nothing waits any more."""
        self.wait(lambda: not self.waiting(), "the inbox is not empty", timeout)

    def effects(self) -> int:
        """How many effects there are."""
        return self.database.count("contents")

    def waiting(self, *more: Any) -> int:
        """How many events wait."""
        statement = sa.select(sa.func.count()).select_from(_DELIVERIES).where(_WAITING, *more)
        with self.database.engine.connect() as connection:
            return int(connection.execute(statement).scalar_one())

    def leased(self) -> int:
        """How many of those are in somebody's hands."""
        return self.waiting(_DELIVERIES.c.claimed_until.is_not(None))

    def deliveries(self) -> list[Any]:
        with self.database.engine.connect() as connection:
            return list(connection.execute(sa.select(_DELIVERIES).order_by(_DELIVERIES.c.id)))

    def contents(self) -> list[Any]:
        """Every effect, in order."""
        with self.database.engine.connect() as connection:
            return list(connection.execute(sa.select(_CONTENTS).order_by(_CONTENTS.c.id)))

    def close(self) -> None:
        for worker in self.workers:
            if worker.is_running:
                with contextlib.suppress(ProcessLookupError):
                    worker.end(signal.SIGKILL)
            print(f"--- {worker.log_path.name}\n{worker.log[-10_000:]}")  # noqa: T201 - shown on failure
        with self.app.app_context():
            db.engine.dispose()


@contextlib.contextmanager
def site(url: str, directory: Path, **env: str) -> Iterator[Site]:
    """A `Site` that is closed."""
    made = Site(url, directory, **env)
    try:
        yield made
    finally:
        made.close()


def size(name: str, default: int) -> int:
    """How many, as the environment says."""
    return int(os.environ.get(name, default))
