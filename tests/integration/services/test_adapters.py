"""The adapters on the official SDKs, each against the fake of its service; no application is involved."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from flask_contenthub_webhook.contrib.fal import FalQueue
from flask_contenthub_webhook.contrib.openai import OpenAIResponses
from flask_contenthub_webhook.contrib.replicate import ReplicatePredictions
from flask_contenthub_webhook.creators import Callback, Creator, Job, RemoteState, Report
from flask_contenthub_webhook.errors import (
    CreatorAway,
    CreatorRefused,
    CreatorUnclear,
    CreatorUnreachable,
    SignatureExpired,
    SignatureInvalid,
    SignatureMissing,
)
from flask_contenthub_webhook.testing.services import (
    FakeFal,
    FakeGemini,
    FakeOpenAI,
    FakeReplicate,
    FakeService,
    Message,
)
from tests.support.services import SERVICES

OPEN, COMPLETED, FAILED = RemoteState.OPEN, RemoteState.COMPLETED, RemoteState.FAILED
URL = "https://hub.example/callback/7?attempt=1&token=abcdefgh"
OPTIONS: dict[type[FakeService], dict[str, Any]] = {
    FakeOpenAI: {"model": "gpt-5"},
    FakeReplicate: {"model": "owner/name"},
    FakeFal: {"application": "fal-ai/any-llm/chat"},
}
MAKE: dict[type[FakeService], Callable[[Any], Creator]] = {
    FakeOpenAI: lambda fake: OpenAIResponses(fake.client(), webhook_secret=fake.webhook_secret),
    FakeReplicate: lambda fake: ReplicatePredictions(fake.client(), webhook_secret=fake.webhook_secret),
    FakeFal: lambda fake: FalQueue(fake.client(), keys=fake.jwks_url),
}


def job(fake: FakeService, **options: Any) -> Job:
    return Job(
        creator_task_id="ours",
        task_id="7",
        topic="Tea",
        requirements="short",
        callback_url=URL,
        callback_events=("completed", "failed", "progress"),
        options={**OPTIONS[type(fake)], **options},
    )


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[Any]:
    with request.param(webhook_url="https://hub.example/callbacks/openai") as running:
        yield running


@pytest.fixture
def creator(fake: FakeService) -> Any:
    return MAKE[type(fake)](fake)


def on(*kinds: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fake", kinds, indirect=True, ids=lambda kind: kind.__name__)


each = on(*OPTIONS)


def received(message: Message, **changed: Any) -> Callback:
    return Callback(**{"headers": message.headers, "body": message.body, **changed})


@each
def test_a_job_from_submission_to_result(fake, creator):
    report = creator.submit(job(fake), wait=3)
    name = report.creator_task_id
    assert (report.state, creator.status(name).state, len(fake.jobs)) == (OPEN, OPEN, 1)
    assert isinstance(creator, Creator)
    assert "Tea\n\nshort" in json.dumps(fake.last.asked).replace("\\n", "\n")

    fake.complete(fake.last, "# Tea")
    assert creator.status(name).state is COMPLETED
    result = dict(creator.result(name).result or {})
    assert result["content"] == "# Tea"
    assert "# Tea" in json.dumps(result["raw"])


@each
def test_its_webhook(fake, creator):
    name = creator.submit(job(fake), wait=3).creator_task_id
    callback = received(fake.message(fake.complete(fake.last, "# Tea")))
    assert creator.verify_callback(callback)
    report = creator.read_callback(callback)
    assert (report.state, report.result["content"]) == (COMPLETED, "# Tea")
    assert report.creator_task_id == (None if isinstance(fake, FakeFal) else name)


@each
def test_a_webhook_by_another_key_or_with_another_body_is_not_believed(fake, creator):
    creator.submit(job(fake), wait=3)
    fake.complete(fake.last)
    for callback in (
        received(fake.message(fake.last, forged=True)),
        received(fake.message(fake.last), body=b"{}"),
        received(fake.message(fake.last), headers={}),
    ):
        with pytest.raises((SignatureInvalid, SignatureMissing, ValueError, openai.InvalidWebhookSignatureError)):
            creator.verify_callback(callback)


@each
def test_a_failure_in_the_words_of_the_service(fake, creator):
    name = creator.submit(job(fake), wait=3).creator_task_id
    fake.fail(fake.last, "the model is overloaded")
    for report in (creator.status(name), creator.read_callback(received(fake.message(fake.last)))):
        assert (report.state, report.error["message"]) == (FAILED, "the model is overloaded")
        assert report.error.get("details", {}).get("retryable") is not False


@each
def test_a_cancelled_job(fake, creator):
    name = creator.submit(job(fake), wait=3).creator_task_id
    creator.cancel(name)
    assert fake.alive == []


@each
def test_an_unknown_job_is_missing(fake, creator):
    name = creator.submit(job(fake), wait=3).creator_task_id
    assert creator.status(name + "0").state is RemoteState.MISSING


@each
def test_a_refusal_in_the_words_of_the_service(fake, creator):
    if isinstance(fake, FakeFal):
        with pytest.raises(CreatorRefused, match="not found"):
            creator.cancel("fal-ai/flux/requests/none")
        return
    asked = job(fake, model=None) if isinstance(fake, FakeOpenAI) else job(fake, input="text")
    with pytest.raises(CreatorRefused, match="required"):
        creator.submit(asked, wait=3)


INVALID: dict[type[FakeService], list[tuple[dict[str, Any], str]]] = {
    FakeOpenAI: [
        ({"model": "gpt-5", "temprature": 1}, "temprature"),
        ({"model": "gpt-5", "metadata": 1}, "mapping"),
        ({"input_file_id": "file-1"}, "completion_window|endpoint"),
    ],
    FakeReplicate: [
        ({}, "exactly one is needed of version="),
        ({"model": "owner/name", "version": "5c7d5dc6"}, "exactly one"),
        ({"version": ""}, "exactly one"),
        ({"model": "owner/name:5c7d5dc6"}, "owner/name"),
        ({"deployment": "name"}, "owner/name"),
    ],
    FakeFal: [
        ({}, "'application' is missing"),
        ({"application": "flux"}, "flux"),
        ({"application": "fal-ai/flux", "headers": "priority"}, "."),
        ({"application": "fal-ai/flux", "path": 1}, "."),
    ],
}


@pytest.mark.parametrize(
    ("fake", "options", "words"),
    [(kind, *case) for kind, cases in INVALID.items() for case in cases],
    indirect=["fake"],
    ids=str,
)
def test_options_that_cannot_be_sent_are_a_refusal(fake, creator, options, words):
    with pytest.raises(CreatorRefused, match=words) as raised:
        creator.submit(Job(creator_task_id="ours", task_id="7", topic="Tea", options=options), wait=3)
    assert raised.value.reason == "INVALID_OPTIONS"
    assert fake.requests == []


@each
def test_an_answer_that_the_class_cannot_read_is_no_refusal(fake, creator, monkeypatch):
    errors = [KeyError("application"), TypeError("unexpected"), ValueError("exactly one")]

    def surprise(*_: Any, **__: Any) -> None:
        raise errors[0]

    monkeypatch.setattr(Report, "__init__", surprise)
    while errors:
        with pytest.raises(type(errors[0])):
            creator.submit(job(fake), wait=3)
        del errors[0]
    assert len(fake.jobs) == 3


@each
@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_lost_answer_is_not_asked_for_again_by_the_sdk(fake, creator, cut):
    fake.cut = cut
    with pytest.raises(CreatorUnclear):
        creator.submit(job(fake), wait=3)
    assert len(fake.requests) == 1
    assert len(fake.jobs) == (cut == "after")


@each
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, CreatorAway),
        (404, CreatorAway),
        (429, CreatorUnreachable),
        (500, CreatorAway),
        (502, CreatorAway),
        (503, CreatorUnreachable),
    ],
)
def test_the_page_of_a_gateway_says_nothing_about_a_job(fake, creator, status, error):
    name = creator.submit(job(fake), wait=3).creator_task_id
    fake.away = status
    for call in (lambda: creator.status(name), lambda: creator.submit(job(fake), wait=3), lambda: creator.result(name)):
        asked = len(fake.requests)
        with pytest.raises(error) as raised:
            call()
        assert len(fake.requests) == asked + 1
        assert raised.value.retry_after == 30


@on(FakeOpenAI, FakeFal)  # Replicate's SDK keeps no headers
@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_retry_after_is_heeded(fake, creator, status):
    fake.away, fake.retry_after = status, 7
    with pytest.raises((CreatorAway, CreatorUnreachable)) as raised:
        creator.submit(job(fake), wait=3)
    assert raised.value.retry_after == 7


@each
def test_no_connection_means_not_delivered(fake, creator):
    fake.__exit__()
    fresh = type(fake)()
    fresh._server.server_close()
    fresh_creator: Any = MAKE[type(fake)](fresh)
    with pytest.raises(CreatorUnreachable):
        fresh_creator.submit(job(fake), wait=3)
    fresh._clients.close()


# --- what is particular to one -----------------------------------------------------------------------------------


@on(FakeOpenAI)
def test_openai_runs_a_batch_where_the_options_name_a_file(fake, creator):
    options = {"completion_window": "24h", "endpoint": "/v1/responses", "input_file_id": "file-in"}
    asked = Job(creator_task_id="ours", task_id="7", options=options)
    name = creator.submit(asked, wait=3).creator_task_id
    assert (name[:6], creator.status(name).state, creator.status(name).task_id) == ("batch_", OPEN, "7")
    fake.complete(fake.last, "out")
    report = creator.read_callback(received(fake.message(fake.last)))
    assert (report.state, report.result["content"]) == (COMPLETED, "file-out")
    fake.fail(fake.last, "line 3 is no JSON")
    report = creator.status(name)
    assert (report.error["message"], report.error["details"]) == ("line 3 is no JSON", {"retryable": False})


@on(FakeOpenAI)
def test_openai_keeps_our_id_and_the_metadata_of_the_options(fake, creator):
    name = creator.submit(job(fake, metadata={"customer": "4"}, input=[{"role": "user", "content": "Tea"}]), wait=3)
    assert fake.last.asked["metadata"] == {"customer": "4", "contenthub_task": "7", "contenthub_attempt": "1"}
    assert fake.last.asked["input"] == [{"role": "user", "content": "Tea"}]
    assert creator.status(name.creator_task_id).task_id == "7"


@on(FakeOpenAI)
def test_an_openai_event_about_something_else_is_about_no_job_of_ours(fake, creator):
    fake.client().responses.create(model="gpt-5", input="of another application", background=True)
    assert creator.read_callback(received(fake.message(fake.complete(fake.last)))) is None
    other = {"id": "evt_1", "type": "fine_tuning.job.succeeded", "data": {"id": "ft_1"}}
    assert creator.read_callback(Callback(body=json.dumps(other).encode())) is None


@on(FakeReplicate)
def test_replicate_lists_many_at_once(fake, creator):
    names = [creator.submit(job(fake), wait=3).creator_task_id for _ in range(3)]
    fake.complete(fake.last)
    del fake.requests[:]
    reports = creator.statuses(names)
    assert [reports[name].state for name in names] == [OPEN, OPEN, COMPLETED]
    assert fake.asked == ["GET /v1/predictions"]


@on(FakeReplicate)
def test_replicate_reports_progress_from_the_log_if_that_was_asked_for(fake, creator):
    creator.submit(job(fake), wait=3)
    assert (fake.last.callback_url, fake.last.asked["webhook_events_filter"]) == (URL, ["start", "logs", "completed"])
    fake.logs[fake.last.id] = " 40%|####      | 20/50 [00:02<00:03]"
    report = creator.read_callback(received(fake.message(fake.last)))
    assert (report.state, report.progress) == (OPEN, {"percentage": 40.0})


@on(FakeReplicate)
@pytest.mark.parametrize(
    ("status", "state"), [("starting", OPEN), ("succeeded", COMPLETED), ("failed", FAILED), ("aborted", FAILED)]
)
def test_replicate_webhooks_have_fewer_fields_and_more_states_than_the_sdk_knows(creator, status, state):
    """The fields are those of the example in Replicate's documentation."""
    body: dict[str, Any] = {
        "id": "ufawqhfynnddngldkgtslldrkq",
        "version": "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa",
        "created_at": "2022-04-26T22:13:06.224088Z",
        "started_at": None,
        "completed_at": None,
        "status": status,
        "input": {"text": "Alice"},
        "output": ["he", "llo"],
        "error": None,
        "logs": None,
        "metrics": {},
    }
    report = creator.read_callback(Callback(body=json.dumps(body).encode()))
    assert (report.state, report.creator_task_id) == (state, body["id"])
    if state is COMPLETED:
        assert report.result["content"] == "hello"


