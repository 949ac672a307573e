"""What the drills are made of: commands as processes, and figures that are printed and can be asserted."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.processes import PROJECT_ROOT, Guard, clean_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Command:
    """``flask webhook ...`` in the background, until it is ended.

    Args:
        app: as ``flask --app`` takes it.
        env: of the process.
        log_path: where its output goes.
        arguments: after ``flask webhook``.
    """

    def __init__(self, app: str, env: Mapping[str, str], log_path: Path, *arguments: str) -> None:
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                flask(app, *arguments),
                cwd=PROJECT_ROOT,
                env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), PYTHONUNBUFFERED="1") | dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = Guard(self._process.pid, signal.SIGKILL)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until its log has some text."""
        wait_until(lambda: text in self.log, timeout=60, what=f"{text!r} was not said", log=lambda: self.log)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        try:
            return self._process.wait(30)
        finally:
            self._guard.release()
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()


def flask(app: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "flask", "--app", app, "webhook", *arguments]


def run(app: str, env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        flask(app, *arguments),
        cwd=PROJECT_ROOT,
        env=clean_environment(PYTHONPATH=str(PROJECT_ROOT)) | dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,  # only ends what hangs
        check=False,
    )


@contextlib.contextmanager
def running(*arguments: str, app: str, env: Mapping[str, str], directory: Path) -> Iterator[Command]:
    """A command that runs in the block."""
    command = Command(app, env, directory / f"{arguments[0]}.log", *arguments)
    try:
        yield command
    finally:
        command.end()


def say(name: str, value: Any) -> None:
    """Print a figure of a drill, past a redirection of what its parts print."""
    print(f"  {name:<58} {value}", file=sys.__stdout__, flush=True)


def eventually(condition: Callable[[], object], what: str, timeout: float = 60) -> None:
    wait_until(condition, timeout=timeout, what=what, log=lambda: "")


def passed(seconds: float) -> Callable[[], bool]:
    """Return a function that tells whether so many seconds have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end
