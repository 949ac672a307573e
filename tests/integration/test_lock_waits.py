"""Waits for locks on MariaDB: as long as WEBHOOK_TIMEOUT for us, and as long as its own setting for the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.signals import task_completed
from tests.support.database_drivers import MARIADB_DRIVERS, through_mysql
from tests.support.host import Host, completed, failed
from tests.support.mariadb import MariaDBServer

Build = Callable[..., Host]
LONGEST = 20
"""Seconds that nothing here may wait; the server's own setting is 50."""
ONE_CONNECTION = {"pool_size": 1, "max_overflow": 0}
OWN = "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout"


@pytest.fixture(params=MARIADB_DRIVERS)
def host(request: pytest.FixtureRequest, hosts: Build, mariadb_url: str) -> Host:
    return hosts(through_mysql(mariadb_url, request.param), WEBHOOK_TIMEOUT=1)


@pytest.fixture
def other(host: Host) -> Iterator[sa.Connection]:
    with host.engine.connect() as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("event", [completed, failed])
def test_a_locked_task_is_answered_in_time(host: Host, other: sa.Connection, event: Any) -> None:
    task_id = host.add_task()
    other.execute(sa.text("SELECT * FROM content_generation_tasks FOR UPDATE")).all()

    began = time.monotonic()
    answer = host.post(task_id, event(task_id))

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "database_unavailable")
    assert time.monotonic() - began < LONGEST
    other.rollback()
    assert host.post(task_id, event(task_id)).status_code == 200


def test_a_locked_table_is_answered_in_time(host: Host, other: sa.Connection) -> None:
    task_id = host.add_task()
    other.exec_driver_sql("LOCK TABLES content_generation_tasks READ")

    began = time.monotonic()
    answer = host.post(task_id, completed(task_id))

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "database_unavailable")
    assert time.monotonic() - began < LONGEST
    other.exec_driver_sql("UNLOCK TABLES")
    assert host.post(task_id, completed(task_id)).status_code == 200


def test_a_handler_that_waits_is_ended_in_time(host: Host, other: sa.Connection) -> None:
    task_id, locked = host.add_task(), host.add_task()
    statement = sa.text("UPDATE content_generation_tasks SET topic = 'x' WHERE task_id = :task_id")
    other.execute(statement, {"task_id": locked})
    host.connect(task_completed, lambda app, **extra: host.db.session.execute(statement, {"task_id": locked}))

    began = time.monotonic()
    answer = host.post(task_id, completed(task_id))

    assert answer.status_code == 500
    assert time.monotonic() - began < LONGEST
    assert host.task(task_id).status == "submitted"


def test_the_host_keeps_its_own_setting(hosts: Build, mariadb_url: str) -> None:
    """Through the same pooled connection, with a setting of its own for each session."""
    options = {
        **ONE_CONNECTION,
        "connect_args": {"init_command": "SET SESSION innodb_lock_wait_timeout = 33, SESSION lock_wait_timeout = 44"},
    }
    host = hosts(mariadb_url, WEBHOOK_TIMEOUT=7, engine_options=options)
    task_id, seen = host.add_task(), []
    host.connect(task_completed, lambda app, **extra: seen.append(tuple(host.db.session.execute(sa.text(OWN)).one())))

    for _ in range(2):
        task_id = host.add_task()
        assert host.post(task_id, completed(task_id)).status_code == 200
        with host.engine.connect() as connection:
            seen.append(tuple(connection.execute(sa.text(OWN)).one()))

    assert seen == [(7, 7), (33, 44), (7, 7), (33, 44)]


def test_callbacks_alone_cost_no_statement_for_it(hosts: Build, mariadb_url: str) -> None:
    host = hosts(mariadb_url, engine_options=ONE_CONNECTION)
    tasks = [host.add_task() for _ in range(3)]
    host.post(tasks[0], completed(tasks[0]))

    with host.statements() as statements:
        for task_id in tasks[1:]:
            assert host.post(task_id, completed(task_id)).status_code == 200

    assert not [statement for statement in statements if statement.startswith("SET")]


def test_a_shorter_setting_of_the_host_s_stays(hosts: Build, mariadb_url: str) -> None:
    host = hosts(mariadb_url, engine_options={"connect_args": {"init_command": "SET SESSION lock_wait_timeout = 2"}})
    task_id, seen = host.add_task(), []
    host.connect(task_completed, lambda app, **extra: seen.append(tuple(host.db.session.execute(sa.text(OWN)).one())))

    host.post(task_id, completed(task_id))

    assert seen == [(10, 2)]


def test_a_pooled_connection_that_was_lost_meanwhile_is_replaced_for_the_host(
    hosts: Build, mariadb: MariaDBServer, mariadb_url: str
) -> None:
    host = hosts(mariadb_url, engine_options=ONE_CONNECTION)
    task_id = host.add_task()
    host.post(task_id, completed(task_id))

    with mariadb.outage():
        pass

    with host.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_our_isolation_is_set_wherever_sqlalchemy_resets_the_host_s(hosts: Build, mariadb_url: str) -> None:
    """It sets an isolation of the engine's options at each check-out, and takes it back at each check-in."""
    options = {**ONE_CONNECTION, "execution_options": {"isolation_level": "REPEATABLE READ"}}
    host = hosts(mariadb_url, engine_options=options)
    seen, isolation = [], sa.text("SELECT @@tx_isolation")

    with host.app.app_context():
        for is_ours in (True, True, True, False, True):
            with host.state.database.begin() if is_ours else host.engine.connect() as connection:
                seen.append(connection.scalar(isolation))

    assert seen == [*["READ-COMMITTED"] * 3, "REPEATABLE-READ", "READ-COMMITTED"]
