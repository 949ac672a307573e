"""The server of the application: gunicorn with two worker processes, on a database with all migrations."""

from __future__ import annotations

import http.client
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Self

import flask_migrate
from flask import Flask

from example_app.database import database_uri

WORKERS = 2
HEALTH = "/api/v1/content/health"
CONFIG = Path(__file__).with_name("gunicorn_conf.py")
PROJECT = Path(__file__).resolve().parents[1]
START_TIMEOUT = 60
STOP_TIMEOUT = 10
QUIETLY = ("--log-level", "warning")


class SetupError(Exception):
    """The application cannot be started; the message says why and what to do."""


def check_dependencies(*modules: str) -> None:
    """Check that everything we need is installed, including the database driver.

    Raises:
        SetupError: something is missing; the message says how to install it.
    """
    scheme = database_uri(os.environ).partition("://")[0]
    modules += tuple(driver for driver in ("psycopg", "pymysql") if scheme.endswith(f"+{driver}"))
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise SetupError(
            f"Not installed: {', '.join(missing)}. Run `make demo` or `make serve`, which install what is needed, "
            "or: pip install -e '.[demo]'"
        )


def migrate_database(app: Flask) -> None:
    """Run `flask db upgrade`."""
    with app.app_context():
        flask_migrate.upgrade()


def listen(port: int) -> socket.socket:
    """Return a listening socket on the loopback address; port 0 takes a free port.

    Raises:
        SetupError: the port is taken.
    """
    try:
        return socket.create_server(("127.0.0.1", port), backlog=2048)
    except (OSError, OverflowError) as error:
        raise SetupError(
            f"Port {port} of 127.0.0.1 cannot be used: {error}. Choose another: make serve PORT=8001"
        ) from error


def gunicorn_command(listener: socket.socket, *options: str) -> list[str]:
    """Return the command line of a gunicorn that inherits the listening socket."""
    return [
        *(sys.executable, "-m", "gunicorn", "--config", str(CONFIG), "--bind", f"fd://{listener.fileno()}"),
        *("--workers", str(WORKERS), *options, "example_app:create_app()"),
    ]


class Server:
    """A gunicorn that stops at the end of the `with` block, and also if this process is killed.

    Args:
        log: the file for the output of gunicorn and the application; by default it goes to the terminal.
        port: the port to listen on; 0 takes a free one.
        options: further options of gunicorn.
    """

    def __init__(self, log: Path | None = None, *, port: int = 0, options: Sequence[str] = QUIETLY) -> None:
        self._log = log
        self._port = port
        self._options = options
        self.url = ""

    def __enter__(self) -> Self:
        with listen(self._port) as listener, ExitStack() as stack:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._process = subprocess.Popen(
                gunicorn_command(listener, "--graceful-timeout", "5", *self._options),
                cwd=PROJECT,
                env={**os.environ, "END_WITH_PARENT": "1"},
                stdin=subprocess.PIPE,
                stdout=None if self._log is None else stack.enter_context(self._log.open("wb")),
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C reaches only us; we stop gunicorn in order
            )
        try:
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return "" if self._log is None else self._log.read_text(errors="replace")

    def wait(self) -> int:
        """Wait until gunicorn ends, and return its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """Stop gunicorn, which stops its workers."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_healthy():
            if self._process.poll() is not None:
                raise SetupError(f"The server ended while it started. Its log:\n{self.log}")
            if time.monotonic() > deadline:
                raise SetupError(f"The server was not ready within {START_TIMEOUT} s. Its log:\n{self.log}")
            time.sleep(0.05)

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=START_TIMEOUT)
        try:
            connection.request("GET", HEALTH)
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
