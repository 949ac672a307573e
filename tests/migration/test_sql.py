"""`--sql`: the statements for somebody else to run. For MySQL they stand in for the database itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.util import CommandError

from tests.migration.hosts import MigratingHost

TASKS = "content_generation_tasks"
OLD_COLUMNS = "contenthub_tasks=id,task_id,topic,status,created_at"


def run(host: MigratingHost, sql: str) -> None:
    """The script as `psql` or `sqlite3` would run it: a semicolon between dollar signs does not end a statement."""
    bare = re.sub(r"^--.*$", "", sql, flags=re.MULTILINE)
    statements = [part.strip() for part in re.findall(r"((?:\$\w+\$.*?\$\w+\$|[^;])+);", bare, flags=re.DOTALL)]
    with host.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            if statement and statement not in {"BEGIN", "COMMIT"}:
                connection.exec_driver_sql(
                    statement.replace("%", "%%") if "psycopg" in host.engine.driver else statement
                )


def test_the_script_makes_the_same_tables_as_the_upgrade(tmp_path: Path, database_url: str):
    host = MigratingHost(tmp_path, database_url)
    host.install()
    host.upgrade()
    schema = host.schema()
    host.downgrade("base")
    host.execute("DROP TABLE alembic_version")

    run(host, host.sql("upgrade", "head"))

    assert host.schema() == schema
    host.check()
    host.check_without_a_migration()
    host.downgrade("base")
    assert host.schema() == {"views": [], "tables": {}}


def test_an_old_table_is_completed_by_the_script_where_its_columns_are_named(tmp_path: Path, postgres_url: str):
    host = MigratingHost(tmp_path, postgres_url)
    old = (
        "id BIGSERIAL PRIMARY KEY, task_id VARCHAR(36), topic VARCHAR(500), status VARCHAR(16), created_at TIMESTAMPTZ"
    )
    host.execute(f"CREATE TABLE {TASKS} ({old})")
    host.execute(f"INSERT INTO {TASKS} (topic, status) VALUES ('kept', 'running')")
    schema = host.schema()
    host.install()

    run(host, host.sql("upgrade", "head", OLD_COLUMNS))

    assert [(row["topic"], row["status"]) for row in host.rows(f"SELECT * FROM {TASKS}")] == [("kept", "processing")]
    host.check()
    host.check_without_a_migration()
    script = host.sql("downgrade", "contenthub0003:base", OLD_COLUMNS)
    run(host, script)
    assert host.schema() == schema
    assert host.rows(f"SELECT status FROM {TASKS}") == [{"status": "running"}]


@pytest.mark.parametrize("created_at", ["created_at", "created_at:timestamp"])
def test_times_without_a_zone_stay_utc_in_a_session_elsewhere(tmp_path: Path, postgres_url: str, created_at: str):
    host = MigratingHost(tmp_path, postgres_url)
    host.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {host.engine.url.database} SET timezone = 'Asia/Shanghai'")
    host.engine.dispose()
    host.execute(f"CREATE TABLE {TASKS} (id SERIAL PRIMARY KEY, status VARCHAR(20), created_at TIMESTAMP)")
    host.execute(f"INSERT INTO {TASKS} (status, created_at) VALUES ('done', '2025-01-01 12:00')")
    host.install()

    run(host, host.sql("upgrade", "head", f"contenthub_tasks=id:integer,status:varchar(20),{created_at}"))

    host.check()
    host.check_without_a_migration()
    now = datetime.now(UTC)
    with host.app.app_context():
        session, task = host.db.session, host.webhook.task_model
        session.add(task(id=7, status="pending", created_at=now))
        session.commit()
        assert session.get_one(task, 1).created_at == datetime(2025, 1, 1, 12, tzinfo=UTC)
        assert session.get_one(task, 1).finished_at == datetime(2025, 1, 1, 12, tzinfo=UTC)
        assert session.get_one(task, 7).created_at == now
        assert session.get_one(task, 7).next_poll_at > now


def test_the_downgrade_drops_nothing_that_nobody_said_was_created(tmp_path: Path, postgres_url: str):
    host = MigratingHost(tmp_path, postgres_url)
    host.install()

    with pytest.raises(CommandError, match=r"-x contenthub_tasks=created"):
        host.sql("downgrade", "contenthub0003:base")

    assert f"DROP TABLE {TASKS};" in host.sql("downgrade", "contenthub0003:base", "contenthub_tasks=created")


def test_sqlite_cannot_complete_a_table_by_a_script(tmp_path: Path, sqlite_url: str):
    host = MigratingHost(tmp_path, sqlite_url)
    host.install()

    with pytest.raises(CommandError, match="Run it on the database"):
        host.sql("upgrade", "head", "contenthub_tasks=id,status")


# --- MySQL -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mysql_host(tmp_path: Path, sqlite_url: str) -> MigratingHost:
    """Its env.py is told to write for MySQL, for which no driver is needed."""
    host = MigratingHost(tmp_path, sqlite_url)
    env = host.directory / "env.py"
    text = env.read_text()
    assert text.count("url=url, target_metadata") == 1
    env.write_text(text.replace("url=url, target_metadata", 'dialect_name="mysql", target_metadata'))
    host.install()
    return host


def test_mysql_creates_the_tables(mysql_host: MigratingHost):
    sql = mysql_host.sql("upgrade", "head")

    columns = dict(
        re.findall(r"^ {4}(\w+) (.+?),? $", sql.split(f"CREATE TABLE {TASKS}")[1].split(");")[0], re.MULTILINE)
    )
    assert columns["id"] == "BIGINT NOT NULL AUTO_INCREMENT"
    assert columns["next_poll_at"] == "DATETIME(6)"
    assert columns["created_at"] == "DATETIME(6) NOT NULL"
    assert columns["error_message"] == "MEDIUMTEXT"
    assert columns["earlier_creator_task_ids"] == "JSON NOT NULL"
    assert columns["auto_approve"] == "BOOL NOT NULL"
    assert re.search(r"body LONGBLOB", sql)
    assert f"CREATE INDEX ix_{TASKS}_next_poll_at ON {TASKS} (next_poll_at);" in sql, "MySQL has no partial indexes"
    assert f"CONSTRAINT uq_{TASKS}_task_id UNIQUE (task_id)" in sql
    assert f"ALTER TABLE {TASKS} ADD COLUMN forward_to JSON;" in sql
    assert "ALTER TABLE webhook_deliveries ADD COLUMN claimed_until DATETIME(6);" in sql
    forwards = sql.split("CREATE TABLE webhook_forwards")[1].split(");")[0]
    assert "id BIGINT NOT NULL AUTO_INCREMENT" in forwards
    assert "body LONGBLOB NOT NULL" in forwards
    assert "error MEDIUMTEXT" in sql.split("CREATE TABLE webhook_forward_attempts")[1].split(");")[0]


def test_mysql_completes_a_table(mysql_host: MigratingHost):
    sql = mysql_host.sql("upgrade", "head", "contenthub_tasks=id,task_id,topic,status,created_at,updated_at")

    steps = [
        f"CREATE OR REPLACE VIEW {TASKS}_contenthub0001 AS SELECT 'adopted' AS kind",
        f"ALTER TABLE {TASKS} ADD COLUMN creator_task_id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, ",
        "ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1, ",
        "ADD COLUMN callback_url VARCHAR(2048), ",
        "ADD COLUMN next_poll_at DATETIME(6), ",
        ", ALGORITHM=INSTANT;",
        f"CREATE TRIGGER {TASKS}_contenthub0001_insert BEFORE INSERT ON {TASKS} FOR EACH ROW SET NEW.error_code = ",
        f"CREATE TRIGGER {TASKS}_contenthub0001_update BEFORE UPDATE ON {TASKS} FOR EACH ROW SET NEW.error_code = ",
        f"UPDATE {TASKS} SET previous_status = CASE WHEN",
        "task_id = coalesce(task_id, CAST(uuid() AS CHAR(36)))",
        f"ALTER TABLE {TASKS} MODIFY task_id VARCHAR(36) NOT NULL, ",
        ", ALGORITHM=INPLACE, LOCK=NONE;",
        f"CREATE UNIQUE INDEX uq_{TASKS}_task_id ON {TASKS} (task_id) ALGORITHM=INPLACE LOCK=NONE;",
        f"CREATE INDEX ix_{TASKS}_next_poll_at ON {TASKS} (next_poll_at) ALGORITHM=INPLACE LOCK=NONE;",
    ]
    places = [sql.find(step) for step in steps]
    assert -1 not in places, steps[places.index(-1)]
    assert places == sorted(places)
    assert "CREATE TABLE " + TASKS not in sql
    assert not re.search(r"ADD COLUMN (id|task_id|topic|status) ", sql)
    assert sql.index("previous_status = CASE") < sql.index(" status = CASE WHEN lower"), "it assigns from left to right"
    assert sql.count(f"ALTER TABLE {TASKS} ADD COLUMN ") == 2, "ours, and the one of the third revision"
    assert "ALGORITHM=COPY" not in sql


def test_mysql_gives_the_old_table_back(mysql_host: MigratingHost):
    sql = mysql_host.sql("downgrade", "contenthub0003:base", "contenthub_tasks=id,task_id,topic,status")

    assert ", DROP COLUMN callback_url, " in sql
    assert f"ALTER TABLE {TASKS} DROP INDEX uq_{TASKS}_task_id;" in sql
    assert f"DROP TRIGGER IF EXISTS {TASKS}_contenthub0001_insert;" in sql
    assert "DROP TABLE webhook_deliveries;" in sql
    queues = [
        f"ALTER TABLE {TASKS} DROP COLUMN forward_to;",
        "ALTER TABLE webhook_deliveries DROP COLUMN claimed_until;",
    ]
    queues += [f"DROP TABLE webhook_{each};" for each in ("forwards", "forward_attempts", "alerts")]
    assert all(step in sql for step in queues)
    assert not re.search(r"DROP COLUMN (id|task_id|topic|status)[,;]", sql)
    assert f"DROP TABLE {TASKS}" not in sql


def test_the_script_has_no_parameter_left(mysql_host: MigratingHost):
    sql = mysql_host.sql("upgrade", "head", "contenthub_tasks=id,status")

    assert not re.search(r"%\(|%s|__\[POSTCOMPILE", sql)
