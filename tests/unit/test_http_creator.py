"""The HTTP creator against a loopback server that answers, and dies, as the real one was captured."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_contenthub_webhook.core.events import Completed, Failed, parse_event
from flask_contenthub_webhook.creators import Creator, HttpCreator, Job, RemoteState, Report
from flask_contenthub_webhook.creators.holds import Holds
from flask_contenthub_webhook.errors import (
    ConfigurationError,
    CreatorError,
    CreatorRefused,
    CreatorUnclear,
    CreatorUnreachable,
)
from tests.support.creator_server import (
    CUT,
    HANG,
    CreatorServer,
    Reply,
    Seen,
    TrapRiddenApi,
    answer,
    captured,
    failure,
    replay,
    success,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ID = "323f4099-0c98-47eb-a086-19faa5b14936"  # the completed task of the captures
OTHER = "11111111-1111-4111-8111-111111111111"
KEY = "sk-a-key-that-nobody-may-see"
TOKEN = "a-token-that-nobody-may-see"
CALLBACK = f"https://hub.example.com/callback/1?attempt=1&token={TOKEN}"
JOB = Job(creator_task_id=ID, topic="T", requirements="R", target_audience="A")

WIRE_NAMES = [
    "id",
    "taskId",
    "status",
    "error",
    "errorMessage",
    "message",
    "details",
    "fields",
    "path",
    "tasks",
    "content",
]
WIRE_NAMES += ["pagination", "total", "totalPages", "createdAt", "metrics", "duration", "stepsCompleted", "code"]

Serve = Callable[[Callable[[Seen], Reply] | Reply], CreatorServer]
Connect = Callable[..., HttpCreator]


class Clock:
    """Seconds that go forward when told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[CreatorServer] = []

    def start(answer: Callable[[Seen], Reply] | Reply) -> CreatorServer:
        answering = (lambda _: answer) if isinstance(answer, Reply) else answer
        servers.append(CreatorServer(answering).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Connect]:
    creators: list[HttpCreator] = []

    def make(server: CreatorServer, **options: Any) -> HttpCreator:
        options = {"timeout": 5.0, "clock": lambda: NOW, **options}
        creators.append(HttpCreator(server.url, **options))
        return creators[-1]

    yield make
    for creator in creators:
        creator.close()


@pytest.fixture(scope="module")
def anything() -> Iterator[tuple[HttpCreator, CreatorServer]]:
    with CreatorServer(lambda _: CUT) as server:
        creator = HttpCreator(server.url, timeout=5)
        yield creator, server
        creator.close()


def ids(count: int) -> list[str]:
    return [str(uuid.UUID(int=number, version=4)) for number in range(count)]


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WIRE_NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(
    status=st.sampled_from([200, 201, 202, 204, 301, 400, 404, 409, 429, 500, 503]),
    body=st.binary(max_size=40)
    | ANY_JSON.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.booleans(), ANY_JSON).map(
        lambda both: json.dumps({"success": both[0], "data": both[1], "error": both[1]}).encode()
    ),
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_creator_answers_is_a_report_or_a_creator_error(anything, status, body):
    creator, server = anything
    server.answer = lambda _: answer(status, body)
    creator._held = Holds(time.monotonic, first=0, longest=0)

    for ask in (
        lambda: creator.submit(JOB, wait=5),
        lambda: creator.status(ID),
        lambda: creator.result(ID),
        lambda: creator.statuses([ID])[ID],
    ):
        with suppress(CreatorError, KeyError):
            report = ask()
            assert report.error is None or isinstance(report.error["message"], str)
            assert report.result is None or isinstance(report.result, dict)


# --- submitting: what is sent --------------------------------------------------------------------------------


def test_it_is_a_creator(serve, connect):
    assert isinstance(connect(serve(CUT)), Creator)


def test_a_submission_carries_the_job_under_the_names_of_the_api_and_nothing_that_is_not_set(serve, connect):
    server = serve(replay("create-sync-completed"))

    connect(server).submit(JOB, wait=5)

    (seen,) = server.seen
    assert seen.line == "POST /api/tasks"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.json == {
        "topic": "T",
        "requirements": "R",
        "targetAudience": "A",
        "priority": 2,
        "mode": "sync",
        "idempotencyKey": ID,
    }


