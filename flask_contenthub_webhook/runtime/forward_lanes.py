"""Who may be sent to now: so that one URL that hangs or fails holds up no other, and is left alone for a while.

A lane belongs to one URL in one process. A URL that answers may take half of the requests that are under way at once,
one whose last request failed takes one, and one that failed several times in a row takes none until its pause is over.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..core.backoff import jittered

__all__ = ["Lanes"]

_PATIENCE = 5
"""Failures in a row before a URL is left alone."""
_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(minutes=10)
_MOST_LANES = 1000
"""URLs that are remembered for their failures; the ones that failed longest ago are forgotten first."""


@dataclass(slots=True)
class _Lane:
    under_way: int = 0
    failures: int = 0
    paused_until: datetime | None = None

    def is_paused(self, now: datetime) -> bool:
        return self.paused_until is not None and now < self.paused_until


class Lanes:
    """The lanes of one process; safe for threads.

    Args:
        concurrency: requests that are under way at the same time, over all URLs.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lanes: dict[str, _Lane] = {}
        self._lock = threading.Lock()
        self.choosing = threading.Lock()
        """Held by whoever looks which lanes are free, until it has entered one."""

    @property
    def are_full(self) -> bool:
        """Whether there is room for no request more."""
        with self._lock:
            return sum(lane.under_way for lane in self._lanes.values()) >= self._concurrency

    def closed(self, now: datetime) -> list[str]:
        """The URLs that nothing is sent to now."""
        with self._lock:
            return [url for url, lane in self._lanes.items() if lane.is_paused(now) or self._is_taken(lane)]

    def paused(self, now: datetime) -> dict[str, datetime]:
        """The URLs that are left alone, and until when."""
        with self._lock:
            return {
                url: lane.paused_until for url, lane in self._lanes.items() if lane.paused_until and lane.is_paused(now)
            }

    def enter(self, url: str) -> None:
        """A request begins."""
        with self._lock:
            self._lanes.setdefault(url, _Lane()).under_way += 1

    def leave(self, url: str) -> None:
        """A request is over, and says nothing about the next one."""
        with self._lock:
            lane = self._lanes[url]
            lane.under_way -= 1
            if not lane.under_way and not lane.failures:
                del self._lanes[url]

    def succeeded(self, url: str) -> None:
        """A request is over, and the URL is fine."""
        with self._lock:
            self._lanes[url].failures, self._lanes[url].paused_until = 0, None
        self.leave(url)

    def failed(self, url: str, now: datetime) -> datetime | None:
        """A request is over, and it failed.

        Returns:
            Until when to leave the URL alone; None where it has not failed often enough for that.
        """
        with self._lock:
            lane = self._lanes.pop(url)
            self._lanes[url] = lane  # as the last one
            if not lane.is_paused(now):  # what was under way when the pause began says nothing new
                lane.failures += 1
                lane.paused_until = _pause_after(lane.failures, now)
            until = lane.paused_until
            self._forget_the_oldest()
        self.leave(url)
        return until

    def _is_taken(self, lane: _Lane) -> bool:
        return lane.under_way >= (1 if lane.failures else max(1, self._concurrency // 2))

    def _forget_the_oldest(self) -> None:
        if len(self._lanes) > _MOST_LANES:
            idle = next((url for url, lane in self._lanes.items() if not lane.under_way), None)
            if idle is not None:
                del self._lanes[idle]


def _pause_after(failures: int, now: datetime) -> datetime | None:
    if failures < _PATIENCE:
        return None
    doubled = _FIRST_PAUSE * 2 ** min(failures - _PATIENCE, 10)
    return now + jittered(min(doubled, _LONGEST_PAUSE))
