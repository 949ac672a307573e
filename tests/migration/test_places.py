"""Revisions for tables in another bind or schema, or under other names, and for migrations folders that are unusual."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import DeliveryMixin, GenerationTaskMixin
from flask_contenthub_webhook.migrations import MigrationError
from tests.migration.hosts import MigratingHost

OURS = {
    "content_generation_tasks",
    "webhook_deliveries",
    "webhook_forwards",
    "webhook_forward_attempts",
    "webhook_alerts",
}
REVISIONS = 3


def task_in(**place: Any) -> Callable[[SQLAlchemy], dict[str, type[Any]]]:
    """The host's own task model at a place; the other tables follow it."""

    def models(db: SQLAlchemy) -> dict[str, type[Any]]:
        own = {"__tablename__": "content_generation_tasks", **place}
        return {"task_model": type("Task", (GenerationTaskMixin, db.Model), own)}

    return models


def go_through(host: MigratingHost, engine: sa.Engine, schema: str | None = None, expected: set[str] = OURS) -> None:
    """Install, upgrade, check, downgrade and upgrade again."""

    def tables() -> set[str]:
        return set(sa.inspect(engine).get_table_names(schema=schema)) - {"alembic_version"}

    assert [each.is_new for each in host.install()] == [True] * REVISIONS
    for _ in range(2):
        host.upgrade()
        assert tables() == expected
        host.check()
        host.downgrade("base")
        assert tables() == set()
        assert sa.inspect(engine).get_view_names(schema=schema) == []
    host.upgrade()
    assert not any(each.is_new for each in host.install())


# --- schemas -----------------------------------------------------------------------------------------------------


def make_schema(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA hub"))


def test_tables_in_a_schema(tmp_path: Path, postgres_url: str):
    models, migrate = task_in(__table_args__={"schema": "hub"}), {"include_schemas": True}
    host = MigratingHost(tmp_path, postgres_url, models=models, engine=make_schema, migrate=migrate)

    go_through(host, host.engine, "hub")

    assert sa.inspect(host.engine).get_table_names() == ["alembic_version"]


def test_an_old_table_in_a_schema_is_completed(tmp_path: Path, postgres_url: str):
    models, migrate = task_in(__table_args__={"schema": "hub"}), {"include_schemas": True}
    host = MigratingHost(tmp_path, postgres_url, models=models, engine=make_schema, migrate=migrate)
    host.execute(
        "CREATE TABLE hub.content_generation_tasks (id serial PRIMARY KEY, task_id varchar(36) UNIQUE, topic text,"
        " status varchar(50) CHECK (status IN ('running', 'done')), created_at timestamp)"
    )
    host.execute("INSERT INTO hub.content_generation_tasks (topic, status) VALUES ('one', 'done'), ('two', 'running')")
    host.install()

    host.upgrade()
    host.check()

    assert host.rows("SELECT topic, status FROM hub.content_generation_tasks ORDER BY id") == [
        {"topic": "one", "status": "completed"},
        {"topic": "two", "status": "processing"},
    ]
    host.downgrade("base")
    assert host.rows("SELECT topic, status FROM hub.content_generation_tasks ORDER BY id") == [
        {"topic": "one", "status": "done"},
        {"topic": "two", "status": "running"},
    ]


def test_two_schemas_are_refused(tmp_path: Path, sqlite_url: str):
    def models(db: SQLAlchemy) -> dict[str, type[Any]]:
        own = {"__tablename__": "deliveries", "__table_args__": {"schema": "other"}}
        return {**task_in()(db), "delivery_model": type("Delivery", (DeliveryMixin, db.Model), own)}

    host = MigratingHost(tmp_path, sqlite_url, models=models)

    with pytest.raises(MigrationError, match=r"Task and Delivery are in different schemas.*flask db migrate"):
        host.install()


# --- binds -------------------------------------------------------------------------------------------------------


def bind_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.mark.parametrize("place", [None, "jobs"])
def test_with_flask_migrates_template_for_several_databases(tmp_path: Path, database_url: str, place: str | None):
    own = {} if place is None else {"__bind_key__": place}
    first, second = (database_url, bind_of(tmp_path)) if place is None else (bind_of(tmp_path), database_url)
    host = MigratingHost(tmp_path, first, models=task_in(**own), template="flask-multidb", binds={"jobs": second})
    with host.app.app_context():
        engines = dict(host.db.engines)

    go_through(host, engines[place])

    for other in engines.keys() - {place}:
        assert sa.inspect(engines[other]).get_table_names() == ["alembic_version"]


def test_a_bind_that_migrations_do_not_reach_is_refused(tmp_path: Path, sqlite_url: str):
    host = MigratingHost(tmp_path, sqlite_url, models=task_in(__bind_key__="jobs"), binds={"jobs": bind_of(tmp_path)})

    with pytest.raises(MigrationError, match=r"Task is in the bind 'jobs', .*flask db init --multidb"):
        host.install()
    assert [path for path in host.versions.iterdir() if path.suffix == ".py"] == []


def test_without_a_default_database_a_note_says_that_flask_migrate_needs_one(tmp_path: Path, sqlite_url: str):
    models = task_in(__bind_key__="jobs")
    host = MigratingHost(tmp_path, "", models=models, template="flask-multidb", binds={"jobs": sqlite_url})

    (note,) = host.install()[0].notes

    assert "SQLALCHEMY_DATABASE_URI" in note


# --- names -------------------------------------------------------------------------------------------------------


def test_tables_of_other_names(tmp_path: Path, database_url: str):
    names = {table: f"hub_{table}" for table in OURS}
    host = MigratingHost(tmp_path, database_url, table_names=names)

    go_through(host, host.engine, expected=set(names.values()))


# --- the migrations folder ---------------------------------------------------------------------------------------


def test_a_versions_folder_that_git_did_not_keep(tmp_path: Path, sqlite_url: str):
    host = MigratingHost(tmp_path, sqlite_url)
    shutil.rmtree(host.versions)

    go_through(host, host.engine)


@pytest.mark.parametrize("begun_in", [None, "first", "second"])
def test_several_version_locations(tmp_path: Path, sqlite_url: str, begun_in: str | None):
    host = MigratingHost(tmp_path, sqlite_url)
    locations = [tmp_path / "first", tmp_path / "second"]
    ini = host.directory / "alembic.ini"
    text = ini.read_text()
    places = " ".join(str(location) for location in locations)
    ini.write_text(text.replace("[alembic]", f"[alembic]\npath_separator = space\nversion_locations = {places}", 1))
    if begun_in is not None:
        (tmp_path / begun_in).mkdir()
        (host.directory / "versions").rename(tmp_path / "was")
        host.write_revision("begun", None, "pass", folder=tmp_path / begun_in)

    go_through(host, host.engine)

    folder = tmp_path / (begun_in or "first")
    assert len([path for path in folder.iterdir() if path.name.startswith("contenthub")]) == REVISIONS
