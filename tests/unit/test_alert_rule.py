"""When an alert is raised and cleared: the rule alone, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flask_contenthub_webhook.operations.alert_measures import occurrences_within
from flask_contenthub_webhook.operations.alert_rule import Measure, is_raised

WINDOW = timedelta(minutes=5)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def raised(share: float, *, before: bool, sample: int = 100, not_above_for: timedelta = timedelta(seconds=30)) -> bool:
    measure = Measure(value=share, limit=0.10, sample=sample, is_enough=sample >= 20)
    return is_raised(measure, before=before, not_above_for=not_above_for, window=WINDOW)


def test_the_stream_of_9_11_11_9_percent_fires_once_and_clears_once():
    states = [False]
    for share in (0.09, 0.11, 0.11, 0.09):
        states.append(raised(share, before=states[-1]))
    assert states == [False, False, True, True, False]


def test_the_limit_itself_is_allowed():
    assert not raised(0.10, before=False)
    assert raised(0.1001, before=False)


def test_a_rate_that_wavers_around_the_limit_does_not_clear_and_fire_again():
    for share in (0.101, 0.099, 0.095, 0.091):
        assert raised(share, before=True)


def test_a_rate_that_stays_at_the_limit_or_below_for_a_whole_window_clears():
    assert raised(0.095, before=True, not_above_for=WINDOW - timedelta(seconds=1))
    assert not raised(0.095, before=True, not_above_for=WINDOW)


@pytest.mark.parametrize("share", [0.0, 0.11, 1.0])
@pytest.mark.parametrize("before", [False, True])
def test_with_too_few_nothing_changes(share: float, before: bool):
    assert raised(share, before=before, sample=19) is before


def test_few_that_are_well_clear_after_a_whole_window_and_few_that_still_fail_never_do():
    assert not raised(0.0, before=True, sample=0, not_above_for=WINDOW)
    assert not raised(0.05, before=True, sample=19, not_above_for=WINDOW)
    assert raised(0.5, before=True, sample=2, not_above_for=WINDOW)


class TestOccurrences:
    def test_what_lies_within_counts_in_full_and_what_lies_outside_not_at_all(self):
        tallies = [tally(-4, -2, 7), tally(-1, -1, 3), tally(-20, -10, 100), tally(-8, -8, 50)]
        assert occurrences_within(tallies, ago(5), None) == 10

    def test_a_row_that_began_before_or_went_on_after_counts_in_part(self):
        assert occurrences_within([tally(-10, 0, 40)], ago(5), None) == 20
        assert occurrences_within([tally(-10, 0, 40)], ago(20), ago(5)) == 20
        assert occurrences_within([tally(-10, 0, 40)], ago(8), ago(4)) == 16


def tally(opened: int, updated: int, occurrences: int) -> tuple[datetime, datetime, int]:
    return ago(-opened), ago(-updated), occurrences


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)
