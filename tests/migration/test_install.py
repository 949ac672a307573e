"""Writing the packaged revisions into a host's migrations."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import mapped_column

from flask_contenthub_webhook import ContentHubWebhook, DeliveryMixin, GenerationTaskMixin
from flask_contenthub_webhook.migrations import MigrationError, install_revisions
from flask_contenthub_webhook.models.columns import UTCDateTime
from tests.migration.hosts import MigratingHost

REVISIONS = ["contenthub0001", "contenthub0002", "contenthub0003"]


def files_of(host: MigratingHost) -> set[str]:
    return {path.name for path in host.versions.iterdir() if path.suffix == ".py"}


@pytest.fixture
def host(tmp_path: Path, sqlite_url: str) -> MigratingHost:
    return MigratingHost(tmp_path, sqlite_url)


def test_the_revisions_are_written_one_after_the_other(host: MigratingHost):
    installed = host.install()

    assert [(each.revision, each.down_revision, each.is_new) for each in installed] == [
        ("contenthub0001", None, True),
        ("contenthub0002", "contenthub0001", True),
        ("contenthub0003", "contenthub0002", True),
    ]
    assert files_of(host) == {each.path.name for each in installed}
    assert all(each.path.read_text() == each.source for each in installed)


def test_they_follow_the_hosts_own_head(host: MigratingHost):
    host.write_revision("aaa", None, "pass")
    host.write_revision("bbb", "aaa", "pass")

    installed = host.install()

    assert installed[0].down_revision == "bbb"
    assert "\nRevises: bbb\n" in installed[0].source


def test_a_second_call_writes_nothing_and_says_so(host: MigratingHost):
    first = host.install()
    host.write_revision("later", "contenthub0003", "pass")
    before = {path: path.read_bytes() for path in host.versions.glob("*.py")}

    second = host.install()

    assert [(each.revision, each.path, each.down_revision) for each in second] == [
        (each.revision, each.path, each.down_revision) for each in first
    ]
    assert not any(each.is_new for each in second)
    assert {path: path.read_bytes() for path in host.versions.glob("*.py")} == before


def test_only_what_is_missing_is_written_and_follows_what_came_since(host: MigratingHost):
    host.install()[2].path.unlink()
    host.write_revision("since", "contenthub0002", "pass")

    installed = host.install()

    assert [each.is_new for each in installed] == [False, False, True]
    assert installed[2].down_revision == "since"


def test_a_copy_is_known_by_its_revision_and_not_by_its_file(host: MigratingHost):
    for each in host.install():
        each.path.rename(each.path.with_name(f"2026_{each.path.name}"))

    assert not any(each.is_new for each in host.install())


def test_a_dry_run_writes_nothing(host: MigratingHost):
    planned = host.install(dry_run=True)

    assert [each.revision for each in planned if each.is_new] == REVISIONS
    assert files_of(host) == set()
    assert [each.source for each in host.install()] == [each.source for each in planned]


def test_two_heads_are_refused_with_what_to_do(host: MigratingHost):
    host.write_revision("aaa", None, "pass")
    host.write_revision("bbb", "aaa", "pass")
    host.write_revision("ccc", "aaa", "pass")

    with pytest.raises(MigrationError, match=r"2 heads \(bbb, ccc\).*flask db merge heads"):
        host.install()
    assert files_of(host) == {"aaa_host.py", "bbb_host.py", "ccc_host.py"}


def test_heads_of_later_do_not_matter_where_all_is_installed(host: MigratingHost):
    host.install()
    host.write_revision("bbb", "contenthub0003", "pass")
    host.write_revision("ccc", "contenthub0003", "pass")

    assert not any(each.is_new for each in host.install())


def test_without_a_migrations_folder_flask_db_init_is_named(tmp_path: Path, sqlite_url: str):
    host = MigratingHost(tmp_path, sqlite_url, init=False)

    with pytest.raises(MigrationError, match="flask db init"):
        host.install()


def test_without_flask_migrate_it_is_named(sqlite_url: str):
    app, db = Flask("bare"), SQLAlchemy()
    app.config["SQLALCHEMY_DATABASE_URI"] = sqlite_url
    db.init_app(app)
    ContentHubWebhook().init_app(app, db)

    with pytest.raises(MigrationError, match="Flask-Migrate is not registered"):
        install_revisions(app)


def test_another_directory_can_be_named(host: MigratingHost, tmp_path: Path):
    elsewhere = host.directory.rename(tmp_path / "elsewhere")

    installed = host.install(directory=elsewhere)

    assert installed[0].path.parent == elsewhere / "versions"


@pytest.mark.filterwarnings("ignore:Revision nobody")
def test_broken_migrations_are_refused_with_their_own_words(host: MigratingHost):
    host.write_revision("bbb", "nobody", "pass")

    with pytest.raises(MigrationError, match="nobody"):
        host.install()


def test_a_file_in_the_way_is_not_overwritten_and_nothing_is_left_half_done(host: MigratingHost):
    blocked = host.versions / "contenthub0002_deliveries.py"
    blocked.mkdir()

    with pytest.raises(MigrationError, match="contenthub0002_deliveries"):
        host.install()
    assert files_of(host) == {blocked.name}


def test_no_database_is_needed(tmp_path: Path):
    host = MigratingHost(tmp_path, "postgresql+psycopg://nobody@127.0.0.1:1/none")

    assert [each.is_new for each in host.install()] == [True, True, True]


def test_a_copy_imports_nothing_of_the_package(host: MigratingHost):
    for each in host.install():
        imports = [node for node in ast.walk(ast.parse(each.source)) if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = {
            name
            for node in imports
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        }
        assert not {module for module in modules if module and module.startswith("flask")}


# --- names of the host's own -----------------------------------------------------------------------------------


def own_models(db: SQLAlchemy) -> dict[str, type[Any]]:
    task = type(
        "Job",
        (GenerationTaskMixin, db.Model),
        {
            "__tablename__": "jobs",
            "finished_at": mapped_column("completed_at", UTCDateTime, nullable=True),
            "tone": mapped_column(sa.String(30), nullable=True),
            "account": mapped_column(sa.Integer),
        },
    )
    return {"task_model": task, "delivery_model": type("Log", (DeliveryMixin, db.Model), {"__tablename__": "job_log"})}


def test_the_names_of_the_hosts_models_are_frozen_into_the_copies(tmp_path: Path, sqlite_url: str):
    tasks, deliveries, queues = MigratingHost(tmp_path, sqlite_url, models=own_models).install()

    assert 'TABLE = "jobs"' in tasks.source
    assert 'NAMES: dict[str, str] = {"finished_at": "completed_at"}' in tasks.source
    assert 'OWN: tuple[str, ...] = ("tone", )' in tasks.source or 'OWN: tuple[str, ...] = ("tone",)' in tasks.source
    assert 'TABLE = "job_log"' in deliveries.source
    assert 'TASKS = "jobs"\nTASK_NAMES: dict[str, str] = {}' in queues.source
    assert 'DELIVERIES = "job_log"\nDELIVERY_NAMES: dict[str, str] = {}' in queues.source


def test_the_notes_tell_what_the_revision_does_not_do(tmp_path: Path, sqlite_url: str):
    tasks, deliveries, queues = MigratingHost(tmp_path, sqlite_url, models=own_models).install()

    assert [re.sub(r"[.:(].*", "", note) for note in tasks.notes] == [
        "Job has further columns ",
        "Job types tone itself",
    ]
    assert "account" in tasks.notes[0]
    assert deliveries.notes == queues.notes == ()


def test_the_note_about_a_column_is_with_the_revision_that_adds_it(tmp_path: Path, sqlite_url: str):
    def models(db: SQLAlchemy) -> dict[str, type[Any]]:
        own = {"__tablename__": "jobs", "forward_to": mapped_column(sa.Text)}
        return {"task_model": type("Job", (GenerationTaskMixin, db.Model), own)}

    tasks, _, queues = MigratingHost(tmp_path, sqlite_url, models=models).install()

    assert tasks.notes == ()
    assert [note.partition(":")[0] for note in queues.notes] == ["Job types forward_to itself"]


def test_the_hosts_names_are_used_in_the_database(tmp_path: Path, database_url: str):
    host = MigratingHost(tmp_path, database_url, models=own_models)
    host.install()
    host.upgrade()

    names = {column["name"] for column in host.inspect().get_columns("jobs")}
    assert "completed_at" in names
    assert "finished_at" not in names
    assert host.inspect().has_table("job_log")
    host.downgrade("base")
    assert host.schema() == {"views": [], "tables": {}}


def test_what_the_host_types_itself_is_left_alone(tmp_path: Path, database_url: str):
    host = MigratingHost(tmp_path, database_url, models=own_models)
    create = 'op.create_table("jobs", sa.Column("id", sa.Integer, primary_key=True), sa.Column("tone", sa.String(30)),'
    host.write_revision("old", None, create + ' sa.Column("account", sa.Integer, nullable=False))')
    host.install()

    host.upgrade()

    assert {c["name"]: str(c["type"]) for c in host.inspect().get_columns("jobs")}["tone"] == "VARCHAR(30)"
