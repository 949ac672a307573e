"""Clocks: signed timestamps are refused if ours and the sender's are too far apart."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from .findings import DoctorContext, Finding, check, ok, skip, warn

__all__ = ["check_clock"]

_TOLERATED = timedelta(seconds=60)


@check("clock")
def check_clock(context: DoctorContext) -> Iterator[Finding]:
    """Compare our clock with the ``Date`` of the answers to other checks."""
    skewed = {whose: skew for whose, skew in context.skews.items() if abs(skew) > _TOLERATED}
    for whose, skew in skewed.items():
        apart = f"{abs(skew.total_seconds()):.0f} s {'ahead of' if skew > timedelta(0) else 'behind'}"
        yield warn(
            f"The clock of {whose} is {apart} ours; timestamps in signatures and deadlines depend on it.",
            "Synchronise the clocks of both machines with NTP.",
        )
    if not context.skews:
        yield skip("Clock not checked: nothing answered with a Date header.")
    elif not skewed:
        yield ok(f"Our clock agrees with that of {' and '.join(context.skews)}.")
