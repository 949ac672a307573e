"""Holds: what a creator cannot stand, or answers badly, is left alone, for twice as long after each further failure.

They are by name: a kind of call, or the id of a job. The extension shares them among processes through the database, so
that ten workers do not each find out by themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..core.per_process import PerProcess
from ..errors import CreatorUnreachable

__all__ = ["DAY", "Hold", "HoldStore", "Holds", "LeftAlone"]

DAY = 86_400.0
_MOST_DOUBLINGS = 16
_MOST = 10_000


class LeftAlone(CreatorUnreachable):
    """Nothing was sent: the creator is left alone for a while."""


class Hold(NamedTuple):
    """The failures in a row of one name.

    Args:
        failures: their number.
        until: the time until which it is left alone, in seconds of the clock of the holds.
    """

    failures: int
    until: float


class HoldStore(Protocol):
    """Keeps the holds of a creator for all processes; a store that is away keeps and returns nothing."""

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
        self._now, self._store = now, store
        self._lock = PerProcess(threading.Lock)
        self._holds: dict[str, Hold] = {}

    def __contains__(self, name: str) -> bool:
        """Return True if the name failed the last time, even if it may be tried again."""
        return name in self._holds

    def refresh(self) -> None:
        """Learn what other processes have found out."""
        loaded = None if self._store is None else self._store.load()
        if loaded is not None:
            self._holds = loaded

    def remaining(self, name: str) -> float:
        """Return the seconds for which a name must still be left alone; 0.0 if it may be tried."""
        hold = self._holds.get(name)
        return 0.0 if hold is None else max(0.0, hold.until - self._now())

    def failures(self, name: str) -> int:
        """Return the failures in a row of a name."""
        hold = self._holds.get(name)
        return 0 if hold is None else hold.failures

    def failed(self, name: str, *, first: float, longest: float = DAY, at_least: float = 0.0) -> None:
        """Count a failure; during a hold it is one of a call that was already under way, and is not counted.

        Args:
            name: what failed.
            first: seconds of the first hold; each further failure doubles it.
            longest: seconds of the longest.
            at_least: seconds of this one.
        """
        with self._lock.value:
            self.refresh()
            hold = self._holds.get(name)
            if hold is not None and hold.until > self._now():
                return
            failures = 0 if hold is None else hold.failures
            length = max(min(first * 2 ** min(failures, _MOST_DOUBLINGS), longest), at_least)
            self._change(name, hold, Hold(failures + 1, self._now() + length))

    def move(self, name: str, until: float) -> bool:
        """Move the end of a hold; False if another process was faster."""
        with self._lock.value:
            hold = self._holds.get(name)
            return hold is not None and self._change(name, hold, Hold(hold.failures, until))

    def succeeded(self, name: str) -> None:
        """Forget the failures of a name."""
        if name in self._holds:  # without the lock, for which every successful call would wait
            with self._lock.value:
                if self._holds.pop(name, None) is not None and self._store is not None:
                    self._store.delete(name)

    def _change(self, name: str, seen: Hold | None, hold: Hold) -> bool:
        is_ours = self._store is None or self._store.save(name, seen, hold)
        if is_ours:
            self._holds[name] = hold
            if len(self._holds) > _MOST:
                del self._holds[next(iter(self._holds))]
        return is_ours