@on(FakeReplicate)
def test_replicate_output_as_text(creator):
    def content(output: Any) -> Any:
        body = {"id": "a", "status": "succeeded", "output": output}
        return creator.read_callback(Callback(body=json.dumps(body).encode())).result["content"]

    assert content("whole") == "whole"
    links = ["https://a.example/1.png", "https://a.example/2.png"]
    assert content(links) == "\n".join(links)
    assert content({"score": 0.5}) == {"score": 0.5}
    assert content([]) == ""


@on(FakeReplicate)
@pytest.mark.parametrize("kind", ["version", "model", "deployment"])
def test_replicate_takes_each_kind_of_model_and_answers_at_once(fake, kind):
    creator = MAKE[FakeReplicate](fake)
    wanted = Job(creator_task_id="ours", topic="Tea", options={kind: "owner/name"})
    assert creator.submit(wanted, wait=3).state is OPEN
    assert "Prefer" not in fake.requests[0].headers
    assert "webhook" not in fake.last.asked


@on(FakeFal)
def test_fal_options_reach_the_queue(fake, creator):
    creator.submit(job(fake, arguments={"image": 1}, path="/edit", priority="low", headers={"X-A": "b"}), wait=3)
    assert (fake.requests[0].path, fake.last.asked) == ("/fal-ai/any-llm/chat/edit", {"image": 1})
    assert (fake.requests[0].headers["X-Fal-Queue-Priority"], fake.requests[0].headers["X-A"]) == ("low", "b")
    assert fake.last.callback_url == URL


