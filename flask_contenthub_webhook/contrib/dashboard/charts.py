"""Positions of a chart of stacked bars, in its own unit; the template ``chart.html`` draws them as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

__all__ = ["Chart", "Part", "stacked_bars"]

_WIDTH, _HEIGHT = 920, 260
_TOP, _BASE = 10, 236
_MARGIN, _DIGIT = 44, 8
_WIDEST_BAR = 64
_MOST_LABELS = 8
_MOST_LINES = 5
_LOWEST_TOP = 4


class Part(NamedTuple):
    """A series' part of a bar, and the number that it stands for.

    ``place`` is the number of its bar, from the left.
    """

    x: float
    y: float
    height: float
    label: str
    value: int
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Everything to draw: horizontal lines with their numbers, ticks with their labels, bars, their parts by series."""

    left: float
    right: float
    bar_width: float
    slot: float
    top: int
    lines: list[tuple[float, int]]
    ticks: list[tuple[float, str]]
    bars: list[tuple[float, str]]
    series: dict[str, list[Part]]
    width: int = _WIDTH
    height: int = _HEIGHT
    base: int = _BASE


def stacked_bars(labels: Sequence[str], series: Mapping[str, Sequence[int]]) -> Chart:
    """Lay out a bar for each label, with a part for each series.

    Args:
        labels: under the bars, at least one; some are left out if there are many.
        series: by name, from the bottom up, a number for each label.
    """
    highest = max(_LOWEST_TOP, *(sum(values) for values in zip(*series.values(), strict=True)))
    steps = (digit * 10**power for power in count() for digit in (1, 2, 5))
    step = next(step for step in steps if step * _MOST_LINES >= highest)
    numbers = range(0, highest + step, step)
    scale = (_BASE - _TOP) / numbers[-1]
    left, right = max(_MARGIN, _DIGIT * len(f"{numbers[-1]:,}")), _WIDTH - _MARGIN
    slot = (right - left) / len(labels)
    bar_width = min(_WIDEST_BAR, slot * 0.88)
    middles = [left + slot * (place + 0.5) for place in range(len(labels))]
    tops = [0] * len(labels)
    parts: dict[str, list[Part]] = {}
    for name, values in series.items():
        tops = [top + value for top, value in zip(tops, values, strict=True)]
        parts[name] = [
            Part(_near(middle - bar_width / 2), _near(_BASE - top * scale), _near(value * scale), label, value, place)
            for place, (middle, top, value, label) in enumerate(zip(middles, tops, values, labels, strict=True))
            if value
        ]
    ticks = [(_near(middle), label) for middle, label in zip(middles, labels, strict=True)]
    return Chart(
        left=left,
        right=right,
        bar_width=_near(bar_width),
        lines=[(_near(_BASE - number * scale), number) for number in numbers],
        bars=[(_near(middle - slot / 2), label) for middle, label in zip(middles, labels, strict=True)],
        slot=_near(slot),
        top=_TOP,
        ticks=ticks[:: -(-len(labels) // _MOST_LABELS)],
        series=parts,
    )


def _near(position: float) -> float:
    return round(position, 1)
