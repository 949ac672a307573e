"""The log of an outage: one traceback, then counts, and a line when it is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from logging import Logger
from typing import Any

from .per_process import PerProcess

__all__ = ["Outage"]

_REMINDER = 60.0
"""Seconds between two lines that count the failures of an outage."""
_QUIET = 10.0
"""Seconds without a failure after which a success ends the outage; what half works would end it at every turn."""
_TRACEBACK_AGAIN = 600.0
"""Seconds after which a kind of failure is worth another traceback."""


class Outage:
    """The log lines of one process about something that is away, such as the database; safe for threads.

    Everything that needs it reports here, so an outage costs a traceback and a line a minute, whatever the load.

    Args:
        what: its name, as a sentence begins with it.
        monotonic: the clock, in seconds.
    """

    def __init__(self, what: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._what, self._monotonic = what, monotonic
        self._lock = PerProcess(threading.Lock)
        self._began: float | None = None
        self._last = self._reminded = float("-inf")
        self._failures = self._counted = 0
        self._shown: dict[str, float] = {}

    @property
    def is_on(self) -> bool:
        """Return True from the first failure until a success that comes after a while without another one."""
        return self._began is not None

    def failed(
        self,
        logger: Logger,
        message: str,
        error: BaseException | None,
        *,
        kind: str = "",
        brief: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Log a failure, or only count it.

        Args:
            logger: of the module whose work failed.
            message: the work that failed, and its consequence.
            error: what was raised; None for what needs no traceback, and then ``kind`` and ``brief`` are needed.
            kind: of the error; each kind has a traceback, at most one in ten minutes. Its class by default.
            brief: the error in a few words, without values. Its class by default.
            extra: the fields of the log line.
        """
        kind, brief = kind or type(error).__name__, brief or type(error).__name__
        with self._lock.value:
            now = self._monotonic()
            is_new = self._began is None
            if self._began is None:
                self._began = self._reminded = now
                self._failures = self._counted = 0
            self._last = now
            self._failures += 1
            shows = now - self._shown.get(kind, float("-inf")) > _TRACEBACK_AGAIN
            if shows:
                self._shown[kind] = now
            reminds = not is_new and not shows and now - self._reminded >= _REMINDER
            since, more = now - self._began, self._failures - self._counted
            if shows or is_new or reminds:
                self._reminded, self._counted = now, self._failures
        if shows:
            logger.warning("%s %s; more of this kind are only counted.", message, brief, exc_info=error, extra=extra)
        elif is_new:
            logger.warning("%s %s", message, brief, extra=extra)
        elif reminds:
            message = "%s has failed for %.0f s: %d more failures. The latest: %s"
            logger.warning(message, self._what, since, more, brief, extra=extra)

    def worked(self, logger: Logger) -> None:
        """End the outage, and say so, if nothing has failed for a while; call it only where :attr:`is_on`."""
        with self._lock.value:
            if self._began is None or self._monotonic() - self._last < _QUIET:
                return
            length, failures, self._began = self._last - self._began, self._failures, None
        logger.warning("%s works again: in %.0f s there were %d failures.", self._what, length, failures)
