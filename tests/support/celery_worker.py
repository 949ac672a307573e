"""A real Celery worker, as a subprocess with real children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from .celery_host import CELERY_APP
from .processes import PROJECT_ROOT, Guard, ServerError, Service, clean_environment, wait_until

Pool = Literal["prefork", "threads", "solo"]


class CeleryWorker(Service):
    """A worker of `celery_host`, started with `start()` or as a context manager.

    Args:
        env: More environment variables; DATABASE_URL and TEST_HOST_BROKER are needed.
        pool: Celery's kind of workers.
        concurrency: How many of them.
        app: Where the Celery application is.
    """

    def __init__(
        self, env: Mapping[str, str], *, pool: Pool = "prefork", concurrency: int = 2, app: str = CELERY_APP
    ) -> None:
        self._env = dict(env)
        self._command = [
            *(sys.executable, "-m", "celery", "--app", app, "worker", "--loglevel", "INFO"),
            *("--pool", pool, "--concurrency", str(concurrency)),
            *("--hostname", f"{uuid.uuid4().hex}@%h"),  # RabbitMQ takes no two of one name
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        self._directory = tempfile.TemporaryDirectory(prefix="celery-")
        self.log_path = Path(self._directory.name) / "celery.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @property
    def log(self) -> str:
        """All that the worker has printed, since it was first started."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start, and return when it takes messages."""
        been_ready = self.log.count(" ready.")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=PROJECT_ROOT,
                env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), PYTHONUNBUFFERED="1") | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = Guard(self._process.pid, signal.SIGKILL)  # its children see the end of their pipes
        try:
            wait_until(
                lambda: self._is_ready(been_ready), timeout=60, what="Celery did not start", log=lambda: self.log
            )
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, timeout: float = 30) -> int:
        """Ask it to end once its work in hand is done; its exit code, -9 where it had to be killed."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL
        self._forget()
        return code

    def kill(self) -> None:
        """Kill it and its children at once, as a crash of the machine would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._forget()

    def __exit__(self, *_: object) -> None:
        print(f"--- celery log\n{self.log[-5_000:]}")  # noqa: T201 - captured, shown on failure
        self.close()

    def _forget(self) -> None:
        if self._guard is not None:
            self._guard.release()
        self._process = self._guard = None

    def _is_ready(self, been_ready: int) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"Celery ended while it started. The log:\n{self.log}")
        return self.log.count(" ready.") > been_ready
