"""A clock that is set is noticed once, and one that is slewed is not."""

from __future__ import annotations

import pytest
from flask import Flask

from flask_contenthub_webhook.errors import RateLimited
from flask_contenthub_webhook.runtime.clock_watch import ClockWatch
from flask_contenthub_webhook.runtime.rate_limit import RateLimit


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


def test_a_rate_limit_counts_anew_when_the_clock_was_set(wall: Seconds, steady: Seconds):
    limit = RateLimit(Flask("host"), "2/hour", watch=ClockWatch(wall, steady))
    for _ in range(2):
        limit.check("192.0.2.1")
    with pytest.raises(RateLimited) as refusal:
        limit.check("192.0.2.1")
    assert 0 < (refusal.value.retry_after or 0) <= 3600

    wall.now -= 3600
    limit.check("192.0.2.1")
