"""The audit finds each kind of fault that is planted, and nothing in a database that only the extension has written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.core.promises import Finding, Promise
from flask_contenthub_webhook.core.state_machine import Trigger
from flask_contenthub_webhook.operations.audit import audit
from tests.support.host import Host, completed, custom, failed, progress

NEVER = datetime(2999, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
FORWARD_SECRET = "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw=="


@pytest.fixture
def host(hosts: Callable[..., Host], database_url: str) -> Host:
    return hosts(
        database_url,
        WEBHOOK_SIGNATURE_SCHEMES=["url", "contenthub", "standard"],
        WEBHOOK_EVENTS=["illustrated"],
        WEBHOOK_FORWARD_URLS=["https://receiver.example/hook"],
        WEBHOOK_FORWARD_SECRET=FORWARD_SECRET,
        WEBHOOK_SUBMIT_THREADS=0,
        WEBHOOK_MAX_RETRIES=1,
    )


def findings(host: Host, **options: Any) -> list[Finding]:
    return list(audit(host.state, **options))


# --- lives of tasks ----------------------------------------------------------------------------------------------


def done(host: Host) -> str:
    task_id = host.add_task()
    host.post(task_id, progress(task_id, 40))
    host.post(task_id, completed(task_id))
    host.post(task_id, completed(task_id))
    return task_id


def at_work(host: Host) -> str:
    task_id = host.add_task()
    host.post(task_id, progress(task_id, 40))
    return task_id


def given_up(host: Host) -> str:
    task_id = host.add_task(max_retries=0)
    host.post(task_id, failed(task_id))
    return task_id


def in_its_second_attempt(host: Host) -> str:
    task_id = host.add_task()
    host.post(task_id, failed(task_id), attempt=1)
    return task_id


def done_late(host: Host) -> str:
    task_id = given_up(host)
    host.post(task_id, completed(task_id))
    return task_id


def timed_out(host: Host) -> str:
    task_id = host.add_task()
    host.pass_deadline(task_id)
    host.trigger(task_id, Trigger.TIMED_OUT)
    return task_id


def cancelled(host: Host) -> str:
    task_id = host.add_task()
    host.trigger(task_id, Trigger.CANCELLED)
    host.post(task_id, completed(task_id))
    return task_id


def taken_up_again(host: Host) -> str:
    task_id = cancelled(host)
    with host.app.app_context():
        host.webhook.retry(task_id)
    host.post(task_id, failed(task_id), attempt=1)
    return task_id


def with_a_failing_handler(host: Host) -> str:
    task_id = host.add_task()
    host.publisher.broken = True
    host.post(task_id, completed(task_id))
    host.publisher.broken = False
    return task_id


def replayed(host: Host) -> str:
    task_id = with_a_failing_handler(host)
    host.replay(host.deliveries(task_id)[-1].id)
    return task_id


def illustrated(host: Host) -> str:
    task_id = host.add_task()
    for _ in range(2):
        host.post(task_id, custom(task_id, "illustrated"))
        host.post(task_id, completed(task_id))
    host.post(task_id, custom(task_id, "illustrated", number=2))
    return task_id


def without_a_result(host: Host) -> str:
    task_id = host.add_task()
    host.post(task_id, completed(task_id, None))
    host.post(task_id, completed(task_id))
    return task_id


def refused(host: Host) -> str:
    task_id = host.add_task()
    host.post_signed(task_id, completed(task_id), "standard")
    host.post(task_id, b"{", path="/api/v1/content/callback/nobody?token=no")
    host.post_signed(task_id, b'{"event": "odd", "taskId": "x"}', "contenthub")
    host.post_batch([completed(task_id), completed("unknown")], scheme="contenthub")
    return task_id


def made_by_hand(host: Host) -> str:
    """Brought along by the host, as from an older system: completed, and without any history."""
    return host.add_task(status="completed", created_at=host.clock() - timedelta(days=400), finished_at=host.clock())


LIVES = (
    done,
    at_work,
    given_up,
    in_its_second_attempt,
    done_late,
    timed_out,
    cancelled,
    taken_up_again,
    with_a_failing_handler,
    replayed,
    illustrated,
    without_a_result,
    refused,
    made_by_hand,
)


def test_nothing_is_found_in_what_the_extension_has_written(host: Host):
    for live in LIVES:
        live(host)

    assert findings(host) == []


def test_nothing_is_found_in_a_history_that_is_whole(host: Host):
    for live in LIVES:
        if live is not made_by_hand:
            live(host)
    host.clock.advance(31)
    host.retry()

    assert findings(host, whole_history=True) == []
    assert findings(host, whole_history=True, page=1) == []


def test_a_page_of_any_size_finds_the_same(host: Host):
    ids = [done(host) for _ in range(5)]
    with host.engine.begin() as connection:
        connection.execute(sa.update(host.state.task_model.__table__).values(status="cancelled"))

    by_size = [{(each.promise, each.task_id) for each in findings(host, page=page)} for page in (1, 2, 5, 1000)]

    assert {task_id for _, task_id in by_size[0]} == set(ids)
    assert all(each == by_size[0] for each in by_size)


@pytest.mark.parametrize("days", [0, 1], ids=["everything", "what_is_old"])
def test_nothing_is_found_after_a_purge(host: Host, days: int):
    """By age and by verdict, with messages that are remembered, and tasks that go on afterwards."""
    for live in LIVES:
        live(host)
        host.clock.advance(7200)
    before = host.clock() - timedelta(days=days)
    with host.app.app_context():
        host.webhook.purge(before=before - timedelta(hours=1), verdicts=["duplicate", "rejected"])
        host.webhook.purge(before=before)
    late = in_its_second_attempt(host)
    for task in host.tasks():
        host.post(task.task_id, completed(task.task_id))
        host.post(task.task_id, custom(task.task_id, "illustrated", number=3))

    assert host.task(late).status == "completed"
    assert findings(host) == []


def test_nothing_is_found_while_events_wait(hosts: Callable[..., Host], database_url: str):
    host = hosts(database_url, WEBHOOK_PROCESSING="worker", WEBHOOK_SUBMIT_THREADS=0)
    tasks = [host.add_task() for _ in range(3)]
    for task_id in tasks:
        host.post(task_id, progress(task_id, 10))
        host.post(task_id, completed(task_id))
    assert findings(host, whole_history=True) == []

    with host.engine.begin() as connection:
        claimed = host.state.store.inbox.claim(connection, lease=timedelta(seconds=60), limit=1)
    assert len(claimed) == 1
    assert findings(host, whole_history=True) == []

    host.clock.advance(120)
    host.retry()
    assert {task.status for task in host.tasks()} == {"completed"}
    assert findings(host, whole_history=True) == []


# --- faults ------------------------------------------------------------------------------------------------------


class Tables(NamedTuple):
    tasks: sa.Table
    deliveries: sa.Table
    forwards: sa.Table
    tries: sa.Table


class Fault(NamedTuple):
    """A fault that is planted into the rows of one task, and the promise that it breaks."""

    promise: Promise
    life: Callable[[Host], str]
    plant: Callable[[Tables, str], list[Any]]


def task(**values: Any) -> Callable[[Tables, str], list[Any]]:
    return lambda the, task_id: [sa.update(the.tasks).where(the.tasks.c.task_id == task_id).values(**values)]


def delivery(kind: str, event: str | None = None, /, **values: Any) -> Callable[[Tables, str], list[Any]]:
    """Change deliveries of the task; without values, delete them."""

    def plant(the: Tables, task_id: str) -> list[Any]:
        d = the.deliveries
        statement: Any = sa.update(d).values(**values) if values else sa.delete(d)
        chosen = [d.c.task_id == task_id, d.c.verdict == kind, *([d.c.event == event] if event else [])]
        return [statement.where(*chosen)]

    return plant


def forward(**values: Any) -> Callable[[Tables, str], list[Any]]:
    return lambda the, task_id: [sa.update(the.forwards).where(the.forwards.c.task_id == task_id).values(**values)]


def doubled(the: Tables, task_id: str) -> list[Any]:
    """The completion was applied twice."""
    d = the.deliveries
    others = [column for column in d.c if column.name != "id"]
    copy = sa.select(*others).where(d.c.task_id == task_id, d.c.verdict == "processed", d.c.event == "completed")
    again = sa.insert(d).from_select([column.name for column in others], copy)
    return [again, *task(version=9)(the, task_id)]


def a_try_of_nothing(the: Tables, task_id: str) -> list[Any]:
    return [sa.insert(the.tries).values(forward_id=4711, number=1, started_at=LONG_AGO)]


def a_try_is_missing(the: Tables, task_id: str) -> list[Any]:
    number = sa.select(the.forwards.c.id).where(the.forwards.c.task_id == task_id).limit(1).scalar_subquery()
    return [sa.insert(the.tries).values(forward_id=number, number=2, started_at=LONG_AGO)]


FAULTS: Mapping[str, Fault] = {
    "completed twice": Fault(Promise.COMPLETED_ONCE, done, doubled),
    "completed, and its delivery is gone": Fault(Promise.COMPLETED_ONCE, done, delivery("processed", "completed")),
    "completed without any history": Fault(
        Promise.COMPLETED_ONCE,
        lambda host: host.add_task(),
        task(status="completed", previous_status="submitted", version=2, finished_at=NEVER),
    ),
    "no longer completed": Fault(Promise.FINAL, done, task(status="failed", error_message="no")),
    "failed by nothing": Fault(Promise.EXPLAINED, given_up, delivery("processed", "failed")),
    "a status that nobody led to": Fault(Promise.EXPLAINED, at_work, task(status="pending")),
    "an attempt that nothing began": Fault(Promise.ATTEMPTS, at_work, task(attempt=3)),
    "an attempt that the history lacks": Fault(
        Promise.ATTEMPTS, in_its_second_attempt, delivery("processed", "failed")
    ),
    "an attempt that is forgotten": Fault(Promise.ATTEMPTS, in_its_second_attempt, task(attempt=1)),
    "a delivery without its change": Fault(Promise.ONE_TRANSACTION, done, task(version=2)),
    "out of a cancelled task": Fault(
        Promise.ALLOWED, done, delivery("processed", "completed", status_before="cancelled")
    ),
    "an effect of an unsigned request": Fault(Promise.BELIEVED, done, delivery("processed", "completed", scheme=None)),
    "an effect with an error": Fault(Promise.CONSISTENT, done, delivery("processed", "completed", error="refused")),
    "open, and never polled": Fault(Promise.ASKED, at_work, task(next_poll_at=None)),
    "open, and polled in a thousand years": Fault(Promise.ASKED, at_work, task(next_poll_at=NEVER)),
    "a deadline that never comes": Fault(Promise.ENDS, at_work, task(deadline_at=NEVER)),
    "submitted in a thousand years": Fault(Promise.ENDS, in_its_second_attempt, task(next_submit_at=NEVER)),
    "waits, and is never tried": Fault(Promise.TRIED, with_a_failing_handler, delivery("failed", next_retry_at=None)),
    "tried in a thousand years": Fault(Promise.TRIED, with_a_failing_handler, delivery("failed", next_retry_at=NEVER)),
    "claimed for ever": Fault(
        Promise.CLAIM_ENDS, with_a_failing_handler, delivery("failed", next_retry_at=NEVER, claimed_until=NEVER)
    ),
    "claimed and due": Fault(Promise.CLAIM_ENDS, with_a_failing_handler, delivery("failed", claimed_until=NEVER)),
    "done, and still waiting": Fault(
        Promise.CONSISTENT, done, delivery("processed", "completed", next_retry_at=LONG_AGO)
    ),
    "late, and was not": Fault(Promise.CONSISTENT, done, delivery("processed", "completed", late=True)),
    "not late, and was": Fault(Promise.CONSISTENT, done_late, delivery("processed", "completed", late=False)),
    "an unknown verdict": Fault(Promise.CONSISTENT, done, delivery("duplicate", verdict="perhaps")),
    "completed without a result": Fault(Promise.CONSISTENT, done, task(result=sa.null())),
    "completed with an error": Fault(Promise.CONSISTENT, done, task(error_code="LOST_BY_CREATOR")),
    "ended at no time": Fault(Promise.CONSISTENT, given_up, task(finished_at=None)),
    "ended, and to be submitted": Fault(Promise.CONSISTENT, given_up, task(next_submit_at=LONG_AGO)),
    "a replay of itself": Fault(Promise.POINTS, done, delivery("duplicate", replay_of=2**31)),
    "a forward of nothing": Fault(Promise.FORWARDED_EVENT, done, forward(delivery_id=4711)),
    "a forward of what had no effect": Fault(
        Promise.FORWARDED_EVENT, done, delivery("processed", "completed", verdict="ignored")
    ),
    "a forward that is never sent": Fault(Promise.SENT, done, forward(next_try_at=None)),
    "delivered, and waiting": Fault(Promise.CONSISTENT, done, forward(status="delivered")),
    "a try of a forward is missing": Fault(Promise.ATTEMPTS, done, a_try_is_missing),
    "a try of no forward": Fault(Promise.POINTS, done, a_try_of_nothing),
}
OF_NO_TASK = {"a try of no forward"}
NEEDS_A_WHOLE_HISTORY = {
    "gone": Fault(Promise.POINTS, replayed, delivery("replayed")),
    "no replay": Fault(Promise.POINTS, replayed, delivery("processed", "completed", replay_of=None)),
    "no change at all": Fault(Promise.COMPLETED_ONCE, lambda host: host.add_task(), task(status="completed")),
}


def plant(host: Host, faults: Mapping[str, Fault]) -> dict[str, str]:
    """Plant each fault into a task of its own; returns the tasks."""
    lives = {name: fault.life(host) for name, fault in faults.items()}
    models = host.state.models
    the = Tables(*(each.__table__ for each in (models.task, models.delivery, models.forward, models.forward_attempt)))
    without_checks(host)
    with host.engine.begin() as connection:
        if host.engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        for name, fault in faults.items():
            for statement in fault.plant(the, lives[name]):
                assert connection.execute(statement).rowcount != 0, name  # -1: not known
    return lives


def without_checks(host: Host) -> None:
    """Let the table take what its constraints would refuse, as one that lost them does."""
    if host.engine.dialect.name == "sqlite":
        return
    with host.engine.begin() as connection:
        for check in ("open_is_polled", "status"):
            connection.exec_driver_sql(
                f"ALTER TABLE content_generation_tasks DROP CONSTRAINT ck_content_generation_tasks_{check}"
            )


def test_each_planted_fault_is_found_and_nothing_else(host: Host):
    sound = [live(host) for live in LIVES]
    lives = plant(host, FAULTS)

    found = findings(host)

    by_task: dict[str | None, set[Promise]] = {}
    for each in found:
        by_task.setdefault(each.task_id, set()).add(each.promise)
    missed = {
        name: fault.promise
        for name, fault in FAULTS.items()
        if fault.promise not in by_task.get(None if name in OF_NO_TASK else lives[name], ())
    }
    assert missed == {}
    assert by_task.keys() - {None} <= set(lives.values())
    assert not by_task.keys() & set(sound)
    assert {fault.promise for fault in FAULTS.values()} == set(Promise)


def test_what_only_a_whole_history_shows(host: Host):
    lives = plant(host, NEEDS_A_WHOLE_HISTORY)

    found = findings(host, whole_history=True)

    assert findings(host) == []
    assert {(each.task_id, each.promise) for each in found} >= {
        (lives[name], fault.promise) for name, fault in NEEDS_A_WHOLE_HISTORY.items()
    }


# --- a guest -----------------------------------------------------------------------------------------------------


def test_it_only_reads(host: Host):
    for live in (done, replayed):
        live(host)

    with host.statements() as sent:
        assert findings(host) == []

    assert {statement.split()[0] for statement in sent} <= {"SELECT", "COMMIT"}
    assert len(sent) > 5


def test_it_waits_for_nobody(hosts: Callable[..., Host], server_url: str):
    """Every row is locked by a transaction that goes on."""
    host = hosts(server_url, WEBHOOK_TIMEOUT=1)
    done(host)
    with host.engine.begin() as other:
        for table in ("content_generation_tasks", "webhook_deliveries"):
            other.exec_driver_sql(f"SELECT id FROM {table} FOR UPDATE")

        assert findings(host) == []
