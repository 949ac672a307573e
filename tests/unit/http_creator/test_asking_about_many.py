"""Questions about many tasks: through the list, and one by one where the list kills the creator."""

from __future__ import annotations

import json
import threading
import time
import uuid
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from flask_contenthub_webhook.creators import RemoteState
from flask_contenthub_webhook.errors import CreatorError, CreatorRefused, CreatorUnclear, CreatorUnreachable
from tests.support.creator_server import (
    CUT,
    HANG,
    Reply,
    Seen,
    TrapRiddenApi,
    captured,
    failure,
    replay,
    success,
)
from tests.support.http_creator import ID, NOW, OTHER, Clock, ids

# --- asking about many ---------------------------------------------------------------------------------------


def test_nothing_is_asked_about_no_task(serve, connect):
    server = serve(CUT)

    assert connect(server).statuses([]) == {}
    assert server.seen == []


def test_the_real_list_is_understood(serve, connect):
    server = serve(replay("list-page1-limit1"))

    reports = connect(server).statuses([ID])

    assert reports[ID].state is RemoteState.COMPLETED
    assert json.loads(reports[ID].raw) == captured("list-page1-limit1")["response"]["body"]["data"]["tasks"][0]


def test_250_tasks_are_found_on_three_pages_and_no_page_is_larger_than_the_creator_allows(serve, connect):
    names = ids(250)
    server = serve(TrapRiddenApi((name, "running") for name in names))

    reports = connect(server).statuses(names)

    assert reports.keys() == set(names)
    assert server.lines == [f"GET /api/tasks?page={page}&limit=100" for page in (1, 2, 3)]


def test_the_walk_ends_where_everything_is_found(serve, connect):
    names = ids(250)
    server = serve(TrapRiddenApi((name, "completed") for name in names))

    reports = connect(server).statuses(names[:150:10])

    assert len(reports) == 15
    assert len(server.seen) == 2


def test_what_a_whole_list_does_not_hold_is_missing_and_is_never_asked_about_singly(serve, connect):
    names = ids(250)
    server = serve(TrapRiddenApi((name, "running") for name in names))

    reports = connect(server).statuses([ID, names[249], OTHER])

    assert {name: report.state for name, report in reports.items()} == {
        ID: RemoteState.MISSING,
        OTHER: RemoteState.MISSING,
        names[249]: RemoteState.OPEN,
    }
    assert all(line.startswith("GET /api/tasks?") for line in server.lines)
    assert server.deaths == 0


def test_the_walk_ends_where_tasks_are_older_than_what_is_sought(serve, connect):
    server = serve(TrapRiddenApi((name, "completed") for name in ids(5000)))

    reports = connect(server).statuses([ID], since=NOW)

    assert reports[ID].state is RemoteState.MISSING
    assert len(server.seen) == 10  # a quarter of an hour of slack, at one task a second


def test_a_clock_that_is_off_does_not_end_the_walk_too_soon(serve, connect):
    names = ids(300)
    api = TrapRiddenApi(((name, "running") for name in names), newest=NOW - timedelta(hours=5))
    api.now = NOW - timedelta(hours=5)
    server = serve(api)

    reports = connect(server).statuses([names[250]], since=NOW - timedelta(minutes=5))

    assert reports[names[250]].state is RemoteState.OPEN
    assert len(server.seen) == 3


def test_a_list_that_is_not_newest_first_is_read_to_its_end(serve, connect):
    api = TrapRiddenApi((name, "running") for name in ids(2000))
    api.rows.reverse()
    server = serve(api)

    reports = connect(server).statuses([ids(1)[0], ID], since=NOW)

    assert reports[ids(1)[0]].state is RemoteState.OPEN
    assert reports[ID].state is RemoteState.MISSING
    assert len(server.seen) == 20


def test_tasks_that_come_in_during_the_walk_push_nothing_out_of_it(serve, connect):
    names = ids(250)
    api = TrapRiddenApi((name, "running") for name in names)

    def growing(seen: Seen) -> Reply:
        reply = api(seen)
        api.rows[:0] = [{"id": str(uuid.uuid4()), "status": "running", "createdAt": "2026-11-24T12:00:01.000Z"}] * 7
        return reply

    server = serve(growing)

    reports = connect(server).statuses([*names, ID])

    assert sum(report.state is RemoteState.OPEN for report in reports.values()) == 250
    assert reports[ID].state is RemoteState.MISSING


def test_a_list_that_shrinks_during_the_walk_makes_nothing_missing(serve, connect):
    names = ids(250)
    api = TrapRiddenApi((name, "running") for name in names)

    def shrinking(seen: Seen) -> Reply:
        reply = api(seen)
        del api.rows[:50]
        return reply

    server = serve(shrinking)

    reports = connect(server).statuses([names[0], names[120]])

    assert reports.keys() == {names[0]}
    assert all(line.startswith("GET /api/tasks?") for line in server.lines)


