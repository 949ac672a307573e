"""Every `-x contenthub_...` and variable of the environment is heard, and nonsense is refused in words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.util import CommandError

from tests.migration import old_contenthub
from tests.migration.hosts import MigratingHost

TASKS = "content_generation_tasks"
OPTIONS = {"lock_timeout": "1", "patience": "0", "batch": "1", "pause": "0"}
"""By name: the least value."""


@pytest.fixture(params=["sqlite_url", "postgres_url", "mariadb_url"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> MigratingHost:
    host = MigratingHost(tmp_path, request.getfixturevalue(request.param), models=old_contenthub.models)
    host.write_revision("0001", None, old_contenthub.CREATE, old_contenthub.DROP)
    host.upgrade()
    old_contenthub.fill(host, 20)
    host.install()
    return host


@pytest.fixture
def postgres_host(tmp_path: Path, postgres_url: str) -> MigratingHost:
    host = MigratingHost(tmp_path, postgres_url)
    host.install()
    return host


# --- times and sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("contenthub_batch=many", "-x contenthub_batch is 'many', and not a number of rows from 1 to"),
        ("contenthub_batch=0", "-x contenthub_batch is '0'"),
        ("contenthub_batch=", "-x contenthub_batch is ''"),
        ("contenthub_batch", "-x contenthub_batch is ''"),
        ("contenthub_lock_timeout=-1", "-x contenthub_lock_timeout is '-1', and not a number of milliseconds from 1"),
        ("contenthub_lock_timeout=2s", "-x contenthub_lock_timeout is '2s'"),
        ("contenthub_patience=1.5", "-x contenthub_patience is '1.5'"),
        ("contenthub_patience=99999999999", "-x contenthub_patience is '99999999999'"),
        ("contenthub_pause=²", "-x contenthub_pause is '²'"),
        ("contenthub_locktimeout=500", "-x contenthub_locktimeout is not known here. Nothing was changed. There are: "),
    ],
)
def test_nonsense_is_refused_before_anything_changes(host: MigratingHost, said: str, words: str):
    schema = host.schema()

    with pytest.raises(CommandError, match=words.replace("(", "\\(")):
        host.upgrade(x=[said])

    assert host.schema() == schema


def test_a_downgrade_refuses_it_too(host: MigratingHost):
    host.upgrade()
    schema = host.schema()

    for target in ("contenthub0002", "0001"):
        with pytest.raises(CommandError, match="contenthub_batch is '0'"):
            host.downgrade(target, x=["contenthub_batch=0"])

    assert host.schema() == schema


@pytest.mark.parametrize("option", OPTIONS)
def test_the_environment_is_heard_and_minded_as_well(host: MigratingHost, monkeypatch: pytest.MonkeyPatch, option: str):
    variable = f"CONTENTHUB_{option.upper()}"
    monkeypatch.setenv(variable, "soon")
    with pytest.raises(CommandError, match=f"{variable} is 'soon', and not a number of"):
        host.upgrade()
    planned = host.app.test_cli_runner().invoke(args=["webhook", "migrations", "plan"])
    assert (planned.exit_code, f"{variable} is 'soon'" in planned.output) == (1, True)

    host.upgrade(x=[f"contenthub_{option}={OPTIONS[option]}"])  # which comes first

    host.check()


def test_options_of_others_are_theirs(host: MigratingHost):
    host.upgrade(x=["tenant=1", "contenthub=yes", "batch=0"])

    host.check()


def test_no_transaction_fills_more_rows_than_the_batch(tmp_path: Path, postgres_url: str):
    host = MigratingHost(tmp_path, postgres_url)
    host.execute(f"CREATE TABLE {TASKS} (id SERIAL PRIMARY KEY, status VARCHAR(20))")
    host.execute(f"INSERT INTO {TASKS} (status) SELECT 'done' FROM generate_series(1, 20)")
    host.install()
    sizes: list[int] = []

    def count(_connection: object, cursor: sa.engine.interfaces.DBAPICursor, statement: str, *_: object) -> None:
        if statement.startswith(f"UPDATE {TASKS} "):
            sizes.append(cursor.rowcount)

    sa.event.listen(host.engine, "after_cursor_execute", count)
    host.upgrade(x=["contenthub_batch=3"])

    assert max(sizes) == 3
    assert sum(sizes) >= 20


def test_it_pauses_between_the_batches(tmp_path: Path, postgres_url: str):
    host = MigratingHost(tmp_path, postgres_url)
    host.execute(f"CREATE TABLE {TASKS} (id SERIAL PRIMARY KEY, status VARCHAR(20))")
    host.execute(f"INSERT INTO {TASKS} (status) SELECT 'done' FROM generate_series(1, 10)")
    host.install()

    began = time.monotonic()
    host.upgrade(x=["contenthub_batch=2", "contenthub_pause=400"])

    assert time.monotonic() - began > 5 * 0.4


def test_a_lock_is_waited_for_as_long_as_was_said(postgres_host: MigratingHost):
    host, said = postgres_host, list[str]()
    host.execute(f"CREATE TABLE {TASKS} (id SERIAL PRIMARY KEY, status VARCHAR(20))")
    sa.event.listen(host.engine, "before_cursor_execute", lambda *args: said.append(args[2]))

    host.upgrade(x=["contenthub_lock_timeout=321"])

    assert {each for each in said if "lock_timeout = '" in each} == {
        "SET lock_timeout = '321ms'",
        "SET LOCAL lock_timeout = '321ms'",
        "SET lock_timeout = '10s'",
        "SET LOCAL lock_timeout = '10s'",
    }


# --- the columns of the table, for --sql -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "'' in -x contenthub_tasks is not understood"),
        ("id,,status", "'' in -x contenthub_tasks is not understood"),
        ("id,status:", "'status:' in -x contenthub_tasks is not understood"),
        ("id,:text", "':text' in -x contenthub_tasks is not understood"),
        ("id,status:varchar(20):text", "'status:varchar\\(20\\):text' in -x contenthub_tasks is not understood"),
        ("id,status,status", "'status' in -x contenthub_tasks is not understood. Name each column .* once"),
        ("status,task_id", "names no column id, the primary key"),
        ("id,status:word", "'word' in -x contenthub_tasks is not a type that is known here: bigint, integer"),
        ("id,status:varchar(x)", "'varchar\\(x\\)' in -x contenthub_tasks is not a type"),
        ("id,status:varchar(20", "'varchar\\(20' in -x contenthub_tasks is not a type"),
        ("id,task_id:integer", "task_id is Integer\\(\\) and not String"),
        ("id,created_at:date", "created_at is Date\\(\\) and not DateTime"),
    ],
)
def test_columns_that_are_not_understood_are_refused(postgres_host: MigratingHost, said: str, words: str):
    for direction, target in (("upgrade", "head"), ("downgrade", "contenthub0003:base")):
        with pytest.raises(CommandError, match=words):
            postgres_host.sql(direction, target, f"contenthub_tasks={said}")


@pytest.mark.parametrize(
    ("column", "statement"),
    [
        ("id:integer", None),
        ("id:bigint", None),
        ("id:int", None),
        ("priority:smallint", None),
        ("priority:integer", None),
        ("topic:text", None),
        ("topic:varchar(30)", None),
        ("topic:character varying(30)", None),
        ("task_id:varchar(20)", "ALTER task_id TYPE VARCHAR(36)"),
        ("status:varchar(20)", None),
        ("status:VARCHAR( 20 )", None),
        ("status:varchar", None),
        ("status:enum", "ALTER status DROP DEFAULT, ALTER status TYPE VARCHAR(16) USING status::text"),
        ("auto_approve:boolean", None),
        ("keywords:json", None),
        ("keywords:jsonb", None),
        ("progress_percentage:double precision", None),
        ("progress_percentage:float", "ALTER progress_percentage TYPE DOUBLE PRECISION"),
        ("progress_percentage:numeric(5, 2)", "ALTER progress_percentage TYPE DOUBLE PRECISION"),
        ("created_at:timestamp", None),
        ("created_at:timestamp(3)", None),
        ("created_at:timestamp without time zone", None),
        ("created_at:timestamptz", None),
        ("created_at:timestamp with time zone", None),
        ("next_poll_at:timestamp", "ALTER next_poll_at TYPE TIMESTAMP WITH TIME ZONE"),
    ],
)
def test_a_type_that_is_named_is_changed_only_where_it_must_be(
    postgres_host: MigratingHost, column: str, statement: str | None
):
    named = "" if column.startswith("id:") else "id,"

    sql = postgres_host.sql("upgrade", "contenthub0001", f"contenthub_tasks={named}{column},account_id")

    types = [line for line in sql.splitlines() if " TYPE " in line]
    assert types == ([] if statement is None else [f"ALTER TABLE {TASKS} {statement};"])
    assert f"ADD COLUMN {column.partition(':')[0]} " not in sql


def test_a_column_that_is_never_empty_is_not_looked_at(postgres_host: MigratingHost):
    sql = postgres_host.sql(
        "upgrade", "head", "contenthub_tasks=id,task_id:varchar(36) not null,priority NOT NULL,status"
    )

    assert "SET NOT NULL" in sql
    assert not {"task_id", "priority"} & {line.split()[4] for line in sql.splitlines() if "SET NOT NULL" in line}
    assert "contenthub_status_given" in sql
    assert "contenthub_task_id_given" not in sql
