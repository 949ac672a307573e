"""Renewal of a lease while its work goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

__all__ = ["renewed"]

logger = logging.getLogger(__name__)


@contextmanager
def renewed(renew: Callable[[], bool], *, every: timedelta) -> Iterator[None]:
    """Renew a lease at intervals while the block runs, in a thread that ends with the block.

    Args:
        renew: extends the lease; returns False if it was lost, which ends the renewal. What it raises is logged, and it
            is called again after the next interval.
        every: the interval, by the monotonic clock; a third of the lease leaves time for a failure.
    """
    done = threading.Event()

    def keep() -> None:
        while not done.wait(every.total_seconds()):
            try:
                if not renew():
                    return
            except Exception:
                logger.warning("A lease was not renewed; the next try follows.", exc_info=True)

    thread = threading.Thread(target=keep, name="contenthub-lease", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is shutting down; the lease as it is has to do
        yield
        return
    try:
        yield
    finally:
        done.set()
        thread.join()
