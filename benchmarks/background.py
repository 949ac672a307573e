"""Other programs of a measurement, each a process of its own that never outlives it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import PROJECT_ROOT, Guard, clean_environment, wait_until

__all__ = ["running"]


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], *, announced: str) -> Iterator[int]:
    """Run a module of Python, and yield the id of its process; it is stopped in order at the end.

    Args:
        command: the module and its arguments.
        environment: for it, beside what every process gets.
        announced: what it logs once it has started.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        log_path = Path(directory) / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=PROJECT_ROOT,
                env={**clean_environment(PYTHONPATH=str(PROJECT_ROOT), PYTHONUNBUFFERED="1"), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guard = Guard(process.pid, signal.SIGKILL)
        try:
            wait_until(
                lambda: announced in log_path.read_text() or process.poll() is not None,
                timeout=60,
                what="the program did not start",
                log=log_path.read_text,
            )
            yield process.pid
        except BaseException:
            print(log_path.read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            guard.release()
            process.terminate()
            process.wait(60)
