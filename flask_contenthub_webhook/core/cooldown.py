"""Circuit breakers: what keeps failing is left alone, for twice as long after each further failure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from .backoff import jittered
from .per_process import PerProcess

__all__ = ["Cooldown", "Cooldowns", "Moment"]

Moment = TypeVar("Moment", datetime, timedelta)
"""A time: an aware ``datetime``, or what a monotonic clock shows, as a ``timedelta``."""

_MOST_DOUBLINGS = 16
_counting = PerProcess(threading.Lock)
"""Held for a moment while a failure or a success is counted, of any cooldown."""


class Cooldown(Generic[Moment]):
    """Decides when something that failed may be tried again; safe for threads.

    Args:
        first: length of the first cooldown; each further failure doubles it.
        longest: longest cooldown.
        patience: failures in a row that start the first one.
        jitter: vary each cooldown by a tenth, so that processes that failed together do not return together.
    """

    def __init__(self, first: timedelta, longest: timedelta, *, patience: int = 1, jitter: bool = True) -> None:
        self._first, self._longest, self._patience, self._jitter = first, longest, patience, jitter
        self._failures = 0
        self._until: Moment | None = None

    def is_on(self, now: Moment) -> bool:
        """Return True while it must be left alone."""
        return self._until is not None and now < self._until

    def remaining(self, now: Moment) -> timedelta:
        """Return the time for which it must still be left alone; zero if it may be tried."""
        return timedelta(0) if self._until is None else max(timedelta(0), self._until - now)

    def failed(self, now: Moment) -> Moment | None:
        """Count a failure; during a cooldown it is one of a call that was already under way, and is not counted.

        Returns:
            The end of the cooldown, or None before there has been one.
        """
        with _counting.value:
            if not self.is_on(now):
                self._failures += 1
                doublings = self._failures - self._patience
                if doublings >= 0:
                    length = min(self._first * 2 ** min(doublings, _MOST_DOUBLINGS), self._longest)
                    self._until = now + (jittered(length) if self._jitter else length)
            return self._until

    def succeeded(self) -> None:
        """Forget all failures."""
        with _counting.value:
            self._failures, self._until = 0, None


class Cooldowns(Generic[Moment]):
    """Cooldowns by name, for the names that failed last; safe for threads.

    Args:
        new: makes the cooldown of a name that fails for the first time.
        most: names to remember; the one that failed longest ago is forgotten first.
    """

    def __init__(self, new: Callable[[], Cooldown[Moment]], *, most: int = 10_000) -> None:
        self._new: Callable[[], Cooldown[Moment]] = new
        self._most = most
        self._lock = PerProcess(threading.Lock)
        self._cooldowns: dict[str, Cooldown[Moment]] = {}

    def __contains__(self, name: str) -> bool:
        """Return True if the name failed the last time, even if it may be tried again."""
        return name in self._cooldowns

    def remaining(self, name: str, now: Moment) -> timedelta:
        """Return the time for which a name must still be left alone; zero if it may be tried."""
        cooldown = self._cooldowns.get(name)
        return timedelta(0) if cooldown is None else cooldown.remaining(now)

    def running(self, now: Moment) -> dict[str, Moment]:
        """Return the names that must be left alone, and until when."""
        with self._lock.value:
            return {
                name: now + cooldown.remaining(now) for name, cooldown in self._cooldowns.items() if cooldown.is_on(now)
            }

    def failed(self, name: str, now: Moment) -> Moment | None:
        """Count a failure of a name; see :meth:`Cooldown.failed`."""
        with self._lock.value:
            cooldown = self._cooldowns.pop(name, None) or self._new()
            self._cooldowns[name] = cooldown  # at the end: the dictionary is in the order of the last failure
            if len(self._cooldowns) > self._most:
                del self._cooldowns[next(iter(self._cooldowns))]
            return cooldown.failed(now)

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name."""
        if name in self._cooldowns:  # without the lock, for which every successful call would wait
            with self._lock.value:
                self._cooldowns.pop(name, None)
