"""Child processes that never outlive the test run."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from signal import Signals

PROJECT_ROOT = Path(__file__).resolve().parents[2]
HOST_VARIABLES = (
    "WEBHOOK_",
    "CREATOR_",
    "FLASK_",
    "GUNICORN_",
    "SQLALCHEMY_",
    "DATABASE_URL",
    "SECRET_KEY",
    "PG",
    "PROMETHEUS_",
    "OTEL_",
)


class ServerError(RuntimeError):
    """A server did not do what it was asked to; the message holds its log."""


class Guard:
    """Signals a process when we are gone, even when we were killed without a chance to clean up.

    A shell waits on a pipe whose other end only we hold: the kernel closes it when we die. `release` it before the
    process is waited for, so that its id cannot have passed to somebody else's process.
    """

    def __init__(self, pid: int, sig: Signals) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", 'read -r _; kill -s "$1" "$2"', "guard", sig.name.removeprefix("SIG"), str(pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        self._shell.kill()
        self._shell.communicate()


class Service:
    """A process with a directory of its own for its log and its files."""

    _directory: tempfile.TemporaryDirectory[str]

    def start(self) -> Self:
        raise NotImplementedError

    def stop(self) -> object:
        raise NotImplementedError

    def close(self) -> None:
        """Stop for good and remove every file."""
        try:
            self.stop()
        finally:
            self._remove_files()

    def _remove_files(self) -> None:
        self._directory.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


def clean_environment(**extra: str) -> dict[str, str]:
    """Our environment without what would configure the application, plus `extra`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(HOST_VARIABLES)}
    return inherited | extra


def accepts_connections(port: int) -> bool:
    """True if something listens on this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], object], *, timeout: float, what: str, log: Callable[[], str]) -> None:
    """Look every 10 ms whether `condition` holds; after `timeout` seconds raise `ServerError` with the log."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"{what}: not within {timeout:g} s. The log:\n{log()}")
        time.sleep(0.01)
