"""Ids of an old table, compared byte for byte after the upgrade (MariaDB), as far as nobody is stopped for that."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.migration.hosts import MigratingHost

TASKS = "content_generation_tasks"


@pytest.fixture
def host(tmp_path: Path, mariadb_url: str) -> MigratingHost:
    host = MigratingHost(tmp_path, mariadb_url)
    host.install()
    return host


def make_table(host: MigratingHost, collation: str, more: str = "NULL UNIQUE") -> None:
    column = f"task_id VARCHAR(36) COLLATE {collation} {more}"
    host.execute(f"CREATE TABLE {TASKS} (id INTEGER AUTO_INCREMENT PRIMARY KEY, {column}, status VARCHAR(20))")
    host.execute(f"INSERT INTO {TASKS} (task_id, status) VALUES ('job-e', 'done')")


def collation_of(host: MigratingHost) -> str:
    of_column = "table_schema = database() AND table_name = :table AND column_name = 'task_id'"
    query = sa.text(f"SELECT collation_name FROM information_schema.columns WHERE {of_column}")
    (row,) = host.rows(query.bindparams(table=TASKS))
    return str(row["collation_name"])


def doctor(host: MigratingHost) -> str:
    return host.app.test_cli_runner().invoke(args=["webhook", "doctor"]).output


@pytest.mark.parametrize(
    ("collation", "more"),
    [
        ("utf8mb4_general_ci", "NULL UNIQUE"),
        ("utf8mb4_unicode_520_ci", "NOT NULL DEFAULT 'none, COLLATE x'"),
        ("utf8mb3_general_ci", "NOT NULL UNIQUE"),
        ("latin1_swedish_ci", "NULL"),
    ],
)
def test_ids_that_differ_by_case_are_two_after_the_upgrade(host: MigratingHost, collation: str, more: str):
    make_table(host, collation, more)
    schema, made = host.schema(), host.rows(f"SHOW CREATE TABLE {TASKS}")
    statements: list[str] = []
    sa.event.listen(host.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    host.upgrade()

    host.check()
    assert collation_of(host) == f"{collation.partition('_')[0]}_bin"
    host.execute(f"INSERT INTO {TASKS} (task_id, status) VALUES ('job-E', 'done')")
    assert len(host.rows(f"SELECT id FROM {TASKS} WHERE task_id = 'job-e'")) == 1
    changes = [each for each in statements if "MODIFY" in each]
    assert [each.endswith("ALGORITHM=INPLACE, LOCK=NONE") for each in changes] == [True]
    assert " compares by " not in doctor(host)
    host.execute(f"DELETE FROM {TASKS} WHERE task_id = 'job-E'")
    host.downgrade("base")
    assert host.schema() == schema
    assert without_counter(host.rows(f"SHOW CREATE TABLE {TASKS}")) == without_counter(made)


def without_counter(rows: list[dict[str, str]]) -> list[str]:
    return [line for line in rows[0]["Create Table"].splitlines() if "AUTO_INCREMENT=" not in line]


def test_an_id_that_a_foreign_key_refers_to_stays_and_the_doctor_says_so(host: MigratingHost):
    make_table(host, "utf8mb4_general_ci")
    refers = f"task VARCHAR(36) COLLATE utf8mb4_general_ci REFERENCES {TASKS} (task_id)"
    host.execute(f"CREATE TABLE notes (id INTEGER PRIMARY KEY, {refers})")

    planned = host.app.test_cli_runner().invoke(args=["webhook", "migrations", "plan"]).output
    host.upgrade()

    assert collation_of(host) == "utf8mb4_general_ci"
    assert "compared by utf8mb4_general_ci, since a foreign key uses it" in planned
    assert f"{TASKS}.task_id compares by utf8mb4_general_ci" in doctor(host)


def test_what_would_be_doubled_stays_as_it_is_on_the_way_back(host: MigratingHost):
    make_table(host, "utf8mb4_general_ci")
    host.upgrade()
    host.execute(f"INSERT INTO {TASKS} (task_id, status) VALUES ('job-E', 'done')")

    host.downgrade("base")

    assert collation_of(host) == "utf8mb4_bin"
    assert [row["task_id"] for row in host.rows(f"SELECT task_id FROM {TASKS} ORDER BY id")] == ["job-e", "job-E"]
