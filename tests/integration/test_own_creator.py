"""The example of the documentation, run end to end: a service that is nothing like content-creator."""

from __future__ import annotations

import ast
import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import httpx
import pytest
from flask import Flask, Response, request
from werkzeug.serving import make_server

from flask_contenthub_webhook.creators import Creator, Job, RemoteState
from flask_contenthub_webhook.errors import CreatorAway, CreatorUnreachable
from flask_contenthub_webhook.testing.live import LiveApp
from tests.support.host import SECRET, Host, make_host

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "own_creator.py"


class Press:
    """The service: jobs under their names; it prints when it is told to, and tells whoever is to be notified."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.app = Flask("press")
        self.answers: list[Response] = []  # given before it does anything
        self.app.before_request(lambda: self.answers.pop(0) if self.answers else None)
        self.app.add_url_rule("/jobs/<name>", view_func=self._job, methods=["GET", "PUT", "DELETE"])
        self._server = make_server("127.0.0.1", 0, self.app, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.base_url = f"http://127.0.0.1:{self._server.server_port}"

    def _job(self, name: str) -> tuple[dict[str, Any], int]:
        if request.method == "PUT":
            job = request.get_json()
            if not job["title"]:
                return {"error": "a job needs a title"}, 400
            self.jobs.setdefault(name, {**job, "state": "open"})
        if name not in self.jobs:
            return {"state": "missing"}, 404
        if request.method == "DELETE":
            self.jobs[name]["state"] = "cancelled"
        return self.jobs[name], 200

    def print(self, name: str, *, notify: bool = True) -> None:
        job = self.jobs[name]
        job |= {"state": "completed", "result": {"content": f"# {job['title']}"}}
        if notify:
            event = {"event": "completed", "taskId": name, "result": job["result"]}
            assert httpx.post(job["notify"], json=event).json()["outcome"] == "processed"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_creator", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def world(example: ModuleType, database_url: str) -> Iterator[tuple[Host, Press, Callable[..., str]]]:
    """The host with the example as its creator, the service, and a function that submits and hands over."""
    with Press() as press:
        creator = example.PressCreator(press.base_url)
        host = make_host(database_url, models=lambda db: {"creator": creator}, WEBHOOK_SUBMIT_THREADS=0)
        with LiveApp(host.app):

            def submit(**values: Any) -> str:
                with host.app.app_context():
                    task_id: str = host.webhook.submit(topic="Tea", **values).task_id
                    host.webhook.submit_due()
                return task_id

            yield host, press, submit
        creator._http.close()
        host.close()


def reconcile(host: Host) -> Any:
    host.clock.advance(130)
    with host.app.app_context():
        return host.webhook.reconcile()


def test_it_is_as_short_as_it_is_said_to_be(example):
    (its_class,) = (node for node in ast.parse(EXAMPLE.read_text()).body if isinstance(node, ast.ClassDef))
    assert its_class.end_lineno is not None
    assert its_class.end_lineno - its_class.lineno <= 30
    assert isinstance(example.PressCreator("http://127.0.0.1:1"), Creator)


def test_by_callback(world):
    host, press, submit = world
    task_id = submit()
    (name,) = press.jobs
    assert (name, host.task(task_id).status) == (host.task(task_id).creator_task_id, "submitted")
    press.print(name)
    assert (host.task(task_id).status, host.contents(task_id)) == ("completed", ["# Tea"])


def test_by_polling(world):
    host, press, submit = world
    task_id = submit()
    assert reconcile(host).still_open == 1
    press.print(host.task(task_id).creator_task_id, notify=False)
    assert reconcile(host).applied == {"processed": 1}
    assert host.contents(task_id) == ["# Tea"]


def test_a_thin_callback(world):
    host, press, submit = world
    task_id = submit()
    name = host.task(task_id).creator_task_id
    press.print(name, notify=False)
    assert host.post(task_id, {"event": "completed", "taskId": name}, attempt=1).status_code == 200
    assert host.contents(task_id) == ["# Tea"]


def test_cancelled_refused_and_lost(world):
    host, press, submit = world
    cancelled = submit()
    with host.app.app_context():
        host.webhook.cancel(cancelled)
    assert press.jobs[host.task(cancelled).creator_task_id]["state"] == "cancelled"

    with host.app.app_context():
        refused = host.webhook.submit(topic="").task_id
        host.webhook.submit_due()
    assert (host.task(refused).status, host.task(refused).error_message) == (
        "failed",
        "The service refused: a job needs a title",
    )

    lost = submit(max_retries=0)
    press.jobs.clear()
    for _ in range(3):
        reconcile(host)
        host.clock.advance(600)
    assert (host.task(lost).status, host.task(lost).error_code) == ("failed", "LOST_BY_CREATOR")


@pytest.mark.parametrize(
    ("answer", "pause", "outcome"),
    [
        (Response('{"error": "busy"}', 503, {"Retry-After": "90"}, mimetype="application/json"), 90, "unreachable"),
        (Response("<h1>Service Unavailable</h1>", 503), 30, "unreachable"),
        (Response('{"error": "slow down"}', 429, mimetype="application/json"), 30, "unreachable"),
        (Response("<h1>Bad Gateway</h1>", 502), 30, "away"),
        (Response("<h1>Welcome</h1>"), 30, "away"),
    ],
    ids=["503", "503-page", "429", "502-page", "200-page"],
)
def test_it_keeps_the_rules_of_its_page(example, answer, pause, outcome):
    """503 and 429 delivered nothing; behind a gateway's page the press may have heard us."""
    error = {"unreachable": CreatorUnreachable, "away": CreatorAway}[outcome]
    with Press() as press:
        creator = example.PressCreator(press.base_url)
        for call in (
            lambda: creator.submit(Job(creator_task_id="x", topic="Tea"), wait=5),
            lambda: creator.status("x"),
            lambda: creator.cancel("x"),
        ):
            press.answers.append(answer)
            with pytest.raises(error) as raised:
                call()
            assert type(raised.value) is error
            assert raised.value.retry_after == pause
        assert press.jobs == {}
        assert creator.status("x").state is RemoteState.MISSING
        creator._http.close()


def test_a_press_that_is_away_is_waited_for(example, hosts, sqlite_url):
    press = Press()
    creator = example.PressCreator(press.base_url)
    host = hosts(
        sqlite_url,
        models=lambda db: {"creator": creator},
        WEBHOOK_SUBMIT_THREADS=0,
        WEBHOOK_CALLBACK_BASE_URL="https://hub.example",
    )
    press._server.socket.close()
    with host.app.app_context():
        task_id = host.webhook.submit(topic="Tea").task_id
        assert host.webhook.submit_due().outcomes == {"unreachable": 1}
    assert host.task(task_id).status == "pending"
    assert SECRET not in str(host.task(task_id).error_message)
    press._server.server_close()
    creator._http.close()