@on(FakeFal)
def test_a_fal_answer_that_did_not_fit_into_the_webhook_is_left_to_be_fetched(fake, creator):
    name = creator.submit(job(fake), wait=3).creator_task_id
    fake.complete(fake.last, "# Tea").broken = True
    report = creator.read_callback(received(fake.message(fake.last)))
    assert (report.state, report.result) == (COMPLETED, None)
    assert creator.result(name).result["content"] == "# Tea"


@on(FakeFal)
def test_a_fal_job_of_which_only_our_name_is_known_is_not_asked_about(fake, creator):
    with pytest.raises(CreatorUnclear):
        creator.status("b8ed0c6e")
    assert fake.asked == []


def passes(creator: Any, seconds: float) -> None:
    """Let what fal's keys remember be older."""
    keys = creator.verify_callback.__self__
    keys._fetched_at -= seconds
    keys._tried_at -= seconds


@on(FakeFal)
def test_fal_keys_are_fetched_once_and_again_for_a_new_key_at_most_once_a_minute(fake, creator):
    def fetched() -> int:
        asked: list[str] = fake.asked
        return asked.count("GET /.well-known/jwks.json")

    creator.submit(job(fake), wait=3)
    fake.complete(fake.last)
    for _ in range(3):
        assert creator.verify_callback(received(fake.message(fake.last))) == fake.last.id
    assert fetched() == 1
    fake.rotate()
    for _ in range(3):
        with pytest.raises(SignatureInvalid):
            creator.verify_callback(received(fake.message(fake.last)))
    assert fetched() == 1
    passes(creator, 61)
    assert creator.verify_callback(received(fake.message(fake.last)))
    for _ in range(3):
        with pytest.raises(SignatureInvalid):
            creator.verify_callback(received(fake.message(fake.last, forged=True)))
    assert fetched() == 2
    passes(creator, 86_401)
    assert creator.verify_callback(received(fake.message(fake.last)))
    assert fetched() == 3


