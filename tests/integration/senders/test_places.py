"""Where senders and creators show: commands, pages, the doctor, forwards, Celery, and a view of the host's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from docs.own_view import add_press_view
from flask_contenthub_webhook.contrib.dashboard import create_dashboard
from flask_contenthub_webhook.core.signatures import sign_url
from flask_contenthub_webhook.errors import SignatureInvalid, SignatureMissing
from flask_contenthub_webhook.forwarding.post import Answer
from tests.cli.conftest import run, run_json
from tests.support.host import PREFIX, SECRET, Host, make_host
from tests.support.own_words import (
    OPTIONS,
    Talker,
    Whisperer,
    project,
    talk,
    talker,
    url_of,
    with_sender,
    with_senders,
    words,
)
from tests.support.submission import BASE, query_of, submit, sweep

Build = Callable[..., Host]


@pytest.fixture
def host(hosts: Build, database_url: str) -> Host:
    return with_senders(hosts, database_url)


def submitted(host: Host, creator: str | None = "talk", **more: Any) -> tuple[str, str]:
    task_id = submit(host, **({} if creator is None else {"creator": creator}), **more)
    sweep(host)
    return task_id, host.task(task_id).creator_task_id


class TestCommands:
    def test_tasks_by_creator(self, host: Host) -> None:
        first, second = submit(host, creator="hub"), submit(host, creator="talk")
        old = host.add_task(creator_name=None)

        def listed(*names: str) -> list[str]:
            options = [part for name in names for part in ("--creator", name)]
            return [task["task_id"] for task in run_json(host, "tasks", *options)["tasks"]]

        assert listed("talk") == [second]
        assert listed("hub") == [old, first]  # the tasks without a name are the first one's
        assert listed("talk", "hub") == [old, second, first]
        assert listed("gone") == []
        assert "talk" in run(host, "tasks").stdout

    def test_deliveries_by_sender(self, host: Host) -> None:
        _, job = submitted(host)
        answer = talk(host, project(), words(job))
        rows = run_json(host, "deliveries", "list", "--scheme", "talk")["deliveries"]
        assert [row["id"] for row in rows] == [answer.json["delivery_id"]]
        assert run_json(host, "deliveries", "list", "--scheme", "other")["deliveries"] == []

    def test_what_was_ignored_can_be_replayed(self, host: Host) -> None:
        answer = talk(host, project(), words("late name"))
        host.add_task(creator_name="talk", creator_task_id="late name")
        done = run_json(host, "deliveries", "replay", "--scheme", "talk", "--yes")
        assert [row["id"] for row in done["replayed"]] == [answer.json["delivery_id"]]

    def test_the_url_of_a_task(self, host: Host) -> None:
        task_id, _ = submitted(host)
        shown = run(host, "url", task_id, "--creator", "talk").stdout.strip()
        assert shown == host.task(task_id).callback_url
        assert query_of(run(host, "url", task_id).stdout.strip())["sender"] == ["hub"]
        assert "must be one of hub, talk, other" in run(host, "url", task_id, "--creator", "gone").stderr

    def test_the_url_of_an_only_senders_task(self, hosts: Build, sqlite_url: str) -> None:
        host = with_sender(hosts, sqlite_url)
        task_id, _ = submitted(host, None)
        assert run(host, "url", task_id).stdout.strip() == host.task(task_id).callback_url

    def test_the_doctor_names_them_and_their_urls(self, host: Host) -> None:
        host.add_task(creator_name="gone")
        findings = {
            row["check"]: row["message"] for row in run_json(host, "doctor")["findings"] if "gone" in row["message"]
        }
        assert "For the creator gone, which is no longer configured: 1 open task." in findings.values()
        said = run(host, "doctor").stdout.replace("\n", " ")
        assert f"{BASE}{PREFIX}/callbacks/talk" in "".join(said.split())
        assert f"{PREFIX}/callbacks/hub" not in said


class TestPages:
    @pytest.fixture
    def client(self, host: Host) -> Any:
        host.app.register_blueprint(create_dashboard(permission=lambda: True), url_prefix="/webhooks")
        return host.app.test_client()

    def test_deliveries_by_sender(self, host: Host, client: Any) -> None:
        _, job = submitted(host)
        said = talk(host, project(), words(job), message_id="shown once")
        number = said.json["delivery_id"]
        pages = [client.get(f"/webhooks/deliveries?scheme={name}").text for name in ("talk", "other")]
        assert [f"/webhooks/deliveries/{number}" in text for text in pages] == [True, False]
        assert "talk" in client.get(f"/webhooks/deliveries/{number}").text

    def test_a_task_names_its_creator(self, host: Host, client: Any) -> None:
        task_id, _ = submitted(host)
        shown = client.get(f"/webhooks/task?id={task_id}")
        assert "<dt>Creator</dt><dd><bdi>talk</bdi>" in shown.text


def test_receivers_of_forwards_get_our_own_format(hosts: Build, database_url: str) -> None:
    host = with_sender(hosts, database_url, WEBHOOK_FORWARD_SECRET="a-secret-of-forwards-of-forty-characters")
    sent: list[tuple[str, Any]] = []

    def post(url: str, body: bytes, _: Any) -> Answer:
        sent.append((url, json.loads(body)))
        return Answer(status=200)

    host.state.post = post
    task_id, job = submitted(host, None, forward_to=["https://receiver.example/in"])
    talk(host, project("creator"), words(job))
    with host.app.app_context():
        host.webhook.send_due_forwards()
    [(_, event)] = sent
    assert (event["event"], event["taskId"], event["result"]) == ("completed", task_id, {"content": "spoken"})


def test_celery_applies_them(hosts: Build, database_url: str) -> None:
    celery = Celery("host")
    celery.conf.task_always_eager = True
    talking = Talker.__new__(Talker)
    host = hosts(
        database_url,
        models=lambda _: {"creator": talking, "celery": celery},
        WEBHOOK_PROCESSING="celery",
        **OPTIONS,
    )
    talking.__init__(host)  # type: ignore[misc]
    task_id, job = submitted(host, None)
    assert talk(host, project("creator"), words(job)).status_code == 202
    assert (host.task(task_id).status, host.contents(task_id)) == ("completed", ["spoken"])


class TestAViewOfTheHosts:
    @pytest.fixture
    def host(self, database_url: str) -> Any:
        host = make_host(database_url, **OPTIONS)
        add_press_view(host.app, host.webhook)
        yield host
        host.close()

    def url(self, host: Host, task_id: str, attempt: int | None = 1) -> str:
        urls = host.state.settings.callback_urls
        return urls.address(f"http://localhost/press/{task_id}", task_id, attempt)

    def say(self, host: Host, url: str) -> Any:
        return host.app.test_client().post(url, json={"text": "pressed"})

    def test_the_attempt_of_the_url_counts(self, host: Host) -> None:
        task_id = host.add_task()
        assert self.say(host, self.url(host, task_id)).json == {"outcome": "processed"}
        assert (host.contents(task_id), host.deliveries(task_id)[0].attempt) == (["pressed"], 1)

    def test_one_that_is_for_any_attempt(self, host: Host) -> None:
        task_id = host.add_task()
        assert self.say(host, self.url(host, task_id, None)).json == {"outcome": "processed"}

    @pytest.mark.parametrize("change", [
        ("token=", "token=x"), ("token=", "no="), ("attempt=1", "attempt=2"), ("attempt=1&", ""),
        ("attempt=1", "attempt=x"),
    ])  # fmt: skip
    def test_and_nothing_else(self, host: Host, change: tuple[str, str]) -> None:
        task_id = host.add_task()
        answer = self.say(host, self.url(host, task_id).replace(*change))
        assert answer.status_code in {400, 401, 403}
        assert (host.contents(task_id), host.deliveries(task_id)) == ([], [])

    def test_nor_the_url_of_another_task(self, host: Host) -> None:
        task_id, other = host.add_task(), host.add_task()
        assert self.say(host, self.url(host, other).replace(f"/press/{other}", f"/press/{task_id}")).status_code == 401

    @pytest.mark.parametrize("config", [{"WEBHOOK_SECRET_KEY": ...}, {"WEBHOOK_SIGNATURE_SCHEMES": "standard"}])
    def test_without_tokens_nothing_is_believed(self, hosts: Build, sqlite_url: str, config: dict[str, Any]) -> None:
        host = hosts(sqlite_url, WEBHOOK_REQUIRE_SIGNATURE=False, **config)
        token = make_token(SECRET)
        with host.app.app_context(), pytest.raises(SignatureMissing):
            host.webhook.check_token("t", {"token": token, "attempt": "1"})

    def test_an_old_secret_still_counts(self, hosts: Build, sqlite_url: str) -> None:
        host = hosts(sqlite_url, WEBHOOK_SECRET_KEY=["another-secret-of-more-than-forty-characters", SECRET])
        with host.app.app_context():
            assert host.webhook.check_token("t", {"token": make_token(SECRET), "attempt": "1"}) == 1
            with pytest.raises(SignatureInvalid):
                host.webhook.check_token("t", {"token": make_token("x" * 39 + "y"), "attempt": "1"})


def make_token(secret: str) -> str:
    return sign_url(secret, "t", 1)


def test_a_sender_without_a_signature_is_told_from_others(hosts: Build, sqlite_url: str) -> None:
    host = with_sender(hosts, sqlite_url, Whisperer)
    task_id, job = submitted(host, None)
    answer = talk(host, url_of(host, task_id), words(job), key=None)
    assert host.delivery(answer.json["delivery_id"]).scheme == "creator"
    assert talker(host).verified == []
