"""The end of background work: what tells it to stop, and the threads that cannot keep a process from ending.

Whatever loops calls :func:`is_stopping` before it begins the next piece of work. A call to somebody else cannot be
interrupted; its thread is abandoned after :data:`GRACE`, and the process ends as if it were killed there. That loses
nothing, since all work is claimed in the database.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from .per_process import PerProcess

__all__ = ["GRACE", "DaemonThreads", "begin_to_end", "is_stopping", "stopped_by", "time_left", "time_since_end"]

P = ParamSpec("P")
T = TypeVar("T")

GRACE = 6.0
"""Seconds for which running work is waited for at an orderly stop; a server and Python need up to three more to end."""


class _Process:
    """The end of one process."""

    def __init__(self) -> None:
        self.stopped_at: float | None = None
        self.is_ending = False
        self.pools: weakref.WeakSet[DaemonThreads] = weakref.WeakSet()


_process = PerProcess(_Process)
_stop: ContextVar[threading.Event | None] = ContextVar("contenthub_webhook_stop", default=None)


def is_stopping() -> bool:
    """Return True if no further work should begin in this thread."""
    stop = _stop.get()
    return _process.value.is_ending or (stop is not None and stop.is_set())


@contextmanager
def stopped_by(stop: threading.Event) -> Iterator[None]:
    """Stop the work of this block, and what it gives to :class:`DaemonThreads`, once the event is set."""
    token = _stop.set(stop)
    try:
        yield
    finally:
        _stop.reset(token)


# --- the process ---------------------------------------------------------------------------------------------


def begin_to_end(*, anew: bool = False) -> None:
    """Note that this process was asked to end, unless it was before; :func:`time_left` counts from here."""
    process = _process.value
    if anew:
        process.stopped_at = None
    elif process.stopped_at is None:
        process.stopped_at = time.monotonic()


def time_left() -> float:
    """Return the seconds for which running work may still be waited for."""
    return max(0.0, GRACE - time_since_end())


def time_since_end() -> float:
    """Return the seconds since this process was asked to end; zero if it was not."""
    stopped_at = _process.value.stopped_at
    return 0.0 if stopped_at is None else time.monotonic() - stopped_at


@atexit.register
def _end() -> None:
    process = _process.value
    process.is_ending = True
    begin_to_end()
    pools = list(process.pools)
    for pool in pools:
        pool.shutdown(wait=False)
    for pool in pools:
        pool.join(time_left())


# --- threads -------------------------------------------------------------------------------------------------


class DaemonThreads(Executor):
    """An executor whose threads end with the process, unlike those of ``ThreadPoolExecutor``, which Python waits for.

    Args:
        most: the greatest number of threads; each starts when there is work for it.
        name: prefix of their names.
        awaited: wait for the work at the end of the process, for as long as :func:`time_left` says.
    """

    def __init__(self, most: int, name: str, *, awaited: bool = False) -> None:
        self._most, self._name = most, name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_shut = False
        weakref.finalize(self, self._work.put, None)
        if awaited:
            _process.value.pools.add(self)

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run some work in one of the threads.

        Raises:
            RuntimeError: it was shut down, or no thread can be started.
        """
        future: Future[T] = Future()
        stop = _stop.get()

        def run() -> None:
            _stop.set(stop)
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
                    future.set_exception(error)

        with self._lock:
            if self._is_shut:
                raise RuntimeError(f"The threads {self._name} take no further work.")
            if len(self._threads) < self._most:
                self._start_thread()
            self._work.put(run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further work; with ``cancel_futures``, leave out what has not begun."""
        with self._lock:
            self._is_shut = True
            if cancel_futures:
                self._drop()
            self._work.put(None)
        if wait:
            self.join()

    def join(self, seconds: float | None = None) -> bool:
        """Wait until all work is done after a shutdown; return False if some is not, and is abandoned."""
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        _process.value.pools.discard(self)
        return not any(thread.is_alive() for thread in self._threads)

    def _start_thread(self) -> None:
        number = len(self._threads)
        thread = threading.Thread(target=_run_all, args=(self._work,), name=f"{self._name}-{number}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _drop(self) -> None:
        try:
            while True:
                self._work.get_nowait()
        except queue.Empty:
            return


def _run_all(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    """Run what comes; the thread must not hold the executor, which ends it when nobody else holds it."""
    while (run := work.get()) is not None:
        run()
        del run  # with what it holds, until the next one comes
    work.put(None)  # for the next thread
