"""Background work right after a commit: a few threads, started when they are first needed, never at ``init_app``."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ..core.per_process import PerProcess
from ..core.stopping import DaemonThreads, time_since_end
from ..errors import without_parameters
from ..storage.failure_log import describe_briefly

__all__ = ["BackgroundThreads", "can_run_threads"]

logger = logging.getLogger(__name__)

_LAST_START = 3.0
"""Seconds in which an ending process still begins queued work; the rest is left to the next sweep."""


def can_run_threads() -> bool:
    """Tell whether threads run between requests; in uWSGI without them one would stop anywhere, holding its locks."""
    return bool(getattr(sys.modules.get("uwsgi"), "has_threads", True))


class _Pool:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: DaemonThreads | None = None


class BackgroundThreads:
    """Runs work in a bounded number of threads; with 0, nothing runs in the background."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = PerProcess(_Pool)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> bool:
        """Run some work soon; return False if no thread will, and the sweep does it."""
        if not self._threads or not can_run_threads():
            return False
        pool = self._pool.value
        with pool.lock:
            if pool.threads is None:
                pool.threads = DaemonThreads(self._threads, "contenthub-webhook", awaited=True)
            try:
                pool.threads.submit(self._run, work, *arguments)
            except RuntimeError as error:  # the process is ending, or has too many threads
                logger.info("No thread can be started for background work (%s); the next sweep does it.", error)
                return False
        return True

    def submit_or_run(self, work: Callable[..., Any], *arguments: Any) -> bool:
        """Run some work soon, or now if there are no threads; return False if none can be started, and it is left."""
        if self._threads and can_run_threads():
            return self.submit(work, *arguments)
        work(*arguments)
        return True

    def _run(self, work: Callable[..., Any], *arguments: Any) -> None:
        if time_since_end() > _LAST_START:
            return
        try:
            work(*arguments)
        except SQLAlchemyError as error:
            logger.warning("Background work failed; the next sweep does it. %s", describe_briefly(error))
        except Exception as error:
            logger.exception("Background work failed; the next sweep does it.", exc_info=without_parameters(error))
