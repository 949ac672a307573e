"""The row that a submission writes before anybody is called, and its callback URL."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from flask_contenthub_webhook import GenerationTaskMixin
from flask_contenthub_webhook.core.signatures import sign_url
from flask_contenthub_webhook.creators import Job
from flask_contenthub_webhook.errors import ConfigurationError
from tests.support.host import SECRET, Host, completed
from tests.support.submission import BASE, OPEN, own, query_of, reconcile, submit, sweep, with_own_creator

FORWARD_SECRET = "a secret of the receivers, of at least 32 characters"


class TestTheRow:
    def test_it_is_complete_before_anybody_is_called(self, hub):
        task_id = submit(hub, keywords=["green"], tone="dry", priority=4, imageSize="1k", auto_approve=True, timeout=60)

        task = hub.task(task_id)
        assert own(hub).calls == []
        assert (task.status, task.attempt, task.auto_approve) == ("pending", 1, True)
        assert uuid.UUID(task.creator_task_id).version == uuid.UUID(task.task_id).version == 4
        assert task.creator_task_id != task.task_id
        assert task.callback_url.startswith(f"{BASE}/api/v1/content/callback/{task_id}?")
        assert query_of(task.callback_url) == {"attempt": ["1"], "token": [sign_url(SECRET, task_id, 1)]}
        assert task.next_submit_at == hub.clock.now
        assert task.next_poll_at == hub.clock.now + timedelta(seconds=120)
        assert task.deadline_at == hub.clock.now + timedelta(seconds=60)

        sweep(hub)
        assert own(hub).jobs == [
            Job(
                creator_task_id=task.creator_task_id,
                task_id=task_id,
                attempt=1,
                topic="Tea",
                requirements="R",
                target_audience="A",
                keywords=("green",),
                tone="dry",
                priority=4,
                callback_url=task.callback_url,
                callback_events=("completed", "failed"),
                options={"imageSize": "1k"},
            )
        ]

    def test_the_callback_url_lets_the_creator_in(self, hub):
        task_id = submit(hub)
        url = urlsplit(hub.task(task_id).callback_url)

        answer = hub.post(task_id, completed("whatever"), path=f"{url.path}?{url.query}")

        assert answer.status_code == 200
        assert hub.task(task_id).status == "completed"

    def test_every_task_has_ids_of_its_own(self, sqlite_hub):
        submit(sqlite_hub)
        submit(sqlite_hub)
        first, second = sqlite_hub.tasks()
        assert len({first.task_id, second.task_id, first.creator_task_id, second.creator_task_id}) == 4

    def test_the_hosts_own_columns_are_filled_in(self, hosts, database_url):
        host = with_own_creator(hosts(database_url, models=task_with_account, WEBHOOK_CALLBACK_BASE_URL=BASE))
        task_id = submit(host, task_fields={"account_id": 7})
        assert host.task(task_id).account_id == 7

    def test_too_long_a_text_and_a_strange_priority_are_refused_before_anything_is_written(self, sqlite_hub):
        for values, problem in (
            ({"topic": "x" * 501}, "topic has 501 characters"),
            ({"target_audience": "x" * 501}, "target_audience"),
            ({"tone": "x" * 101}, "tone"),
            ({"callback_url": f"{BASE}/{'x' * 2048}"}, "callback_url"),
            ({"priority": 0}, "priority is 0"),
            ({"priority": 5}, "priority is 5"),
            ({"timeout": 0.5}, "timeout is 0.5"),
            ({"timeout": 1e12}, "a number of seconds, from 1 to 31,536,000"),
        ):
            with pytest.raises(ValueError, match=problem):
                submit(sqlite_hub, **values)
        assert sqlite_hub.tasks() == []

    @pytest.mark.parametrize("bad", ["\0", "a\0b", "\ud800", "x\udfff"], ids=ascii)
    @pytest.mark.parametrize(
        ("name", "wrap"),
        [
            ("topic", str),
            ("requirements", str),
            ("target_audience", str),
            ("tone", str),
            ("keywords", lambda bad: {"good", bad}),
            ("callback_events", lambda bad: ("completed", bad)),
            ("callback_url", lambda bad: f"https://hub.example/{bad}"),
            ("callback_url", lambda bad: f"https://hub.example/{bad}/{{task_id}}"),
            ("forward_to", lambda bad: [{"url": "https://receiver.example", "include": [f"a.{bad}"]}]),
            ("task_fields", lambda bad: {"note": bad}),
            ("creator_options", lambda bad: {"imageStyle": bad}),
            ("creator_options", lambda bad: {"nested": [{"deep": (1, bad)}]}),
            ("creator_options", lambda bad: {"nested": {bad: 1}}),
        ],
    )
    def test_text_that_no_database_takes_is_refused_by_the_name_of_its_argument(
        self, hosts, database_url, name, wrap, bad
    ):
        hub = with_own_creator(
            hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_FORWARD_SECRET=FORWARD_SECRET)
        )

        with pytest.raises(ValueError, match=f"{name} cannot be kept"):
            submit(hub, **(wrap(bad) if name == "creator_options" else {name: wrap(bad)}))
        assert hub.tasks() == []

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_a_number_that_json_does_not_know_is_refused(self, hub, number):
        with pytest.raises(ValueError, match="creator_options cannot be kept"):
            submit(hub, imageCount=[number])
        assert hub.tasks() == []

    def test_the_longest_texts_are_kept(self, hub):
        task_id = submit(hub, topic="键" * 500, target_audience="x" * 500, tone="x" * 100, requirements="字" * 5000)
        assert len(hub.task(task_id).topic) == 500

    def test_without_a_creator_there_is_nothing_to_submit_to(self, hosts, sqlite_url):
        with pytest.raises(ConfigurationError, match="CREATOR_API_BASE_URL"):
            submit(hosts(sqlite_url, WEBHOOK_CALLBACK_BASE_URL=BASE))


def task_with_account(db: Any) -> dict[str, type[Any]]:
    class Task(GenerationTaskMixin, db.Model):  # type: ignore[misc]
        __tablename__ = "content_generation_tasks"
        account_id: Mapped[int] = mapped_column(sa.Integer)

    return {"task_model": Task}


class TestTheCallbackUrl:
    def url(self, host: Host, **values: Any) -> str:
        return str(host.task(submit(host, **values)).callback_url)

    def test_the_argument_wins_over_the_configuration(self, sqlite_hub):
        url = self.url(sqlite_hub, callback_url="https://gateway.example/in/")
        assert url.startswith("https://gateway.example/in/api/v1/content/callback/")

    def test_a_whole_url_with_the_task_in_it_is_taken_as_it_is(self, sqlite_hub):
        task_id = submit(sqlite_hub, callback_url="https://gateway.example/hooks/{task_id}?tenant=7&attempt=9")
        url = sqlite_hub.task(task_id).callback_url
        assert url.startswith(f"https://gateway.example/hooks/{task_id}?")
        assert query_of(url) == {"tenant": ["7"], "attempt": ["1"], "token": [sign_url(SECRET, task_id, 1)]}

    @pytest.mark.parametrize("url", ["hub.example", "ftp://hub.example", "https://", "/callback", "", "https://[::1"])
    def test_what_is_no_absolute_url_is_refused(self, sqlite_hub, url):
        with pytest.raises(ValueError):
            submit(sqlite_hub, callback_url=url)
        assert sqlite_hub.tasks() == []

    @pytest.mark.parametrize("url", ["https://gateway.example/in?tenant=7", "https://gateway.example/in#here"])
    def test_a_base_that_no_path_can_be_put_behind_is_refused(self, sqlite_hub, url):
        """As WEBHOOK_CALLBACK_BASE_URL refuses it: the path would end up inside the query."""
        with pytest.raises(ValueError):
            submit(sqlite_hub, callback_url=url)

    def test_in_debug_the_request_at_hand_says_where_we_are(self, hosts, sqlite_url):
        host = with_own_creator(hosts(sqlite_url))
        host.app.debug = True
        with host.app.test_request_context("/", base_url="http://localhost:5000"):
            task = host.webhook.submit(topic="Tea")
            assert task.callback_url.startswith("http://localhost:5000/api/v1/content/callback/")

    def test_in_debug_an_app_below_a_prefix_is_found_there(self, hosts, sqlite_url):
        host = with_own_creator(hosts(sqlite_url))
        host.app.debug = True
        with host.app.test_request_context("/", base_url="http://localhost:5000/hub"):
            task = host.webhook.submit(topic="Tea")
            assert task.callback_url.startswith("http://localhost:5000/hub/api/v1/content/callback/")

    def test_outside_debug_nobody_guesses(self, hosts, sqlite_url):
        host = with_own_creator(hosts(sqlite_url))
        with (
            host.app.test_request_context("/", base_url="http://evil.example"),
            pytest.raises(ConfigurationError, match="WEBHOOK_CALLBACK_BASE_URL"),
        ):
            host.webhook.submit(topic="Tea")
        host.app.debug = True
        with pytest.raises(ConfigurationError):  # debug, but no request
            submit(host)
        assert host.tasks() == []

    def test_with_webhooks_off_there_is_none_and_the_task_is_polled(self, hosts, database_url):
        host = with_own_creator(
            hosts(database_url, WEBHOOK_ENABLED=False, WEBHOOK_REQUIRE_SIGNATURE=False, WEBHOOK_SUBMIT_THREADS=0)
        )
        task_id = submit(host)
        sweep(host)
        task = host.task(task_id)
        assert task.callback_url is None
        assert own(host).jobs[0].callback_url is None

        own(host).known[task.creator_task_id] = OPEN
        waits = []
        for _ in range(4):
            waits.append((host.task(task_id).next_poll_at - host.clock.now).total_seconds())
            host.clock.now = host.task(task_id).next_poll_at
            assert reconcile(host).still_open == 1
        assert waits == [30, 30, 30, 30]
