"""The requests with which the HTTP creator submits, and the answers that it understands."""

from __future__ import annotations

import base64
import json
import logging
import time

import pytest

from flask_contenthub_webhook.core.events import Completed, Failed, parse_event
from flask_contenthub_webhook.creators import Creator, HttpCreator, Job, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorRefused, CreatorUnclear, CreatorUnreachable
from tests.support.creator_server import CUT, HANG, Reply, answer, captured, failure, replay, success
from tests.support.http_creator import CALLBACK, ID, JOB, KEY, NOW, TOKEN

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
    assert 0.15 < time.monotonic() - started < 4
    assert server.seen[0].json["idempotencyKey"] == ID


def test_a_submission_without_patience_still_arrives_whole(serve, connect):
    server = serve(HANG)
    job = Job(creator_task_id=ID, topic="T", requirements="x" * 1_000_000)

    assert connect(server).submit(job, wait=0).state is RemoteState.OPEN

    for _ in range(3_000):
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

    with pytest.raises(CreatorUnclear, match="did not complete its answer in time"):
        connect(serve(drips), timeout=0.4).status(ID)

    assert time.monotonic() - started < 20  # its last byte would come after 50 s


def test_a_failed_job_without_words_has_a_message_all_the_same(serve, connect):
    reports = [
        connect(serve(success({"taskId": ID, "status": "failed", "error": error}, 201))).submit(JOB, wait=5)
        for error in (None, "", 7, {}, {"message": 7, "code": "X"})
    ]

    assert all(report.error["message"].startswith("The creator reports that the job failed") for report in reports)
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


def test_a_refusal_shows_no_secret_of_the_options_that_the_creator_repeats(serve, connect):
    words = "cannot log in to https://gateway.example/?sig=planted-sig with planted-password"
    options = {"cms": [{"password": "planted-password", "at": "https://gateway.example/?sig=planted-sig"}]}

    with pytest.raises(CreatorRefused) as caught:
        connect(serve(failure(400, words, "CMS", {"said": words}))).submit(
            Job(creator_task_id=ID, topic="T", options=options), wait=5
        )

    assert "cannot log in" in str(caught.value)
    assert "planted" not in f"{caught.value} {caught.value.reason} {caught.value.details}"
