"""A command in a pseudo-terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from types import TracebackType
from typing import Self

from tests.support.processes import PROJECT_ROOT, clean_environment, wait_until

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Run a command in a pseudo-terminal, and keep what it writes there.

    Args:
        command: the program and its arguments.
        columns: the width of the terminal.
        env: more environment variables.
    """

    def __init__(self, command: list[str], columns: int = 80, **env: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = clean_environment(PYTHONPATH=str(PROJECT_ROOT), TERM="xterm-256color", **env)
        environment.pop("COLUMNS", None)
        self._process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def text(self) -> str:
        """What stands in the terminal, without its styles."""
        return _STYLE.sub("", self._written.decode("utf-8", "replace")).replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def wait(self, timeout: float = 300) -> int:
        """Wait for the end of the command and of its output; return the exit code."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def wait_for(self, words: str, timeout: float = 300) -> None:
        wait_until(lambda: words in self.text, timeout=timeout, what=words, log=lambda: self.text)

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.killpg(self._process.pid, signal.SIGINT)

    def _read(self) -> None:
        try:
            while chunk := os.read(self._ours, 65536):
                self._written += chunk
        except OSError:  # the other side is closed
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(10)
        os.close(self._ours)
