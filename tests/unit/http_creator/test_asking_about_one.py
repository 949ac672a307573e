"""Questions about a single task: its state, its result, its cancellation."""

from __future__ import annotations

import json

import pytest

from flask_contenthub_webhook.creators import RemoteState
from flask_contenthub_webhook.errors import CreatorRefused, CreatorUnclear, CreatorUnreachable
from tests.support.creator_server import CUT, TrapRiddenApi, answer, captured, failure, replay, success
from tests.support.http_creator import ID, OTHER, Clock

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
    with pytest.raises(CreatorUnclear, match="different job"):
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

    with pytest.raises(CreatorUnreachable, match="not queried again for 30 s"):
        creator.status(OTHER)
    clock.seconds += 30
    assert creator.status(OTHER).state is RemoteState.OPEN
    assert len(server.seen) == 2


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
    with pytest.raises(CreatorUnreachable, match="not queried again"):
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
