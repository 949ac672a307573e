"""The servers that hosts run in, as processes: a name for each, and how it is started."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from .processes import PROJECT_ROOT, Guard, ServerError, Service, accepts_connections, clean_environment, wait_until

_HOST = "tests.support.served_host"
_GUNICORN = ("gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "2", "--no-control-socket")
_UWSGI = (
    *("--http-socket", "127.0.0.1:{port}", "--master", "--processes", "2", "--die-on-term", "--need-app"),
    *("--module", f"{_HOST}:app"),
)
_DEBIANS_UWSGI = "/usr/bin/uwsgi"


@dataclass(frozen=True)
class ServerKind:
    """A server, as its own documentation says to start it.

    Args:
        name: for the reader.
        command: behind ``python -m``, or a program's path; ``{port}`` stands for the port.
        needs: the modules that must be installed.
        program: a path that must exist, instead.
        runs_scheduler: False where the in-process scheduler cannot run, and the log says so.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    program: str = ""
    runs_scheduler: bool = True

    def __str__(self) -> str:
        return self.name

    def skip_if_missing(self) -> None:
        """Skip the test, with a line that says what is missing."""
        missing = [module for module in self.needs if importlib.util.find_spec(module) is None]
        if missing:
            pytest.skip(f"{self.name}: {', '.join(missing)} is not installed")
        if self.program and not Path(self.program).exists():
            pytest.skip(f"{self.name}: there is no {self.program} (apt-get install uwsgi-plugin-python3)")
        if self.program and Path(sys.base_prefix) != Path("/usr") and not _debian_has_this_python():
            pytest.skip(f"{self.name}: Debian's uWSGI has another version of Python than this one")


def _debian_has_this_python() -> bool:
    plugin = Path(f"/usr/lib/uwsgi/plugins/python3{sys.version_info.minor}_plugin.so")
    return plugin.exists()


def _python(*command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *command)


SERVERS = (
    ServerKind("flask run", _python("flask", "--app", f"{_HOST}:app", "run", "--port", "{port}")),
    ServerKind("gunicorn sync", _python(*_GUNICORN, f"{_HOST}:app"), ("gunicorn",)),
    ServerKind("gunicorn gthread", _python(*_GUNICORN, "--threads", "4", f"{_HOST}:app"), ("gunicorn",)),
    ServerKind("gunicorn gevent", _python(*_GUNICORN, "-k", "gevent", f"{_HOST}:app"), ("gunicorn", "gevent")),
    ServerKind(
        "gunicorn with uvicorn's worker",
        _python(*_GUNICORN, "-k", "uvicorn_worker.UvicornWorker", f"{_HOST}:asgi"),
        ("gunicorn", "uvicorn_worker"),
    ),
    ServerKind(
        "uvicorn --interface wsgi",
        _python("uvicorn", "--interface", "wsgi", "--port", "{port}", f"{_HOST}:app"),
        ("uvicorn",),
    ),
    ServerKind("uvicorn, asgiref", _python("uvicorn", "--port", "{port}", f"{_HOST}:asgi"), ("uvicorn", "asgiref")),
    ServerKind(
        "uvicorn, a2wsgi", _python("uvicorn", "--port", "{port}", f"{_HOST}:asgi_of_a2wsgi"), ("uvicorn", "a2wsgi")
    ),
    ServerKind("hypercorn", _python("hypercorn", "--bind", "127.0.0.1:{port}", f"{_HOST}:app"), ("hypercorn",)),
    ServerKind("waitress", _python("waitress", "--listen", "127.0.0.1:{port}", f"{_HOST}:app"), ("waitress",)),
    ServerKind("uWSGI", (str(Path(sysconfig.get_path("scripts")) / "uwsgi"), *_UWSGI), ("pyuwsgi",)),
    ServerKind(
        "uWSGI without threads",
        (_DEBIANS_UWSGI, "--plugin", f"python3{sys.version_info.minor}", *_UWSGI),
        program=_DEBIANS_UWSGI,
        runs_scheduler=False,
    ),
)


class Served(Service):
    """A server with `served_host` in it, on a free port of 127.0.0.1; ready when it answers.

    Args:
        kind: which server.
        env: more environment variables.
    """

    def __init__(self, kind: ServerKind, env: Mapping[str, str]) -> None:
        kind.skip_if_missing()
        self._kind, self._env = kind, dict(env)
        self._directory = tempfile.TemporaryDirectory(prefix="served-")
        self._log = Path(self._directory.name) / "log"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> Self:
        packages = sysconfig.get_path("purelib")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [part.format(port=self.port) for part in self._kind.command],
                cwd=PROJECT_ROOT,
                env=clean_environment(PYTHONPATH=f"{PROJECT_ROOT}:{packages}", PYTHONUNBUFFERED="1", **self._env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = Guard(self._process.pid, signal.SIGTERM)
        try:
            self.wait_for(lambda: accepts_connections(self.port), "an answer")
        except BaseException:
            self.stop()
            raise
        return self

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        def holds() -> object:
            if self._process is None or self._process.poll() is not None:
                raise ServerError(f"{self._kind} has ended. The log:\n{self.log}")
            return condition()

        wait_until(holds, timeout=60, what=what, log=lambda: self.log)

    def terminate(self, timeout: float = 60) -> int:
        """SIGTERM, and the exit code; the deadline only ends what hangs."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout)

    def stop(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._guard.release()
        self._process = None