@on(FakeFal)
def test_fal_keys_that_cannot_be_fetched_prove_nothing_either_way(fake, creator):
    creator.submit(job(fake), wait=3)
    message = fake.message(fake.complete(fake.last))
    fake.away = 503
    for _ in range(3):
        with pytest.raises(CreatorUnreachable):
            creator.verify_callback(received(message))
    assert fake.asked.count("GET /.well-known/jwks.json") == 1
    fake.away = None
    passes(creator, 61)
    assert creator.verify_callback(received(message)) == fake.last.id


@on(FakeFal)
def test_fal_keys_that_are_known_are_used_while_their_host_fails(fake, creator):
    creator.submit(job(fake), wait=3)
    message = fake.message(fake.complete(fake.last))
    creator.verify_callback(received(message))
    for status in (503, 200):  # the latter is a page
        fake.away = status
        passes(creator, 86_401)
        asked = len(fake.asked)
        assert creator.verify_callback(received(message)) == fake.last.id
        for _ in range(3):
            with pytest.raises(CreatorUnreachable):  # it may be by a key that is new
                creator.verify_callback(received(fake.message(fake.last, forged=True)))
        assert len(fake.asked) == asked + 1


@on(FakeFal)
def test_a_callback_by_a_known_key_of_fal_does_not_wait_while_keys_are_fetched(fake, creator, monkeypatch):
    creator.submit(job(fake), wait=3)
    message = fake.message(fake.complete(fake.last))
    creator.verify_callback(received(message))
    passes(creator, 61)
    begun, goes_on = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        begun.set()
        goes_on.wait(20)
        raise httpx.ReadTimeout("late")

    monkeypatch.setattr(httpx, "get", hang)
    with ThreadPoolExecutor(1) as pool:
        forged = pool.submit(creator.verify_callback, received(fake.message(fake.last, forged=True)))
        assert begun.wait(20)
        began = time.monotonic()
        assert creator.verify_callback(received(message)) == fake.last.id
        passes(creator, 86_401)
        assert creator.verify_callback(received(message)) == fake.last.id
        assert time.monotonic() - began < 10
        goes_on.set()
        assert isinstance(forged.exception(20), CreatorUnreachable)


@each
def test_an_old_webhook_has_expired(fake, creator):
    creator.submit(job(fake), wait=3)
    fake.clock = lambda: time.time() - 301
    with pytest.raises((SignatureExpired, ValueError, openai.InvalidWebhookSignatureError)):
        creator.verify_callback(received(fake.message(fake.complete(fake.last))))


def test_gemini_keys_that_cannot_be_fetched_prove_nothing_either_way():
    with FakeGemini() as fake:
        creator: Any = SERVICES["gemini"].make(fake)
        creator.submit(Job(creator_task_id="ours", callback_url=URL, options={"model": "gemini"}), wait=3)
        message = fake.message(fake.complete(fake.last))
        fake.away = 503
        with pytest.raises(CreatorUnclear):
            creator.verify_callback(received(message))
        fake.away = None
        assert creator.verify_callback(received(message))
