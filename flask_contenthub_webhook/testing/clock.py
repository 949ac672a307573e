"""A clock that tests move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import Flask

from ..runtime.state import get_state

__all__ = ["MovableClock"]


class MovableClock:
    """Stands still until it is moved; every deadline, backoff and poll of the app goes by it.

    Args:
        app: the host's app.
        now: the time to begin with; by default the real one.
    """

    def __init__(self, app: Flask, now: datetime | None = None) -> None:
        self._state = get_state(app)
        self._real = self._state.clock
        self.now = now or datetime.now(UTC)
        self._state.clock = self

    def __call__(self) -> datetime:
        """The time, as the app asks for it."""
        return self.now

    def advance(self, seconds: float = 0, **parts: float) -> datetime:
        """Move forward.

        Args:
            seconds: how far.
            **parts: or in the words of ``timedelta``: ``minutes``, ``hours``, ``days``.

        Returns:
            The new time.
        """
        self.now += timedelta(seconds=seconds, **parts)
        return self.now

    def restore(self) -> None:
        """Give the app its real clock back."""
        self._state.clock = self._real
