"""Which URLs may be sent to: no URL takes everything, and one that keeps failing takes nothing for a while."""

from __future__ import annotations

from datetime import timedelta

from flask_contenthub_webhook.runtime.forward_lanes import Lanes

NOW = timedelta(hours=8)
URL, OTHER = "https://one.example/", "https://two.example/"


def fail(lanes: Lanes, url: str = URL, *, times: int = 1, now: timedelta = NOW) -> timedelta | None:
    pause = None
    for _ in range(times):
        lanes.enter(url)
        pause = lanes.failed(url, now)
    return pause


def test_one_url_takes_half_of_the_room():
    lanes = Lanes(8)
    for _ in range(4):
        assert lanes.closed(NOW) == []
        lanes.enter(URL)
    assert lanes.closed(NOW) == [URL]
    assert not lanes.are_full

    lanes.succeeded(URL)
    assert lanes.closed(NOW) == []


def test_all_together_never_take_more_than_there_is():
    lanes = Lanes(3)
    for number in range(3):
        assert not lanes.are_full
        lanes.enter(f"{URL}{number}")
    assert lanes.are_full


def test_where_there_is_room_for_one_each_gets_it():
    lanes = Lanes(1)
    lanes.enter(URL)
    assert lanes.are_full
    lanes.succeeded(URL)
    assert not lanes.are_full


def test_one_whose_last_request_failed_takes_one():
    lanes = Lanes(8)
    fail(lanes)
    assert lanes.closed(NOW) == []
    lanes.enter(URL)
    assert lanes.closed(NOW) == [URL]


def test_five_failures_in_a_row_begin_a_pause_that_doubles_up_to_ten_minutes():
    lanes, now, pauses = Lanes(8), NOW, []
    assert fail(lanes, times=4) is None
    for _ in range(8):
        pause = fail(lanes, now=now)
        assert pause is not None
        assert lanes.paused(now) == {URL: pause}
        assert lanes.closed(now) == [URL]
        now += pause
        assert lanes.closed(now) == []
        pauses.append(pause / timedelta(seconds=1))
    expected = [30, 60, 120, 240, 480, 600, 600, 600]
    assert all(0.9 * length <= pause <= 1.1 * length for pause, length in zip(pauses, expected, strict=True))


def test_failures_that_were_under_way_when_the_pause_began_do_not_lengthen_it():
    lanes = Lanes(8)
    for _ in range(7):
        lanes.enter(URL)
    pauses = [lanes.failed(URL, NOW) for _ in range(7)]
    assert pauses[:4] == [None] * 4
    assert pauses[4] is not None
    assert pauses[4:] == [pauses[4]] * 3

    next_pause = fail(lanes, now=NOW + pauses[4])
    assert next_pause is not None
    assert next_pause < timedelta(seconds=67)


def test_a_success_forgets_the_failures():
    lanes = Lanes(8)
    fail(lanes, times=7)
    lanes.enter(URL)
    lanes.succeeded(URL)
    assert lanes.paused(NOW) == {}
    assert fail(lanes, times=4) is None


def test_an_end_that_says_nothing_changes_nothing():
    lanes = Lanes(2)
    fail(lanes, times=4)
    lanes.enter(URL)
    lanes.leave(URL)
    assert lanes.closed(NOW) == []
    assert fail(lanes) is not None


def test_a_failing_url_does_not_close_another():
    lanes = Lanes(8)
    fail(lanes, times=9)
    fail(lanes, OTHER)
    assert lanes.closed(NOW) == [URL]


def test_only_so_many_failing_urls_are_remembered():
    lanes = Lanes(8)
    for number in range(1100):
        fail(lanes, f"{URL}{number}", times=5)
    paused = lanes.paused(NOW)
    assert len(paused) == 1000
    assert f"{URL}1099" in paused
    assert f"{URL}0" not in paused
