"""How options that several commands have are read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

__all__ = ["RATE", "read_attempt", "read_moment"]

RATE = click.FloatRange(0, 1)

_AGO = re.compile(r"(\d{1,6})\s*(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_moment(text: str) -> datetime:
    """A point in time: ``30m``, ``2h``, ``7d`` ago, or a date and time in ISO 8601, UTC where it names no zone."""
    try:
        if found := _AGO.fullmatch(text.strip()):
            return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is no time; write 30m, 2h or 7d (ago), or 2026-11-24T08:00.") from None


def read_attempt(text: str) -> int | None:
    """The number of an attempt, from 1; ``current`` is None: a URL that speaks for whichever is."""
    if text == "current":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise click.BadParameter(f"{text!r} is no attempt; write a number from 1, or current.")
    return int(text)
