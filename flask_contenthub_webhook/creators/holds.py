"""What a creator must not be asked for a while, because asking cut the connection and perhaps killed it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Holds"]

_MOST = 10_000


@dataclass(slots=True)
class _Hold:
    until: float
    seconds: float


class Holds:
    """Names that are left alone, each for twice as long whenever it makes trouble again; safe for threads.

    Args:
        clock: seconds that only go forward.
        first: seconds of the first hold.
        longest: seconds of the longest one.
    """

    def __init__(self, clock: Callable[[], float], *, first: float, longest: float) -> None:
        self._clock, self._first, self._longest = clock, first, longest
        self._lock = threading.Lock()
        self._holds: dict[str, _Hold] = {}

    def hold(self, name: str) -> None:
        """Leave it alone; troubles that come in while it is held already (calls side by side) count once."""
        with self._lock:
            now, known = self._clock(), self._holds.pop(name, None)
            if known is None:
                known = _Hold(now + self._first, self._first)
            elif known.until <= now:
                seconds = min(known.seconds * 2, self._longest)
                known = _Hold(now + seconds, seconds)
            self._holds[name] = known  # at the end: the dictionary is in the order of the last trouble
            if len(self._holds) > _MOST:
                del self._holds[next(iter(self._holds))]

    def release(self, name: str) -> None:
        """It gave no trouble: forget what was."""
        if name in self._holds:
            with self._lock:
                self._holds.pop(name, None)

    def remaining(self, name: str) -> float:
        """Seconds for which it is still left alone; 0 where it may be asked."""
        known = self._holds.get(name)
        return 0.0 if known is None else max(0.0, known.until - self._clock())

    def is_suspect(self, name: str) -> bool:
        """Whether it made trouble the last time, even where it may be asked again."""
        return name in self._holds
