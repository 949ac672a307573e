"""The pause of a creator that is away: all processes leave it alone, and one call finds out whether it is back.

Its length doubles with each failure. When it is over, one process takes the turn, for a minute at most, and makes one
call at a time until one of them is answered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.logs import get_logger
from ..core.per_process import PerProcess
from ..errors import CreatorError
from .holds import Holds, LeftAlone

__all__ = ["ALL_CALLS", "LONGEST_PAUSE", "Pause"]

logger = get_logger(__name__)

ALL_CALLS = "all calls"
"""The name of the hold that is the pause."""
_FIRST, _LONGEST_FIRST, LONGEST_PAUSE = 5.0, 30.0, 300.0
"""Seconds: of the first pause, also where the answer asks for a longer one, and of the last."""
_TURN = 60.0
"""Seconds after which another process takes the turn of one that has died."""


class _Turn:
    """The turn of this process: the version of the hold that it took, and whether a call is using it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.version: int | None = None
        self.is_used = False


class Pause:
    """The pause of one creator; safe for threads."""

    def __init__(self, holds: Holds) -> None:
        self.holds = holds
        self._turn = PerProcess(_Turn)

    def is_on(self, *, at_once: bool = False) -> bool:
        """Return True while the creator must be left alone; when the pause is over, this takes the turn if it can.

        Args:
            at_once: ask the database, even if that was done a moment ago.
        """
        self.holds.refresh(at_once=at_once)
        turn = self._turn.value
        with turn.lock:
            return not self._may_call(turn)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Make a call in the block; afterwards report :meth:`failed` or :meth:`succeeded`.

        Raises:
            LeftAlone: the pause is on.
        """
        self.holds.refresh()
        turn = self._turn.value
        with turn.lock:
            if not self._may_call(turn):
                remaining = self.holds.remaining(ALL_CALLS)
                message = f"The creator was away a moment ago; it is left alone for {remaining:.0f} s."
                raise LeftAlone(message, retry_after=remaining)
            uses_turn = turn.version is not None
            turn.is_used = uses_turn
        try:
            yield
        finally:
            if uses_turn:
                turn.is_used = False

    def failed(self, error: CreatorError | None = None) -> None:
        """Begin a pause, or the next, longer one, because a call has shown that the creator is away."""
        turn = self._turn.value
        self.holds.refresh(at_once=True)
        had_turn = turn.version is not None and self._has_turn(turn)
        at_least = 0.0 if error is None or error.retry_after is None else error.retry_after
        first = min(max(_FIRST, at_least), _LONGEST_FIRST)
        self.holds.failed(ALL_CALLS, first=first, longest=LONGEST_PAUSE, at_least=at_least, under_way=had_turn)
        turn.version = None

    def succeeded(self) -> None:
        """End the pause, as the creator has answered."""
        self._turn.value.version = None
        if ALL_CALLS in self.holds:
            self.holds.succeeded(ALL_CALLS)
            logger.info("The creator answers again.")

    def lift(self) -> None:
        """End the pause without having heard from the creator: a person wants it to be asked now."""
        self.holds.refresh(at_once=True)
        self.holds.succeeded(ALL_CALLS)

    def release(self) -> None:
        """Give back a turn that was not used, as there was nothing to ask."""
        turn = self._turn.value
        with turn.lock:
            hold = self.holds.get(ALL_CALLS)
            if turn.version is not None and not turn.is_used:
                if hold is not None and hold.version == turn.version:
                    self.holds.move(ALL_CALLS, hold, self.holds.now())
                turn.version = None

    def _may_call(self, turn: _Turn) -> bool:
        hold = self.holds.get(ALL_CALLS)
        if hold is None:
            turn.version = None
            return True
        now = self.holds.now()
        if self._has_turn(turn) and hold.until > now:
            return not turn.is_used
        if hold.until > now:
            return False
        taken = self.holds.move(ALL_CALLS, hold, now + _TURN)
        turn.version = None if taken is None else taken.version
        return taken is not None

    def _has_turn(self, turn: _Turn) -> bool:
        hold = self.holds.get(ALL_CALLS)
        return hold is not None and hold.version == turn.version
