"""Trouble of the database itself: a restart, a standby, an engine that commits each statement by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.cli.checks import DoctorContext, Level
from flask_contenthub_webhook.cli.checks.transactions import check_transactions
from tests.support.database_drivers import POSTGRES_DRIVERS, through
from tests.support.host import BrokenHandler, Host, completed, make_host

Build = Callable[..., Host]
AUTOCOMMIT = [{"isolation_level": "AUTOCOMMIT"}, {"execution_options": {"isolation_level": "AUTOCOMMIT"}}]


@pytest.fixture(params=POSTGRES_DRIVERS)
def url(request: pytest.FixtureRequest, postgres_url: str) -> str:
    make_host(postgres_url).close()
    return through(postgres_url, request.param)


@pytest.mark.parametrize("driver", [*POSTGRES_DRIVERS, "pymysql"])
@pytest.mark.parametrize("way", ["inline", "worker", "a batch", "a sweep", "a replay"])
def test_the_first_request_after_a_restart_finds_a_new_connection(
    hosts: Build, server_of: Callable[[str], Any], driver: str, way: str
):
    server = server_of("mariadb" if driver == "pymysql" else "postgresql")
    url = server.create_database()
    make_host(url).close()
    if driver in POSTGRES_DRIVERS:
        url = through(url, driver)
    host = hosts(
        url, create_tables=False, WEBHOOK_PROCESSING="worker" if way in {"worker", "a batch", "a sweep"} else "inline"
    )
    task_id = host.add_task()
    if way == "a sweep":
        host.post(task_id, completed(task_id), attempt=1)
    if way == "a replay":
        host.publisher.broken = True
        host.post(task_id, completed(task_id), attempt=1)
        host.publisher.broken = False
    kept = [row.id for row in host.deliveries()]
    fill_the_pool(host)
    with server.outage("fast"):
        pass

    if way == "a sweep":
        assert (host.retry().outcomes, len(host.contents())) == ({"processed": 1}, 1)
    elif way == "a replay":
        assert host.replay(kept[0]).verdict == "processed"
    elif way == "a batch":
        answer = host.post_batch([completed(task_id)], scheme="contenthub")
        assert [item["success"] for item in answer.get_json()["results"]] == [True]
    else:
        assert host.post(task_id, completed(task_id), attempt=1).status_code in {200, 202}


def test_a_standby_that_takes_no_writes_is_left_behind(hosts: Build, url: str):
    """Its pooled connections go on leading to it after the address has moved to the new primary."""
    host = hosts(url, create_tables=False)
    task_id = host.add_task()
    name = host.engine.url.database
    with host.engine.connect() as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        connection.commit()
    host.engine.dispose()
    fill_the_pool(host)
    with host.engine.connect() as connection:
        connection.exec_driver_sql("SET TRANSACTION READ WRITE")
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        connection.commit()

    answers = [host.post(task_id, completed(task_id), attempt=1) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [503, 200]
    assert answers[0].get_json()["error"]["code"] == "database_unavailable"


def fill_the_pool(host: Host) -> None:
    connections = [host.engine.connect() for _ in range(3)]
    for connection in connections:
        connection.exec_driver_sql("SELECT 1")
        connection.close()


@pytest.mark.parametrize("options", AUTOCOMMIT, ids=["the engine", "its options"])
def test_an_engine_in_autocommit_keeps_no_half_effect(hosts: Build, url: str, options: dict[str, Any]):
    host = hosts(url, create_tables=False, engine_options=options)
    task_id = host.add_task()
    broken = [True]

    def handler(app: Flask, *, task: Any, **extra: Any) -> None:
        host.db.session.add(host.Content(task_id=task.task_id, body="half"))
        host.db.session.flush()
        if broken:
            raise BrokenHandler("broken")

    host.connect(task_completed, handler)
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 500
    assert (host.task(task_id).status, host.contents()) == ("submitted", [])

    broken.clear()
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    assert (host.task(task_id).status, len(host.contents())) == ("completed", 2)
    with host.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        assert driver.autocommit is True  # the host finds its engine as it made it
    with host.app.app_context():
        (finding,) = check_transactions(DoctorContext(host.state, None))
    assert (finding.level, "AUTOCOMMIT" in finding.message) == (Level.WARN, True)


@pytest.mark.parametrize("options", AUTOCOMMIT, ids=["the engine", "its options"])
def test_sqlite_in_autocommit_keeps_no_half_effect(hosts: Build, sqlite_url: str, options: dict[str, Any]):
    host = hosts(sqlite_url, engine_options=options)
    task_id = host.add_task()
    host.publisher.broken = True
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 500
    assert (host.task(task_id).status, host.contents()) == ("submitted", [])


def test_the_doctor_has_nothing_to_say_of_other_engines(host: Host):
    with host.app.app_context():
        assert check_transactions(DoctorContext(host.state, None)) == []
