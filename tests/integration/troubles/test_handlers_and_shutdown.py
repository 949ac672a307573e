"""What a handler raises is its event's; a shutdown that happens to come while it runs is not."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_contenthub_webhook import delivery_processed, task_completed
from tests.integration.troubles.conftest import DRIVERS, kind_of, url_through
from tests.support.databases import FIXTURES
from tests.support.host import Host, completed, make_host

Build = Callable[..., Host]


@pytest.fixture
def on_usr1() -> Iterator[Callable[..., Any]]:
    """A function that installs a handler of SIGUSR1, as servers do for the signals of their shutdown."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda function: signal.signal(signal.SIGUSR1, function)
    signal.signal(signal.SIGUSR1, before)


class Server:
    def handle_abort(self, *_: Any) -> None:
        sys.exit(1)

    __call__ = handle_abort


HANDLERS = {
    "a method": Server().handle_abort,
    "a function": lambda *_: sys.exit(1),
    "a partial": partial(Server().handle_abort),
    "an object": Server(),
}


@pytest.mark.parametrize("handle", HANDLERS.values(), ids=HANDLERS)
@pytest.mark.parametrize("when", ["inside the transaction", "afterwards"])
def test_a_signal_that_ends_the_process_while_a_handler_runs_ends_it(
    sqlite_host: Host, on_usr1: Callable[..., Any], handle: Any, when: str
):
    host, task_id = sqlite_host, sqlite_host.add_task()
    on_usr1(handle)

    def handler(app: Flask, **extra: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        pytest.fail("Nothing was raised.")  # pragma: no cover

    host.connect(task_completed if when == "inside the transaction" else delivery_processed, handler)
    with pytest.raises(SystemExit):
        host.post(task_id, completed(task_id), attempt=1)

    done = when == "afterwards"
    assert (host.task(task_id).status, len(host.deliveries())) == (("completed", 1) if done else ("submitted", 0))


def test_a_handler_whose_body_never_ran_has_failed(sqlite_host: Host):
    host = sqlite_host

    def generator(app: Flask, *, task: Any, **extra: Any) -> Iterator[None]:
        host.db.session.add(host.Content(task_id=task.task_id, body="never"))
        yield

    async def written_async(**extra: Any) -> None: ...

    for handler in (generator, lambda app, **extra: written_async(**extra)):
        task_id = host.add_task()
        with task_completed.connected_to(handler, sender=host.app):
            assert host.post(task_id, completed(task_id), attempt=1).status_code == 500
        assert "has run" in host.deliveries(task_id)[-1].error


def test_ctrl_c_ends_it(sqlite_host: Host):
    host, task_id = sqlite_host, sqlite_host.add_task()

    def handler(app: Flask, **extra: Any) -> None:
        raise KeyboardInterrupt

    host.connect(task_completed, handler)
    with pytest.raises(KeyboardInterrupt):
        host.post(task_id, completed(task_id), attempt=1)
    assert (host.task(task_id).status, host.deliveries()) == ("submitted", [])


def test_sys_exit_after_the_commit_is_not_felt(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []
    host.connect(delivery_processed, lambda app, **extra: sys.exit(3))
    host.connect(delivery_processed, lambda app, *, outcome, **extra: seen.append(outcome))

    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    assert seen == ["processed"]


def test_what_the_drivers_own_commit_kept_is_not_called_applied(host: Host):
    """It cannot be taken back, but it is told."""
    task_id = host.add_task()

    def handler(app: Flask, **extra: Any) -> None:
        driver: Any = host.db.session.connection().connection.dbapi_connection
        driver.commit()

    host.connect(task_completed, handler)
    answer = host.post(task_id, completed(task_id), attempt=1)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (500, "handler_failed")
    assert "ended the transaction" in host.deliveries()[-1].error
    assert host.contents() == []


def test_a_handler_may_roll_back_to_a_savepoint_of_its_own(host: Host):
    task_id = host.add_task()

    def handler(app: Flask, **extra: Any) -> None:
        for statement in ("SAVEPOINT mine", "ROLLBACK TO SAVEPOINT mine", "ROLLBACK TO mine", "RELEASE SAVEPOINT mine"):
            host.db.session.execute(sa.text(statement))

    host.connect(task_completed, handler)
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'it''s; COMMIT', E'\\'; ROLLBACK; '",
        'SELECT 1 AS "; COMMIT"; -- ; COMMIT',
        "DO $$ BEGIN PERFORM 1; END; $$",
        "DO $it$ BEGIN IF false THEN COMMIT; ROLLBACK; END IF; END; $it$",
        "CREATE FUNCTION pg_temp.two() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "SAVEPOINT mine; ROLLBACK TO SAVEPOINT mine; RELEASE mine",
        "/**/" * 40 + "SELECT 1",
    ],
)
def test_a_handler_may_execute_what_only_looks_like_a_commit(postgres_host: Host, statement: str):
    host, task_id = postgres_host, postgres_host.add_task()
    host.connect(task_completed, lambda app, **extra: host.db.session.execute(sa.text(statement)))
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200


