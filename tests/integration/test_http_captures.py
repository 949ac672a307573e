"""The requests of the real sender, as their bytes left its socket, end where the state machine says."""

from __future__ import annotations

import uuid
from functools import partial
from pathlib import Path

import pytest

from flask_contenthub_webhook.core.signatures import sign_url
from tests.support.databases import KINDS
from tests.support.raw_http import callback
from tests.support.web_server import serve

CAPTURES = Path(__file__).parents[1] / "captures" / "callbacks"
SECRET = "a-secret-of-more-than-thirty-two-characters"

# Per task, in the order in which they came: each request, its outcome, and the task's state after it.
STORIES = {
    "agent workflow": [("completed-agent-workflow", "processed", "failed")],  # no content: a thin callback
    "completed": [("completed-content-creator", "processed", "completed")],
    "images not downloaded": [("completed-images-not-downloaded", "processed", "completed")],
    "no images": [("completed-no-images", "processed", "completed")],
    "an id that is no uuid": [("completed-nonuuid-taskid", "processed", "completed")],
    "failed after completed": [
        ("completed-before-duplicate", "processed", "completed"),
        ("failed-duplicate-idempotency-key", "ignored", "completed"),
    ],
    "invalid parameters": [("failed-invalid-params", "processed", "pending")],
    "llm refuses": [("failed-llm-http-400", "processed", "pending")],
    "llm away": [("failed-llm-unreachable", "processed", "pending")],
    "text quality": [("failed-text-quality", "processed", "pending")],
    "failed, then completed": [
        ("failed-then-completed-1-failed", "processed", "pending"),
        ("failed-then-completed-2-completed", "processed", "completed"),
    ],
    "the sender's own retry": [
        ("retry-503-attempt-1", "processed", "completed"),
        ("retry-503-attempt-2", "duplicate", "completed"),
    ],
}


def read(name):
    return (CAPTURES / f"{name}.http").read_bytes()


def creator_id(name):
    """The task id of a captured request, as its own header names it."""
    return read(name).partition(b"X-Task-ID: ")[2].partition(b"\r\n")[0].decode()


def aimed_at(name, port, path):
    """The captured bytes; only where they are sent to is ours."""
    head, _, body = read(name).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"POST /")
    lines[0] = f"POST {path} HTTP/1.1".encode()
    (host,) = (index for index, line in enumerate(lines) if line.startswith(b"Host: "))
    lines[host] = f"Host: 127.0.0.1:{port}".encode()
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.fixture(scope="module", params=KINDS)
def url_of(request, new_database):
    return partial(new_database, request.param)


@pytest.fixture(scope="module")
def open_host(url_of, tmp_path_factory):
    """A host without a secret."""
    with serve(url_of(), tmp_path_factory.mktemp("open")) as web:
        yield web


@pytest.fixture(scope="module")
def strict_host(url_of, tmp_path_factory):
    """A host that believes nothing unsigned."""
    env = {"WEBHOOK_SECRET_KEY": SECRET, "WEBHOOK_REQUIRE_SIGNATURE": "true"}
    with serve(url_of(), tmp_path_factory.mktemp("strict"), env=env) as web:
        yield web


def test_every_capture_is_told_of_exactly_once():
    told = [name for story in STORIES.values() for name, *_ in story]

    assert sorted(told) == sorted(path.stem for path in CAPTURES.glob("*.http"))
    assert len(told) == 15


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_without_a_secret_the_creators_task_id_is_believed(open_host, story):
    task_id = open_host.database.add_task(creator_task_id=creator_id(story[0][0]))

    play(open_host, task_id, story, callback(task_id))


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_with_a_secret_the_token_of_the_url_is_believed_whatever_id_the_creator_uses(strict_host, story):
    task_id = strict_host.database.add_task()
    token = sign_url(SECRET, task_id, None)

    play(strict_host, task_id, story, callback(task_id, f"token={token}"))

    assert {row.scheme for row in strict_host.database.deliveries(task_id)} == {"url"}
    assert token not in str(strict_host.database.deliveries(task_id))


@pytest.mark.parametrize("name", [name for story in STORIES.values() for name, *_ in story])
def test_with_a_secret_the_same_request_without_the_token_changes_nothing(strict_host, name):
    task_id = strict_host.database.add_task(creator_task_id=creator_id(name))

    answer = strict_host.send(aimed_at(name, strict_host.port, callback(task_id)))

    assert (answer.status, answer.code) == (403, "signature_missing")
    assert strict_host.database.status(task_id) == "submitted"
    assert strict_host.database.contents(task_id) == {task_id: 0}


def test_with_a_secret_a_known_and_an_unknown_task_look_alike_to_a_stranger(strict_host):
    known, unknown = strict_host.database.add_task(), str(uuid.uuid4())

    answers = [
        strict_host.send(aimed_at("completed-content-creator", strict_host.port, callback(task_id)))
        for task_id in (known, unknown)
    ]

    assert [answer.status for answer in answers] == [403, 403]
    assert answers[0].body == answers[1].body


def test_the_token_of_one_task_opens_no_other(strict_host):
    mine, yours = strict_host.database.add_tasks(2)
    token = sign_url(SECRET, mine, None)

    answer = strict_host.send(
        aimed_at("completed-content-creator", strict_host.port, callback(yours, f"token={token}"))
    )

    assert (answer.status, answer.code) == (401, "signature_invalid")
    assert strict_host.database.status(yours) == "submitted"


def test_where_no_attempt_is_left_a_late_completed_still_counts(open_host):
    first, second = "failed-then-completed-1-failed", "failed-then-completed-2-completed"
    task_id = open_host.database.add_task(creator_task_id=creator_id(first), max_retries=0)

    play(open_host, task_id, [(first, "processed", "failed"), (second, "processed", "completed")], callback(task_id))

    assert [row.late for row in open_host.database.deliveries(task_id)] == [False, True]


def play(web, task_id, story, path):
    for name, outcome, status in story:
        answer = web.send(aimed_at(name, web.port, path))
        assert (answer.status, answer.outcome) == (200, outcome), answer.body
        assert web.database.status(task_id) == status
    deliveries = web.database.deliveries(task_id)
    task = web.database.task(task_id)
    assert [row.verdict for row in deliveries] == [outcome for _, outcome, _ in story]
    assert [row.body for row in deliveries] == [read(name).partition(b"\r\n\r\n")[2] for name, *_ in story]
    assert web.database.contents(task_id) == {task_id: int(task.status == "completed")}
    assert task.attempt == (2 if any(status == "pending" for *_, status in story) else 1)
    assert (task.error_code == "INVALID_RESULT") == (story[0][0] == "completed-agent-workflow")
