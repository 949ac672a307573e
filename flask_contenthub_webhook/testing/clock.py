"""A clock that tests move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import Flask

from ..runtime.state import get_state

__all__ = ["MovableClock"]


class MovableClock:
    """A clock that stands still until it is moved; the app uses it for every deadline, backoff and poll.

    Args:
        app: the host's app.
        now: the time at which it starts; by default the real time.
    """

    def __init__(self, app: Flask, now: datetime | None = None) -> None:
        self._state = get_state(app)
        self._real = self._state.clock
        self.now = now or datetime.now(UTC)
        self._state.clock = self

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def advance(self, seconds: float = 0, **parts: float) -> datetime:
        """Move forward.

        Args:
            seconds: the distance.
            **parts: other units of ``timedelta``: ``minutes``, ``hours``, ``days``.

        Returns:
            The new time.
        """
        self.now += timedelta(seconds=seconds, **parts)
        return self.now

    def restore(self) -> None:
        """Return the app to its real clock."""
        self._state.clock = self._real
