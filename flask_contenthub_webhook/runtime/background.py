"""Background work right after a commit: a few threads, started when they are first needed, never at ``init_app``."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .state import WebhookState

__all__ = ["Dispatcher"]

logger = logging.getLogger(__name__)

_GRACE_AT_EXIT = 10.0
"""Seconds in which an ending process still hands over what it just submitted; the rest is the sweep's."""


class Dispatcher:
    """Runs work in the background, with a bounded number of threads.

    Args:
        threads: how many; 0 runs nothing in the background, and leaves submissions to the scheduler.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._pid = 0
        self._main_ended_at: float | None = None

    def kick(self, state: WebhookState, work: Callable[[WebhookState], Any]) -> None:
        """Run some work soon, if there are threads for it."""
        if self._threads:
            self._submit(work, state)

    def run(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Run some work soon, or now where there are no threads."""
        if self._threads:
            self._submit(work, *arguments)
        else:
            work(*arguments)

    def _submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        with self._lock:
            if self._executor is None or self._pid != os.getpid():  # a forked child has no threads
                self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="contenthub-webhook")
                self._pid = os.getpid()
            try:
                self._executor.submit(self._run, work, *arguments)
            except RuntimeError:  # the interpreter is shutting down
                logger.info("Too late for background work; the next sweep does it.")

    def _run(self, work: Callable[..., Any], *arguments: Any) -> None:
        if self._is_too_late():
            return
        try:
            work(*arguments)
        except Exception:
            logger.exception("Background work failed; the next sweep finds what it left.")

    def _is_too_late(self) -> bool:
        """Python waits for these threads at exit; a long queue must not keep the process alive."""
        if threading.main_thread().is_alive():
            return False
        if self._main_ended_at is None:
            self._main_ended_at = time.monotonic()
        return time.monotonic() - self._main_ended_at > _GRACE_AT_EXIT