def test_a_submission_with_a_callback_asks_for_it_and_passes_the_options_on(serve, connect):
    server = serve(replay("create-sync-completed"))
    job = Job(
        creator_task_id=ID,
        topic="人工智能 🚀",
        keywords=("AI",),
        tone="专业",
        priority=4,
        callback_url=CALLBACK,
        callback_events=("completed", "failed"),
        options={"hardConstraints": {"minWords": 800}, "imageSize": "2k", "userId": None},
    )

    connect(server).submit(job, wait=5)

    assert server.seen[0].json == {
        "topic": "人工智能 🚀",
        "keywords": ["AI"],
        "tone": "专业",
        "priority": 4,
        "mode": "sync",
        "idempotencyKey": ID,
        "callbackUrl": CALLBACK,
        "callbackEnabled": True,
        "callbackEvents": ["completed", "failed"],
        "hardConstraints": {"minWords": 800},
        "imageSize": "2k",
    }


def test_options_cannot_replace_the_id_the_mode_or_the_callback_of_a_job(serve, connect):
    server = serve(replay("create-sync-completed"))
    ours = {"idempotencyKey": "x", "mode": "async", "callbackUrl": "http://x", "callbackEvents": []}

    connect(server).submit(Job(creator_task_id=ID, topic="T", options={**ours, "topic": "another"}), wait=5)

    assert server.seen[0].json == {"topic": "T", "priority": 2, "mode": "sync", "idempotencyKey": ID}


@pytest.mark.parametrize(
    "job",
    [
        Job(creator_task_id=ID, topic="half a pair: \ud83d"),
        Job(creator_task_id=ID, topic="T", options={"score": float("nan")}),
        Job(creator_task_id=ID, topic="T", options={"when": NOW}),
        Job(creator_task_id=ID, topic="x" * (10 * 1024 * 1024)),
    ],
)
def test_a_job_that_the_creator_could_not_read_is_refused_before_it_is_sent(serve, connect, job):
    server = serve(CUT)

    with pytest.raises(CreatorRefused):
        connect(server).submit(job, wait=5)

    assert server.seen == []


def test_the_key_is_sent_as_a_bearer_token(serve, connect):
    server = serve(replay("create-sync-completed"))

    connect(server, api_key=KEY).submit(JOB, wait=5)

    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_user_in_the_url_becomes_a_basic_header_and_is_never_shown(serve, caplog):
    server = serve(replay("get-completed"))
    url = server.url.replace("http://", "http://me:s%20cret-word@")
    creator = HttpCreator(url, timeout=5)

    with caplog.at_level(logging.DEBUG):
        creator.status(ID)
    creator.close()

    basic = base64.b64encode(b"me:s cret-word").decode()
    assert server.seen[0].headers["authorization"] == f"Basic {basic}"
    assert "cret" not in caplog.text
    assert "cret" not in repr(creator)


def test_the_environment_changes_nothing(serve, connect, monkeypatch, tmp_path):
    server = serve(replay("get-completed"))
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy")

    assert connect(server).status(ID).state is RemoteState.COMPLETED
    assert "authorization" not in server.seen[0].headers


# --- submitting: what comes back -----------------------------------------------------------------------------


def test_the_real_answer_to_a_submission_brings_the_result(serve, connect):
    report = connect(serve(replay("create-sync-completed"))).submit(JOB, wait=5)

    data = captured("create-sync-completed")["response"]["body"]["data"]
    assert report.state is RemoteState.COMPLETED
    assert report.result == {name: value for name, value in data.items() if name not in {"taskId", "status"}}
    assert list(report.result) == ["content", "htmlContent", "images", "qualityScore", "wordCount", "metrics"]
    assert report.raw == captured("create-sync-completed")["response"]["bodyText"].encode()
    event = parse_event({"event": "completed", "taskId": ID, "result": report.result})
    assert isinstance(event, Completed)
    assert event.missing == ()


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        ("create-sync-failed-llm-error", "Request failed with status code 400"),
        ("create-sync-duplicate-idempotencyKey", "UNIQUE constraint failed: tasks.id"),
    ],
)
def test_the_real_answer_about_a_failed_job_reads_as_its_callback_would(serve, connect, capture, message):
    report = connect(serve(replay(capture))).submit(JOB, wait=5)

    assert report.state is RemoteState.FAILED
    assert report.result is None
    assert report.error["message"] == message
    assert report.error["type"] == "execution_error"
    assert report.error["details"].keys() == {"duration", "stepsCompleted"}
    assert isinstance(parse_event({"event": "failed", "taskId": ID, "error": report.error}), Failed)


