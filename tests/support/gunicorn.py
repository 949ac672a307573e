"""A real gunicorn, as a subprocess with real workers."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from .processes import PROJECT_ROOT, Guard, ServerError, Service, clean_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CONFIG = Path(__file__).with_name("gunicorn_conf.py")


class Gunicorn(Service):
    """A gunicorn on a free port of 127.0.0.1, started with `start()` or as a context manager.

    Ready means that every worker has loaded the application. The port is bound before gunicorn runs and handed to it,
    so no other process can take it; `stop()` and `start()` again keep the port.

    Args:
        app: What to serve, as gunicorn names it: `"package.module:create_app()"`.
        workers: How many worker processes.
        worker_class: gunicorn's worker class.
        threads: Threads in each worker; more than one makes gunicorn use `gthread`.
        env: More environment variables. WEBHOOK_*, CREATOR_*, DATABASE_URL and the like are never inherited.
        certfile: The server's certificate (PEM); with it the server speaks TLS.
        keyfile: The key of that certificate, where it is not in the same file.
        ca_certs: The authorities of the clients' certificates.
        cert_reqs: Whether clients must show a certificate.
        timeout: Seconds after which gunicorn kills a worker that does not answer.
        options: More command line options.
    """

    def __init__(
        self,
        app: str,
        *,
        workers: int = 2,
        worker_class: str = "sync",
        threads: int = 1,
        env: Mapping[str, str] | None = None,
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        ca_certs: str | os.PathLike[str] | None = None,
        cert_reqs: ssl.VerifyMode = ssl.CERT_NONE,
        timeout: int = 30,
        options: Sequence[str] = (),
    ) -> None:
        self.workers = workers
        self._scheme = "http" if certfile is None else "https"
        self._env = dict(env or {})
        self._command = [
            *(sys.executable, "-m", "gunicorn", "--config", str(_CONFIG)),
            *("--workers", str(workers), "--worker-class", worker_class, "--threads", str(threads)),
            *("--timeout", str(timeout), "--graceful-timeout", "10", "--log-level", "info"),
        ]
        for option, value in (("--certfile", certfile), ("--keyfile", keyfile), ("--ca-certs", ca_certs)):
            if value is not None:
                self._command += [option, os.fspath(value)]
        if cert_reqs is not ssl.CERT_NONE:
            self._command += ["--cert-reqs", str(int(cert_reqs))]
        self._command += [*options, app]
        self._directory = tempfile.TemporaryDirectory(prefix="gunicorn-")
        self.directory = Path(self._directory.name)
        self.log_path = self.directory / "gunicorn.log"
        self._workers_path = self.directory / "workers"
        self._workers_path.mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        """Scheme, address and port, without a slash at the end."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def master_pid(self) -> int:
        if self._process is None:
            raise ServerError("gunicorn is not running")
        return self._process.pid

    @property
    def log(self) -> str:
        """All that gunicorn and its workers have printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def worker_pids(self) -> list[int]:
        """The workers that have loaded the application and have not ended."""
        return sorted(int(path.name) for path in self._workers_path.iterdir())

    def kill_worker(self, pid: int | None = None, sig: signal.Signals = signal.SIGKILL) -> int:
        """Kill one worker, and return its id when gunicorn has seen its end; `wait_until_ready` for the next one."""
        victim = self.worker_pids()[0] if pid is None else pid
        os.kill(victim, sig)
        self._wait(lambda: victim not in self.worker_pids(), f"worker {victim} did not end")
        return victim

    def wait_until_ready(self) -> None:
        """Return when all workers are there."""
        self._wait(lambda: len(self.worker_pids()) >= self.workers, f"gunicorn has not got its {self.workers} workers")

    def start(self) -> Self:
        """Start, and return when all workers are ready. Raises `ServerError` with the log where they are not."""
        if self._process is not None:
            return self
        environment = clean_environment(
            PYTHONPATH=str(PROJECT_ROOT),
            PYTHONUNBUFFERED="1",
            TEST_GUNICORN_WORKERS=str(self._workers_path),
        )
        with socket.create_server(("127.0.0.1", self.port), backlog=2048) as listener, self.log_path.open("ab") as log:
            self.port = listener.getsockname()[1]
            self._process = subprocess.Popen(
                [*self._command, "--bind", f"fd://{listener.fileno()}"],
                cwd=PROJECT_ROOT,
                env=environment | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C must reach us alone: we stop gunicorn in order
            )
        self._guard = Guard(self._process.pid, signal.SIGTERM)
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, timeout: float = 15) -> None:
        """Ask gunicorn to end; after `timeout` seconds kill it and its workers."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        finally:
            if self._guard is not None:
                self._guard.release()
            self._process = self._guard = None
            for path in self._workers_path.iterdir():
                path.unlink()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            if self._process is None or self._process.poll() is not None:
                raise ServerError(f"{what}: gunicorn has ended. The log:\n{self.log}")
            return condition()

        wait_until(holds, timeout=60, what=what, log=lambda: self.log)
