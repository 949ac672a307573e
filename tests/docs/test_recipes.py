"""The recipes, run from end to end, and the lists of packages and pages that are kept by hand."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import pytest

from flask_contenthub_webhook import task_completed, task_failed
from flask_contenthub_webhook.creators import Report
from flask_contenthub_webhook.testing.live import LiveApp
from tests.docs.test_code_blocks import SECRET, Creator
from tests.support.host import Host
from tests.support.processes import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_order_and_its_task_are_written_together(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_contenthub_webhook.extension.configured_creator", lambda *_: Creator())
    orders: Any = example("orders")
    app = orders.create_app(
        {
            "SQLALCHEMY_DATABASE_URI": sqlite_url,
            "WEBHOOK_ENABLED": True,
            "WEBHOOK_SECRET_KEY": SECRET,
            "WEBHOOK_REQUIRE_SIGNATURE": True,
            "WEBHOOK_CALLBACK_BASE_URL": "https://hub.example",
            "WEBHOOK_SUBMIT_THREADS": 0,
        }
    )
    client = app.test_client()
    with app.app_context():
        orders.db.create_all()
    assert client.post("/orders", json={"title": "Tea"}).get_json() == {"order": 1}

    with app.app_context():
        (task,) = orders.db.session.scalars(orders.db.select(orders.Task)).all()
        assert (task.order_id, task.status, task.topic) == (1, "pending", "Tea")
        event = {"event": "completed", "taskId": task.task_id, "result": {"content": "# Tea"}}
        path = task.callback_url.removeprefix("https://hub.example")
        assert client.post(path, json=event).get_json()["outcome"] == "processed"
        orders.db.session.rollback()
        order = orders.db.session.get(orders.Order, 1)
        assert (order.status, order.text) == ("done", "# Tea")
        orders.db.session.remove()

    with app.app_context():
        failing = client.post("/orders", json={"title": "x" * 501})
        assert failing.status_code == 500
        orders.db.session.remove()
        assert orders.db.session.query(orders.Order).count() == 1
        orders.db.session.remove()
        orders.db.engine.dispose()
    task_completed.disconnect(orders.deliver)
    task_failed.disconnect(orders.give_up)


def test_a_service_that_only_polls(hosts: Callable[..., Host], sqlite_url: str) -> None:
    polled: Any = example("polled")
    jobs: dict[str, dict[str, Any]] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            name = f"job-{len(jobs) + 1}"
            jobs[name] = {"id": name, "state": "open"}
            return httpx.Response(201, json=jobs[name])
        name = request.url.path.rpartition("/")[2]
        return httpx.Response(200, json=jobs[name]) if name in jobs else httpx.Response(404, json={"error": "no"})

    creator = polled.PolledPress("http://press.example")
    creator._http = httpx.Client(base_url="http://press.example", transport=httpx.MockTransport(answer))
    host = hosts(
        sqlite_url,
        models=lambda db: {"creator": creator},
        WEBHOOK_ENABLED=False,
        WEBHOOK_SUBMIT_THREADS=0,
        WEBHOOK_SECRET_KEY=None,
        WEBHOOK_REQUIRE_SIGNATURE=False,
    )
    with LiveApp(host.app), host.app.app_context():
        task_id = host.webhook.submit(topic="Tea").task_id
        host.webhook.submit_due()
        assert host.task(task_id).callback_url is None
        assert host.task(task_id).creator_task_id == "job-1"
        jobs["job-1"] |= {"state": "completed", "result": {"content": "# Tea"}}
        host.clock.advance(60)
        assert host.webhook.reconcile().applied == {"processed": 1}
        assert host.contents(task_id) == ["# Tea"]
        lost: Report = creator.status("job-9")
        assert lost.state == "missing"


def test_the_licence_of_every_package_that_is_installed_is_said() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = {"demo", "test", "bench", "docs", "release", "dev"}
    extras = {name: needs for name, needs in project["optional-dependencies"].items() if name not in ours}
    page = (DOCS / "licences.md").read_text(encoding="utf-8").lower()
    wanted = [need for needs in (project["dependencies"], *extras.values()) for need in needs]
    names = {re.split(r"[\[<>=;, ]", need)[0].lower() for need in wanted}

    assert [name for name in sorted(names) if f"| {name} |" not in page] == []
    assert [name for name in extras if f"`{name}`" not in page] == []


def test_the_pictures_are_light_enough_for_git() -> None:
    pictures = list(DOCS.glob("*.png"))

    assert {picture.name for picture in pictures} == {"overview.png", "timeline.png"}
    assert all(picture.stat().st_size < 100_000 for picture in pictures)
