"""End a foreground process on SIGTERM or SIGINT, after its current work."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..core.stopping import begin_to_end

__all__ = ["stop_on_signals", "wait_for_stop"]

_LONGEST_WAIT = 1.0


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on either signal, instead of ending at once; only in the main thread.

    It runs in a new thread, since the main one may be interrupted while it holds the lock that ``stop`` needs.
    """

    def end() -> None:
        begin_to_end()
        stop()

    begin_to_end(anew=True)
    previous = {
        number: signal.signal(number, lambda *_: threading.Thread(target=end).start())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def wait_for_stop(stopped: threading.Event, seconds: float = math.inf) -> None:
    """Wait in the main thread until it is set, or for this many seconds.

    Several short waits, since Python may notice a signal only at the end of a wait.
    """
    end = time.monotonic() + seconds
    while not stopped.is_set() and (left := end - time.monotonic()) > 0:
        stopped.wait(min(left, _LONGEST_WAIT))
