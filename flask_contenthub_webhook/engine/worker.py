"""The worker: applies the deliveries in the inbox, in a few threads, until it is stopped.

Any number of workers may run, on any number of machines; each claims its work in the database, and a worker that is
killed only loses its leases. The main thread checks for due work, on PostgreSQL as soon as a request announces some
(:mod:`.listen`); the others claim and apply until nothing is left.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..core.stopping import time_left
from ..runtime.applied_log import AppliedLog
from ..runtime.shutdown import stop_on_signals
from ..runtime.state import get_state
from ..storage.failure_log import log_failure, log_unexpected
from .listen import NotifyListener
from .retry import RetryReport, work_off

if TYPE_CHECKING:
    from flask import Flask

    from ..runtime.state import WebhookState

__all__ = ["Worker", "run_worker"]

logger = logging.getLogger(__name__)

_SHORTEST_WAIT = 0.1
"""Seconds between two checks right after work was found; longer than requests wait between two wake-ups."""
_LONGEST_WAIT = 2.0
"""Seconds between two checks when nothing has been found for a while, and the database does not wake us."""
_LONGEST_SLEEP = 10.0
"""The same if it does; nothing announces what becomes due by time alone."""
_GROWTH = 1.5
_AFTER_TROUBLE = 1.0


class Worker:
    """Threads that apply the deliveries in the inbox.

    Args:
        state: the application's state.
        threads: their number; each uses one database connection, and the main thread two.
        batch: deliveries that a thread claims in one statement.
    """

    def __init__(self, state: WebhookState, *, threads: int | None = None, batch: int | None = None) -> None:
        self._state = state
        self._threads = threads or state.settings.worker_threads
        self._batch = batch or state.settings.worker_batch
        self._stopped = threading.Event()
        self._found = threading.Event()
        self._bell: queue.Queue[None] = queue.Queue(1)
        self._running: dict[int, threading.Thread] = {}

    def stop(self) -> None:
        """Finish what is being applied, give back the rest, and return from :meth:`run`; safe in a signal handler."""
        self._stopped.set()
        self._ring()

    def run(self, *, on_start: Callable[[], None] = lambda: None) -> None:
        """Work until :meth:`stop` is called.

        Args:
            on_start: called once the threads run.
        """
        applied = self._state.applied = AppliedLog()
        try:
            for number in range(self._threads):
                self._start_thread(number)
            on_start()
            self._look_out()
        finally:
            self.stop()
            end = time.monotonic() + time_left()
            for thread in self._running.values():
                thread.join(max(0.0, end - time.monotonic()))
            self._state.applied = None
            applied.tell(at_once=True)

    def _start_thread(self, number: int) -> None:
        thread = threading.Thread(target=self._work_off, name=f"contenthub-worker-{number}", daemon=True)
        thread.start()
        self._running[number] = thread

    def _replace_dead_threads(self) -> None:
        """Replace dead threads; :meth:`_work_off_some` catches everything, but Python can end any thread."""
        for number, thread in self._running.items():
            if not thread.is_alive() and not self._stopped.is_set():
                logger.critical("The thread %s died; another one takes its place.", thread.name)
                try:
                    self._start_thread(number)
                except RuntimeError as error:
                    logger.critical("It cannot be started now, and is tried again soon: %s", error)
                self._ring()  # the dead thread may have lost a wake-up

    def _look_out(self) -> None:
        """Wake a thread whenever something is due."""
        wait, was_due = _SHORTEST_WAIT, False
        self._ring()  # what waits already does not wait for the listener, too
        with NotifyListener(self._state) as listener:
            while not self._stopped.is_set():
                self._replace_dead_threads()
                if self._state.applied is not None:
                    self._state.applied.tell()
                is_due = self._is_anything_due()
                if is_due:
                    self._ring()
                # What stays due, but cannot be claimed, waits behind a claim of another worker: no reason to hurry.
                if self._found.is_set() or (is_due and not was_due):
                    wait = _SHORTEST_WAIT
                self._found.clear()
                was_due = is_due
                if listener.wait(wait, self._stopped):
                    self._ring()
                    wait = _SHORTEST_WAIT
                else:
                    rests = listener.is_listening and not is_due
                    wait = min(wait * _GROWTH, _LONGEST_SLEEP if rests else _LONGEST_WAIT)

    def _is_anything_due(self) -> bool:
        try:
            return self._state.database.ask(self._state.store.inbox.is_anything_due)
        except SQLAlchemyError as error:
            log_failure(self._state.database, logger, "The inbox cannot be read now.", error)
            self._stopped.wait(_AFTER_TROUBLE)
            return False

    def _ring(self) -> None:
        """Wake one thread; if none waits, the next one skips its wait."""
        with contextlib.suppress(queue.Full):
            self._bell.put_nowait(None)

    def _work_off(self) -> None:
        """Apply deliveries whenever woken: the body of a thread."""
        while not self._stopped.is_set():
            self._bell.get()
            while not self._stopped.is_set() and self._work_off_some():
                self._found.set()
                self._ring()  # there may be work for another thread, too
        self._ring()  # wake the next thread, to stop as well

    def _work_off_some(self) -> bool:
        report = RetryReport()
        try:
            work_off(self._state, report, limit=self._batch, is_stopped=self._stopped.is_set)
        except BaseException as error:  # noqa: BLE001 - shutdown signals do not reach this thread
            message = "Unexpected error in a thread of the worker; it continues."
            log_unexpected(self._state.database, logger, message, error)
            report.interrupted = True
        if report.interrupted:
            self._stopped.wait(_AFTER_TROUBLE)
        return report.claimed > 0


def run_worker(
    app: Flask, *, threads: int | None = None, batch: int | None = None, on_start: Callable[[], None] = lambda: None
) -> None:
    """Apply the deliveries in the inbox until SIGTERM or SIGINT; those being applied are finished first.

    Args:
        app: the application.
        threads: WEBHOOK_WORKER_THREADS by default.
        batch: WEBHOOK_WORKER_BATCH by default.
        on_start: called once the threads run.
    """
    worker = Worker(get_state(app), threads=threads, batch=batch)
    with stop_on_signals(worker.stop):
        worker.run(on_start=on_start)
