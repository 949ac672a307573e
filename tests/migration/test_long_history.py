"""A host with twenty revisions of its own, renames among them, before and after ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import mapped_column

from flask_contenthub_webhook import GenerationTaskMixin
from flask_contenthub_webhook.migrations import MigrationError
from tests.migration.hosts import MigratingHost

HISTORY = [
    'op.create_table("jobs", sa.Column("id", sa.Integer, primary_key=True), sa.Column("title", sa.String(80)))',
    'op.add_column("jobs", sa.Column("state", sa.String(20), server_default="new", nullable=False))',
    "op.execute(\"INSERT INTO jobs (id, title, state) VALUES (1, 'first', 'new'), (2, 'second', 'done')\")",
    'op.create_index("by_title", "jobs", ["title"])',
    'op.create_table("people", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))',
    'op.add_column("jobs", sa.Column("uuid", sa.String(40)))',
    "op.execute(\"UPDATE jobs SET uuid = 'job-' || id\")",
    'op.rename_table("jobs", "generation_jobs")',
    'with op.batch_alter_table("generation_jobs") as t: t.alter_column("uuid", new_column_name="task_id")',
    'with op.batch_alter_table("generation_jobs") as t: t.alter_column("state", new_column_name="status")',
    'op.add_column("generation_jobs", sa.Column("owner", sa.Integer))',
    'with op.batch_alter_table("generation_jobs") as t: t.create_foreign_key("fk_owner", "people", ["owner"], ["id"])',
    'op.rename_table("generation_jobs", "content_generation_tasks")',
    'op.add_column("people", sa.Column("mail", sa.String(200)))',
    'with op.batch_alter_table("people") as t: t.create_unique_constraint("one_mail", ["mail"])',
    "op.execute(\"INSERT INTO people (id, name, mail) VALUES (1, 'Ada', 'ada@example.org')\")",
    'op.execute("UPDATE content_generation_tasks SET owner = 1")',
    'op.drop_index("by_title", "content_generation_tasks")',
    'with op.batch_alter_table("content_generation_tasks") as t: t.alter_column("title", new_column_name="topic")',
    'op.add_column("content_generation_tasks", sa.Column("notes", sa.Text))',
]


def models(db: SQLAlchemy) -> Mapping[str, type[Any]]:
    person = {
        "__tablename__": "people",
        "__table_args__": (sa.UniqueConstraint("mail", name="one_mail"),),
        "id": mapped_column(sa.Integer, primary_key=True),
        "name": mapped_column(sa.Text),
        "mail": mapped_column(sa.String(200)),
    }
    task = {
        "__tablename__": "content_generation_tasks",
        "task_id": mapped_column(sa.String(40), nullable=False),
        "owner": mapped_column(sa.ForeignKey("people.id", name="fk_owner")),
        "notes": mapped_column(sa.Text),
    }
    type("Person", (db.Model,), person)
    return {"task_model": type("Task", (GenerationTaskMixin, db.Model), task)}


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Not on MariaDB, for which the host would have to write its renames in another way."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def host(tmp_path: Path, database_url: str) -> MigratingHost:
    host = MigratingHost(tmp_path, database_url, models=models)
    for number, step in enumerate(HISTORY, start=1):
        host.write_revision(f"r{number:02}", f"r{number - 1:02}" if number > 1 else None, step)
    return host


def test_a_database_at_the_hosts_head_gets_only_ours(host: MigratingHost):
    host.upgrade()
    host.install()

    host.upgrade()

    rows = host.rows("SELECT id, task_id, topic, status, owner, callback_url FROM content_generation_tasks ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [
        (1, "job-1", "first", "pending", 1, None),
        (2, "job-2", "second", "completed", 1, None),
    ]


def test_an_empty_database_runs_the_whole_history_and_ours(host: MigratingHost):
    host.install()

    host.upgrade()

    assert host.scalar("SELECT count(*) FROM content_generation_tasks WHERE status IN ('pending', 'completed')") == 2
    host.downgrade("r20")
    assert [column["name"] for column in host.inspect().get_columns("content_generation_tasks")] == [
        "id",
        "topic",
        "status",
        "task_id",
        "owner",
        "notes",
    ]
    host.upgrade()
    assert host.inspect().has_table("webhook_deliveries")


def test_the_history_goes_on_after_ours(host: MigratingHost):
    host.install()
    host.write_revision(
        "r21",
        "contenthub0003",
        'op.add_column("content_generation_tasks", sa.Column("more", sa.Text))',
        'with op.batch_alter_table("content_generation_tasks") as t: t.drop_column("more")',
    )
    host.upgrade()
    assert host.scalar("SELECT version_num FROM alembic_version") == "r21"

    host.downgrade("r20")
    host.upgrade()

    assert "more" in {column["name"] for column in host.inspect().get_columns("content_generation_tasks")}


def test_the_column_that_the_host_types_itself_stays_and_the_check_is_clean(host: MigratingHost):
    host.install()
    host.upgrade()
    # task_id is the host's own, and was nullable: its revision makes it what its model says
    host.write_revision(
        "r21",
        "contenthub0003",
        'with op.batch_alter_table("content_generation_tasks") as t: '
        't.alter_column("task_id", existing_type=sa.String(40), nullable=False)',
    )
    host.upgrade()

    host.check()
    host.check_without_a_migration()


def test_a_branch_must_be_merged_first(host: MigratingHost):
    host.write_revision("side", "r10", "pass")
    with pytest.raises(MigrationError, match="flask db merge heads"):
        host.install()

    (host.versions / "merge_host.py").write_text(
        "revision = 'merged'\ndown_revision = ('r20', 'side')\nbranch_labels = depends_on = None\n\n\n"
        "def upgrade():\n    pass\n\n\ndef downgrade():\n    pass\n"
    )

    assert host.install()[0].down_revision == "merged"
    host.upgrade()