def test_a_list_that_shrinks_makes_nothing_missing_where_the_walk_would_have_ended_early_either(serve, connect):
    names = ids(2000)
    api = TrapRiddenApi((name, "running") for name in names)

    def shrinking(seen: Seen) -> Reply:
        reply = api(seen)
        del api.rows[:50]
        return reply

    assert connect(serve(shrinking)).statuses([names[120]], since=NOW) == {}


def test_tasks_that_come_in_during_the_walk_do_not_keep_it_from_ending_early(serve, connect):
    api = TrapRiddenApi((name, "running") for name in ids(5000))

    def growing(seen: Seen) -> Reply:
        reply = api(seen)
        api.rows[:0] = [
            {"id": str(uuid.uuid4()), "status": "running", "createdAt": f"2026-11-24T12:00:{second:02}.000Z"}
            for second in range(7, 0, -1)
        ]
        return reply

    server = serve(growing)

    assert connect(server).statuses([ID], since=NOW)[ID].state is RemoteState.MISSING
    assert len(server.seen) == 10


def test_a_list_that_claims_more_tasks_than_it_shows_makes_nothing_missing(serve, connect):
    rows = [{"id": name, "status": "running"} for name in ids(100)]
    server = serve(success({"tasks": rows, "pagination": {"total": 250, "totalPages": 1}}))

    assert connect(server).statuses([ID]) == {}
    assert len(server.seen) == 1


def test_a_list_that_repeats_itself_is_not_read_for_ever_and_makes_nothing_missing(serve, connect):
    rows = [{"id": name, "status": "running"} for name in ids(100)]
    server = serve(success({"tasks": rows, "pagination": {"total": 5000, "totalPages": 50}}))

    assert connect(server).statuses([ID]) == {}
    assert len(server.seen) == 2


def test_a_list_that_is_too_long_is_given_up_and_the_rest_is_asked_about_singly(serve, connect):
    names = ids(500)
    server = serve(TrapRiddenApi((name, "running") for name in names))

    reports = connect(server, max_pages=2).statuses([names[0], names[450]])

    assert reports.keys() == {names[0], names[450]}
    assert server.lines[2:] == [f"GET /api/tasks/{names[450]}"]


def test_a_task_in_a_state_that_is_not_known_is_left_out_and_the_others_are_not(serve, connect):
    rows: list[Any] = [{"id": ID, "status": "archived"}, 7, {"id": 3}, {"id": OTHER, "status": "running"}]
    server = serve(success({"tasks": rows, "pagination": {"totalPages": 1}}))

    reports = connect(server).statuses([ID, OTHER])

    assert reports.keys() == {OTHER}
    assert len(server.seen) == 1


def test_a_list_without_numbers_ends_with_a_page_that_is_not_full(serve, connect):
    server = serve(success({"tasks": [{"id": ID, "status": "running"}]}))

    reports = connect(server).statuses([ID, OTHER])

    assert reports[OTHER].state is RemoteState.MISSING
    assert len(server.seen) == 1


# --- where the list kills ------------------------------------------------------------------------------------


class OnPostgres(TrapRiddenApi):
    """A creator that a supervisor starts again as soon as it is down."""

    def __call__(self, seen: Seen) -> Reply:
        reply = super().__call__(seen)
        return CUT if reply.dies else reply


def test_a_list_that_is_cut_is_replaced_by_single_questions_and_is_left_alone(serve, connect):
    names = ids(20)
    clock = Clock()
    server = serve(OnPostgres(((name, "running") for name in names), list_kills=True))
    creator = connect(server, monotonic=clock)

    for _ in range(3):
        assert creator.statuses(names).keys() == set(names)
        clock.seconds += 180

    assert [line for line in server.lines if "?" in line] == ["GET /api/tasks?page=1&limit=100"]
    assert len(server.seen) == 1 + 3 * 20


def test_each_further_death_by_the_list_doubles_the_time_for_which_it_is_left_alone(serve, connect):
    clock = Clock()
    server = serve(OnPostgres([(ID, "running")], list_kills=True))
    creator = connect(server, monotonic=clock)

    tries = []
    for _ in range(24 * 60):
        before = len(server.seen)
        assert creator.statuses([ID])[ID].state is RemoteState.OPEN
        tries += [clock.seconds] * any("?" in line for line in server.lines[before:])
        clock.seconds += 60

    assert [later - sooner for sooner, later in pairwise(tries)] == [600, 1200, 2400, 4800, 9600, 19200, 38400]


def test_a_list_that_works_again_is_used_again(serve, connect):
    clock = Clock()
    api = OnPostgres([(ID, "running")], list_kills=True)
    server = serve(api)
    creator = connect(server, monotonic=clock)
    creator.statuses([ID])
    api.list_kills = False
    clock.seconds += 600

    reports = creator.statuses([ID, OTHER])

    assert reports[OTHER].state is RemoteState.MISSING
    assert server.lines[2:] == ["GET /api/tasks?page=1&limit=100"]


def test_a_creator_whose_list_is_switched_off_is_never_asked_for_it(serve, connect):
    names = ids(30)
    server = serve(OnPostgres(((name, "running") for name in names), list_kills=True))

    assert connect(server, listing=False).statuses(names).keys() == set(names)
    assert all("?" not in line for line in server.lines)


