"""A pause while a service is down, so that an outage is met with patience instead of a storm."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from .backoff import jittered

__all__ = ["Pause"]

_FIRST = timedelta(seconds=5)
_LONGEST = timedelta(minutes=5)


class Pause:
    """Remembers failures in a row, and until when to leave the service alone; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._until: datetime | None = None

    def is_on(self, now: datetime) -> bool:
        """Whether the service should be left alone."""
        return self._until is not None and now < self._until

    def failed(self, now: datetime) -> None:
        """The service did not answer: wait, and twice as long after each further failure."""
        with self._lock:
            if self.is_on(now):  # calls that were under way when the pause began
                return
            self._until = now + jittered(min(_FIRST * 2**self._failures, _LONGEST))
            self._failures = min(self._failures + 1, 16)

    def succeeded(self) -> None:
        """The service answered."""
        with self._lock:
            self._failures, self._until = 0, None