def test_a_handler_may_assign_what_a_task_is_and_what_it_was(host: Host):
    task_id = host.add_task()

    def handler(app: Flask, *, task: Any, **extra: Any) -> None:
        task.topic, task.result, task.status = "another", {"kept": "elsewhere"}, task.status
        host.db.session.flush()
        host.db.session.refresh(task)

    host.connect(task_completed, handler)
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    assert (host.task(task_id).topic, host.task(task_id).result) == ("another", {"kept": "elsewhere"})


@pytest.mark.parametrize("database", DRIVERS)
@pytest.mark.parametrize("way", ["inline", "sweep"])
def test_a_row_that_the_database_refuses_is_its_events_failure(
    hosts: Build, request: pytest.FixtureRequest, database: str, way: str
):
    created = request.getfixturevalue(FIXTURES[kind_of(database)])
    make_host(created).close()
    url = url_through(created, database)
    host = hosts(url, create_tables=False, WEBHOOK_PROCESSING="inline" if way == "inline" else "worker")
    tasks = [host.add_task() for _ in range(6)]
    refused = tasks[2]
    with host.engine.begin() as connection:
        for statement in refusing_trigger(database, refused):
            connection.exec_driver_sql(statement)

    codes = [host.post(task_id, completed(task_id), attempt=1).status_code for task_id in tasks]
    if way == "inline":
        assert codes == [200, 200, 500, 200, 200, 200]
    else:
        report = host.retry()
        assert (report.outcomes, report.interrupted) == ({"processed": 5, "failed": 1}, False)
    [row] = host.deliveries(refused)
    assert (row.verdict, row.tries, row.error) == (
        "failed",
        1,
        "a statement of the extension: RowRefused: not this one",
    )
    assert (host.task(refused).status, host.contents(refused)) == ("submitted", [])


def refusing_trigger(database: str, task_id: str) -> list[str]:
    on = "BEFORE UPDATE ON content_generation_tasks FOR EACH ROW"
    when = f"WHEN (NEW.task_id = '{task_id}')"
    if database == "sqlite":
        return [f"CREATE TRIGGER no {on} {when} BEGIN SELECT RAISE(ABORT, 'not this one'); END"]
    if kind_of(database) == "mariadb":
        refuse = "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'"
        return [f"CREATE TRIGGER no {on} IF NEW.task_id = '{task_id}' THEN {refuse}; END IF"]
    act = "RAISE EXCEPTION 'not this one' USING DETAIL = 'secret'"
    return [
        f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {act}; END $$",
        f"CREATE TRIGGER no {on} {when} EXECUTE FUNCTION no()",
    ]


def test_a_deferred_trigger_of_the_host_that_waits_for_a_lock_is_a_failure(postgres_host: Host):
    host, task_id, engine = postgres_host, postgres_host.add_task(), postgres_host.engine
    lock = "PERFORM pg_advisory_xact_lock(1); RETURN NULL"
    event = "AFTER INSERT ON contents DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()"
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {lock}; END $$"
        )
        connection.exec_driver_sql(f"CREATE CONSTRAINT TRIGGER waits {event}")
    host.connect(task_completed, lambda app, **extra: host.db.session.execute(sa.text("SET LOCAL lock_timeout = 20")))

    with engine.begin() as other:
        other.exec_driver_sql("SELECT pg_advisory_xact_lock(1)")
        assert host.post(task_id, completed(task_id), attempt=1).status_code == 500
    [row] = host.deliveries()
    assert (row.verdict, host.task(task_id).status, host.contents()) == ("failed", "submitted", [])
    assert "lock timeout" in row.error


def test_an_error_that_a_session_event_of_the_host_raises_at_the_commit_is_a_failure(host: Host):
    task_id = host.add_task()

    def refuse(session: Any) -> None:
        raise SystemExit("not now")

    sa.event.listen(host.db.session, "before_commit", refuse)
    try:
        answer = host.post(task_id, completed(task_id), attempt=1)
    finally:
        sa.event.remove(host.db.session, "before_commit", refuse)

    (row,) = host.deliveries()
    assert (answer.status_code, row.verdict, row.error) == (500, "failed", "commit: SystemExit: not now")
