"""`flask webhook migrations plan`: the steps that an upgrade would make here, without making any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.migration import old_contenthub
from tests.migration.hosts import MigratingHost

TASKS = "content_generation_tasks"


@pytest.fixture(params=["sqlite_url", "postgres_url", "mariadb_url"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> MigratingHost:
    host = MigratingHost(tmp_path, request.getfixturevalue(request.param), models=old_contenthub.models)
    host.write_revision("0001", None, old_contenthub.CREATE, old_contenthub.DROP)
    host.upgrade()
    old_contenthub.fill(host, 50)
    return host


def plan(host: MigratingHost, *options: str) -> str:
    done = host.app.test_cli_runner().invoke(args=["webhook", "migrations", "plan", *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def document(host: MigratingHost) -> dict[str, Any]:
    text = plan(host, "--json")
    found: dict[str, Any] = json.loads(text[text.index("{") :])
    return found


def test_it_shows_the_steps_and_what_stays_and_changes_nothing(host: MigratingHost):
    schema, rows = host.schema(), host.rows(f"SELECT * FROM {TASKS}")

    text = plan(host)

    assert "1. record what will be done" in text or "1. copy content_generation_tasks once" in text
    assert "topic stays VARCHAR(300)" in text
    assert "make the table webhook_forwards" in text
    assert host.schema() == schema
    assert host.rows(f"SELECT * FROM {TASKS}") == rows


def test_it_says_the_same_before_and_after_the_revisions_are_installed(host: MigratingHost):
    before = document(host)
    host.install()

    assert document(host) == before
    assert before["tables"].keys() == {TASKS}
    first = before["revisions"][0]
    copies = [step["title"] for step in first["steps"] if step["rewrites"]]
    assert copies == ([f"copy {TASKS} once"] if host.engine.dialect.name == "sqlite" else [])
    assert (host.engine.dialect.name == "mysql") is dict(first["kept"])["topic"].endswith(", and NOT NULL")


def test_it_names_the_steps_that_the_upgrade_makes(host: MigratingHost, caplog: pytest.LogCaptureFixture):
    titles = [step["title"] for revision in document(host)["revisions"][:1] for step in revision["steps"]]
    host.install()
    caplog.set_level("INFO", "alembic.contenthub")

    host.upgrade()

    if host.engine.dialect.name != "sqlite":
        lines = [record.message.removeprefix("contenthub: ") for record in caplog.records]
        said = [line.partition("; stops ")[0] for line in lines if "; stops " in line]
        assert said[: len(titles)] == titles
    assert [(each["applied"], each["steps"]) for each in document(host)["revisions"]] == [(True, [])] * 3


def test_a_table_that_would_be_refused_is_refused_by_the_plan(tmp_path: Path, sqlite_url: str):
    host = MigratingHost(tmp_path, sqlite_url)
    host.execute(f"CREATE TABLE {TASKS} (id INTEGER PRIMARY KEY, task_id INTEGER)")

    done = host.app.test_cli_runner().invoke(args=["webhook", "migrations", "plan"])

    assert done.exit_code == 1
    assert "task_id is INTEGER" in done.output
