"""Notice that the clock of the machine was set: what compares times with it would wait for hours, or be late."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..storage.clock import elapsed

__all__ = ["ClockWatch"]

_TOLERANCE = 1.0
"""Seconds; a clock that is slewed stays below it between two looks."""


class ClockWatch:
    """Compares the clock of the machine with one that is never set.

    Args:
        wall: the seconds of the first.
        steady: the seconds of the second.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = elapsed) -> None:
        self._wall, self._steady = wall, steady
        self._apart = wall() - steady()

    def set_by(self) -> float:
        """Return by how many seconds the clock was set since the last call; 0.0 if it was not."""
        before, self._apart = self._apart, self._wall() - self._steady()
        change = self._apart - before
        return change if abs(change) > _TOLERANCE else 0.0
