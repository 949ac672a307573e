"""New code on a database that is one revision behind: words that name the command, one log line, exit codes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import ContentHubWebhook
from flask_contenthub_webhook.creators import Job, RemoteState, Report
from tests.migration.hosts import MigratingHost
from tests.support.raw_http import completed

TASK = "00000000-0000-4000-8000-000000000001"
COMMANDS = {
    "doctor": 1,
    "stats": 1,
    "alerts": 1,
    "tasks": 1,
    f"tasks show {TASK}": 1,
    "deliveries list": 1,
    "forwards list": 1,
    "reconcile --once": 1,
    "hand-over": 1,
    "purge --yes": 1,
    "recover --since 1h": 1,
    "secret": 0,
    f"url {TASK}": 0,
    "migrations install": 0,
}
"""The exit code of each on an empty database; those with 0 need no table."""


class NeverDone:
    def submit(self, job: Job, *, wait: float) -> Report:
        return Report(state=RemoteState.OPEN)

    def status(self, creator_task_id: str) -> Report:
        return Report(state=RemoteState.OPEN)

    result = status

    def cancel(self, creator_task_id: str) -> None:
        pass


@pytest.fixture(params=["sqlite_url", "postgres_url", "mariadb_url"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MigratingHost]:
    """A host with every revision, and an empty database."""
    host = MigratingHost(tmp_path, request.getfixturevalue(request.param))
    host.install()
    yield host
    host.engine.dispose()


@pytest.fixture
def app(host: MigratingHost) -> Iterator[Flask]:
    """The new code on this database."""
    app = Flask("hub")
    app.config.update(
        SQLALCHEMY_DATABASE_URI=host.app.config["SQLALCHEMY_DATABASE_URI"],
        TESTING=True,
        WEBHOOK_ENABLED=True,
        WEBHOOK_SECRET_KEY="0f3b5a7c9e1d2f4a6b8c0d1e3f5a7b9c",
        WEBHOOK_CALLBACK_BASE_URL="https://hub.example.com",
        WEBHOOK_SUBMIT_THREADS=0,
    )
    db = SQLAlchemy()
    db.init_app(app)
    Migrate(app, db, directory=str(host.directory))
    ContentHubWebhook().init_app(app, db, creator=NeverDone())
    yield app
    with app.app_context():
        db.engine.dispose()


def all_but_one(host: MigratingHost) -> None:
    """Upgrade to the revision before the newest."""
    host.upgrade(host.install()[-2].revision)


@pytest.mark.parametrize("upgrade", [lambda host: None, all_but_one], ids=["empty", "one behind"])
def test_a_callback_is_refused_with_the_command(
    host: MigratingHost, app: Flask, upgrade: Callable[[MigratingHost], None], caplog: pytest.LogCaptureFixture
):
    upgrade(host)
    with app.app_context():
        path = ContentHubWebhook().callback_url(TASK).partition("hub.example.com")[2]

    body = completed(TASK)
    answers = [app.test_client().post(path, data=body, content_type="application/json") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [503] * 5
    error: Any = answers[0].json
    assert error["error"]["code"] == "database_unavailable"
    assert "`flask db upgrade`" in error["error"]["message"]
    assert answers[0].headers["Retry-After"]
    about = [record for record in caplog.records if record.name.startswith("flask_contenthub_webhook")]
    assert [record.levelno for record in about] == [logging.WARNING], [record.getMessage() for record in about]
    assert "`flask db upgrade`" in about[0].getMessage()
    assert about[0].exc_info is None, "a line, not a traceback"


def test_on_an_empty_database_each_command_fails_and_says_so(app: Flask):
    results = run(app)

    assert {command: result.exit_code for command, result in results.items()} == COMMANDS


def test_one_revision_behind_each_command_works_or_fails_and_says_so(host: MigratingHost, app: Flask):
    all_but_one(host)

    results = run(app)

    assert results["doctor"].exit_code == results["reconcile --once"].exit_code == 1


def run(app: Flask) -> dict[str, Result]:
    """Run every command; each that fails names the remedy, without a traceback, and no other does."""
    results = {command: app.test_cli_runner().invoke(args=["webhook", *command.split()]) for command in COMMANDS}
    for command, result in results.items():
        assert "Traceback" not in result.output, command
        assert ("flask db upgrade" in result.output) is bool(result.exit_code), f"{command}: {result.output}"
    return results


def test_a_pass_that_could_claim_nothing_says_so(host: MigratingHost, app: Flask):
    host.upgrade()
    for column in ("next_poll_at", "next_submit_at"):
        host.execute(f"ALTER TABLE content_generation_tasks RENAME COLUMN {column} TO old_{column}")

    for command in ("reconcile", "hand-over"):
        option = ["--once"] if command == "reconcile" else []
        for _ in range(2):
            result = app.test_cli_runner().invoke(args=["webhook", command, *option])
            assert (result.exit_code, "flask db upgrade" in result.output) == (1, True), result.output
