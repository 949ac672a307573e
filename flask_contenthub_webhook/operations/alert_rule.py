"""The rule by which alerts are raised and cleared.

An alert is raised above its limit. To clear it, the measure must fall to nine tenths of the limit, or stay at or below
the limit for a whole window; otherwise a rate that wavers around the limit would raise and clear it all the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

__all__ = ["CLEARS_AT", "Measure", "is_raised"]

CLEARS_AT = 0.9
"""The share of the limit at which a raised alert is cleared at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """The measured value of an alert, and its limit in the same unit.

    Args:
        sample: the number of events, tasks or requests that were measured.
        is_enough: False if these are too few to raise the alert, or to clear it at once.
    """

    value: float
    limit: float
    sample: int
    is_enough: bool = True

    @property
    def is_above(self) -> bool:
        """True if the value exceeds the limit."""
        return self.value > self.limit


def is_raised(measure: Measure, *, before: bool, not_above_for: timedelta, window: timedelta) -> bool:
    """Decide whether an alert is raised now, if it was ``before``, and above its limit ``not_above_for`` ago."""
    if not before:
        return measure.is_above and measure.is_enough
    if measure.is_above:  # however few: a failure that continues in a quiet hour does not clear it
        return True
    fell = measure.is_enough and measure.value <= CLEARS_AT * measure.limit
    return not fell and not_above_for < window
