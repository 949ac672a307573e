"""A database that ends the transaction of an event by an error: a handler that hides it hides nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.creators import Job, Report
from flask_contenthub_webhook.signals import task_completed
from tests.support.database_drivers import MARIADB_DRIVERS, MYSQL_CONNECTOR, POSTGRES_DRIVERS, through, through_mysql
from tests.support.host import Host, completed
from tests.support.mariadb import NO_MARIADB, PROGRAM, MariaDBServer
from tests.support.own_words import OPTIONS
from tests.support.submission import OPEN, own, submit, sweep, with_own_creator

Build = Callable[..., Host]
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


@pytest.fixture(params=[*MARIADB_DRIVERS, *POSTGRES_DRIVERS])
def server_host(request: pytest.FixtureRequest, hosts: Build) -> Host:
    """A host with a table of counters, through each driver of a database server."""
    if request.param in MARIADB_DRIVERS:
        host = hosts(through_mysql(request.getfixturevalue("mariadb_url"), request.param))
    else:
        host = hosts(through(request.getfixturevalue("postgres_url"), request.param))
    add_counters(host)
    return host


@pytest.fixture(params=MARIADB_DRIVERS)
def mariadb_host(request: pytest.FixtureRequest, hosts: Build, mariadb_url: str) -> Host:
    host = hosts(through_mysql(mariadb_url, request.param))
    add_counters(host)
    return host


def add_counters(host: Host) -> None:
    with host.engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)"))
        connection.execute(sa.text("INSERT INTO counters VALUES (1, 0), (2, 0)"))


def count(connection: Any, row: int) -> None:
    connection.execute(sa.text("UPDATE counters SET value = value + 1 WHERE id = :row"), {"row": row})


def counted(host: Host) -> list[int]:
    with host.engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT value FROM counters ORDER BY id")))


@contextlib.contextmanager
def plainly(host: Host) -> Iterator[None]:
    """Hide an error as a careless handler does."""
    with contextlib.suppress(sa.exc.SQLAlchemyError):
        yield


@contextlib.contextmanager
def in_a_savepoint(host: Host) -> Iterator[None]:
    """Hide an error as our own message advises."""
    with contextlib.suppress(sa.exc.SQLAlchemyError), host.db.session.begin_nested():
        yield


def connect_once(host: Host, hide: Any, trouble: Callable[[], None]) -> list[str]:
    """Connect a handler that runs into trouble the first time, hides it, and goes on."""
    runs: list[str] = []

    def handler(app: Any, *, task: Any, **extra: Any) -> None:
        runs.append(task.task_id)
        with hide(host):
            if len(runs) == 1:
                trouble()
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            host.db.session.execute(sa.insert(host.Content).values(task_id=task.task_id, body="later"))

    host.connect(task_completed, handler)
    return runs


def assert_applied_once(host: Host, task_id: str, runs: list[str]) -> None:
    answer = host.post(task_id, completed(task_id))
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert host.post(task_id, completed(task_id)).status_code == 200
    assert host.task(task_id).status == "completed"
    assert [row.verdict for row in host.deliveries()] == ["processed", "duplicate"]
    assert host.contents().count("later") == 1
    assert runs == [task_id, task_id]  # the second time with everything that the first one had to do


@pytest.mark.parametrize("hide", [plainly, in_a_savepoint])
def test_a_deadlock_that_a_handler_hides_runs_the_event_again(mariadb_host: Host, hide: Any) -> None:
    host, task_id = mariadb_host, mariadb_host.add_task()
    holds = threading.Event()

    def other() -> None:  # InnoDB rolls back the transaction that has changed less: not this one
        with host.engine.begin() as connection:
            rows = ", ".join(f"({number}, 0)" for number in range(10, 500))
            connection.execute(sa.text(f"INSERT INTO counters VALUES {rows}"))
            count(connection, 2)
            holds.set()
            count(connection, 1)

    thread = threading.Thread(target=other)

    def deadlock() -> None:
        count(host.db.session, 1)
        thread.start()
        assert holds.wait(30)
        count(host.db.session, 2)

    assert_applied_once(host, task_id, connect_once(host, hide, deadlock))
    thread.join(30)
    assert counted(host)[:2] == [1, 1]  # of the other transaction alone


def test_a_row_that_changes_after_a_handler_read_it_is_changed_all_the_same(mariadb_host: Host) -> None:
    """With innodb_snapshot_isolation, the default of newer servers, REPEATABLE READ answers with error 1020."""
    host, task_id = mariadb_host, mariadb_host.add_task()

    def read_what_changes(app: Any, **extra: Any) -> None:
        session = host.db.session
        session.execute(sa.text("SET SESSION innodb_snapshot_isolation = ON"))
        session.execute(sa.text("SELECT * FROM counters")).all()
        with host.engine.begin() as other:
            count(other, 1)
        count(session, 1)

    host.connect(task_completed, read_what_changes)

    assert host.post(task_id, completed(task_id)).status_code == 200
    assert counted(host) == [2, 0]


@pytest.mark.parametrize("hide", [plainly, in_a_savepoint])
def test_a_connection_that_is_lost_runs_the_event_again(server_host: Host, hide: Any) -> None:
    host, task_id = server_host, server_host.add_task()
    on_mariadb = host.engine.dialect.name == "mysql"
    own, end = ("connection_id()", "KILL {}") if on_mariadb else ("pg_backend_pid()", "SELECT pg_terminate_backend({})")

    def lose() -> None:
        session = host.db.session
        number = session.execute(sa.text(f"SELECT {own}")).scalar_one()
        with host.engine.begin() as other:
            other.execute(sa.text(end.format(number)))
        session.execute(sa.text("SELECT count(*) FROM counters")).all()
        session.execute(sa.text("SELECT count(*) FROM counters")).all()  # some servers answer once more

    assert_applied_once(host, task_id, connect_once(host, hide, lose))


@pytest.mark.on("mariadb")
@pytest.mark.parametrize("rolls_back", [False, True])
def test_a_lock_that_a_handler_gave_up_waiting_for(hosts: Build, rolls_back: bool) -> None:
    """Without innodb_rollback_on_timeout the transaction goes on, and the handler may do so."""
    if PROGRAM is None:
        pytest.skip(NO_MARIADB)
    with MariaDBServer(settings={"innodb-rollback-on-timeout": str(int(rolls_back))}) as server:
        host = hosts(server.create_database())
        add_counters(host)
        task_id = host.add_task()
        with host.engine.connect() as other:
            count(other, 1)

            def wait() -> None:
                host.db.session.execute(sa.text("SET SESSION innodb_lock_wait_timeout = 1"))
                try:
                    count(host.db.session, 1)
                finally:
                    other.rollback()

            runs = connect_once(host, in_a_savepoint, wait)
            answer = host.post(task_id, completed(task_id))
            assert answer.status_code == (500 if rolls_back else 200), answer.get_data(as_text=True)
        assert host.task(task_id).status == ("submitted" if rolls_back else "completed")
        assert host.contents().count("later") == (0 if rolls_back else 1)
        assert len(runs) == 1
        assert [row.verdict for row in host.deliveries()] == ["failed" if rolls_back else "processed"]
        host.close()


COMMITTING = [
    "CREATE TABLE made (id INTEGER)",
    "/* a comment */ alter table counters add column more integer",
    "DROP TABLE counters",
    "TRUNCATE TABLE counters",
    "START TRANSACTION",
    "begin",
    "SET autocommit = 1",
    "SET SESSION autocommit = 1",
    "LOCK TABLES counters WRITE",
    "ANALYZE TABLE counters",
]


@pytest.mark.parametrize("statement", COMMITTING)
def test_a_statement_before_which_the_server_commits_is_refused(mariadb_host: Host, statement: str) -> None:
    host, task_id = mariadb_host, mariadb_host.add_task()

    def change_tables(app: Any, **extra: Any) -> None:
        host.db.session.execute(sa.text(statement))

    host.connect(task_completed, change_tables)

    assert host.post(task_id, completed(task_id)).status_code == 500
    assert host.task(task_id).status == "submitted"
    assert host.contents() == []
    (row,) = host.deliveries()
    assert (row.verdict, "commit" in row.error) == ("failed", True)


def test_a_temporary_table_is_a_handler_s_own_matter(mariadb_host: Host) -> None:
    host, task_id = mariadb_host, mariadb_host.add_task()

    def reckon(app: Any, **extra: Any) -> None:
        host.db.session.execute(sa.text("CREATE TEMPORARY TABLE reckoned (id INTEGER)"))
        host.db.session.execute(sa.text("DROP TEMPORARY TABLE reckoned"))

    host.connect(task_completed, reckon)

    assert host.post(task_id, completed(task_id)).status_code == 200
    assert host.task(task_id).status == "completed"


@pytest.mark.parametrize("driver", [*MARIADB_DRIVERS, MYSQL_CONNECTOR])
def test_an_engine_in_autocommit_keeps_all_or_nothing(hosts: Build, mariadb_url: str, driver: str) -> None:
    host = hosts(through_mysql(mariadb_url, driver), engine_options=AUTOCOMMIT)
    task_id = host.add_task()
    host.publisher.broken = True

    assert host.post(task_id, completed(task_id)).status_code == 500
    assert host.task(task_id).status == "submitted"
    assert host.contents() == []


def test_in_autocommit_two_sweeps_submit_no_task_twice(hosts: Build, server_url: str) -> None:
    """The lock that one of them takes in a first statement must hold until its second."""
    host = with_own_creator(hosts(server_url, engine_options=AUTOCOMMIT, **OPTIONS))
    submit(host)
    threads: list[threading.Thread] = []
    is_submitting, may_go_on = threading.Event(), threading.Event()

    def other() -> None:
        sweep(host)
        is_submitting.set()

    def wait(_: Job) -> Report:
        if threading.current_thread() in threads:
            is_submitting.set()
            may_go_on.wait(10)
        return OPEN

    @sa.event.listens_for(host.engine, "before_cursor_execute")
    def overtake(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        if "UPDATE content_generation_tasks" in statement and not threads:
            threads.append(threading.Thread(target=other))
            threads[0].start()
            assert is_submitting.wait(10)

    own(host).on_submit = wait
    sweep(host)
    may_go_on.set()
    threads[0].join(10)

    assert own(host).calls.count("submit") == 1
