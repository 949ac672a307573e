"""The table of docs/creators.md: the meaning of every answer of a service that is away, for each kind of call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any, NamedTuple

import pytest

from flask_contenthub_webhook.creators import HttpCreator, RemoteState
from flask_contenthub_webhook.errors import (
    CreatorAway,
    CreatorError,
    CreatorRefused,
    CreatorUnclear,
    CreatorUnreachable,
)
from tests.support.creator_server import CUT, HANG, Reply, Seen, TrapRiddenApi, answer, failure
from tests.support.http_creator import ID, JOB, OTHER, Clock, ids

PAGE = "<html><head><title>Bad Gateway</title></head><body><center>nginx</center></body></html>"
HTML = "Content-Type: text/html"
ACCEPTED = "accepted"
OMITTED = "omitted"


class Row(NamedTuple):
    """One line of the table: the error of each call, or the words for what it returns."""

    submit: type[CreatorError] | str
    list: type[CreatorError] | str
    single: type[CreatorError]
    result: type[CreatorError]
    cancel: type[CreatorError]
    pause: float | None = None


NOT_DELIVERED = Row(
    CreatorUnreachable, CreatorUnreachable, CreatorUnreachable, CreatorUnreachable, CreatorUnreachable, 30.0
)
PERHAPS = Row(CreatorAway, CreatorAway, CreatorAway, CreatorAway, CreatorAway, 30.0)
CUT_OFF = Row(CreatorAway, CreatorAway, CreatorAway, CreatorAway, CreatorAway)
OWN_FAILURE = Row(CreatorUnclear, CreatorUnclear, CreatorUnclear, CreatorUnclear, CreatorUnclear)
ANSWERS: dict[str, tuple[Reply, Row]] = {
    "429 with Retry-After": (answer(429, "", "Retry-After: 7"), NOT_DELIVERED._replace(pause=7.0)),
    "429": (answer(429, "slow down"), NOT_DELIVERED),
    "503": (answer(503, PAGE, HTML), NOT_DELIVERED),
    "503 of the service": (failure(503, "busy"), NOT_DELIVERED),
    "500": (answer(500, PAGE, HTML), PERHAPS),
    "500 of the service": (failure(500, "Internal server error", "INTERNAL_ERROR"), OWN_FAILURE),
    "501": (answer(501, PAGE, HTML), PERHAPS),
    "502": (answer(502, PAGE, HTML), PERHAPS),
    "502 in JSON": (failure(502, "bad gateway"), PERHAPS),
    "502 with Retry-After": (answer(502, PAGE, HTML, "Retry-After: 90"), PERHAPS._replace(pause=90.0)),
    "504": (answer(504, PAGE, HTML), PERHAPS),
    "504 without a body": (answer(504, ""), PERHAPS),
    **{str(status): (answer(status, PAGE, HTML), PERHAPS) for status in (520, 522, 524, 527, 528, 529)},
    **{str(status): (answer(status, PAGE, HTML), NOT_DELIVERED) for status in (521, 523, 525, 526, 530)},
    "200 with a page": (answer(200, PAGE, HTML), PERHAPS),
    "200 with blanks and a page": (answer(200, "\n  " + PAGE), PERHAPS),
    "200 with text": (answer(200, "no healthy upstream", "Content-Type: text/plain"), PERHAPS),
    "202 with a page": (answer(202, PAGE, HTML), PERHAPS),
    "404 with a page": (
        answer(404, PAGE, HTML),
        NOT_DELIVERED._replace(single=CreatorAway, result=CreatorAway),
    ),
    "a redirect": (answer(302, "", "Location: /login"), NOT_DELIVERED._replace(pause=None)),
    "a cut": (CUT, CUT_OFF),
    "a reset": (Reply(resets=True), CUT_OFF),
    "a cut in the middle": (Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), CUT_OFF),
    "no HTTP": (Reply(b"\x15\x03\x01\x00\x02\x02\x50"), CUT_OFF),
    "no answer in time": (
        HANG,
        Row(ACCEPTED, CreatorUnreachable, CreatorUnclear, CreatorUnclear, CreatorUnclear),
    ),
    "no end in time": (
        Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", after=(HANG,)),
        Row(ACCEPTED, CreatorUnreachable, CreatorUnclear, CreatorUnclear, CreatorUnclear),
    ),
}


def outcome(call: Callable[[], Any]) -> tuple[type[CreatorError] | str, float | None]:
    try:
        said = call()
    except CreatorError as error:
        known = (CreatorAway, CreatorUnreachable, CreatorRefused, CreatorUnclear)
        return next(kind for kind in known if isinstance(error, kind)), error.retry_after
    return ACCEPTED if getattr(said, "state", None) is RemoteState.OPEN else str(said), None


@pytest.mark.parametrize("what", ANSWERS)
def test_of_the_table(serve, connect, what):
    reply, row = ANSWERS[what]
    api = TrapRiddenApi([(ID, "running")])
    server = serve(reply)
    listed = serve(lambda seen: reply if seen.method == "DELETE" else api(seen))
    calls: dict[str, Callable[[HttpCreator], Any]] = {
        "submit": lambda creator: creator.submit(JOB, wait=0.3),
        "list": lambda creator: creator.statuses(ids(5)),
        "single": lambda creator: creator.status(ID),
        "result": lambda creator: creator.result(ID),
        "cancel": lambda creator: creator.cancel(ID),
    }
    meanings = {}
    for name, call in calls.items():
        creator = connect(listed if name == "cancel" else server, timeout=0.3)
        before = len(server.seen)
        meanings[name] = outcome(partial(call, creator))
        allowed = {"list": 2 if what in {"a cut", "a reset", "a cut in the middle", "no HTTP"} else 1, "cancel": 0}
        if row is not OWN_FAILURE:
            assert len(server.seen) - before <= allowed.get(name, 1), name  # nothing is asked in its place
    assert {name: kind for name, (kind, _) in meanings.items()} == {name: getattr(row, name) for name in calls} | (
        {"list": "{}"} if row is OWN_FAILURE else {}
    )
    assert {pause for kind, pause in meanings.values() if kind is not ACCEPTED} == {row.pause}


def test_a_connection_that_cannot_be_made_is_not_delivered(serve):
    plain_server = serve(CUT).url.replace("http:", "https:")
    for url in ("http://no-such-host.invalid", "http://127.0.0.1:9", plain_server):
        creator = HttpCreator(url, timeout=5)
        for call in (
            lambda creator=creator: creator.submit(JOB, wait=1),
            lambda creator=creator: creator.statuses([ID]),
            lambda creator=creator: creator.status(ID),
            lambda creator=creator: creator.result(ID),
            lambda creator=creator: creator.cancel(ID),
        ):
            assert outcome(call) == (CreatorUnreachable, None)
        creator.close()


@pytest.mark.parametrize("status", [429, 500, 502, 504, 524, 200])
def test_a_list_that_a_gateway_refused_is_not_exchanged_for_single_questions(serve, connect, status):
    clock = Clock()
    server = serve(answer(status, PAGE, HTML))
    creator = connect(server, monotonic=clock)

    for _ in range(50):
        with pytest.raises((CreatorAway, CreatorUnreachable)):
            creator.statuses(ids(1000))
        clock.seconds += 300

    assert {line.partition("?")[0] for line in server.lines} <= {"GET /api/tasks", "GET /health"}
    assert len(server.seen) == 50


def test_a_list_that_kills_behind_a_gateway_is_found_out_once_the_service_was_seen_alive(serve, connect):
    """Three deaths, and then ten minutes, twenty and so on of single questions about names that it has confirmed."""
    clock = Clock()
    api = TrapRiddenApi([(name, "running") for name in ids(5)])
    deaths = 0

    def behind_nginx(seen: Seen) -> Reply:
        nonlocal deaths
        if seen.path == "/health":
            return answer(200, '{"status":"ok"}')
        if seen.path == "/api/tasks":
            deaths += 1
            return answer(502, PAGE, HTML)
        return api(seen)

    creator = connect(serve(behind_nginx), monotonic=clock)
    for _ in range(2):
        with pytest.raises(CreatorAway):
            creator.statuses(ids(5))
        clock.seconds += 30

    for _ in range(20):
        assert creator.statuses(ids(5)).keys() == set(ids(5))
        clock.seconds += 29
    assert deaths == 3
    clock.seconds += 60
    assert creator.statuses(ids(5)).keys() == set(ids(5))
    assert deaths == 4


def test_a_gateway_that_refuses_single_questions_ends_them(serve, connect):
    server = serve(answer(502, PAGE, HTML))

    with pytest.raises(CreatorAway):
        connect(server, listing=False, concurrency=1).statuses(ids(1000))

    assert len(server.seen) == 1


def test_results_are_not_asked_for_again_soon_once_one_was_cut_whichever_it_was(serve, connect):
    """On PostgreSQL each of them kills the service."""
    clock = Clock()
    server = serve(CUT)
    creator = connect(server, monotonic=clock)

    for _ in range(24 * 60):
        for name in ids(20):
            with pytest.raises((CreatorAway, CreatorUnreachable)):
                creator.result(name)
        clock.seconds += 60

    assert len(server.seen) == 8  # at 0, 10, 30, 70, 150, 310, 630 and 1270 minutes


def test_a_submission_that_hangs_behind_a_gateway_is_not_accepted(serve, connect):
    """It may be the gateway that waits, for a service that is not there."""
    server = serve(lambda seen: HANG if seen.method == "POST" else answer(502, PAGE, HTML, "Server: nginx"))
    creator = connect(server, timeout=5)
    with pytest.raises(CreatorAway):
        creator.statuses([ID])

    with pytest.raises(CreatorUnclear):
        creator.submit(JOB, wait=0.2)


def test_a_retry_after_may_be_a_date(serve, connect):
    at = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)

    kind, pause = outcome(lambda: connect(serve(answer(429, "", f"Retry-After: {at}"))).status(ID))

    assert kind is CreatorUnreachable
    assert pause is not None
    assert 200 < pause <= 300


@pytest.mark.parametrize("header", ["soon", "-5", "1e9", "³", "", "Thu, 99 Foo 2026", "9" * 400])
def test_a_retry_after_that_makes_no_sense_is_bounded(serve, connect, header):
    _, pause = outcome(lambda: connect(serve(answer(429, "", f"Retry-After: {header}"))).status(ID))

    assert pause in {0.0, 30.0, 3600.0}


def test_a_name_that_was_never_confirmed_is_looked_up_in_the_list_alone(serve, connect):
    for reply in (CUT, answer(502, PAGE, HTML), failure(500, "no"), answer(429, "")):
        server = serve(reply)
        creator = connect(server)
        for _ in range(5):
            with pytest.raises((CreatorUnclear, CreatorUnreachable)):
                creator.find(JOB)
        assert all("?page=" in line or line == "GET /health" for line in server.lines)
    creator = connect(serve(TrapRiddenApi([(OTHER, "running")])))
    assert creator.find(JOB).state is RemoteState.MISSING


def test_a_job_whose_state_is_not_told_is_not_counted_as_cancelled(serve, connect):
    api = TrapRiddenApi([(ID, "archived")])

    with pytest.raises(CreatorUnclear):
        connect(serve(api)).cancel(ID)
