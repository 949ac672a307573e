"""An event's own trouble is its own: whatever its handler does, on whatever way it came, through whatever driver.

Each cell of the matrix is one poisoned event among five healthy ones of other tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.creators import RemoteState, Report
from flask_contenthub_webhook.engine.replay import replay_each
from flask_contenthub_webhook.engine.worker import Worker
from tests.integration.troubles.conftest import DRIVERS, kind_of
from tests.support.host import Host, completed, encode
from tests.support.processes import wait_until

HostOf = Callable[..., Host]
LOCK = 4711


class Odd(BaseException):
    """What no `except Exception` catches."""


class Trouble(NamedTuple):
    """What a handler does, and what the history has to say about it."""

    act: Callable[[Host, Any], object]
    told: str
    databases: str = "sqlite postgresql mariadb"
    calls: int = 1
    """In one try."""
    is_variant: bool = False
    """Like the one before it, and tried on one way only."""


def raises(error: BaseException) -> Callable[[Host, Any], object]:
    def act(host: Host, task: Any) -> None:
        raise error

    return act


def executes(*statements: str) -> Callable[[Host, Any], object]:
    def act(host: Host, task: Any) -> None:
        for statement in statements:
            host.db.session.execute(sa.text(statement))

    return act


def ends(statement: str) -> Callable[[Host, Any], object]:
    """Goes on afterwards: what it then writes must not be kept either."""

    def act(host: Host, task: Any) -> None:
        with contextlib.suppress(Exception):
            host.db.session.execute(sa.text(statement))
        host.db.session.add(host.Content(task_id=task.task_id, body="stray"))

    return act


def driver_of(host: Host) -> Any:
    return host.db.session.connection().connection.dbapi_connection


def commits_the_connection(host: Host, task: Any) -> None:
    host.db.session.add(host.Content(task_id=task.task_id, body="stray"))
    host.db.session.flush()
    host.db.session.connection().commit()


class Unreadable(Exception):
    def __str__(self) -> str:
        raise SystemExit(4)


def rolls_back_the_driver(host: Host, task: Any) -> None:
    driver_of(host).rollback()


def rolls_back_the_driver_and_goes_on(host: Host, task: Any) -> None:
    driver_of(host).rollback()
    with contextlib.suppress(Exception):
        host.db.session.execute(sa.insert(host.Content).values(task_id=task.task_id, body="stray"))


def hides_an_error(host: Host, task: Any) -> None:
    with contextlib.suppress(Exception):
        host.db.session.execute(sa.text("SELECT * FROM no_such_table"))


def waits_for_its_own_writer(host: Host, task: Any) -> None:
    with host.engine.connect() as other:
        other.detach()  # nobody else is to wait so briefly
        other.exec_driver_sql("PRAGMA busy_timeout = 10")
        other.execute(sa.insert(host.Content).values(task_id="other", body="stray"))


def assigns(**values: Any) -> Callable[[Host, Any], object]:
    def act(host: Host, task: Any) -> None:
        for name, value in values.items():
            setattr(task, name, value)

    return act


def assigns_and_flushes(host: Host, task: Any) -> None:
    task.status = "cancelled"
    host.db.session.flush()


def updates_by_an_expression(host: Host, task: Any) -> None:
    model = type(task)
    host.db.session.execute(sa.update(model).where(model.id == task.id).values(status=sa.func.lower("FAILED")))


def delivery_of(host: Host, task: Any) -> Any:
    model = host.state.delivery_model
    return host.db.session.scalars(sa.select(model).where(model.task_id == task.task_id)).one()


def error_of_the_server(code: str) -> Callable[[Host, Any], object]:
    return executes(f"DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{code}'; END $$")


def error_of_mariadb(number: int, state: str = "HY000") -> Callable[[Host, Any], object]:
    return executes(f"SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'made up'")


TROUBLES = {
    "sys.exit": Trouble(lambda host, task: sys.exit(3), "SystemExit: 3"),
    "CancelledError": Trouble(raises(asyncio.CancelledError()), "CancelledError", is_variant=True),
    "GeneratorExit": Trouble(raises(GeneratorExit()), "GeneratorExit", is_variant=True),
    "any BaseException": Trouble(raises(Odd("odd")), "Odd: odd", is_variant=True),
    "an error whose text raises": Trouble(raises(Unreadable()), "Unreadable: (its message cannot", is_variant=True),
    "a syntax error": Trouble(executes("SELEC 1"), "SELEC"),
    "a missing key": Trouble(
        lambda host, task: host.db.session.add(host.Content(task_id=None)), "flush", is_variant=True
    ),
    "its statement timed out": Trouble(
        executes("SET LOCAL statement_timeout = 20", "SELECT pg_sleep(5)"), "statement timeout", "postgresql"
    ),
    "its statement waited for a lock": Trouble(
        executes("SET LOCAL lock_timeout = 20", f"SELECT pg_advisory_xact_lock({LOCK})"), "lock timeout", "postgresql"
    ),
    "its statement of MariaDB timed out": Trouble(
        executes("SET STATEMENT max_statement_time = 0.02 FOR SELECT SLEEP(5)"), "max_statement_time", "mariadb"
    ),
    "its statement waited for a row": Trouble(
        executes("SELECT * FROM held FOR UPDATE NOWAIT"), "Lock wait timeout", "mariadb"
    ),
    "its writer waits for itself": Trouble(waits_for_its_own_writer, "locked", "sqlite"),
    "a deadlock, again and again": Trouble(error_of_the_server("40P01"), "made up", "postgresql", calls=3),
    "a serialization failure, again and again": Trouble(
        error_of_the_server("40001"), "made up", "postgresql", calls=3, is_variant=True
    ),
    "a deadlock on MariaDB, again and again": Trouble(error_of_mariadb(1213, "40001"), "made up", "mariadb", calls=3),
    "a snapshot of MariaDB that is too old, again and again": Trouble(
        error_of_mariadb(1020), "made up", "mariadb", calls=3, is_variant=True
    ),
    "an error of the host's trigger": Trouble(error_of_the_server("P0001"), "made up", "postgresql", is_variant=True),
    "an error of the host's trigger on MariaDB": Trouble(
        error_of_mariadb(1644, "45000"), "made up", "mariadb", is_variant=True
    ),
    "ROLLBACK": Trouble(ends("ROLLBACK"), "ended the transaction"),
    "COMMIT": Trouble(ends(" -- done\n commit"), "ended the transaction", is_variant=True),
    "END": Trouble(ends("/* done */ END"), "ended the transaction", "sqlite postgresql", is_variant=True),
    "ABORT": Trouble(ends("ABORT"), "ended the transaction", "postgresql", is_variant=True),
    "PREPARE TRANSACTION": Trouble(ends("PREPARE TRANSACTION 'x'"), "ended the transaction", "postgresql", 1, True),
    "COMMIT after another command": Trouble(
        ends("SELECT ';'; COMMIT; BEGIN"), "ended the transaction", "postgresql", is_variant=True
    ),
    "ROLLBACK after another command": Trouble(
        ends("SET LOCAL work_mem = '4MB'; /* done */ ROLLBACK; BEGIN"), "ended the transaction", "postgresql"
    ),
    "the connection's commit": Trouble(commits_the_connection, "ended the transaction"),
    "the driver's rollback": Trouble(rolls_back_the_driver, "ended the transaction", is_variant=True),
    "the driver's rollback, and on": Trouble(rolls_back_the_driver_and_goes_on, "ended the transaction"),
    "closes the driver's connection": Trouble(lambda host, task: driver_of(host).close(), "closed", "sqlite"),
    "loses the driver's connection": Trouble(
        lambda host, task: driver_of(host).close(), "closed", "postgresql", calls=3, is_variant=True
    ),
    "loses the driver's connection to MariaDB": Trouble(
        lambda host, task: driver_of(host).close(), "", "mariadb", calls=3, is_variant=True
    ),
    "a hidden error": Trouble(hides_an_error, "hid its error", "postgresql"),
    "task.status": Trouble(assigns(status="failed"), "task.status"),
    "task.status, flushed": Trouble(assigns_and_flushes, "task.status", is_variant=True),
    "task.attempt": Trouble(assigns(attempt=7), "task.attempt", is_variant=True),
    "task.next_poll_at": Trouble(
        lambda host, task: setattr(task, "next_poll_at", host.clock.now + timedelta(days=1)),
        "task.next_poll_at",
        is_variant=True,
    ),
    "task.polls, which was not loaded": Trouble(assigns(polls=3), "task.polls", is_variant=True),
    "deletes the task": Trouble(lambda host, task: host.db.session.delete(task), "deleted the task"),
    "deletes the task by a statement": Trouble(
        lambda host, task: host.db.session.execute(sa.delete(type(task)).where(type(task).id == task.id)),
        "deleted the task",
        is_variant=True,
    ),
    "task.status, by an expression in SQL": Trouble(updates_by_an_expression, "task.status", is_variant=True),
    "delivery.verdict": Trouble(
        lambda host, task: setattr(delivery_of(host, task), "verdict", "queued"), "delivery.verdict", is_variant=True
    ),
    "deletes the delivery": Trouble(
        lambda host, task: host.db.session.delete(delivery_of(host, task)), "deleted the delivery", is_variant=True
    ),
}


class Poison:
    """A handler that is bad at one task."""

    def __init__(self, host: Host, trouble: Trouble, task_id: str) -> None:
        self.host, self.trouble, self.task_id, self.calls = host, trouble, task_id, 0

    def __call__(self, app: Flask, *, task: Any, **extra: Any) -> None:
        if task.task_id == self.task_id:
            self.calls += 1
            self.trouble.act(self.host, task)


class Everything:
    """A creator that has done all there is to do."""

    def statuses(self, names: Any, **_: Any) -> dict[str, Report]:
        return {name: Report(state=RemoteState.COMPLETED, result={"content": "text"}, raw=b"{}") for name in names}


# --- the ways: each applies the events of all tasks in one pass -----------------------------------------------------


def inline(host: Host, tasks: list[str]) -> None:
    codes = [host.post(task_id, completed(task_id), attempt=1).status_code for task_id in tasks]
    assert sorted(codes) == [200] * 5 + [500]


def batch(host: Host, tasks: list[str]) -> None:
    answer = host.post_batch([completed(task_id) for task_id in tasks], scheme="contenthub").get_json()
    codes = [item.get("error", {}).get("code") for item in answer["results"]]
    assert sorted(map(str, codes)) == ["None"] * 5 + ["handler_failed"]


def accept(host: Host, tasks: list[str]) -> None:
    assert {host.post(task_id, completed(task_id), attempt=1).status_code for task_id in tasks} == {202}


def worker(host: Host, tasks: list[str]) -> None:
    accept(host, tasks)
    running = Worker(host.state)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        wait_until(
            lambda: all(row.verdict != "queued" for row in host.deliveries()),
            timeout=120,
            what="not all were applied",
            log=str,
        )
    finally:
        running.stop()
        thread.join(120)
    assert not thread.is_alive()


def sweep(host: Host, tasks: list[str]) -> None:
    accept(host, tasks)
    report = host.retry()
    assert (report.outcomes, report.interrupted) == ({"processed": 5, "failed": 1}, False)


def celery(host: Host, tasks: list[str]) -> None:
    accept(host, tasks)  # eager: applied when the answer comes


def poll(host: Host, tasks: list[str]) -> None:
    host.state.creator = Everything()  # type: ignore[assignment]
    try:
        with host.app.app_context():
            report = host.webhook.reconcile()
    finally:
        host.state.creator = None
    assert (report.claimed, dict(report.applied), report.errors) == (6, {"processed": 5}, 1)


def replay(host: Host, tasks: list[str]) -> None:
    with host.app.app_context():
        model = host.state.delivery_model
        for task_id in tasks:  # as if they had come before the handler was written, and had been parked
            told = {"task_id": task_id, "attempt": 1, "event": "completed", "body": encode(completed(task_id))}
            host.db.session.add(model(source="webhook", scheme="url", verdict="dead", **told))
        host.db.session.commit()
        ids = [row.id for row in host.deliveries()]
    report = replay_each(host.state, ids)
    assert (dict(report.verdicts), [one["code"] for one in report.failures]) == ({"processed": 5}, ["handler_failed"])
    assert not report.interrupted


WAYS: dict[Callable[[Host, list[str]], None], str] = {
    inline: "inline",
    batch: "inline",
    worker: "worker",
    sweep: "worker",
    celery: "celery",
    poll: "inline",
    replay: "inline",
}


@pytest.fixture(scope="module")
def held_lock(host_of: HostOf) -> Iterator[None]:
    """Somebody of the host's holds a lock for long."""
    engine = host_of().engine
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text(f"SELECT pg_advisory_lock({LOCK})"))
        if engine.dialect.name == "mysql":
            connection.execute(sa.text("CREATE TABLE IF NOT EXISTS held (id INTEGER PRIMARY KEY)"))
            connection.execute(sa.text("INSERT INTO held VALUES (1)"))  # never committed
        yield


