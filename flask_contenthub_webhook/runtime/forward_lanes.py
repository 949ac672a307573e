"""Per-URL concurrency limits and circuit breaking for forwards, so that a URL that hangs or fails delays no other.

A lane belongs to one URL in one process. A URL that answers may take half of the concurrent requests, one whose last
request failed takes one, and one that failed several times in a row takes none until its cooldown is over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
_UNTIL_MORE = 150
"""Requests after which more of what was postponed is made due; fewer than are made due at once."""


class _Traffic:
    """The requests of one process that are under way, and what the last ones taught."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.choosing = threading.Lock()
        self.under_way: Counter[str] = Counter()
        self.moving: set[str] = set()
        self.postponed: dict[str, int] = {}
        """URLs that answer again, and the requests until more of what was postponed is made due."""


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

    def succeeded(self, url: str, *, after_failures: bool = False) -> None:
        """Note that a request ended well.

        Args:
            url: where it went.
            after_failures: True if what was sent had failed before, perhaps by another process.
        """
        traffic = self._traffic.value
        if after_failures or url in self._cooldowns:
            with traffic.lock:
                if len(traffic.postponed) < _MOST_FAILING:
                    traffic.postponed.setdefault(url, 0)
        self._cooldowns.succeeded(url)
        self.leave(url)

    @contextmanager
    def moving(self, url: str) -> Iterator[bool]:
        """Postpone what waits for this URL in the block, unless it yields False: another thread does so already."""
        traffic = self._traffic.value
        with traffic.lock:
            is_ours = url not in traffic.moving
            traffic.moving.add(url)
        try:
            yield is_ours
        finally:
            if is_ours:
                with traffic.lock:
                    traffic.moving.discard(url)

    def wants_postponed(self, url: str) -> bool:
        """Return True if more of what was postponed for this URL, which answers again, should be made due."""
        traffic = self._traffic.value
        with traffic.lock:
            left = traffic.postponed.get(url)
            if left is not None:
                traffic.postponed[url] = _UNTIL_MORE if left == 0 else left - 1
            return left == 0

    def postponed(self) -> list[str]:
        """Return the URLs that answer again, and for which something may be postponed still."""
        traffic = self._traffic.value
        with traffic.lock:
            return list(traffic.postponed)

    def forget_postponed(self, url: str) -> None:
        """Note that nothing is postponed for this URL any longer, or that it fails again."""
        traffic = self._traffic.value
        with traffic.lock:
            traffic.postponed.pop(url, None)

    def failed(self, url: str, now: timedelta) -> timedelta | None:
        """Note that a request failed.

        Returns:
            For how long to leave the URL alone; None if it has not failed often enough for that.
        """
        until = self._cooldowns.failed(url, now)
        self.forget_postponed(url)
        self.leave(url)
        return None if until is None else until - now

    def _limit(self, url: str) -> int:
        return 1 if url in self._cooldowns else max(1, self._concurrency // 2)
