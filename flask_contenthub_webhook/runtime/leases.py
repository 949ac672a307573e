"""Renewal of leases while their work goes on, however long that takes.

One thread of the process renews them all; the first lease starts it, and it ends when there has been none for a while.
A process that dies renews nothing, so its leases end in their time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from ..core.per_process import PerProcess
from ..storage.failure_log import describe_briefly

__all__ = ["renewed"]

logger = logging.getLogger(__name__)

_IDLE = 60.0
"""Seconds without a lease after which the thread ends."""


@dataclass(slots=True, eq=False)
class _Lease:
    renew: Callable[[], bool]
    every: float
    due: float
    has_ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True, eq=False)
class _Memory:
    """The leases of one process, and when the thread looks next; None if there is no thread."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    leases: set[_Lease] = field(default_factory=set)
    wakes_at: float | None = None


_memory = PerProcess(_Memory)


@contextmanager
def renewed(renew: Callable[[], bool], *, every: timedelta) -> Iterator[None]:
    """Renew a lease at intervals while the block runs; never after it.

    Args:
        renew: extends the lease, in another thread; returns False if it was lost, which ends the renewal. What it
            raises is logged, and it is called again after the next interval.
        every: the interval, by the monotonic clock; a third of the lease leaves time for a failure.
    """
    memory, seconds = _memory.value, every.total_seconds()
    lease = _Lease(renew, seconds, time.monotonic() + seconds)
    _add(memory, lease)
    try:
        yield
    finally:
        with memory.changed:
            memory.leases.discard(lease)
        with lease.lock:  # held while it is renewed
            lease.has_ended = True


def _add(memory: _Memory, lease: _Lease) -> None:
    with memory.changed:
        memory.leases.add(lease)
        if memory.wakes_at is None:
            thread = threading.Thread(target=_renew_due, args=(memory,), name="contenthub-leases", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down; the lease as it is has to do
                return
            memory.wakes_at = lease.due
        elif lease.due < memory.wakes_at:
            memory.changed.notify()


def _renew_due(memory: _Memory) -> None:
    """Renew leases when they are due: the body of the thread."""
    while True:
        with memory.changed:
            if not memory.leases:
                _wait_until(memory, time.monotonic() + _IDLE)
                if not memory.leases:
                    memory.wakes_at = None
                    return
            _wait_until(memory, min(lease.due for lease in memory.leases))
            due = [lease for lease in memory.leases if lease.due <= time.monotonic()]
        for lease in due:
            _renew(lease)


def _wait_until(memory: _Memory, at: float) -> None:
    """Wait until a time, or until a lease was added that is due before it."""
    memory.wakes_at = at
    if (seconds := at - time.monotonic()) > 0:
        memory.changed.wait(seconds)


def _renew(lease: _Lease) -> None:
    with lease.lock:
        if lease.has_ended:
            return
        try:
            lease.has_ended = not lease.renew()
        except Exception as error:  # noqa: BLE001 - the work itself goes on
            logger.warning("A lease was not renewed; the next try follows. %s", describe_briefly(error))
        lease.due = time.monotonic() + lease.every
