"""When an alert is raised, and when it is cleared: pure, and the same for every alert.

An alert is raised above its limit. It is not cleared at once below it, or a rate that wavers around the limit would
raise and clear it all the time: the measure has to fall to nine tenths of the limit, or to stay at or below the limit
for a whole window.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

__all__ = ["CLEARS_AT", "Measure", "is_raised"]

CLEARS_AT = 0.9
"""The share of the limit at which a raised alert is cleared at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What was measured for an alert.

    Args:
        value: in the alert's own unit.
        limit: in the same unit.
        sample: how many things it was measured on.
        is_enough: whether these are enough to raise the alert, or to clear it at once.
    """

    value: float
    limit: float
    sample: int
    is_enough: bool = True

    @property
    def is_above(self) -> bool:
        """Whether the value exceeds the limit."""
        return self.value > self.limit


def is_raised(measure: Measure, *, before: bool, not_above_for: timedelta, window: timedelta) -> bool:
    """Whether an alert is raised now.

    Args:
        measure: what was measured.
        before: whether it has been raised so far.
        not_above_for: how long ago it was last found above its limit.
        window: of the alert.
    """
    if not before:
        return measure.is_above and measure.is_enough
    if measure.is_above:  # however few: a failure that goes on in a quiet hour is no all-clear
        return True
    fell = measure.is_enough and measure.value <= CLEARS_AT * measure.limit
    return not fell and not_above_for < window
