"""Clocks: signed timestamps are refused where ours and the sender's are too far apart."""

from __future__ import annotations

from datetime import timedelta

from .findings import Examination, Finding, Level

__all__ = ["check_clock"]

_TOLERATED = timedelta(seconds=60)


def check_clock(examination: Examination) -> list[Finding]:
    """Compare our clock with the ``Date`` of whoever answered."""
    if not examination.skews:
        return [Finding("clock", Level.SKIP, "Nobody told us the time.")]
    findings = [
        Finding(
            "clock",
            Level.WARN,
            f"The clock of {whose} is {_words(skew)} ours; timestamps in signatures and deadlines depend on it.",
            "Let NTP set the clocks of both machines.",
        )
        for whose, skew in examination.skews.items()
        if abs(skew) > _TOLERATED
    ]
    return findings or [Finding("clock", Level.OK, f"Ours agrees with {' and '.join(examination.skews)}.")]


def _words(skew: timedelta) -> str:
    return f"{abs(skew.total_seconds()):.0f} s {'ahead of' if skew > timedelta(0) else 'behind'}"
