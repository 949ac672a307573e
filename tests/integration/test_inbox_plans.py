"""What a look at the inbox costs: it follows the indexes of what waits, however long the history is.

``INBOX_SETTLED`` and ``INBOX_WAITING`` say how many deliveries there are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.storage.inbox_statements import AT_ONCE, at_once
from tests.support.host import Host, make_host
from tests.support.plans import indexes_of, plan_of, whole_tables
from tests.support.web_server import figure
from tests.support.workers import size

SETTLED = size("INBOX_SETTLED", 5_000)
WAITING = size("INBOX_WAITING", 1_000)
OF_THE_QUEUE = {"ix_webhook_deliveries_next_retry_at", "ix_webhook_deliveries_waiting", "pk_webhook_deliveries"}
ENOUGH = 100_000
"""A small table is read from end to end, whatever indexes it has."""
OF_THE_HISTORY = "ix_webhook_deliveries_task_id"


@pytest.fixture
def host(database_url: str) -> Iterator[Host]:
    made = make_host(database_url, WEBHOOK_PROCESSING="worker")
    fill(made, (("processed", None, f"old-{number % 500}") for number in range(SETTLED)))
    yield made
    made.close()


def fill(host: Host, rows: Iterator[tuple[str, Any, str]]) -> None:
    common = {"source": "webhook", "event": "completed", "received_at": host.clock.now, "body": b"{}", "late": False}
    common |= {"occurrences": 1, "tries": 0}
    table = host.state.delivery_model.__table__
    with host.engine.begin() as connection:
        values = [
            {**common, "verdict": verdict, "next_retry_at": due, "task_id": task_id} for verdict, due, task_id in rows
        ]
        connection.execute(sa.insert(table), values)
    if host.engine.dialect.name == "postgresql":  # as its autovacuum does
        with host.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def claim(host: Host, **options: Any) -> tuple[int, float, list[tuple[str, Any]]]:
    """How many a claim found, how long it took, and what it sent."""
    sent: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    with host.app.app_context():
        session = host.db.session()
        sa.event.listen(host.engine, "before_cursor_execute", note)
        started = time.perf_counter()
        claimed = host.state.store.inbox.claim(session, lease=timedelta(seconds=60), limit=20, **options)
        session.commit()
        took = time.perf_counter() - started
        sa.event.remove(host.engine, "before_cursor_execute", note)
    return len(claimed), took * 1000, sent


def read_by(host: Host, statement: str, parameters: Any) -> set[str]:
    """The indexes that a statement is planned to use; a table that is read from end to end counts as one, too."""
    with host.engine.connect() as connection:
        plan = plan_of(connection, statement, parameters, small=SETTLED < ENOUGH)
    return indexes_of(plan) | ({plan} if whole_tables(plan) else set())


def assert_only_the_queue_is_read(host: Host, sent: list[tuple[str, Any]]) -> None:
    # Without partial indexes, or to SQLite, the index of a task's whole history is as good as that of its queue.
    allowed = OF_THE_QUEUE | (set() if host.engine.dialect.name == "postgresql" else {OF_THE_HISTORY})
    assert sent
    for statement, parameters in sent:
        assert read_by(host, statement, parameters) <= allowed


def test_among_many_tasks(host: Host) -> None:
    fill(host, (("queued", AT_ONCE, f"new-{number}") for number in range(WAITING)))
    claim(host)
    found, took, sent = claim(host)
    assert found == 20
    assert_only_the_queue_is_read(host, sent)
    one, alone, sent = claim(host, task_id=f"new-{WAITING - 1}")
    assert one == 1
    assert_only_the_queue_is_read(host, sent)
    figure(f"{WAITING} wait, {SETTLED} settled: a claim of 20 takes {took:.1f} ms, of one task's first {alone:.1f} ms")


def test_among_new_ones_and_retries_that_are_due(host: Host) -> None:
    now, half = host.clock.now, WAITING // 2
    fill(host, (("queued", at_once(now - timedelta(seconds=number)), f"new-{number}") for number in range(half)))
    fill(host, (("failed", now - timedelta(seconds=number), f"again-{number}") for number in range(half)))
    claim(host)
    found, took, sent = claim(host)
    assert found == 20
    assert_only_the_queue_is_read(host, sent)
    figure(f"{half} new ones and {half} retries are due, {SETTLED} settled: a claim of 20 takes {took:.1f} ms")


def test_behind_one_busy_task(host: Host) -> None:
    fill(host, (("queued", AT_ONCE, "busy") for _ in range(WAITING)))
    claim(host, task_id="old-1")
    first, took, sent = claim(host)
    assert first == 1
    assert_only_the_queue_is_read(host, sent)
    none, in_vain, sent = claim(host)
    assert none == 0
    assert_only_the_queue_is_read(host, sent)
    none, alone, sent = claim(host, task_id="busy")
    assert none == 0
    assert_only_the_queue_is_read(host, sent)
    figure(
        f"one task with {WAITING} that wait, {SETTLED} settled: a claim takes {took:.1f} ms; while the first is in "
        f"hand {in_vain:.1f} ms, of that task {alone:.1f} ms"
    )
