"""One line for many events: what a worker applied without anything to tell about it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from ..core.received import Outcome
from ..core.state_machine import Verdict

__all__ = ["AppliedLog"]

logger = logging.getLogger(__name__)

_INTERVAL = 10.0
"""Seconds between two lines."""


class AppliedLog:
    """Counts the events that a worker applied, and logs their numbers; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._began = time.monotonic()

    def level_of(self, event: str, outcome: Outcome) -> int:
        """Return the level of an event's own line: DEBUG if nothing is to be told about it, and count it then."""
        if outcome.verdict is not Verdict.PROCESSED or outcome.late or outcome.reason:
            return logging.INFO
        with self._lock:
            self._counts[event] += 1
        self.tell()
        return logging.DEBUG

    def tell(self, *, at_once: bool = False) -> None:
        """Log what was counted since the last line, if that is long ago."""
        with self._lock:
            seconds = time.monotonic() - self._began
            if not at_once and seconds < _INTERVAL:
                return
            counts, self._counts, self._began = self._counts, Counter(), time.monotonic()
        if counts:
            numbers = ", ".join(f"{number} {event}" for event, number in sorted(counts.items()))
            logger.info("Applied in %.0f s: %s.", seconds, numbers, extra={"applied": dict(counts), "seconds": seconds})
