"""Batches whose items are authenticated by the tokens of URLs that name a creator."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import run
from tests.support.host import Host, completed
from tests.support.own_words import with_senders
from tests.support.submission import query_of, submit, sweep

Build = Callable[..., Host]


@pytest.fixture
def host(hosts: Build, sqlite_url: str) -> Host:
    return with_senders(hosts, sqlite_url)


def submitted(host: Host, creator: str) -> str:
    task_id = submit(host, creator=creator)
    sweep(host)
    return task_id


def item(host: Host, task_id: str, **changes: Any) -> dict[str, Any]:
    """A completion with what the URL of its task has; a change to None leaves it out."""
    query = query_of(host.task(task_id).callback_url)
    given = {"sender": query["sender"][0], "attempt": int(query["attempt"][0]), "token": query["token"][0], **changes}
    return {**completed(task_id), **{name: value for name, value in given.items() if value is not None}}


def send(host: Host, event: dict[str, Any], **options: Any) -> Any:
    """Send a batch of one event; return its result, or the answer as a whole if that is a refusal."""
    said: Any = host.post_batch([event], **options).json
    return said["results"][0] if "results" in said else said


def test_the_sender_of_the_url_goes_with_its_token(host: Host) -> None:
    task_id = submitted(host, "hub")
    result = send(host, item(host, task_id))
    assert (result["outcome"], host.task(task_id).status) == ("processed", "completed")
    assert b"sender" not in host.deliveries(task_id)[-1].body


def test_it_is_the_same_message_as_alone(host: Host) -> None:
    task_id = submitted(host, "hub")
    url = host.task(task_id).callback_url.removeprefix("https://hub.example")
    assert host.post(task_id, completed(task_id), path=url).status_code == 200
    result = send(host, item(host, task_id))
    assert result["outcome"] == "duplicate"


@pytest.mark.parametrize("sender", [None, "other", "nobody"])
def test_with_no_sender_or_another_the_token_is_wrong(host: Host, sender: str | None) -> None:
    refusal = send(host, item(host, submitted(host, "hub"), sender=sender))
    assert refusal["error"]["code"] == "signature_invalid"


def test_a_task_in_own_words_is_not_settled_by_a_batch(host: Host) -> None:
    task_id = submitted(host, "talk")
    result = send(host, item(host, task_id))
    assert (result["status"], result["error"]["code"]) == (409, "task_mismatch")
    assert host.task(task_id).status == "submitted"


def test_in_a_signed_batch_a_field_of_that_name_is_the_events_own(host: Host) -> None:
    task_id = submitted(host, "hub")
    result = send(host, {**completed(task_id), "sender": "Ada"}, scheme="contenthub")
    assert result["outcome"] == "processed"
    assert b'"sender":"Ada"' in host.deliveries(task_id)[-1].body


def test_the_contract_has_it_where_urls_have_it(host: Host, sqlite_host: Host) -> None:
    def documented(host: Host) -> list[bool]:
        contract = json.loads(run(host, "openapi").stdout)
        item = contract["components"]["schemas"]["Item"]["allOf"][1]["properties"]
        (callback,) = (path["post"] for name, path in contract["paths"].items() if name.endswith("{task_id}"))
        return ["sender" in item, "sender" in {parameter["name"] for parameter in callback["parameters"]}]

    assert (documented(host), documented(sqlite_host)) == ([True, True], [False, False])
