"""Task tables that are not as one would like them: what is kept of them, and when they are refused."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.util import CommandError

from tests.migration.hosts import MigratingHost
from tests.migration.test_old_table import enforce_foreign_keys

TASKS = "content_generation_tasks"
LEAST = f"CREATE TABLE {TASKS} (id INTEGER PRIMARY KEY, status VARCHAR(20) NOT NULL"


def upgraded(host: MigratingHost) -> MigratingHost:
    host.install()
    host.upgrade()
    return host


@pytest.fixture
def host(tmp_path: Path, database_url: str) -> MigratingHost:
    return MigratingHost(tmp_path, database_url, engine=enforce_foreign_keys)


@pytest.fixture
def sqlite_host(tmp_path: Path, sqlite_url: str) -> MigratingHost:
    return MigratingHost(tmp_path, sqlite_url, engine=enforce_foreign_keys)


@pytest.fixture
def postgres_host(tmp_path: Path, postgres_url: str) -> MigratingHost:
    return MigratingHost(tmp_path, postgres_url)


# --- more or less than expected --------------------------------------------------------------------------------


def test_a_table_of_an_id_alone_is_enough(host: MigratingHost):
    host.execute(f"CREATE TABLE {TASKS} (id INTEGER PRIMARY KEY)")
    host.execute(f"INSERT INTO {TASKS} VALUES (7), (8)")

    upgraded(host).check()

    rows = host.rows(f"SELECT * FROM {TASKS} ORDER BY id")
    assert [(row["id"], row["status"], row["next_poll_at"]) for row in rows] == [
        (7, "failed", None),
        (8, "failed", None),
    ]
    assert all(row["created_at"] and row["updated_at"] and row["finished_at"] for row in rows)
    host.downgrade("base")
    assert host.rows(f"SELECT * FROM {TASKS} ORDER BY id") == [{"id": 7}, {"id": 8}]


def test_a_complete_table_is_left_as_it_is_and_survives_the_downgrade(host: MigratingHost):
    with host.app.app_context():
        host.db.create_all()
    schema = host.schema()

    upgraded(host).check()
    host.downgrade("base")

    assert host.schema() == schema


def test_without_the_record_the_downgrade_leaves_everything(host: MigratingHost):
    upgraded(host)
    for view in host.inspect().get_view_names():
        host.execute(f"DROP VIEW {view}")
    schema = host.schema()

    host.downgrade("base")

    assert host.schema() == schema
    host.upgrade()
    host.check()


def test_a_downgrade_that_broke_off_after_the_drop_leaves_no_record(host: MigratingHost):
    upgraded(host)
    host.downgrade("contenthub0001")
    host.execute(f"DROP TABLE {TASKS}")

    host.downgrade("base")

    assert host.schema() == {"views": [], "tables": {}}


def test_a_complete_history_table_is_left_and_an_incomplete_one_refused(host: MigratingHost):
    host.execute("CREATE TABLE webhook_deliveries (id INTEGER PRIMARY KEY, body VARCHAR(10))")
    host.execute("INSERT INTO webhook_deliveries VALUES (1, 'mine')")
    host.install()

    with pytest.raises(CommandError, match=r"without the columns task_id, event, .*Nothing was changed"):
        host.upgrade()

    assert host.rows("SELECT * FROM webhook_deliveries") == [{"id": 1, "body": "mine"}]


# --- what cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ("task_id VARCHAR(36) PRIMARY KEY, status VARCHAR(20)", "its primary key is task_id and not id"),
        ("id INTEGER PRIMARY KEY, task_id INTEGER", "task_id is INTEGER"),
        ("id INTEGER PRIMARY KEY, priority VARCHAR(10)", r"priority is VARCHAR\(length=10\)"),
        ("id INTEGER PRIMARY KEY, keywords TEXT, created_at DATE", r"keywords is TEXT.*created_at is DATE"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_before_anything_changes(host: MigratingHost, columns: str, why: str):
    host.execute(f"CREATE TABLE {TASKS} ({columns})")
    schema = host.schema()
    host.install()

    with pytest.raises(CommandError, match=f"{why}.*Nothing was changed"):
        host.upgrade()

    assert host.schema() == schema


def test_doubled_task_ids_are_refused(host: MigratingHost):
    host.execute(f"{LEAST}, task_id VARCHAR(36))")
    host.execute(f"INSERT INTO {TASKS} VALUES (1, 'done', 'same'), (2, 'done', 'same'), (3, 'done', NULL)")
    host.install()

    with pytest.raises(CommandError, match="task_id is the same in several rows"):
        host.upgrade()


# --- statuses --------------------------------------------------------------------------------------------------


def test_a_check_of_the_old_statuses_gives_way(host: MigratingHost, caplog: pytest.LogCaptureFixture):
    words = "CONSTRAINT known_status CHECK (status IN ('new', 'running', 'done'))"
    kept = "CONSTRAINT done_has_note CHECK (status != 'done' OR note IS NOT NULL)"
    host.execute(f"{LEAST}, note VARCHAR(10),\n{words},\n{kept}\n)")
    host.execute(f"INSERT INTO {TASKS} VALUES (1, 'new', NULL), (2, 'running', NULL), (3, 'done', 'n')")

    with caplog.at_level(logging.WARNING, "alembic"):
        upgraded(host)

    assert [row["status"] for row in host.rows(f"SELECT status FROM {TASKS} ORDER BY id")] == [
        "pending",
        "processing",
        "completed",
    ]
    names = {check["name"] for check in host.inspect().get_check_constraints(TASKS)}
    assert names - {f"ck_{TASKS}_status", f"ck_{TASKS}_open_is_polled"} == {"done_has_note"}
    if host.engine.dialect.name not in {"mysql", "mariadb"}:  # where they belong to columns
        assert len(names) == 3
    assert "known_status" in caplog.text
    host.downgrade("base")
    assert [row["status"] for row in host.rows(f"SELECT status FROM {TASKS} ORDER BY id")] == ["new", "running", "done"]


def test_an_enum_type_becomes_text(postgres_host: MigratingHost):
    host = postgres_host
    host.execute("CREATE TYPE state AS ENUM ('PENDING', 'RUNNING', 'FAILED')")
    host.execute(f"CREATE TABLE {TASKS} (id SERIAL PRIMARY KEY, status state NOT NULL DEFAULT 'PENDING')")
    host.execute(f"INSERT INTO {TASKS} (status) VALUES ('PENDING'), ('RUNNING'), ('FAILED')")

    upgraded(host).check()

    assert [row["status"] for row in host.rows(f"SELECT status FROM {TASKS} ORDER BY id")] == [
        "pending",
        "processing",
        "failed",
    ]
    host.downgrade("base")
    host.upgrade()
    host.check()


def test_long_and_empty_statuses_are_translated_too(host: MigratingHost):
    host.execute(f"CREATE TABLE {TASKS} (id INTEGER PRIMARY KEY, status VARCHAR(60))")
    long = "waiting for somebody to look at it"
    host.execute(f"INSERT INTO {TASKS} VALUES (1, NULL), (2, ''), (3, :long), (4, ' Done ')", {"long": long})

    upgraded(host).check()

    rows = host.rows(f"SELECT status, previous_status, error_code FROM {TASKS} ORDER BY id")
    assert [row["status"] for row in rows] == ["failed", "failed", "failed", "completed"]
    assert [row["previous_status"] for row in rows] == [None, "", None, " Done "]
    assert [row["error_code"] for row in rows] == ["UNKNOWN_STATUS"] * 3 + [None]


# --- types -----------------------------------------------------------------------------------------------------


def test_only_what_the_extension_writes_gets_the_room_that_it_needs(postgres_host: MigratingHost):
    host = postgres_host
    host.execute(
        f"{LEAST}, topic VARCHAR(30), error_code VARCHAR(8), error_message VARCHAR(80), callback_url VARCHAR(200))"
    )
    host.execute(f"INSERT INTO {TASKS} (id, status) VALUES (1, 'done')")
    schema = host.schema()

    upgraded(host).check()

    types = {column["name"]: str(column["type"]) for column in host.inspect().get_columns(TASKS)}
    assert [types[name] for name in ("topic", "error_code", "error_message", "callback_url")] == [
        "VARCHAR(30)",
        "VARCHAR(64)",
        "TEXT",
        "VARCHAR(2048)",
    ]
    host.execute(f"UPDATE {TASKS} SET error_code = 'longer than eight'")
    host.downgrade("base")
    schema["tables"][TASKS]["columns"]["error_code"] = ("VARCHAR(64)", None, True)
    assert host.schema() == schema, "a value would have been lost"


# --- PostgreSQL ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["SERIAL", "INTEGER GENERATED BY DEFAULT AS IDENTITY"])
def test_what_the_models_can_read_keeps_its_type(postgres_host: MigratingHost, kind: str):
    host = postgres_host
    host.execute(
        f"CREATE TABLE {TASKS} (id {kind} PRIMARY KEY, status VARCHAR(30) NOT NULL, priority INTEGER, topic TEXT, "
        "tone VARCHAR(7), error_message TEXT, created_at TIMESTAMP(3), updated_at TIMESTAMPTZ)"
    )
    host.execute(f"INSERT INTO {TASKS} (status) VALUES ('done')")
    before = {column["name"]: repr(column["type"]) for column in host.inspect().get_columns(TASKS)}
    filenode = host.scalar(f"SELECT pg_relation_filenode('{TASKS}')")

    upgraded(host).check()

    after = {column["name"]: repr(column["type"]) for column in host.inspect().get_columns(TASKS)}
    assert {column: after[column] for column in before} == before
    assert host.scalar(f"SELECT pg_relation_filenode('{TASKS}')") == filenode, "nothing has rewritten the table"


def test_times_without_a_zone_are_utc_whatever_the_session_says(postgres_host: MigratingHost):
    host = postgres_host
    host.execute(
        "ALTER ROLE CURRENT_USER IN DATABASE " + str(host.engine.url.database) + " SET timezone = 'Asia/Tokyo'"
    )
    host.engine.dispose()
    host.execute(f"{LEAST}, created_at TIMESTAMP)")
    host.execute(f"INSERT INTO {TASKS} VALUES (1, 'done', '2025-01-01 12:00')")

    upgraded(host)

    noon, now = datetime(2025, 1, 1, 12, tzinfo=UTC), datetime.now(UTC)
    with host.app.app_context():
        session, task = host.db.session, host.webhook.task_model
        assert [session.get_one(task, 1).created_at, session.get_one(task, 1).finished_at] == [noon, noon]
        session.get_one(task, 1).created_at = now
        made = [task(id=number, status="pending") for number in (2, 3, 4)]
        session.add_all(made)
        session.commit()
        assert session.get_one(task, 1).created_at == now
        assert all(abs(each.created_at - now) < timedelta(minutes=1) for each in made)
        assert session.scalar(sa.select(sa.func.count()).where(task.created_at == now)) == 1
        assert session.scalar(sa.select(sa.func.count()).where(task.created_at > now - timedelta(hours=1))) == 4
    host.execute(f"UPDATE {TASKS} SET created_at = '2025-01-01 12:00' WHERE id = 1")
    host.downgrade("base")
    assert host.scalar(f"SELECT created_at = TIMESTAMP '2025-01-01 12:00' FROM {TASKS} WHERE id = 1") is True


def test_a_unique_constraint_is_taken_over_with_the_foreign_keys_on_it(postgres_host: MigratingHost):
    host = postgres_host
    host.execute(f"{LEAST}, task_id VARCHAR(36) UNIQUE)")
    host.execute(f"CREATE TABLE notes (task VARCHAR(36) REFERENCES {TASKS} (task_id))")
    schema = host.schema()

    upgraded(host)

    assert [each["name"] for each in host.inspect().get_unique_constraints(TASKS)] == [f"uq_{TASKS}_task_id"]
    host.downgrade("base")
    assert host.schema() == schema


# --- SQLite, which copies the table ----------------------------------------------------------------------------


def test_what_belongs_to_the_table_survives_the_copy(sqlite_host: MigratingHost):
    host = sqlite_host
    host.execute(
        f"CREATE TABLE {TASKS} (id INTEGER PRIMARY KEY AUTOINCREMENT, status VARCHAR(20) DEFAULT 'new' NOT NULL, "
        f"task_id VARCHAR(36) UNIQUE, parent INTEGER REFERENCES {TASKS} (id) ON DELETE SET NULL, "
        "size INTEGER DEFAULT 3,\nCHECK (size < 10)\n)"
    )
    host.execute(f"CREATE INDEX by_lower ON {TASKS} (lower(status))")
    host.execute(f"CREATE INDEX some ON {TASKS} (size) WHERE size > 1")
    host.execute("CREATE TABLE log (line TEXT)")
    host.execute(
        f"CREATE TRIGGER logs AFTER INSERT ON {TASKS} BEGIN INSERT INTO log VALUES (new.status || '\\:x'); END"
    )
    host.execute(f"CREATE VIEW sizes AS SELECT size FROM {TASKS}")
    host.execute(f"INSERT INTO {TASKS} (task_id) VALUES ('a')")
    master = (
        "SELECT type, name, sql FROM sqlite_master WHERE name IN ('by_lower', 'some', 'logs', 'sizes') ORDER BY name"
    )
    before = host.rows(master)

    for _ in range(2):
        upgraded(host)
        assert host.rows(master) == before
        assert "AUTOINCREMENT" in host.scalar(f"SELECT sql FROM sqlite_master WHERE name = '{TASKS}'")
        assert [key["on_delete"] for key in host.rows(f"PRAGMA foreign_key_list({TASKS})")] == ["SET NULL"]
        with pytest.raises(sa.exc.IntegrityError):
            host.execute(f"UPDATE {TASKS} SET size = 11")
        host.downgrade("base")
        assert host.rows(master) == before
        assert host.rows(f"SELECT * FROM {TASKS}") == [
            {"id": 1, "status": "new", "task_id": "a", "parent": None, "size": 3}
        ]
        sql = host.scalar(f"SELECT sql FROM sqlite_master WHERE name = '{TASKS}'")
        assert "UNIQUE (task_id)" in sql
        assert "uq_" not in sql


def test_foreign_keys_are_enforced_again_afterwards(sqlite_host: MigratingHost):
    host = sqlite_host
    host.execute(f"{LEAST})")
    host.install()
    with host.engine.connect() as connection:  # the only one of the pool, so the upgrade uses it
        connection.exec_driver_sql("PRAGMA foreign_keys")

    host.upgrade()

    assert host.scalar("PRAGMA foreign_keys") == 1
    assert host.scalar("PRAGMA legacy_alter_table") == 0


def test_an_upgrade_that_breaks_off_changes_nothing(sqlite_host: MigratingHost):
    host = sqlite_host
    host.execute(f"{LEAST})")
    host.execute(f"INSERT INTO {TASKS} VALUES (1, 'done'), (2, 'odd')")
    host.execute(f"CREATE TRIGGER no BEFORE UPDATE ON {TASKS} BEGIN SELECT RAISE(ABORT, 'not now'); END")
    schema, rows = host.schema(), host.rows(f"SELECT * FROM {TASKS}")
    host.install()

    with pytest.raises(sa.exc.IntegrityError, match="not now"):
        host.upgrade()

    assert host.schema() == schema
    assert host.rows(f"SELECT * FROM {TASKS}") == rows
    assert host.scalar("PRAGMA foreign_keys") == 1
    host.execute("DROP TRIGGER no")
    host.upgrade()
    host.check()


def test_where_foreign_keys_cannot_be_switched_off_nothing_is_risked(sqlite_host: MigratingHost):
    host = sqlite_host
    host.execute(f"{LEAST}, task_id VARCHAR(36) UNIQUE)")
    host.execute(f"CREATE TABLE notes (task VARCHAR(36) REFERENCES {TASKS} (task_id) ON DELETE CASCADE)")
    host.execute(f"INSERT INTO {TASKS} VALUES (1, 'done', 'a')")
    host.execute("INSERT INTO notes VALUES ('a')")
    host.install()
    # As SQLAlchemy's documentation advises for savepoints on SQLite: every transaction is a real one from its start.
    sa.event.listen(host.engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
    sa.event.listen(host.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    host.engine.dispose()

    with pytest.raises(CommandError, match=r"PRAGMA foreign_keys = OFF"):
        host.upgrade()

    assert host.rows("SELECT * FROM notes") == [{"task": "a"}]
