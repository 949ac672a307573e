"""Per-URL concurrency limits and circuit breaking for forwards, so that a URL that hangs or fails delays no other.

A lane belongs to one URL in one process. A URL that answers may take half of the concurrent requests, one whose last
request failed takes one, and one that failed several times in a row takes none until its cooldown is over.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

from ..core.cooldown import Cooldown, Cooldowns
from ..core.per_process import PerProcess

__all__ = ["Lanes"]

_PATIENCE = 5
"""Failures in a row before a URL is left alone."""
_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(minutes=10)
_MOST_FAILING = 1000
"""URLs whose failures are remembered."""


class _Traffic:
    """The requests of one process that are under way."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.choosing = threading.Lock()
        self.under_way: Counter[str] = Counter()


class Lanes:
    """The lanes of one process, with a limit of concurrent requests over all URLs; safe for threads."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._traffic = PerProcess(_Traffic)
        self._cooldowns = Cooldowns[timedelta](
            lambda: Cooldown(_FIRST_PAUSE, _LONGEST_PAUSE, patience=_PATIENCE), most=_MOST_FAILING
        )

    @property
    def choosing(self) -> threading.Lock:
        """The lock to hold from looking for free lanes until one was entered."""
        return self._traffic.value.choosing

    @property
    def are_full(self) -> bool:
        """Return True if no further request may start."""
        traffic = self._traffic.value
        with traffic.lock:
            return traffic.under_way.total() >= self._concurrency

    def closed(self, now: timedelta) -> list[str]:
        """Return the URLs that nothing may be sent to now."""
        traffic = self._traffic.value
        with traffic.lock:
            taken = [url for url, requests in traffic.under_way.items() if requests >= self._limit(url)]
        return sorted({*taken, *self.paused(now)})

    def paused(self, now: timedelta) -> dict[str, timedelta]:
        """Return the URLs that are left alone because they keep failing, and for how much longer."""
        return {url: until - now for url, until in self._cooldowns.running(now).items()}

    def enter(self, url: str) -> None:
        """Note that a request starts."""
        traffic = self._traffic.value
        with traffic.lock:
            traffic.under_way[url] += 1

    def leave(self, url: str) -> None:
        """Note that a request ended in a way that says nothing about the next one."""
        traffic = self._traffic.value
        with traffic.lock:
            traffic.under_way[url] -= 1
            if not traffic.under_way[url]:
                del traffic.under_way[url]

    def succeeded(self, url: str) -> None:
        """Note that a request ended well."""
        self._cooldowns.succeeded(url)
        self.leave(url)

    def failed(self, url: str, now: timedelta) -> timedelta | None:
        """Note that a request failed.

        Returns:
            For how long to leave the URL alone; None if it has not failed often enough for that.
        """
        until = self._cooldowns.failed(url, now)
        self.leave(url)
        return None if until is None else until - now

    def _limit(self, url: str) -> int:
        return 1 if url in self._cooldowns else max(1, self._concurrency // 2)