def test_a_submission_that_is_not_answered_in_time_is_open_and_the_creator_works_on(serve, connect):
    server = serve(HANG)
    creator = connect(server)
    started = time.monotonic()

    report = creator.submit(JOB, wait=0.2)

    assert report == Report(state=RemoteState.OPEN)
    assert 0.15 < time.monotonic() - started < 2
    assert server.seen[0].json["idempotencyKey"] == ID


def test_a_submission_without_patience_still_arrives_whole(serve, connect):
    server = serve(HANG)
    job = Job(creator_task_id=ID, topic="T", requirements="x" * 1_000_000)

    assert connect(server).submit(job, wait=0).state is RemoteState.OPEN

    for _ in range(200):
        if server.seen:
            break
        time.sleep(0.01)
    assert len(server.seen[0].json["requirements"]) == 1_000_000


def test_an_answer_that_comes_within_the_wait_is_waited_for(serve, connect):
    late = replay("create-sync-completed")
    server = serve(Reply(late.raw, delay=0.2))

    assert connect(server).submit(JOB, wait=5).state is RemoteState.COMPLETED


def test_a_success_that_stops_in_the_middle_is_open(serve, connect):
    begun = Reply(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{", after=(HANG,))

    assert connect(serve(begun)).submit(JOB, wait=0.2).state is RemoteState.OPEN


def test_a_refusal_that_stops_in_the_middle_is_unclear(serve, connect):
    begun = Reply(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\n{", after=(HANG,))

    with pytest.raises(CreatorUnclear):
        connect(serve(begun)).submit(JOB, wait=0.2)


@pytest.mark.parametrize(
    "reply",
    [
        success({"taskId": ID, "status": "pending", "message": "Task created"}, 202),
        answer(202, json.dumps({"taskId": ID, "status": "pending"})),
        answer(202, ""),
    ],
)
def test_a_creator_that_follows_its_paper_accepts_asynchronously(serve, connect, reply):
    server = serve(reply)

    report = connect(server, mode="async").submit(JOB, wait=5)

    assert report.state is RemoteState.OPEN
    assert server.seen[0].json["mode"] == "async"


def test_todays_asynchronous_mode_is_unclear_and_is_tried_once(serve, connect):
    server = serve(replay("create-async"))

    with pytest.raises(CreatorUnclear, match="cut the connection"):
        connect(server, mode="async").submit(JOB, wait=5)

    assert len(server.seen) == 1
    assert server.deaths == 1


def test_a_refusal_names_every_field_for_people_and_for_programs(serve, connect):
    with pytest.raises(CreatorRefused) as caught:
        connect(serve(replay("invalid-empty-body"))).submit(JOB, wait=5)

    assert caught.value.reason == "VALIDATION_ERROR"
    assert caught.value.message == (
        "The creator refused: Request validation failed (VALIDATION_ERROR): "
        "topic: Invalid input: expected string, received undefined; "
        "requirements: Invalid input: expected string, received undefined; "
        "targetAudience: Invalid input: expected string, received undefined"
    )
    assert [field["path"] for field in caught.value.details["fields"]] == ["topic", "requirements", "targetAudience"]


@pytest.mark.parametrize(
    "body", ["", "<html>no</html>", "[]", '{"success":false}', '{"success":false,"error":7}', "\xff"]
)
def test_a_refusal_without_the_creators_envelope_is_still_a_refusal(serve, connect, body):
    with pytest.raises(CreatorRefused, match="413") as caught:
        connect(serve(answer(413, body))).submit(JOB, wait=5)

    assert caught.value.reason is None


@pytest.mark.parametrize("details", [{"fields": 3}, {"fields": [1, {}, {"message": 2}]}, [1], "text", None])
def test_odd_details_of_a_refusal_do_no_harm(serve, connect, details):
    with pytest.raises(CreatorRefused, match="bad thing"):
        connect(serve(failure(400, "bad thing", "CODE", details))).submit(JOB, wait=5)


def test_a_refusal_shows_neither_the_key_nor_the_token_that_the_creator_repeats(serve, connect):
    words = f"{CALLBACK} is not for {KEY}"
    fields = [{"path": "callbackUrl", "message": words}]
    server = serve(failure(400, words, "VALIDATION_ERROR", {"fields": fields, KEY: 1}))
    job = Job(creator_task_id=ID, topic="T", callback_url=CALLBACK)

    with pytest.raises(CreatorRefused) as caught:
        connect(server, api_key=KEY).submit(job, wait=5)

    shown = f"{caught.value} {caught.value.reason} {caught.value.details}"
    assert "is not for ***" in shown
    assert KEY not in shown
    assert TOKEN not in shown


def test_the_reason_of_a_failed_job_shows_no_token_either(serve, connect):
    server = serve(success({"taskId": ID, "status": "failed", "error": f"no callback to {CALLBACK}"}, 201))

    report = connect(server).submit(Job(creator_task_id=ID, topic="T", callback_url=CALLBACK), wait=5)

    assert report.error["message"].startswith("no callback to https://hub.example.com")
    assert TOKEN not in str(report.error)


def test_an_error_that_would_fill_the_screen_is_cut_and_kept_on_one_line(serve, connect):
    with pytest.raises(CreatorRefused) as caught:
        connect(serve(failure(400, "line\nline\x1b[31m" * 1000))).submit(JOB, wait=5)

    assert len(caught.value.message) < 600
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_named_as_what_may_be_wrong(serve, connect, status):
    with pytest.raises(CreatorRefused, match="CREATOR_API_KEY"):
        connect(serve(failure(status, "no"))).submit(JOB, wait=5)


@pytest.mark.parametrize("status", [503, 429, 408])
def test_a_creator_without_time_took_nothing(serve, connect, status):
    with pytest.raises(CreatorUnreachable):
        connect(serve(failure(status, "busy"))).submit(JOB, wait=5)


def test_a_redirect_is_not_followed(serve, connect):
    server = serve(answer(307, "", "Location: /elsewhere"))

    with pytest.raises(CreatorUnreachable, match="redirect"):
        connect(server).submit(JOB, wait=5)

    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "reply",
    [
        answer(500, '{"success":false,"error":{"message":"Unexpected token"}}'),
        answer(502, "bad gateway"),
        answer(504, ""),
        answer(409, '{"success":false,"error":{"message":"exists"}}'),
        CUT,
        Reply(resets=True),
        Reply(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"),
        Reply(b"SSH-2.0-OpenSSH_9.6\r\n"),
        answer(201, ""),
        answer(201, "not json"),
        answer(201, b"\xff\xfe"),
        answer(201, "[1]"),
        answer(201, "[" * 100_000),
        answer(201, '{"success":true,"data":{"status":"completed","n":' + "9" * 5000 + "}}"),
        answer(201, '{"success":true,"data":{"status":"completed","n":NaN}}'),
        answer(201, '{"success":true,"data":{"status":"completed","n":1e999}}'),
        answer(201, '{"success":true}'),
        answer(201, '{"success":true,"data":[]}'),
        answer(201, '{"success":false,"error":{"message":"no"}}'),
        answer(201, '{"success":"true","data":{"status":"completed"}}'),
        success({"taskId": ID}, 201),
        success({"taskId": ID, "status": ["completed"]}, 201),
        success({"taskId": ID, "status": "archived"}, 201),
        success({"taskId": ID, "status": "cancelled"}, 201),
        answer(201, b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"),
    ],
)
def test_what_makes_no_sense_after_a_submission_is_unclear(serve, connect, reply):
    server = serve(reply)

    with pytest.raises(CreatorUnclear):
        connect(server).submit(JOB, wait=5)

    assert len(server.seen) == 1


def test_an_answer_without_end_is_not_kept(serve, connect):
    chunk = b"x" * 1024 * 1024
    endless = Reply(b"HTTP/1.1 201 Created\r\n\r\n", after=(Reply(chunk),) * 40)

    with pytest.raises(CreatorUnclear, match="larger than 32 MiB"):
        connect(serve(endless)).submit(JOB, wait=5)


def test_an_answer_that_drips_is_not_waited_for_for_ever(serve, connect):
    drips = Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", after=(Reply(b" ", delay=0.05),) * 1000)
    started = time.monotonic()

    with pytest.raises(CreatorUnclear, match="did not end it in time"):
        connect(serve(drips), timeout=0.4).status(ID)

    assert time.monotonic() - started < 2


def test_a_failed_job_without_words_has_a_message_all_the_same(serve, connect):
    reports = [
        connect(serve(success({"taskId": ID, "status": "failed", "error": error}, 201))).submit(JOB, wait=5)
        for error in (None, "", 7, {}, {"message": 7, "code": "X"})
    ]

    assert all(report.error["message"].startswith("The creator says that the job failed") for report in reports)
    assert reports[-1].error["code"] == "X"


def test_a_creator_that_is_not_there_is_unreachable_and_the_message_says_what_to_look_at(serve, connect):
    server = serve(CUT)
    creator = connect(server, api_key=KEY)
    server.stop()

    with pytest.raises(CreatorUnreachable, match="CREATOR_API_BASE_URL") as caught:
        creator.submit(JOB, wait=5)

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("url", ["http://no-such-host.invalid", "https://127.0.0.1:9"])
def test_a_host_that_cannot_be_connected_to_is_unreachable(url):
    creator = HttpCreator(url, timeout=5)

    with pytest.raises(CreatorUnreachable):
        creator.submit(JOB, wait=1)
    creator.close()


def test_a_plain_server_where_tls_was_expected_is_unreachable(serve):
    creator = HttpCreator(serve(CUT).url.replace("http:", "https:"), timeout=5)

    with pytest.raises(CreatorUnreachable):
        creator.submit(JOB, wait=1)
    creator.close()


# --- asking about one ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capture", "state"),
    [
        ("get-completed", RemoteState.COMPLETED),
        ("pg-get-completed", RemoteState.COMPLETED),
        ("get-failed", RemoteState.FAILED),
        ("get-running", RemoteState.OPEN),
    ],
)
def test_the_real_answers_about_one_task_are_understood(serve, connect, capture, state):
    exchange = captured(capture)
    server = serve(replay(capture))
    name = exchange["request"]["path"].rpartition("/")[2]

    report = connect(server).status(name)

    assert report.state is state
    assert report.result is None
    assert report.raw == exchange["response"]["bodyText"].encode()
    assert server.lines == [f"GET {exchange['request']['path']}"]


def test_the_reason_of_a_failed_task_is_read_from_its_row(serve, connect):
    name = captured("get-failed")["request"]["path"].rpartition("/")[2]

    report = connect(serve(replay("get-failed"))).status(name)

    assert report.error == {"message": "Request failed with status code 400", "type": "execution_error"}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("pending", RemoteState.OPEN),
        ("running", RemoteState.OPEN),
        ("waiting", RemoteState.OPEN),
        ("completed", RemoteState.COMPLETED),
        ("failed", RemoteState.FAILED),
        ("cancelled", RemoteState.CANCELLED),
    ],
)
def test_every_state_of_the_creator_has_its_counterpart(serve, connect, status, state):
    assert connect(serve(success({"id": ID, "status": status}))).status(ID).state is state


def test_404_in_the_creators_envelope_means_missing(serve, connect):
    report = connect(serve(failure(404, "Task not found", "NOT_FOUND"))).status(ID)

    assert report.state is RemoteState.MISSING


@pytest.mark.parametrize("reply", [answer(404, "<h1>nginx</h1>"), failure(404, "no such route", "ROUTE_NOT_FOUND")])
def test_404_from_something_on_the_way_does_not_mean_missing(serve, connect, reply):
    with pytest.raises(CreatorUnclear, match="CREATOR_API_BASE_URL"):
        connect(serve(reply)).status(ID)


def test_an_answer_about_another_task_is_not_believed(serve, connect):
    with pytest.raises(CreatorUnclear, match="another job"):
        connect(serve(replay("get-completed"))).status(OTHER)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a?b", "ä", "x" * 256])
def test_an_id_that_would_lead_elsewhere_is_never_sent(serve, connect, name):
    server = serve(success({"status": "completed"}))
    creator = connect(server)

    for ask in (creator.status, creator.result):
        with pytest.raises(CreatorRefused):
            ask(name)
    assert server.seen == []


def test_a_question_that_killed_the_creator_is_asked_through_the_list_from_then_on(serve, connect):
    clock = Clock()
    api = TrapRiddenApi([(OTHER, "running")])
    server = serve(api)
    creator = connect(server, monotonic=clock)
    with pytest.raises(CreatorUnclear):
        creator.status(ID)
    assert server.deaths == 1
    server.start()

    assert creator.status(ID).state is RemoteState.MISSING
    assert server.lines == [f"GET /api/tasks/{ID}", "GET /api/tasks?page=1&limit=100"]


def test_after_a_cut_other_single_questions_wait_for_half_a_minute(serve, connect):
    clock = Clock()
    server = serve(TrapRiddenApi([(OTHER, "running")]))
    creator = connect(server, monotonic=clock)
    with pytest.raises(CreatorUnclear):
        creator.status(ID)
    server.start()

    with pytest.raises(CreatorUnreachable, match="left alone for 30 s"):
        creator.status(OTHER)
    clock.seconds += 30
    assert creator.status(OTHER).state is RemoteState.OPEN
    assert len(server.seen) == 2


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


def test_calls_that_are_cut_side_by_side_count_as_one_trouble():
    clock = Clock()
    holds = Holds(clock, first=10, longest=25)

    for expected in (10, 20, 25, 25):
        for _ in range(8):
            holds.hold("it")
        assert holds.remaining("it") == expected
        clock.seconds += expected
        assert holds.remaining("it") == 0


def test_one_task_whose_question_hangs_delays_no_other_for_long(serve, connect):
    names = ids(30)
    api = OnPostgres(((name, "running") for name in names), list_kills=True)
    server = serve(lambda seen: HANG if names[0] in seen.target else api(seen))
    started = time.monotonic()

    reports = connect(server, listing=False, timeout=3).statuses(names)

    assert reports.keys() == set(names[1:])
    assert time.monotonic() - started < 2


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
    server = serve(lambda seen: answer(500, "oops") if seen.path == "/api/tasks" else api(seen))
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


# --- the result ----------------------------------------------------------------------------------------------


def test_the_real_result_is_passed_on_as_it_is(serve, connect):
    server = serve(replay("result-completed"))

    report = connect(server).result(ID)

    data = captured("result-completed")["response"]["body"]["data"]
    assert report.state is RemoteState.COMPLETED
    assert report.result == {name: value for name, value in data.items() if name not in {"taskId", "status"}}
    assert report.result["images"][0]["url"].startswith("data/images/")
    assert server.lines == [f"GET /api/tasks/{ID}/result"]


def test_a_result_that_kills_the_creator_is_not_asked_for_again_soon(serve, connect):
    clock = Clock()
    server = serve(CUT)
    creator = connect(server, monotonic=clock)

    with pytest.raises(CreatorUnclear):
        creator.result(ID)
    with pytest.raises(CreatorUnreachable, match="left alone"):
        creator.result(ID)
    assert len(server.seen) == 1
    clock.seconds += 600
    with pytest.raises(CreatorUnclear):
        creator.result(ID)


def test_a_result_that_is_not_there_yet_is_a_refusal_on_paper(serve, connect):
    with pytest.raises(CreatorRefused, match="not completed"):
        connect(serve(failure(400, "Task is not completed", "TASK_NOT_COMPLETED"))).result(ID)


def test_the_result_of_a_task_that_the_creator_does_not_have_is_missing_on_paper(serve, connect):
    assert connect(serve(failure(404, "no", "NOT_FOUND"))).result(ID).state is RemoteState.MISSING


def test_half_a_character_in_a_result_is_passed_on_for_the_application_to_judge(serve, connect):
    data = {"taskId": ID, "status": "completed", "content": "\ud83d\0"}

    assert connect(serve(answer(200, json.dumps({"success": True, "data": data})))).result(ID).result == {
        "content": "\ud83d\0"
    }


# --- cancelling ----------------------------------------------------------------------------------------------


def test_a_running_task_is_cancelled(serve, connect):
    api = TrapRiddenApi([(ID, "running")])
    server = serve(api)

    connect(server).cancel(ID)

    assert server.lines == ["GET /api/tasks?page=1&limit=100", f"DELETE /api/tasks/{ID}"]
    assert api.rows[0]["status"] == "cancelled"


def test_the_real_answer_to_a_cancellation_is_understood(serve, connect):
    name = captured("cancel-running")["request"]["path"].rpartition("/")[2]
    rows = [{"id": name, "status": "running"}]
    server = serve(lambda seen: success({"tasks": rows}) if seen.method == "GET" else replay("cancel-running"))

    connect(server).cancel(name)

    assert len(server.seen) == 2


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", None])
def test_what_is_done_or_unknown_is_never_cancelled(serve, connect, status):
    server = serve(TrapRiddenApi([(ID, status)] if status else []))

    connect(server).cancel(ID)

    assert server.lines == ["GET /api/tasks?page=1&limit=100"]
    assert server.deaths == 0


def test_a_cancellation_that_the_creator_refuses_is_no_error(serve, connect):
    rows = [{"id": ID, "status": "running"}]
    server = serve(lambda seen: success({"tasks": rows}) if seen.method == "GET" else failure(409, "too late"))

    connect(server).cancel(ID)

    assert len(server.seen) == 2


# --- the connection pool -------------------------------------------------------------------------------------


def test_many_threads_share_one_creator(serve, connect):
    names = ids(100)
    creator = connect(serve(TrapRiddenApi((name, "running") for name in names)))

    with ThreadPoolExecutor(16) as pool:
        reports = list(pool.map(creator.status, names))

    assert {report.state for report in reports} == {RemoteState.OPEN}


def test_nothing_is_opened_before_the_first_call_and_a_closed_creator_can_be_used_again(serve, connect):
    server = serve(replay("get-completed"))
    creator = connect(server)
    assert server.seen == []
    creator.close()

    creator.status(ID)
    creator.close()
    creator.status(ID)

    assert len(server.seen) == 2


def test_a_client_that_was_given_is_used_and_stays_open(serve, connect):
    server = serve(replay("get-completed"))
    with httpx.Client(headers={"X-Mine": "yes"}, follow_redirects=True) as client:
        creator = connect(server, client=client, api_key=KEY)
        creator.status(ID)
        creator.close()

        assert not client.is_closed
        assert server.seen[0].headers["x-mine"] == "yes"
        assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    with pytest.raises(CreatorUnreachable, match="closed"):
        creator.status(ID)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_opens_connections_of_its_own(serve, connect):
    server = serve(success({"id": ID, "status": "running"}))
    creator = connect(server)
    creator.status(ID)
    own = creator._calls._client()

    child = os.fork()
    if child == 0:  # pragma: no cover - the child
        os._exit(0 if creator._calls._client() is not own and creator.status(ID).state is RemoteState.OPEN else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert creator._calls._client() is own


# --- configuration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:3001", "ftp://x", "http://", "http://x/?a=1", "http://x/#a", "http://[::1", "http://x:99999"],
)
def test_a_url_that_cannot_be_used_is_refused_at_once(url):
    with pytest.raises(ConfigurationError, match="absolute http or https URL"):
        HttpCreator(url)


def test_a_url_with_a_path_leads_below_it(serve):
    server = serve(replay("get-completed"))
    creator = HttpCreator(server.url + "/creator/", timeout=5)

    creator.status(ID)
    creator.close()

    assert server.lines == [f"GET /creator/api/tasks/{ID}"]


@pytest.mark.parametrize("key", ["", "a key", "schlüssel", "key\r\nX-More: 1"])
def test_a_key_that_fits_no_header_is_refused_without_being_shown(key):
    with pytest.raises(ConfigurationError, match="CREATOR_API_KEY") as caught:
        HttpCreator("http://127.0.0.1:3001", api_key=key)

    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"mode": "fast"}, {"timeout": 0}, {"max_pages": 0}, {"concurrency": 0}, {"api_key": KEY}]
)
def test_arguments_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigurationError) as caught:
        HttpCreator("http://me:password@127.0.0.1:3001", **options)

    assert "password" not in str(caught.value)
    assert KEY not in str(caught.value)
