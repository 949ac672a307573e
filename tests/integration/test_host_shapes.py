"""Every shape of host lives the same life: tables, callbacks, failures, a poll, an alert, a purge, pages, doctor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from flask import Flask
from flask_migrate import Migrate

from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.errors import DeliveryNotFound
from flask_contenthub_webhook.signals import alert_changed
from tests.cli.conftest import run_json
from tests.migration.hosts import init_migrations
from tests.support.databases import FIXTURES, KINDS
from tests.support.host import Host, completed, failed, make_host
from tests.support.host_shapes import SHAPES, Shape
from tests.support.pages import AT, open_to_all

pytestmark = pytest.mark.slow
PAGES = ("/", "/deliveries", "/forwards", "/task?id={task_id}", "/deliveries/1")
BEYOND_INTEGER = 2**40
CONFIG = {
    "WEBHOOK_CALLBACK_BASE_URL": "https://hub.example",
    "WEBHOOK_SUBMIT_THREADS": 0,
    "WEBHOOK_MAX_RETRIES": 0,
    "WEBHOOK_SIGNATURE_FAILURE_ALERT": 2,
}
A_YEAR = 400 * 86400


class Service:
    """Has each job finished by the time it is asked."""

    keeps_names = True

    def submit(self, job: Job, *, wait: float) -> Report:
        return Report(state=RemoteState.OPEN)

    def status(self, creator_task_id: str) -> Report:
        return Report(state=RemoteState.COMPLETED, result={"content": "polled"})

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        return {name: self.status(name) for name in creator_task_ids}

    def result(self, creator_task_id: str) -> Report:
        return self.status(creator_task_id)

    def cancel(self, creator_task_id: str) -> None:
        raise AssertionError("nothing is cancelled here")


def build(shape: Shape, url: str, folder: Path) -> Host:
    """Make the application and its tables."""
    db = shape.db()
    if shape.content is not None:
        db.metadata.info["content"] = shape.content(db)
    second = f"sqlite:///{folder / 'second.db'}"
    databases: dict[str, Any] = {}
    if shape.bind is not None:
        databases = {"SQLALCHEMY_DATABASE_URI": second, "SQLALCHEMY_BINDS": {shape.bind: url}}
    if not shape.has_default:
        databases["SQLALCHEMY_DATABASE_URI"] = ...
    directory = folder / "migrations"

    def before(app: Flask) -> None:
        Migrate(app, db, directory=str(directory), include_schemas=shape.schema is not None)
        shape.before(app)

    def after(app: Flask) -> None:
        open_to_all(app)
        shape.after(app)

    host = make_host(
        url,
        db=db,
        models=lambda db: {**shape.models(db), **shape.options},
        before=before,
        after=after,
        engine_options=shape.engine_options,
        create_tables=False,
        **{**CONFIG, **shape.config, **databases},
    )
    host.state.creator = Service()
    with host.app.app_context():
        if shape.schema is not None:
            with db.engine.begin() as connection:
                connection.execute(sa.text(f"CREATE SCHEMA {shape.schema}"))
        if shape.migrated:
            migrate(host, directory, "flask" if shape.bind is None else "flask-multidb")
        else:
            db.create_all(shape.bind or "__all__")
    return host


def migrate(host: Host, directory: Path, template: str) -> None:
    """`flask db init`, `migrate`, `upgrade` and `check`."""
    init_migrations(host.app, directory, template)
    config = host.app.extensions["migrate"].migrate.get_config(str(directory))
    command.revision(config, autogenerate=True)
    command.upgrade(config, "head")
    command.check(config)


def live(host: Host) -> None:
    """Live the life of a host; see the module."""
    outcome = complete_and_repeat(host)
    assert outcome == ["processed", "duplicate"]
    fail(host)
    with pytest.raises(DeliveryNotFound):
        host.replay(BEYOND_INTEGER)
    polled = poll(host)
    alert(host)
    look(host, polled)
    host.clock.advance(A_YEAR)
    with host.app.app_context():
        assert host.webhook.purge() > 0


def callback(host: Host, task_id: str, event: Mapping[str, Any]) -> Any:
    return host.post(task_id, event, attempt=1)


def complete_and_repeat(host: Host) -> list[str]:
    task_id = host.add_task()
    outcomes = [callback(host, task_id, completed(task_id)).get_json()["outcome"] for _ in range(2)]
    assert host.task(task_id).status == "completed"
    assert len(host.contents(task_id)) == 1
    return outcomes


def fail(host: Host) -> None:
    """A job that failed, and a handler that fails, and succeeds at its next try."""
    lost, task_id = host.add_task(), host.add_task()
    assert callback(host, lost, failed(lost)).get_json()["outcome"] == "processed"
    assert host.task(lost).status == "failed"

    host.publisher.broken = True
    answer = callback(host, task_id, completed(task_id))
    host.publisher.broken = False
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (500, "handler_failed")
    assert (host.task(task_id).status, host.contents(task_id)) == ("submitted", [])
    host.clock.advance(40)
    assert host.retry().outcomes == {"processed": 1}
    assert (host.task(task_id).status, len(host.contents(task_id))) == ("completed", 1)


def poll(host: Host) -> str:
    with host.app.app_context():
        task_id = str(host.webhook.submit(topic="Tea", requirements="R", target_audience="A").task_id)
    with host.app.app_context():  # under SERIALIZABLE, MariaDB locks what the host's session has read until it ends
        host.webhook.submit_due()
    host.clock.advance(300)
    with host.app.app_context():
        assert host.webhook.reconcile().applied == {"processed": 1}
    assert host.contents(task_id) == ["polled"]
    return task_id


def alert(host: Host) -> None:
    """Several forged callbacks raise an alert, which all processes then know."""
    raised: list[str] = []
    host.connect(alert_changed, lambda _, alert, **extra: raised.append(alert.name))
    task_id = host.add_task()
    for _ in range(3):
        path = host.path(task_id, 1).replace("token=", "token=x")
        assert host.post(task_id, completed(task_id), path=path).status_code == 401
    host.state.refusals.flush()
    with host.app.app_context():
        host.webhook.check_alerts()
        assert raised == ["signature_failures"]
        assert [status.name for status in host.webhook.alerts() if status.raised] == raised


def look(host: Host, task_id: str) -> None:
    client = host.app.test_client()
    for page in PAGES:
        assert client.get(AT + page.format(task_id=task_id)).status_code == 200, page
    assert client.get(f"{AT}/deliveries/{BEYOND_INTEGER}").status_code == 404
    assert client.get(f"{AT}/deliveries?before={BEYOND_INTEGER}").status_code == 200
    findings = run_json(host, "doctor")["findings"]
    assert [each for each in findings if each["check"] in {"database", "migrations"} and each["level"] != "ok"] == []


@pytest.fixture
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Shape, str], Host]:
    def make(shape: Shape, kind: str) -> Host:
        url = request.getfixturevalue(FIXTURES[kind])
        host = build(shape, url, tmp_path)
        request.addfinalizer(host.close)
        return host

    return make


CASES = [
    pytest.param(shape, kind, id=f"{name}-{kind}")
    for name, shape in SHAPES.items()
    for kind in KINDS
    if kind == "postgresql" or shape.schema is None
]


@pytest.mark.parametrize(("shape", "kind"), CASES)
def test_a_host_of_any_shape_lives(shape: Shape, kind: str, built: Callable[[Shape, str], Host]):
    live(built(shape, kind))
