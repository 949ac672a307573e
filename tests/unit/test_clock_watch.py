"""A clock that is set is noticed once, and one that is slewed is not."""

from __future__ import annotations

import pytest

from flask_contenthub_webhook.runtime.clock_watch import ClockWatch


class Seconds:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Seconds:
    return Seconds()


@pytest.fixture
def steady() -> Seconds:
    return Seconds()


@pytest.mark.parametrize("seconds", [3600, -3600, 2, -2])
def test_a_clock_that_is_set_is_noticed_once(wall: Seconds, steady: Seconds, seconds: float):
    watch = ClockWatch(wall, steady)
    wall.now += 5 + seconds
    steady.now += 5
    assert watch.set_by() == pytest.approx(seconds)
    assert watch.set_by() == 0


def test_time_that_passes_and_a_clock_that_is_slewed_are_not(wall: Seconds, steady: Seconds):
    watch = ClockWatch(wall, steady)
    for _ in range(20):
        wall.now += 1_000.4
        steady.now += 1_000
        assert watch.set_by() == 0
