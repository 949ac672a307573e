"""Commands run in the process of the test, and as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from tests.support.host import Host
from tests.support.processes import PROJECT_ROOT, clean_environment, wait_until


@pytest.fixture
def host(hosts: Callable[..., Host], database_url: str) -> Host:
    """The default host application, on each kind of database."""
    return hosts(database_url, WEBHOOK_CALLBACK_BASE_URL="https://hub.example")


@pytest.fixture
def sqlite_host(hosts: Callable[..., Host], sqlite_url: str) -> Host:
    return hosts(sqlite_url, WEBHOOK_CALLBACK_BASE_URL="https://hub.example")


def run(app: Flask | Host, *arguments: object, stdin: str | None = None) -> Result:
    """`flask webhook ...` in this process. An error that would be a traceback fails the test."""
    app = app.app if isinstance(app, Host) else app
    result = app.test_cli_runner().invoke(args=["webhook", *map(str, arguments)], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run_json(app: Flask | Host, *arguments: object) -> Any:
    """The document that `--json` prints."""
    return json.loads(run(app, *arguments, "--json").stdout)


class Process:
    """A command as a process of its own.

    Args:
        arguments: behind `python`.
        env: more environment variables; WEBHOOK_* and the like are never inherited.
    """

    def __init__(self, *arguments: str, **env: str) -> None:
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT_ROOT,
            env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), PYTHONUNBUFFERED="1", **env),
            stdin=subprocess.DEVNULL,
            stdout=self._files[0],
            stderr=self._files[1],
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> str:
        return self._read(0)

    @property
    def stderr(self) -> str:
        return self._read(1)

    def wait_for(self, condition: Callable[[], object], what: str, timeout: float = 60) -> None:
        wait_until(condition, timeout=timeout, what=what, log=lambda: f"{self.stdout}\n{self.stderr}")

    def wait(self, timeout: float = 60) -> int:
        return self._process.wait(timeout)

    def terminate(self, timeout: float = 60) -> int:
        """SIGTERM, and the exit code."""
        self._process.terminate()
        return self._process.wait(timeout)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for file in self._files:
            file.close()

    def _read(self, number: int) -> str:
        return os.pread(self._files[number].fileno(), 1_000_000, 0).decode()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """A function that takes the arguments of `Process`; whatever still runs is killed after the test."""
    started: list[Process] = []

    def build(*arguments: str, **env: str) -> Process:
        started.append(Process(*arguments, **env))
        return started[-1]

    yield build
    for process in started:
        print(f"--- {process.pid}\n{process.stdout}\n{process.stderr}")  # noqa: T201 - captured, shown on failure
        process.close()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The file that `host_app` writes what happens to."""
    return tmp_path / "journal"
