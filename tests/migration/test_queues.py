"""Databases that stand at contenthub0002, with rows in them: what the third revision adds, and takes away again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.util import CommandError
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import mapped_column

from flask_contenthub_webhook import DeliveryMixin, GenerationTaskMixin
from flask_contenthub_webhook.models.columns import Json, UTCDateTime
from flask_contenthub_webhook.runtime.state import get_state
from tests.migration.hosts import MigratingHost

TASKS, DELIVERIES = "content_generation_tasks", "webhook_deliveries"
OWN_TABLES = {"webhook_forwards", "webhook_forward_attempts", "webhook_alerts"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def host(tmp_path: Path, database_url: str) -> MigratingHost:
    """As an earlier version of the package left it: two revisions, applied, and rows."""
    host = MigratingHost(tmp_path, database_url)
    host.install()[2].path.unlink()
    host.upgrade()
    fill(host)
    return host


def fill(host: MigratingHost) -> None:
    then = sa.MetaData()  # the models of today have more columns
    then.reflect(host.engine)
    task = {"earlier_creator_task_ids": "[]", "priority": 2, "auto_approve": False, "next_poll_at": NOON}
    task |= {"attempt": 1, "version": 1, "submit_tries": 0, "polls": 0, "times_missing": 0}
    task |= {"created_at": NOON, "updated_at": NOON}
    delivery = {"source": "webhook", "verdict": "processed", "late": False, "tries": 1, "occurrences": 1}
    with host.engine.begin() as connection:
        connection.execute(
            then.tables[TASKS].insert(),
            [{**task, "task_id": str(number), "topic": f"主题 {number}", "status": "pending"} for number in range(50)],
        )
        connection.execute(
            then.tables[DELIVERIES].insert(),
            [{**delivery, "task_id": str(number), "body": b"{}", "received_at": NOON} for number in range(50)],
        )


def rows(host: MigratingHost) -> list[list[dict[str, Any]]]:
    return [host.rows(f"SELECT * FROM {table} ORDER BY id") for table in (TASKS, DELIVERIES)]


def columns(host: MigratingHost, table: str) -> set[str]:
    return {column["name"] for column in host.inspect().get_columns(table)}


def test_only_the_third_is_written_and_every_row_stays(host: MigratingHost):
    tasks, deliveries = rows(host)

    assert [each.is_new for each in host.install()] == [False, False, True]
    host.upgrade()

    host.check()
    assert rows(host) == [
        [{**task, "forward_to": None} for task in tasks],
        [{**delivery, "claimed_until": None} for delivery in deliveries],
    ]


def test_the_models_read_old_rows_and_write_new_ones(host: MigratingHost):
    host.install()
    host.upgrade()

    with host.app.app_context():
        session = host.db.session
        old = session.get_one(host.webhook.task_model, 1)
        assert (old.topic, old.forward_to) == ("主题 0", None)
        old.forward_to = [{"url": "https://example.org/hook"}]
        session.get_one(host.webhook.delivery_model, 1).claimed_until = NOON
        forward = get_state(host.app).models.forward
        sent = forward(delivery_id=1, task_id="0", event="e", url="u", message_id="m", body=b"{}", status="waiting")
        session.add(sent)
        session.commit()
        assert old.forward_to == [{"url": "https://example.org/hook"}]
        assert session.get_one(host.webhook.delivery_model, 1).claimed_until == NOON
        assert (sent.id, sent.tries) == (1, 0)


def test_the_downgrade_gives_the_database_of_before_back(host: MigratingHost):
    schema, before = host.schema(), rows(host)
    host.install()

    for _ in range(2):
        host.upgrade()
        host.downgrade("contenthub0002")

        assert host.schema() == schema
        assert rows(host) == before


def test_what_a_generated_migration_of_the_hosts_made_stays_through_up_and_down(host: MigratingHost):
    with host.app.app_context():
        config = host.app.extensions["migrate"].migrate.get_config(str(host.directory))
        command.revision(config, autogenerate=True, rev_id="generated")
    host.upgrade()
    schema = host.schema()
    assert set(schema["tables"]) >= OWN_TABLES
    host.install()

    host.upgrade()
    assert host.schema() == schema
    host.downgrade("generated")

    assert host.schema() == schema


def test_what_is_missing_of_a_part_is_added_and_only_that_is_taken_away(host: MigratingHost):
    host.execute(f"ALTER TABLE {TASKS} ADD COLUMN forward_to JSON")
    host.execute(f"UPDATE {TASKS} SET forward_to = '[]'")
    with host.app.app_context():
        host.db.metadata.tables["webhook_forwards"].create(host.engine)
    on = " ON webhook_forwards" if host.engine.dialect.name == "mysql" else ""
    host.execute(f"DROP INDEX ix_webhook_forwards_next_try_at{on}")
    schema, before = host.schema(), rows(host)
    host.install()

    host.upgrade()
    host.check()
    assert "claimed_until" in columns(host, DELIVERIES)
    host.downgrade("contenthub0002")

    assert host.schema() == schema
    assert rows(host) == before


def test_another_table_of_the_same_name_is_refused_before_anything_changes(host: MigratingHost):
    host.execute("CREATE TABLE webhook_alerts (name VARCHAR(10) PRIMARY KEY)")
    schema = host.schema()
    host.install()

    with pytest.raises(
        CommandError, match=r"webhook_alerts already, without the columns raised, .*Nothing was changed"
    ):
        host.upgrade()

    assert host.schema() == schema


def test_an_upgrade_that_broke_off_is_completed_and_undone_whole(host: MigratingHost):
    if host.engine.dialect.name == "mysql":
        pytest.skip("the name of an index belongs to its table there: none is in the way; `cuts.py` breaks it off")
    schema = host.schema()
    host.execute("CREATE TABLE other (id INTEGER)")
    host.execute("CREATE INDEX ix_webhook_forward_attempts_forward_id ON other (id)")  # in the way of ours
    host.install()
    with pytest.raises(sa.exc.DBAPIError, match="already exists"):
        host.upgrade()

    host.execute("DROP TABLE other")
    host.upgrade()
    host.check()
    host.downgrade("contenthub0002")

    assert host.schema() == schema


def test_without_the_record_the_downgrade_leaves_everything(host: MigratingHost):
    host.install()
    host.upgrade()
    host.execute(f"DROP VIEW {TASKS}_contenthub0003")
    schema = host.schema()

    host.downgrade("contenthub0002")

    assert host.schema() == schema


def test_an_sqlite_that_cannot_drop_columns_says_so_and_drops_nothing(tmp_path: Path, sqlite_url: str):
    host = MigratingHost(tmp_path, sqlite_url)
    host.install()
    host.upgrade()
    schema = host.schema()
    host.engine.dialect.server_version_info = (3, 34, 1)

    with pytest.raises(CommandError, match=r"before its version 3\.35, and this is 3\.34\.1\. Nothing was changed"):
        host.downgrade("contenthub0002")

    assert host.schema() == schema


def renaming_models(db: SQLAlchemy) -> Mapping[str, type[Any]]:
    task = {"__tablename__": "jobs", "forward_to": mapped_column("send to", Json)}
    log = {"__tablename__": "job_log", "claimed_until": mapped_column("held_until", UTCDateTime)}
    return {
        "task_model": type("Job", (GenerationTaskMixin, db.Model), task),
        "delivery_model": type("Log", (DeliveryMixin, db.Model), log),
    }


def test_the_hosts_own_names_are_used_in_both_tables(tmp_path: Path, database_url: str):
    host = MigratingHost(tmp_path, database_url, models=renaming_models)
    tasks, deliveries, queues = host.install()
    host.upgrade()

    host.check()
    assert 'TASK_NAMES: dict[str, str] = {"forward_to": "send to"}' in queues.source
    assert 'DELIVERY_NAMES: dict[str, str] = {"claimed_until": "held_until"}' in queues.source
    assert "send to" not in tasks.source
    assert "held_until" not in deliveries.source
    host.downgrade("contenthub0002")
    assert not {"send to", "forward_to"} & columns(host, "jobs")
    assert not {"held_until", "claimed_until"} & columns(host, "job_log")
