"""Several events in one request."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_contenthub_webhook import task_failed
from flask_contenthub_webhook.signals import callback_rejected
from tests.support.answers import code, untouched
from tests.support.host import BODY_SCHEMES, OTHER_SECRET, PREFIX, Host, completed, custom, encode, failed, signed


def test_a_signed_batch_has_a_verdict_for_each_event_in_order(host: Host):
    done, fresh, bad = host.add_task(status="completed"), host.add_task(), host.add_task()
    events = [
        completed(done),
        completed(fresh),
        failed(bad),
        "no object",
        completed("unknown"),
        {"taskId": fresh},
        custom(fresh, "unheard"),
        completed(fresh),
    ]

    answer = host.post_batch(events, scheme="contenthub")

    assert answer.status_code == 200
    assert answer.json is not None
    results = answer.json["results"]
    assert [item.get("outcome") or item["error"]["code"] for item in results] == [
        "duplicate",
        "processed",
        "processed",
        "invalid_payload",
        "task_not_found",
        "invalid_payload",
        "unknown_event",
        "duplicate",
    ]
    assert answer.json["success"] is False
    assert (host.task(fresh).status, host.task(bad).status, len(host.contents())) == ("completed", "pending", 1)


@pytest.mark.parametrize("scheme", BODY_SCHEMES)
def test_a_batch_is_believed_by_any_signature_over_its_body(sqlite_host: Host, scheme: str):
    task_id = sqlite_host.add_task()

    answer = sqlite_host.post_batch([completed(task_id)], scheme=scheme)

    assert answer.json is not None
    assert answer.json["results"][0]["outcome"] == "processed"


def test_an_event_that_fails_in_its_handler_spoils_no_other(host: Host):
    first, second = host.add_task(), host.add_task()

    def picky(app: Flask, *, task: Any, **extra: Any) -> None:
        if task.task_id == first:
            raise RuntimeError("not this one")

    host.connect(task_failed, picky)
    answer = host.post_batch([failed(first), failed(second)], scheme="contenthub")

    assert answer.status_code == 200
    assert answer.json is not None
    assert [item["success"] for item in answer.json["results"]] == [False, True]
    assert answer.json["results"][0]["error"]["code"] == "handler_failed"
    assert (host.task(first).status, host.task(second).status) == ("submitted", "pending")


def test_each_event_of_a_batch_is_committed_by_itself(sqlite_host: Host):
    tasks = [sqlite_host.add_task() for _ in range(3)]

    with sqlite_host.statements() as statements:
        sqlite_host.post_batch([completed(task_id) for task_id in tasks], scheme="contenthub")

    assert statements.count("COMMIT") == 3


def test_an_unsigned_batch_is_believed_item_by_item(host: Host):
    mine, other, none = host.add_task(), host.add_task(), host.add_task()
    events = [
        {**completed(mine), "attempt": 1, "token": host.token(mine, 1)},
        {**completed(other), "attempt": 2, "token": host.token(other, 1)},
        completed(none),
    ]

    answer = host.post_batch(events)

    assert answer.status_code == 200
    assert answer.json is not None
    assert [item.get("outcome") or item["error"]["code"] for item in answer.json["results"]] == [
        "processed",
        "signature_invalid",
        "signature_missing",
    ]
    assert (host.task(mine).status, untouched_status(host, other), untouched_status(host, none)) == (
        "completed",
        "submitted",
        "submitted",
    )


def untouched_status(host: Host, task_id: str) -> str:
    return str(host.task(task_id).status)


def test_a_batch_with_a_wrong_signature_is_refused_whole(sqlite_host: Host):
    task_id = sqlite_host.add_task()
    body = encode({"events": [completed(task_id)]})
    headers = signed(body, "contenthub", sqlite_host.clock.now, secret=OTHER_SECRET)

    answer = sqlite_host.app.test_client().post(
        f"{PREFIX}/callbacks", data=body, headers=headers, content_type="application/json"
    )

    assert answer.status_code == 401
    assert untouched(sqlite_host, task_id)


def test_a_stranger_with_a_batch_reaches_no_task(host: Host):
    task_id = host.add_task()

    with host.statements() as statements:
        host.post_batch([completed(task_id), completed("unknown")])

    assert not [statement for statement in statements if "content_generation_tasks" in statement]


JUNK = {"no objects": 1, "no token": {}, "a wrong token": {"token": "A" * 43}, "a token that is no text": {"token": 1}}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("required", [True, False])
def test_a_strangers_batch_is_one_refusal_however_much_it_claims_to_hold(
    hosts: Callable[..., Host], database_url: str, caplog: pytest.LogCaptureFixture, junk: Any, required: bool
):
    host = hosts(database_url, WEBHOOK_REQUIRE_SIGNATURE=required)
    told: list[str] = []
    host.connect(callback_rejected, lambda app, *, reason, **extra: told.append(reason))

    answer = host.post_batch([junk] * 1000)

    assert answer.status_code in {400, 401, 403}
    assert len(answer.data) < 500
    assert told == [code(answer)]
    (line,) = [record.message for record in caplog.records if "refused" in record.message]
    assert line.startswith(f"Callback refused: {answer.status_code} {code(answer)}: ")
    assert line.endswith(" [from 127.0.0.1]")
    host.state.refusals.flush()
    assert [(row.error, row.occurrences) for row in host.deliveries()] == [(code(answer), 1)]


def test_beside_an_item_that_is_authenticated_junk_is_recorded_once_for_each_reason(host: Host):
    task_id = host.add_task()
    told: list[str] = []
    host.connect(callback_rejected, lambda app, *, reason, **extra: told.append(reason))
    genuine = {**completed(task_id), "token": host.token(task_id)}

    answer = host.post_batch([genuine, *[1] * 300, *[{}] * 300, *[{"token": "x"}] * 300])

    assert answer.json is not None
    assert [item["success"] for item in answer.json["results"]] == [True] + [False] * 900
    assert host.task(task_id).status == "completed"
    assert told == ["invalid_payload", "signature_missing", "signature_invalid"]


@pytest.mark.parametrize("attempt", [0, -1, "x", 1.5, True, [], {}])
def test_an_item_with_an_attempt_that_is_no_number_is_refused(sqlite_host: Host, attempt: Any):
    task_id = sqlite_host.add_task()

    answer = sqlite_host.post_batch([{**completed(task_id), "attempt": attempt}], scheme="contenthub")

    assert answer.json is not None
    assert answer.json["results"][0]["error"]["code"] == "invalid_payload"
    assert untouched(sqlite_host, task_id)


def test_an_item_speaks_for_its_attempt(host: Host):
    task_id = host.add_task(attempt=2)

    answer = host.post_batch([{**failed(task_id), "attempt": 1}, {**failed(task_id), "attempt": 2}], scheme="github")

    assert answer.json is not None
    assert [item["outcome"] for item in answer.json["results"]] == ["stale", "processed"]
    assert host.task(task_id).attempt == 3


def test_an_item_may_name_the_task_as_the_creator_does(host: Host):
    task_id = host.add_task(creator_task_id="creator-2", earlier_creator_task_ids=["creator-1"], attempt=2)

    answer = host.post_batch([completed("creator-2")], scheme="contenthub")

    assert answer.json is not None
    assert answer.json["results"][0].get("outcome") == "processed"
    assert host.task(task_id).status == "completed"


def test_an_empty_batch_is_taken(sqlite_host: Host):
    answer = sqlite_host.post_batch([], scheme="contenthub")

    assert (answer.status_code, answer.json["results"] if answer.json else None) == (200, [])


@pytest.mark.parametrize("payload", [{}, {"events": {}}, {"events": [{}] * 1001}], ids=["none", "object", "too many"])
def test_a_batch_that_is_none_is_refused(sqlite_host: Host, payload: dict[str, Any]):
    answer = sqlite_host.post_batch(None, raw=encode(payload), scheme=None)

    assert (answer.status_code, code(answer)) == (400, "invalid_payload")


@pytest.mark.parametrize("spoil", ["nothing", "json", "item", "signature"])
def test_no_token_of_a_batch_reaches_the_history(host: Host, spoil: str):
    task_id = host.add_task()
    token = host.token(task_id)
    event: dict[str, Any] = {**completed(task_id, "x"), "token": token}
    if spoil == "item":
        event["result"] = None
    raw = encode({"events": [event]})
    if spoil == "json":
        raw = raw[:-1] + b',"n":NaN}'
    headers = {"X-Webhook-Signature": "A" * 43 + "="} if spoil == "signature" else {}

    host.app.test_client().post(f"{PREFIX}/callbacks", data=raw, headers=headers, content_type="application/json")

    rows = host.deliveries()
    assert len(rows) == 1
    assert token.encode() not in (rows[0].body or b"")
    assert token not in json.dumps(rows[0].headers)
