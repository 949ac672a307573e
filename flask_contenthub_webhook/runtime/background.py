"""Background work right after a commit: a few threads, started when they are first needed, never at ``init_app``."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..core.per_process import PerProcess

__all__ = ["BackgroundThreads", "can_run_threads"]

logger = logging.getLogger(__name__)

_GRACE_AT_EXIT = 10.0
"""Seconds in which an ending process still does queued work; the rest is left to the next sweep."""


def can_run_threads() -> bool:
    """Tell whether threads run between requests; in uWSGI without them one would stop anywhere, holding its locks."""
    return bool(getattr(sys.modules.get("uwsgi"), "has_threads", True))


class _Pool:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None


class BackgroundThreads:
    """Runs work in a bounded number of threads; with 0, nothing runs in the background."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = PerProcess(_Pool)
        self._main_ended_at: float | None = None

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Run some work soon; without threads do nothing, since the sweep does it."""
        if not self._threads or not can_run_threads():
            return
        pool = self._pool.value
        with pool.lock:
            if pool.executor is None:
                pool.executor = ThreadPoolExecutor(self._threads, thread_name_prefix="contenthub-webhook")
            try:
                pool.executor.submit(self._run, work, *arguments)
            except RuntimeError:  # the interpreter is shutting down
                logger.info("Too late for background work; the next sweep does it.")

    def submit_or_run(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Run some work soon, or now if there are no threads."""
        if self._threads and can_run_threads():
            self.submit(work, *arguments)
        else:
            work(*arguments)

    def _run(self, work: Callable[..., Any], *arguments: Any) -> None:
        if self._is_too_late():
            return
        try:
            work(*arguments)
        except Exception:
            logger.exception("Background work failed; the next sweep finds what it left.")

    def _is_too_late(self) -> bool:
        """Tell whether the process is ending; Python waits for these threads, so a long queue would keep it alive."""
        if threading.main_thread().is_alive():
            return False
        if self._main_ended_at is None:
            self._main_ended_at = time.monotonic()
        return time.monotonic() - self._main_ended_at > _GRACE_AT_EXIT
