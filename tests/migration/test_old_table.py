"""ContentHub's old table with 10,000 rows: kept, completed, and given back by the downgrade."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.migration import old_contenthub
from tests.migration.hosts import MigratingHost

TASKS = "content_generation_tasks"
COUNT = 10_000
SECONDS = 90


def enforce_foreign_keys(engine: sa.Engine) -> None:
    """As many hosts do on SQLite, which does not by itself."""
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", lambda connection, _record: connection.execute("PRAGMA foreign_keys = ON"))


@pytest.fixture
def host(tmp_path: Path, database_url: str) -> MigratingHost:
    host = MigratingHost(tmp_path, database_url, models=old_contenthub.models, engine=enforce_foreign_keys)
    host.write_revision("0001", None, old_contenthub.CREATE, old_contenthub.DROP)
    host.upgrade()
    return host


def test_ten_thousand_rows_are_kept_and_completed(host: MigratingHost):
    old_contenthub.fill(host, COUNT)
    before = {row["id"]: row for row in host.rows(f"SELECT * FROM {TASKS}")}
    contents = host.rows("SELECT * FROM contents ORDER BY id")
    host.install()

    started = time.monotonic()
    host.upgrade()
    assert time.monotonic() - started < SECONDS

    after = {row["id"]: row for row in host.rows(f"SELECT * FROM {TASKS}")}
    assert after.keys() == before.keys()
    kept = before[1].keys() - {"task_id", "status", "priority", "created_at", "updated_at"}
    for key, row in after.items():
        old = before[key]
        assert {name: row[name] for name in kept} == {name: old[name] for name in kept}
        assert row["task_id"] == old["task_id"] or (old["task_id"] is None and len(row["task_id"]) == 36)
        assert row["status"] == old_contenthub.TRANSLATED.get(old["status"], old["status"])
        assert row["priority"] == old["priority"] or (old["priority"] is None and row["priority"] == 2)
        is_open = row["status"] in {"pending", "submitted", "processing"}
        assert (row["next_poll_at"] is not None) is (row["deadline_at"] is not None) is is_open
        assert (row["finished_at"] is None) is is_open
        assert row["next_submit_at"] is row["callback_url"] is None
        assert (row["attempt"], row["version"], row["polls"], row["submit_tries"]) == (1, 1, 0, 0)
        assert (row["error_code"] == "UNKNOWN_STATUS") is (old["status"] == "archived")
    assert len({row["task_id"] for row in after.values()}) == COUNT
    assert host.rows("SELECT * FROM contents ORDER BY id") == contents
    host.check()
    host.check_without_a_migration()


def allows_no_topic(host: MigratingHost) -> bool:
    """Whether the old column was changed; MySQL would rebuild the table for that."""
    return host.engine.dialect.name not in {"mysql", "mariadb"}


def test_the_model_reads_every_row(host: MigratingHost):
    old_contenthub.fill(host, 100)
    host.install()
    host.upgrade()

    with host.app.app_context():
        tasks = host.db.session.scalars(sa.select(host.webhook.task_model)).all()
        first = host.db.session.get(host.webhook.task_model, 1)
        assert len(tasks) == 100
        assert first.created_at.isoformat() == "2025-03-01T12:00:01+00:00"
        assert first.earlier_creator_task_ids == []
        assert first.keywords == ["a", "键"]
        added = host.webhook.task_model(account_id=1, topic=None if allows_no_topic(host) else "Tea")
        host.db.session.add(added)
        host.db.session.commit()
        assert added.id == 101


def test_the_constraints_hold(host: MigratingHost):
    old_contenthub.fill(host, 20)
    host.install()
    host.upgrade()

    kind = host.engine.dialect.name
    if kind in {"postgresql", "mysql"}:  # or the trigger would translate the word
        host.execute(f"DROP TRIGGER {TASKS}_contenthub0001_update{f' ON {TASKS}' if kind == 'postgresql' else ''}")
    refused = (sa.exc.IntegrityError, sa.exc.OperationalError)  # the latter by PyMySQL, for a CHECK
    for broken in ("status = 'archived'", "next_poll_at = NULL", "version = NULL", "task_id = 'x'", "retry_count = -1"):
        with pytest.raises(refused):
            host.execute(f"UPDATE {TASKS} SET {broken} WHERE status = 'pending'")
    with pytest.raises(sa.exc.IntegrityError):
        host.execute("INSERT INTO contents (id, task, body) VALUES (99, 'nobody', 'B')")
    host.execute("DELETE FROM accounts WHERE id = 1")
    assert host.scalar(f"SELECT count(*) FROM {TASKS}") == 10, "the host's own foreign key still cascades"


def test_the_downgrade_gives_the_old_table_back(host: MigratingHost):
    old_contenthub.fill(host, 200)
    schema, rows = host.schema(), host.rows(f"SELECT * FROM {TASKS} ORDER BY id")
    contents = host.rows("SELECT * FROM contents ORDER BY id")
    host.install()
    host.upgrade()

    host.downgrade("0001")

    if (
        host.engine.dialect.name == "postgresql"
    ):  # a foreign key depends on it, so it stays a constraint, under its name
        schema["tables"][TASKS]["unique"] = [("ix_content_generation_tasks_task_id", ("task_id",))]
    assert host.schema() == schema
    after = host.rows(f"SELECT * FROM {TASKS} ORDER BY id")
    filled = {"task_id", "priority", "created_at", "updated_at"}
    for old, new in zip(rows, after, strict=True):
        assert all(new[name] == old[name] or (old[name] is None and name in filled) for name in old)
    assert host.rows("SELECT * FROM contents ORDER BY id") == contents


def test_down_and_up_again(host: MigratingHost):
    old_contenthub.fill(host, 200)
    host.install()
    host.upgrade()
    first, rows = host.schema(), host.rows(f"SELECT id, task_id, status, result FROM {TASKS} ORDER BY id")

    for _ in range(2):
        host.downgrade("0001")
        host.upgrade()

    assert host.schema() == first
    assert host.rows(f"SELECT id, task_id, status, result FROM {TASKS} ORDER BY id") == rows
    host.check()
    host.check_without_a_migration()


def test_a_downgrade_keeps_what_the_old_table_would_not_take(host: MigratingHost):
    old_contenthub.fill(host, 20)
    host.install()
    host.upgrade()
    if allows_no_topic(host):
        host.execute(f"UPDATE {TASKS} SET topic = NULL WHERE id = 2")
    host.execute(f"UPDATE {TASKS} SET status = 'completed', previous_status = 'processing' WHERE id = 3")

    host.downgrade("0001")

    assert (host.scalar(f"SELECT topic FROM {TASKS} WHERE id = 2") is None) == allows_no_topic(host)
    assert host.scalar(f"SELECT status FROM {TASKS} WHERE id = 3") == "completed"
    assert host.scalar(f"SELECT status FROM {TASKS} WHERE id = 11") == "running"
    host.upgrade()
    host.check()
    host.check_without_a_migration()
