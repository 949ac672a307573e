"""Databases, tables and connections in other encodings than UTF-8: made right, refused with words, or told."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook import task_completed
from tests.cli.conftest import run_json
from tests.support.database_drivers import MARIADB_DRIVERS, MYSQL_CONNECTOR, POSTGRES_DRIVERS, through, through_mysql
from tests.support.host import Host, completed, failed
from tests.support.mariadb import MariaDBServer
from tests.support.postgres import PostgresServer

Build = Callable[..., Host]
WIDE = "中文 é 🚀"
TEXTS = {
    "content_generation_tasks": ("topic", "requirements", "error_message", "tone", "target_audience"),
    "webhook_deliveries": ("reason", "error"),
}


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
def test_a_postgresql_in_another_encoding_is_refused_with_words(
    postgres: PostgresServer, hosts: Build, driver: str, encoding: str
) -> None:
    url = postgres.create_database(encoding=encoding)
    hosts(through(url, "psycopg2")).close()
    # Under SQL_ASCII, SQLAlchemy itself needs to be told in what psycopg shall talk.
    told = "&client_encoding=utf8" if driver == "psycopg" else ""
    host = hosts(through(url, driver) + told, create_tables=False)
    for _ in range(2):
        answer = host.post("any", completed("any", WIDE))
        assert answer.status_code == 503
        assert answer.json is not None
        message = answer.json["error"]["message"]
        assert f"is encoded in {encoding}" in message
        assert "ENCODING 'UTF8'" in message
    found = {f["check"]: f for f in run_json(host, "doctor")["findings"] if f["level"] == "fail"}
    assert f"is encoded in {encoding}" in found["server"]["message"]
    host.close()
    postgres.drop_database(url)


@pytest.mark.parametrize(
    ("driver", "charset"),
    [*itertools.product(MARIADB_DRIVERS, ("latin1", "utf8mb3")), (MYSQL_CONNECTOR, "latin1")],
)
def test_our_tables_hold_every_text_in_a_database_that_does_not(
    mariadb: MariaDBServer, hosts: Build, driver: str, charset: str
) -> None:
    """The connection's character set, which the driver writes in, is ours while we use it, and the host's again."""
    url, own = mariadb.create_database(charset=charset), f"{charset}_bin"
    talk = sa.make_url(through_mysql(url, driver)).difference_update_query(["charset", "collation"])
    talk = talk.update_query_dict({"charset": charset.removesuffix("mb3")})
    if driver == MYSQL_CONNECTOR:
        talk = talk.update_query_dict({"collation": "latin1_swedish_ci"})
    host = hosts(talk.render_as_string(hide_password=False))
    host.publisher.content = lambda **values: host.Content(**values | {"body": "x"})  # type: ignore[assignment]
    sa.event.listen(host.engine, "connect", lambda made, _: made.cursor().execute(f"SET collation_connection = {own}"))
    host.engine.dispose()
    task_id, other = host.add_task(), host.add_task()
    assert host.post(task_id, completed(task_id, WIDE)).status_code == 200
    assert host.post(other, failed(other, WIDE)).status_code == 200
    with host.state.database.read() as tx:
        assert host.state.store.read_task(tx, other)["error_message"] == WIDE  # type: ignore[index]
        assert host.state.store.read_task(tx, task_id)["result"]["content"] == WIDE  # type: ignore[index]
    with host.engine.connect() as connection:
        both = connection.exec_driver_sql("SELECT @@character_set_client, @@collation_connection").one()
    assert tuple(both) == (charset, own)
    found = {f["message"] for f in run_json(host, "doctor")["findings"] if f["check"] == "server"}
    assert any(f"sessions talk {charset}" in message for message in found)
    host.close()
    mariadb.drop_database(url)


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3"])
def test_columns_of_before_are_named_at_the_first_use_and_events_outside_them_are_parked(
    mariadb_url: str, hosts: Build, caplog: pytest.LogCaptureFixture, charset: str
) -> None:
    host = hosts(mariadb_url, WEBHOOK_RETRY_BACKOFF=[10])
    with host.engine.begin() as connection:
        for table, columns in TEXTS.items():
            for column in columns:
                connection.execute(sa.text(f"ALTER TABLE {table} MODIFY {column} TEXT CHARACTER SET {charset}"))
    task_id, other = host.add_task(), host.add_task()
    with caplog.at_level(logging.ERROR):
        assert host.post(task_id, failed(task_id, WIDE)).status_code == 500
    (said,) = [r.getMessage() for r in caplog.records if "content_generation_tasks" in r.getMessage()]
    assert f"(topic, requirements, target_audience, tone, error_message in {charset})" in said
    assert "CONVERT TO CHARACTER SET utf8mb4" in said

    host.clock.advance(20)
    host.retry()
    (row,) = host.deliveries()
    assert row.verdict == "dead"
    assert host.task(task_id).status == "submitted"
    assert host.post(other, completed(other, WIDE)).status_code == 200  # JSON has a character set of its own
    assert host.task(other).result["content"] == WIDE

    found = [f for f in run_json(host, "doctor")["findings"] if f["level"] == "fail" and f["check"] == "server"]
    assert [name for f in found for name in TEXTS if f"The table {name} " in f["message"]] == list(TEXTS)


def test_an_error_that_does_not_fit_is_kept_in_escapes(mariadb_url: str, hosts: Build) -> None:
    host = hosts(mariadb_url)
    with host.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE webhook_deliveries MODIFY error TEXT CHARACTER SET latin1"))

    def handler(app: Any, **extra: Any) -> None:
        raise ValueError(WIDE)

    host.connect(task_completed, handler)
    task_id = host.add_task()
    assert host.post(task_id, completed(task_id)).status_code == 500
    (row,) = host.deliveries()
    assert row.error.endswith(r"ValueError: \u4e2d\u6587 \xe9 \U0001f680")


@pytest.mark.parametrize("driver", MARIADB_DRIVERS)
def test_nothing_is_cut_off_without_a_strict_mode(mariadb_url: str, hosts: Build, driver: str) -> None:
    strict_off = {"connect_args": {"init_command": "SET SESSION sql_mode = ''"}}
    host = hosts(through_mysql(mariadb_url, driver), engine_options=strict_off)
    with host.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE content_generation_tasks MODIFY error_message VARCHAR(10)"))
    task_id = host.add_task()
    assert host.post(task_id, failed(task_id, "a message of more than ten characters")).status_code == 500
    with host.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT @@sql_mode").scalar_one() == ""
    found = {f["message"] for f in run_json(host, "doctor")["findings"] if f["check"] == "server"}
    assert any("sql_mode is not strict" in message for message in found)


@pytest.mark.parametrize(("levels", "verdicts"), [(30, ["processed"]), (40, ["dead"])])
def test_json_that_is_too_deep_for_mariadb_is_parked(
    mariadb_url: str, hosts: Build, levels: int, verdicts: list[str]
) -> None:
    host = hosts(mariadb_url, WEBHOOK_RETRY_BACKOFF=[10])
    task_id = host.add_task()
    deep: Any = "x"
    for _ in range(levels):
        deep = [deep]
    host.post(task_id, completed(task_id, result={"content": "x", "deep": deep}))
    host.clock.advance(20)
    host.retry()
    assert [row.verdict for row in host.deliveries()] == verdicts
