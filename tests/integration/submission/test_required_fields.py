"""Of several creators, the one that a task was submitted to decides which fields its result must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_contenthub_webhook.compat import WebhookHandler
from flask_contenthub_webhook.creators import Creators, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorUnreachable, InvalidPayload
from tests.support.host import Host, completed
from tests.support.own_words import OPTIONS, url_of
from tests.support.submission import OwnCreator, raise_, submit, sweep

Build = Callable[..., Host]


class Painter(OwnCreator):
    required_result_fields = ("url",)


@pytest.fixture(params=["inline", "worker"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["hub first", "painter first"])
def host(request: pytest.FixtureRequest, hosts: Build, sqlite_url: str, mode: str) -> Host:
    """A host with two creators: a result of ``hub`` must have ``content``, and one of ``painter`` a ``url``."""
    made = {"hub": OwnCreator.__new__(OwnCreator), "painter": Painter.__new__(Painter)}
    names = list(made) if request.param == "hub first" else list(reversed(made))
    creators = Creators(**{name: made[name] for name in names})
    host = hosts(sqlite_url, models=lambda _: {"creator": creators}, **OPTIONS, WEBHOOK_PROCESSING=mode)
    for creator in made.values():
        creator.__init__(host)  # type: ignore[misc]
    return host


def creator_of(host: Host, name: str) -> OwnCreator:
    creators = host.state.creator
    assert isinstance(creators, Creators)
    creator = creators[name]
    assert isinstance(creator, OwnCreator)
    creator.calls.clear()
    return creator


def submitted(host: Host, name: str) -> str:
    task_id = submit(host, creator=name)
    sweep(host)
    return task_id


def drawn(host: Host, task_id: str) -> None:
    """Let the painter say that it has the picture."""
    report = Report(state=RemoteState.COMPLETED, result={"url": "https://x.example/1.png"})
    creator_of(host, "painter").known[host.task(task_id).creator_task_id] = report


def settle(host: Host) -> None:
    host.clock.advance(400)
    host.retry()


def by_url(host: Host, task_id: str, event: Any) -> Any:
    return host.post(task_id, event, path=url_of(host, task_id))


def by_signature(host: Host, task_id: str, event: Any) -> Any:
    return host.post_signed(task_id, event, "standard")


def in_a_batch(host: Host, task_id: str, event: Any) -> Any:
    return host.post_batch([event], scheme="standard")


WAYS = [by_url, by_signature, in_a_batch]


@pytest.mark.parametrize("send", WAYS)
def test_what_has_its_own_fields_asks_nobody(host: Host, send: Callable[..., Any]) -> None:
    task_id = submitted(host, "hub")
    hub = creator_of(host, "hub")
    hub.on_statuses = lambda: raise_(CreatorUnreachable("down"))
    assert send(host, task_id, completed(task_id, "text")).status_code in {200, 202}
    settle(host)
    assert (host.task(task_id).status, hub.calls) == ("completed", [])


@pytest.mark.parametrize("send", WAYS)
def test_what_has_only_anothers_fields_is_fetched(host: Host, send: Callable[..., Any]) -> None:
    task_id = submitted(host, "painter")
    drawn(host, task_id)
    send(host, task_id, completed(task_id, "a caption"))
    settle(host)
    assert host.task(task_id).status == "completed"
    assert host.task(task_id).result["url"] == "https://x.example/1.png"


def test_a_handler_that_failed_does_not_change_what_is_required(host: Host) -> None:
    task_id = submitted(host, "hub")
    hub = creator_of(host, "hub")
    hub.on_statuses = lambda: raise_(CreatorUnreachable("down"))
    host.publisher.broken = True
    by_url(host, task_id, completed(task_id, "text"))
    settle(host)
    host.publisher.broken = False
    settle(host)
    settle(host)
    assert (host.task(task_id).status, hub.calls) == ("completed", [])


def test_nor_does_a_replay(host: Host) -> None:
    task_id = submitted(host, "hub")
    hub = creator_of(host, "hub")
    by_url(host, task_id, completed(task_id, "text"))
    settle(host)
    host.replay(host.deliveries(task_id)[-1].id)
    assert hub.calls == []


def test_another_creators_field_may_be_of_any_type(host: Host) -> None:
    task_id = submitted(host, "painter")
    by_signature(host, task_id, completed(task_id, result={"url": "https://x.example/1.png", "content": 5}))
    settle(host)
    assert host.task(task_id).status == "completed"


def test_a_handler_of_the_hosts_own_requires_the_same(host: Host) -> None:
    task_id = submitted(host, "painter")
    drawn(host, task_id)
    WebhookHandler(host.app).handle_task_completed(task_id, completed(task_id, "a caption"))
    settle(host)
    assert host.task(task_id).result["url"] == "https://x.example/1.png"


def test_a_wrong_type_is_refused_where_the_task_tells_so(host: Host, mode: str) -> None:
    task_id = submitted(host, "hub")
    answer = by_signature(host, task_id, completed(task_id, result={"content": 5}))
    settle(host)
    assert host.task(task_id).status == "submitted"
    if mode == "inline":
        assert (answer.status_code, answer.json["error"]["code"]) == (400, InvalidPayload.code)
    else:
        assert [(row.verdict, row.answer_status) for row in host.deliveries(task_id)[1:]] == [("dead", 202)]


def test_one_that_waited_fails_no_later_attempt(hosts: Build, sqlite_url: str) -> None:
    """Nothing says at its acceptance that it lacks the picture, so that it counts for an attempt."""
    creators = Creators(hub=OwnCreator.__new__(OwnCreator), painter=Painter.__new__(Painter))
    host = hosts(sqlite_url, models=lambda _: {"creator": creators}, **OPTIONS, WEBHOOK_PROCESSING="worker")
    for creator in creators.values():
        creator.__init__(host)  # type: ignore[misc]
    task_id = submitted(host, "painter")
    by_signature(host, task_id, completed(task_id, "a caption"))
    assert [row.attempt for row in host.deliveries(task_id) if row.event == "completed"] == [1]


def test_creators_with_the_same_fields_cost_no_statement_more(hosts: Build, sqlite_url: str) -> None:
    def statements(**creators: OwnCreator) -> int:
        host = hosts(sqlite_url, models=lambda _: {"creator": Creators(**creators)}, **OPTIONS)
        for creator in creators.values():
            creator.__init__(host)  # type: ignore[misc]
        task_id = submitted(host, "hub")
        with host.statements() as sent:
            by_url(host, task_id, completed(task_id, "text"))
        return len(sent)

    one = statements(hub=OwnCreator.__new__(OwnCreator))
    assert statements(hub=OwnCreator.__new__(OwnCreator), other=OwnCreator.__new__(OwnCreator)) == one
