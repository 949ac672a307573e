"""Ending a process that runs in the foreground: SIGTERM and SIGINT ask it to finish what it has in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on either signal, instead of ending at once; only in the main thread.

    It is called in a thread of its own: the main one may be interrupted within the very lock that ``stop`` needs.
    """
    previous = {
        number: signal.signal(number, lambda *_: threading.Thread(target=stop).start())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
