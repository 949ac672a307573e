"""Circuit breakers: a cooldown after enough failures, each twice as long, and ended by a success."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flask_contenthub_webhook.core.cooldown import Cooldown, Cooldowns
from tests.support.host import at_once

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def cooldown(**options: int) -> Cooldown[timedelta]:
    return Cooldown(seconds(10), seconds(25), jitter=False, **options)


def test_calls_that_fail_side_by_side_count_as_one_failure():
    it, now = cooldown(), seconds(0)
    for expected in (10, 20, 25, 25):
        for _ in range(8):
            it.failed(now)
        assert it.remaining(now) == seconds(expected)
        now += seconds(expected)
        assert it.remaining(now) == seconds(0)
        assert not it.is_on(now)


def test_patience_comes_first():
    it = cooldown(patience=3)
    assert [it.failed(seconds(0)) for _ in range(4)] == [None, None, seconds(10), seconds(10)]
    assert it.failed(seconds(10)) == seconds(30)


def test_a_success_ends_it_and_forgets_the_failures():
    it = cooldown()
    it.failed(seconds(0))
    it.failed(seconds(10))
    assert it.is_on(seconds(11))
    it.succeeded()
    assert not it.is_on(seconds(11))
    assert it.failed(seconds(11)) == seconds(21)


def test_a_long_outage_stays_at_the_longest():
    it, now = cooldown(), seconds(0)
    for _ in range(2000):
        until = it.failed(now)
        assert until is not None
        now = until
    assert it.failed(now) == now + seconds(25)


def test_jitter_spreads_those_that_failed_together():
    ends = {Cooldown[datetime](seconds(60), seconds(60)).failed(NOW) for _ in range(50)}
    assert len(ends) > 25
    assert all(end is not None and seconds(54) <= end - NOW <= seconds(66) for end in ends)


def test_threads_that_fail_at_the_same_moment_count_once():
    for _ in range(20):
        it = cooldown()
        assert set(at_once(*[lambda it=it: it.failed(seconds(0))] * 8)) == {seconds(10)}
        assert it.failed(seconds(10)) == seconds(30)


class TestByName:
    def test_each_name_has_its_own(self):
        it = Cooldowns(cooldown)
        it.failed("a", seconds(0))
        it.failed("b", seconds(5))
        assert it.remaining("a", seconds(6)) == seconds(4)
        assert it.running(seconds(6)) == {"a": seconds(10), "b": seconds(15)}
        assert it.running(seconds(12)) == {"b": seconds(15)}
        assert it.remaining("c", seconds(6)) == seconds(0)

    def test_a_name_that_failed_is_remembered_until_it_succeeds(self):
        it = Cooldowns(cooldown)
        it.failed("a", seconds(0))
        assert "a" in it
        assert it.remaining("a", seconds(99)) == seconds(0)
        it.succeeded("a")
        it.succeeded("never failed")
        assert "a" not in it

    @pytest.mark.parametrize("again", ["a", "b"])
    def test_the_name_that_failed_longest_ago_is_forgotten_first(self, again: str):
        it = Cooldowns(cooldown, most=2)
        for name in ("a", "b", again, "c"):
            it.failed(name, seconds(0))
        assert [name for name in "abc" if name in it] == [again, "c"]