def test_a_creator_that_is_really_down_after_the_list_is_found_out_with_one_more_call(serve, connect):
    server = serve(TrapRiddenApi([(name, "running") for name in ids(50)], list_kills=True))

    with pytest.raises(CreatorUnreachable):
        connect(server).statuses(ids(50))

    assert len(server.seen) == 1


def test_a_single_question_that_is_cut_ends_the_asking_and_what_is_known_is_kept(serve, connect):
    names = ids(5)
    server = serve(OnPostgres(((name, "running") for name in names), list_kills=True))

    reports = connect(server, concurrency=1).statuses([names[0], names[1], ID, names[2], names[3]])

    assert reports.keys() == {names[0], names[1]}
    assert server.lines[1:] == [f"GET /api/tasks/{name}" for name in (names[0], names[1], ID)]


def test_a_single_question_that_is_cut_is_an_error_where_nothing_is_known(serve, connect):
    server = serve(OnPostgres(list_kills=True))

    with pytest.raises(CreatorUnclear):
        connect(server).statuses([ID, OTHER])

    assert len(server.seen) == 2


def test_an_id_that_kills_is_found_among_its_neighbours_and_they_are_answered(serve, connect):
    names = ids(12)
    clock = Clock()
    api = OnPostgres(((name, "running") for name in names), list_kills=True)
    deaths = 0

    def cuts_all_that_is_under_way(seen: Seen) -> Reply:
        nonlocal deaths
        before = deaths
        deaths += ID in seen.target
        time.sleep(0.01)
        return api(seen) if deaths == before else CUT

    server = serve(cuts_all_that_is_under_way)
    creator = connect(server, monotonic=clock, listing=False)
    known: set[str] = set()

    for _ in range(60):  # an hour, a pass every minute
        with suppress(CreatorError):
            known |= creator.statuses([*names[:6], ID, *names[6:]]).keys()
        clock.seconds += 60

    assert known == set(names)
    assert deaths == 3  # at 0, 10 and 30 minutes


def test_one_task_whose_question_hangs_delays_no_other_for_long(serve, connect):
    names = ids(30)
    api = OnPostgres(((name, "running") for name in names), list_kills=True)
    server = serve(lambda seen: HANG if names[0] in seen.target else api(seen))
    started = time.monotonic()

    reports = connect(server, listing=False, timeout=12).statuses(names)

    assert reports.keys() == set(names[1:])
    assert time.monotonic() - started < 8


def test_single_questions_are_asked_side_by_side_in_bounded_number(serve, connect):
    names = ids(24)
    api = OnPostgres((name, "running") for name in names)
    lock, now, most = threading.Lock(), 0, 0

    def slow(seen: Seen) -> Reply:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return api(seen)

    reports = connect(serve(slow), listing=False, concurrency=6).statuses(names)

    assert len(reports) == 24
    assert 2 <= most <= 6


def test_a_list_that_fails_is_replaced_by_single_questions_but_is_tried_again(serve, connect):
    api = TrapRiddenApi([(ID, "completed")])
    server = serve(lambda seen: failure(500, "oops") if seen.path == "/api/tasks" else api(seen))
    creator = connect(server)

    for _ in range(5):
        assert creator.statuses([ID])[ID].state is RemoteState.COMPLETED

    assert sum("?" in line for line in server.lines) == 3


def test_a_list_that_hangs_stops_the_asking_and_after_three_times_is_done_without(serve, connect):
    api = TrapRiddenApi([(ID, "completed")])
    server = serve(lambda seen: HANG if seen.path == "/api/tasks" else api(seen))
    creator = connect(server, timeout=0.2)

    for _ in range(3):
        with pytest.raises(CreatorUnreachable):
            creator.statuses([ID])
    assert creator.statuses([ID])[ID].state is RemoteState.COMPLETED

    assert len(server.seen) == 4


def test_a_list_that_breaks_off_in_the_middle_keeps_what_it_brought_and_asks_on_singly(serve, connect):
    names = ids(250)
    api = TrapRiddenApi((name, "running") for name in names)
    server = serve(lambda seen: CUT if "page=2" in seen.target else api(seen))

    assert connect(server).statuses(names[50:150]).keys() == set(names[50:150])


def test_a_creator_that_goes_down_in_the_middle_of_the_list_is_left_alone(serve, connect):
    names = ids(250)
    api = TrapRiddenApi((name, "running") for name in names)
    server = serve(lambda seen: failure(503, "busy") if "page=2" in seen.target else api(seen))
    creator = connect(server)

    assert creator.statuses(names).keys() == set(names[:100])
    with pytest.raises(CreatorUnreachable):
        creator.status(names[200])
    assert len(server.seen) == 2


def test_a_key_that_is_refused_is_not_tried_on_every_task(serve, connect):
    server = serve(failure(401, "who are you"))

    with pytest.raises(CreatorRefused):
        connect(server).statuses(ids(50))

    assert len(server.seen) == 1
