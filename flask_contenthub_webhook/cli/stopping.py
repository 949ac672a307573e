"""Commands that run until they are told to stop, and end in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask_contenthub_webhook.shutdown import stop_on_signals

__all__ = ["stop_event"]


@contextmanager
def stop_event() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, instead of ending the process. For the main thread."""
    stopped = threading.Event()
    with stop_on_signals(stopped.set):
        yield stopped
