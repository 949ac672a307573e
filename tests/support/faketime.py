"""Processes whose clock is wrong, or set while they run, by libfaketime (Debian: `apt install faketime`)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from select import select

import pytest

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))), None)
needs_faketime = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed: apt install faketime")


class FakeTime:
    """The clock of one process.

    Args:
        path: a file that says by how much it is wrong; it may change while the process runs.
        seconds: how wrong it is at first.
    """

    def __init__(self, path: Path, seconds: float = 0) -> None:
        self._path = path
        self.set(seconds)

    def set(self, seconds: float) -> None:
        """Set the clock, so many seconds from the right time."""
        self._path.write_text(f"{seconds:+}\n")

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the process. A clock that is set moves no monotonic one, so neither does this."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }


def mend_sleep() -> None:
    """In a process under libfaketime, make `time.sleep` sleep.

    Python sleeps until a moment of the monotonic clock, which libfaketime 0.9.10 hands on in a form that the kernel
    refuses: each `time.sleep` there ends at once with ``OSError: Invalid argument``.
    """
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        time.sleep = lambda seconds: (select((), (), (), seconds), None)[1]
