"""The overview's chart as numbers; tests/browser looks at what is drawn."""

from __future__ import annotations

from itertools import pairwise

import pytest

from flask_contenthub_webhook.contrib.dashboard.charts import stacked_bars


def test_parts_stand_on_each_other_and_nothing_is_drawn_for_zero():
    chart = stacked_bars(["09:00", "10:00"], {"accepted": [3, 0], "dead": [1, 2]})

    (accepted,) = chart.series["accepted"]
    on_accepted, on_the_ground = chart.series["dead"]
    assert (accepted.label, accepted.value) == ("09:00", 3)
    assert accepted.y + accepted.height == pytest.approx(chart.base)
    assert on_accepted.y + on_accepted.height == pytest.approx(accepted.y)
    assert on_the_ground.y + on_the_ground.height == pytest.approx(chart.base)
    assert on_accepted.x < on_the_ground.x


@pytest.mark.parametrize(
    ("highest", "numbers"),
    [
        (0, [0, 1, 2, 3, 4]),
        (5, [0, 1, 2, 3, 4, 5]),
        (17, [0, 5, 10, 15, 20]),
        (2_345_678, [0, 500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000]),
    ],
)
def test_at_most_five_round_numbers_lead_above_the_highest_bar(highest, numbers):
    chart = stacked_bars(["09:00"], {"accepted": [highest]})

    assert [number for _, number in chart.lines] == numbers
    assert all(part.y >= chart.lines[-1][0] for part in chart.series["accepted"])


@pytest.mark.parametrize("bars", [1, 25, 49])
def test_every_bar_is_inside_and_not_more_than_eight_are_labelled(bars):
    chart = stacked_bars([str(place) for place in range(bars)], {"accepted": [1_000_000] * bars})

    edges = [(part.x, part.x + chart.bar_width) for part in chart.series["accepted"]]
    assert chart.left <= edges[0][0]
    assert edges[-1][1] <= chart.right
    assert all(right <= left for (_, right), (left, _) in pairwise(edges))
    assert 1 <= len(chart.ticks) <= 8
