"""Holds: what a creator cannot stand, or answers badly, is left alone, for twice as long after each further failure.

They are by name: a kind of call, or the id of a job. The extension shares them among processes through the database, so
that ten workers do not each find out by themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from ..core.per_process import PerProcess
from ..errors import CreatorUnreachable
from ..storage.holds import Hold, name_of_hold

__all__ = ["LONGEST_HOLD", "HoldStore", "Holds", "LeftAlone"]

LONGEST_HOLD = 86_400.0
"""Seconds."""
_MOST_DOUBLINGS = 16
_MOST = 10_000
_FRESH = 1.0
"""Seconds for which a process trusts what it has read."""


class LeftAlone(CreatorUnreachable):
    """Nothing was sent: the creator is left alone for a while."""


class HoldStore(Protocol):
    """Keeps the holds of a creator for all processes; one that is away keeps and returns nothing."""

    def now(self) -> float:
        """Return the time by which processes agree, in seconds."""

    def waited(self) -> float:
        """Return the seconds of a clock that only grows."""

    def load(self) -> dict[str, Hold] | None:
        """Return all holds by name; None if they cannot be read now."""

    def save(self, name: str, seen: Hold | None, hold: Hold) -> bool:
        """Write a hold unless another process has changed it since it was seen; return True if it was written."""

    def delete(self, name: str) -> None:
        """Forget a hold."""


class Holds:
    """The holds of one creator; safe for threads.

    Args:
        now: a clock in seconds.
        store: shares them with other processes; None keeps them in this one.
    """

    def __init__(self, now: Callable[[], float], store: HoldStore | None = None) -> None:
        self.now, self._store = now, store
        self._lock = PerProcess(threading.RLock)
        self._holds: dict[str, Hold] = {}
        self._refreshed = float("-inf")

    def __contains__(self, name: str) -> bool:
        """Return True if the name failed the last time, even if it may be tried again."""
        return name_of_hold(name) in self._holds

    def get(self, name: str) -> Hold | None:
        """Return the hold of a name, which may be over; None if the name did not fail the last time."""
        return self._holds.get(name_of_hold(name))

    def failures(self, name: str) -> int:
        """Return the failures in a row of a name."""
        hold = self.get(name)
        return 0 if hold is None else hold.failures

    def remaining(self, name: str) -> float:
        """Return the seconds for which a name must still be left alone; 0.0 if it may be tried."""
        hold = self.get(name)
        return 0.0 if hold is None else max(0.0, hold.until - self.now())

    def refresh(self, *, at_once: bool = False) -> None:
        """Learn what other processes have found out; this asks once a second, or ``at_once``."""
        if self._store is None:
            return
        waited = self._store.waited()
        if at_once or not 0.0 <= waited - self._refreshed < _FRESH:
            loaded = self._store.load()
            if loaded is not None:
                self._holds, self._refreshed = loaded, waited

    def failed(
        self, name: str, *, first: float, longest: float = LONGEST_HOLD, at_least: float = 0.0, under_way: bool = False
    ) -> None:
        """Count a failure; during a hold it is one of a call that was already under way, and is not counted.

        Args:
            name: what failed.
            first: seconds of the first hold; each further failure doubles it.
            longest: seconds of the longest.
            at_least: seconds of this one.
            under_way: count it all the same.
        """
        with self._lock.value:
            self.refresh(at_once=True)
            hold, now = self.get(name), self.now()
            if hold is not None and hold.until > now and not under_way:
                return
            failures = 0 if hold is None else hold.failures
            length = max(min(first * 2 ** min(failures, _MOST_DOUBLINGS), longest), at_least)
            self._change(name, hold, failures + 1, now + length)

    def move(self, name: str, seen: Hold, until: float) -> Hold | None:
        """Move the end of a hold; return it, or None if another process was faster."""
        with self._lock.value:
            return self._change(name, seen, seen.failures, until)

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name."""
        key = name_of_hold(name)
        if key in self._holds:  # without the lock, for which every successful call would wait
            with self._lock.value:
                if self._holds.pop(key, None) is not None and self._store is not None:
                    self._store.delete(key)

    def _change(self, name: str, seen: Hold | None, failures: int, until: float) -> Hold | None:
        key, hold = name_of_hold(name), Hold(failures, until, 1 if seen is None else seen.version + 1)
        if self._store is not None and not self._store.save(key, seen, hold):
            return None
        self._holds[key] = hold
        if len(self._holds) > _MOST:
            del self._holds[next(iter(self._holds))]
        return hold
