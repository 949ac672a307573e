"""What a check is given, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

    from ...runtime.state import WebhookState

__all__ = ["Examination", "Finding", "Level"]


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, but it is weaker than it should be, or somebody should know."""
    FAIL = "fail"
    """It does not work, or it is open to strangers."""
    SKIP = "skip"
    """It was not looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Args:
        check: what was looked at.
        level: how bad it is.
        message: what is, in one sentence.
        remedy: what to do about it; empty where nothing is to be done.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""


@dataclass(slots=True)
class Examination:
    """What is shared by all checks of one run.

    Args:
        state: the application's state.
        client: for HTTP; follows no redirects.
        has_schema: False once the tables are known not to be as they should.
        skews: how far the clocks of others are ahead of ours.
    """

    state: WebhookState
    client: httpx.Client
    has_schema: bool = True
    skews: dict[str, timedelta] = field(default_factory=dict)

    def note_clock(self, whose: str, answer: httpx.Response) -> None:
        """Compare the ``Date`` of an answer that just came with our own time."""
        try:
            theirs = parsedate_to_datetime(answer.headers["Date"])
        except (KeyError, ValueError, TypeError):
            return
        theirs = theirs.replace(tzinfo=UTC) if theirs.tzinfo is None else theirs
        self.skews[whose] = theirs - datetime.now(UTC)