CELLS = [
    pytest.param(driver, name, way, id=f"{driver}, {name}, {way.__name__}")
    for driver in DRIVERS
    for name, trouble in TROUBLES.items()
    if kind_of(driver) in trouble.databases
    for way in ([inline] if trouble.is_variant else WAYS)
]


@pytest.mark.parametrize(("host_of", "name", "way"), CELLS, indirect=["host_of"], scope="module")
@pytest.mark.usefixtures("held_lock")
def test_a_poisoned_event_harms_nobody_and_ends_dead(
    host_of: HostOf, name: str, way: Callable[[Host, list[str]], None]
):
    host, trouble = host_of(WAYS[way]), TROUBLES[name]
    now = host.clock.now
    due = {"next_poll_at": now - timedelta(seconds=1), "submitted_at": now, "deadline_at": now + timedelta(hours=1)}
    tasks = [host.add_task(creator_task_id=f"job-{number}", **due) for number in range(6)]
    poisoned, healthy = tasks[2], [*tasks[:2], *tasks[3:]]
    handler = Poison(host, trouble, poisoned)

    with task_completed.connected_to(handler, sender=host.app):
        way(host, tasks)
        last = host.deliveries(poisoned)[-1]

        assert [host.task(task_id).status for task_id in healthy] == ["completed"] * 5
        assert [len(host.contents(task_id)) for task_id in healthy] == [1] * 5
        assert (last.verdict, last.tries, host.task(poisoned).status) == ("failed", 1, "submitted")
        assert trouble.told in last.error
        assert host.contents(poisoned) == []
        assert handler.calls == trouble.calls

        for _ in range(3):
            host.clock.advance(140)
            assert host.retry().claimed == 1
        last = host.deliveries(poisoned)[-1]

    assert (last.verdict, last.tries, last.next_retry_at) == ("dead", 4, None)
    assert trouble.told in last.error
    assert handler.calls == 4 * trouble.calls
    assert (host.task(poisoned).status, host.contents(poisoned)) == ("submitted", [])
