"""Run programs without a shell, with bounded output, and leave slow ones running in the background.

Such a child runs in its own session, even if this process ends. One thread waits for all of them, so that none becomes
a zombie, and keeps their logs short.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

from ..core.per_process import PerProcess

__all__ = ["Child", "Keeper"]

logger = logging.getLogger(__name__)

_TAIL = 4096
_LOOK_EVERY = 0.05
_KEEP_EVERY = 0.5
_MAX_LOG = 1024 * 1024


class Child:
    """A running program. Its standard error is always kept, and its standard output with ``keep_output``.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, arguments: Sequence[str], *, environment: Mapping[str, str], keep_output: bool) -> None:
        # Files, not pipes: a pipe that is not read blocks the child, and a closed one kills it.
        self._errors = _log_file()
        try:
            self._output = _log_file() if keep_output else None
            self._process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if self._output is None else self._output,
                stderr=self._errors,
                env=dict(environment),
                start_new_session=True,
            )
        except BaseException:
            self.close()
            raise

    def wait(self, seconds: float, *, largest_output: int | None = None) -> int | None:
        """Wait for its end, this long or until it has printed too much.

        Returns:
            The exit code (negative: the signal that killed it), or None if it is still running.
        """
        deadline = time.monotonic() + seconds
        while True:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(max(0.0, min(_LOOK_EVERY, deadline - time.monotonic())))
            if time.monotonic() >= deadline or (largest_output is not None and self.output_size() > largest_output):
                return None

    def has_ended(self) -> bool:
        """Return True if it has ended; this also reaps it."""
        return self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it is running."""
        return self._process.returncode

    def output_size(self) -> int:
        """Return the number of bytes printed so far."""
        return 0 if self._output is None else os.fstat(self._output.fileno()).st_size

    def output(self, most: int) -> str:
        """Return at most this many bytes of its output, decoded."""
        if self._output is None:
            return ""
        return os.pread(self._output.fileno(), most, 0).decode(errors="replace")

    def last_errors(self) -> str:
        """Return the end of its standard error."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), _TAIL, max(0, size - _TAIL)).decode(errors="replace").strip()

    def trim(self) -> None:
        """Truncate its standard error if that has become long."""
        if os.fstat(self._errors.fileno()).st_size > _MAX_LOG:
            os.ftruncate(self._errors.fileno(), 0)

    def kill(self) -> None:
        """Kill it and everything that it started."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Close its files; the program is not affected."""
        for file in (self._errors, getattr(self, "_output", None)):
            if file is not None:
                file.close()


def _log_file() -> IO[bytes]:
    """Open an unnamed file for appending, so that it can be truncated while being written."""
    return tempfile.TemporaryFile("a+b", buffering=0)


class _Kept:
    """The background children of one process, and the thread that waits for them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.children: list[Child] = []
        self.thread: threading.Thread | None = None


class Keeper:
    """Waits for background children, in a thread that calls ``on_end`` for each and ends with the last of them."""

    def __init__(self, on_end: Callable[[Child], None]) -> None:
        self._on_end = on_end
        self._kept = PerProcess(_Kept)

    def keep(self, child: Child) -> None:
        """Take over a child that is still running."""
        kept = self._kept.value
        with kept.lock:
            kept.children.append(child)
            if kept.thread is None:
                kept.thread = self._start(kept)

    def __len__(self) -> int:
        return len(self._kept.value.children)

    def _start(self, kept: _Kept) -> threading.Thread | None:
        thread = threading.Thread(target=self._run, args=(kept,), name="contenthub-creator-cli", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            logger.warning("No thread waits for a program until the next one is started: %s", error)
            return None
        return thread

    def _run(self, kept: _Kept) -> None:
        while True:
            for child in [child for child in kept.children if child.has_ended()]:
                self._release(kept, child)
            for child in kept.children:
                child.trim()
            with kept.lock:
                if not kept.children:
                    kept.thread = None
                    return
            time.sleep(_KEEP_EVERY)

    def _release(self, kept: _Kept, child: Child) -> None:
        try:
            self._on_end(child)
        except Exception:
            logger.exception("Reporting the end of a program failed.")
        finally:
            child.close()
            with kept.lock:
                kept.children.remove(child)
