"""Progress, custom events, message ids, and events handed over from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_contenthub_webhook import WebhookHandler, task_progress
from tests.support.answers import outcome
from tests.support.host import Host, at_once, completed, custom, failed, progress

Build = Callable[..., Host]


# --- progress ----------------------------------------------------------------------------------------------------


def test_progress_is_stored_every_time_and_only_forwards(host: Host):
    task_id = host.add_task()
    seen = []
    host.connect(task_progress, lambda app, *, progress, **extra: seen.append(progress["percentage"]))

    answers = [host.post(task_id, progress(task_id, value), attempt=1) for value in (10, 40, 20, 40, 90)]
    task = host.task(task_id)

    assert [outcome(answer) for answer in answers] == ["processed", "processed", "ignored", "ignored", "processed"]
    assert (task.status, task.progress_percentage, task.progress["percentage"]) == ("processing", 90, 90)
    assert seen == [10, 40, 90]


def test_progress_puts_off_the_poll(host: Host):
    task_id = host.add_task()
    host.clock.advance(100)

    host.post(task_id, progress(task_id, 10), attempt=1)

    assert (host.task(task_id).next_poll_at - host.clock.now).total_seconds() == 120


def test_progress_begins_anew_with_the_next_attempt(host: Host):
    task_id = host.add_task()
    host.post(task_id, progress(task_id, 90), attempt=1)
    host.post(task_id, failed(task_id), attempt=1)

    assert host.task(task_id).progress_percentage is None
    assert outcome(host.post(task_id, progress(task_id, 5), attempt=2)) == "processed"
    assert outcome(host.post(task_id, progress(task_id, 95), attempt=1)) == "stale"


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_a_time_at_the_end_of_the_calendar_does_not_block_the_task(
    hosts: Build, postgres_url: str, timestamp: str, zone: str
):
    host = hosts(
        postgres_url, engine_options={"connect_args": {"options": f"-c timezone={zone}"}}
    )  # what the server's administrator may have set
    task_id = host.add_task()

    assert host.post(task_id, progress(task_id, 10, timestamp=timestamp), attempt=1).status_code in {200, 400}
    assert outcome(host.post(task_id, completed(task_id), attempt=1)) == "processed"


# --- custom events -----------------------------------------------------------------------------------------------


def test_a_custom_event_reaches_its_handlers_once_and_changes_no_state(host: Host):
    task_id, seen = host.add_task(), []

    @host.webhook.on("illustrated")
    def on_illustrated(app: Flask, *, task: Any, event: Any, delivery: Any, **extra: Any) -> None:
        seen.append((task.task_id, event.payload["images"], delivery.event))
        host.db.session.add(host.Content(task_id=task.task_id, body="image"))

    event = custom(task_id, "illustrated", images=3)
    answers = [host.post(task_id, event, attempt=1) for _ in range(3)]

    assert [outcome(answer) for answer in answers] == ["processed", "duplicate", "duplicate"]
    assert seen == [(task_id, 3, "illustrated")]
    assert host.contents() == ["image"]
    assert host.task(task_id).status == "submitted"


def test_a_custom_event_at_the_same_moment_has_one_effect(server_host: Host):
    host, task_id = server_host, server_host.add_task()

    @host.webhook.on("illustrated")
    def on_illustrated(app: Flask, *, task: Any, **extra: Any) -> None:
        host.db.session.add(host.Content(task_id=task.task_id, body="image"))

    answers = at_once(*[lambda: host.post(task_id, custom(task_id, "illustrated"))] * 6)

    assert [answer.status_code for answer in answers] == [200] * 6
    assert host.contents() == ["image"]


def test_a_filter_chooses_among_the_events_of_a_type(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []
    host.webhook.on("scored", where={"score": [9, 10]})(lambda app, *, event, **extra: seen.append("top"))
    host.webhook.on("scored")(lambda app, *, event, **extra: seen.append("all"))

    for score in (3, 10):
        assert outcome(host.post(task_id, custom(task_id, "scored", score=score))) == "processed"

    assert seen == ["all", "top", "all"]


def test_an_event_that_nobody_subscribes_to_is_recorded_and_says_so(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_EVENTS="drawn")
    host.webhook.on("scored", where={"score": [9, 10]})(lambda app, **extra: None)
    task_id = host.add_task()

    answers = [host.post(task_id, custom(task_id, name, score=score)) for name, score in (("scored", 3), ("drawn", 1))]
    heard = host.post(task_id, custom(task_id, "scored", score=9)).get_json()

    for answer in answers:
        assert outcome(answer) == "processed"
        assert answer.get_json()["message"] == "The event was recorded; no handler was called."
    assert [row.reason for row in host.deliveries()] == [
        *["No handler was called: none subscribes to such an event."] * 2,
        None,
    ]
    assert (heard["message"], heard["details"]["reason"]) == ("The event was applied.", None)


def test_a_subscription_to_a_built_in_event_works_with_a_filter(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []
    host.webhook.on("completed", where={"result.wordCount": 3})(lambda app, *, task, **extra: seen.append(task.status))

    host.post(task_id, completed(task_id))

    assert seen == ["completed"]


def test_a_configured_custom_event_is_recorded_without_a_handler(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_EVENTS="illustrated")
    task_id = host.add_task(status="completed")

    assert outcome(host.post(task_id, custom(task_id, "illustrated"))) == "processed"
    assert host.task(task_id).status == "completed"


def test_an_event_type_that_no_history_could_hold_is_refused_when_it_is_subscribed_to(sqlite_host: Host):
    """A longer one would make PostgreSQL refuse the history row: a 503 for every such callback, for ever."""
    with pytest.raises(ValueError, match="64"):
        sqlite_host.webhook.on("x" * 65)


# --- message ids -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [failed, lambda task_id: progress(task_id, 50), lambda task_id: custom(task_id, "known")]
)
def test_a_message_id_that_came_before_is_a_duplicate_even_with_another_body(
    hosts: Build, database_url: str, make: Any
):
    host = hosts(database_url, WEBHOOK_EVENTS="known")
    task_id = host.add_task()
    first, second = make(task_id), make(task_id)
    second["metadata"] = {"sent": "again"}

    answers = [host.post_signed(task_id, event, "standard", message_id="msg-1") for event in (first, second)]

    assert [outcome(answer) for answer in answers] == ["processed", "duplicate"]


def test_the_same_message_id_about_another_task_is_no_duplicate(host: Host):
    first, second = host.add_task(), host.add_task()

    answers = [host.post_signed(task, failed(task), "standard", message_id="msg-1") for task in (first, second)]

    assert [outcome(answer) for answer in answers] == ["processed", "processed"]


# --- from Python -------------------------------------------------------------------------------------------------


def test_the_handler_of_the_original_takes_all_three_events(host: Host):
    task_id, handler = host.add_task(), WebhookHandler(host.app)

    assert handler.handle_task_progress(task_id, {"progress": {"percentage": 5}}).verdict == "processed"
    assert handler.handle_task_failed(task_id, {"error": {"message": "x"}}).will_retry
    assert handler.handle_task_completed(task_id, {"result": {"content": "text"}}).status == "completed"
    assert host.contents() == ["text"]
    assert [row.source for row in host.deliveries(task_id)] == ["host"] * 3


def test_a_failure_that_the_host_hands_over_twice_is_one(host: Host):
    task_id, handler = host.add_task(), WebhookHandler(host.app)

    verdicts = [handler.handle_task_failed(task_id, failed(task_id)).verdict for _ in range(2)]

    assert verdicts == ["processed", "duplicate"]
    assert host.task(task_id).attempt == 2
