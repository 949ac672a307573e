"""After a burst, claims find their rows as quickly as ever, although PostgreSQL's statistics do not know of it yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.host import Host, completed
from tests.support.submission import BASE

COUNT = 4_000
_LEASE = timedelta(minutes=1)


def copy(host: Host, table: sa.Table, **others: str) -> None:
    """Add many copies of the only row, with these expressions in some columns; ``n`` is the number of a copy."""
    names = [column.name for column in table.columns if column.name != "id"]
    values = [others.get(name, name) for name in names]
    with host.engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {', '.join(values)} FROM "
            f"(SELECT * FROM {table.name} ORDER BY id LIMIT 1) pattern, generate_series(1, {COUNT}) n"
        )


def analyze(host: Host) -> None:
    with host.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def rows_of_each_node(plan: dict[str, Any]) -> Iterator[float]:
    """The rows that each node of a plan went through."""
    yield plan["Actual Rows"] * plan["Actual Loops"] + plan.get("Rows Removed by Join Filter", 0)
    for part in plan.get("Plans", ()):
        yield from rows_of_each_node(part)


def most_rows(host: Host, claim: Callable[[Host], int]) -> float:
    """Claim, and return the most rows that a node of the plan of the next claim goes through."""
    seen: list[tuple[str, Any]] = []
    sa.event.listen(host.engine, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
    assert claim(host) > 0
    statement, parameters = next(one for one in seen if "SKIP LOCKED" in one[0])
    with host.engine.connect() as connection:
        ((plans,),) = connection.exec_driver_sql("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters)
    assert plans[0]["Plan"]["Actual Rows"] > 0
    return max(rows_of_each_node(plans[0]["Plan"]))


def claim_events(host: Host) -> int:
    return len(host.state.database.write(lambda tx: host.state.store.inbox.claim(tx, lease=_LEASE, limit=20)))


def claim_polls(host: Host) -> int:
    return len(host.state.database.write(lambda tx: host.state.store.claim_polls(tx, limit=100)))


def claim_submissions(host: Host) -> int:
    return len(host.state.database.write(lambda tx: host.state.store.claim_submissions(tx, lease=_LEASE, limit=100)))


def claim_forward(host: Host) -> int:
    with host.state.database.session() as session:
        claimed = host.state.outbox.claim(session, lease=_LEASE, closed=())
        session.commit()
    return 0 if claimed is None else 1


@pytest.fixture
def host(hosts: Callable[..., Host], postgres_url: str) -> Host:
    host = hosts(
        postgres_url,
        WEBHOOK_PROCESSING="worker",
        WEBHOOK_CALLBACK_BASE_URL=BASE,
        WEBHOOK_FORWARD_URLS="http://127.0.0.1:9/",
        WEBHOOK_FORWARD_SECRET="whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw==",
        WEBHOOK_FORWARD_ALLOWED_NETWORKS="127.0.0.0/8",
    )
    task_id = host.add_task()
    host.post(task_id, completed(task_id))
    return host


def test_a_claim_of_events(host: Host) -> None:
    table = host.state.delivery_model.__table__
    copy(host, table, task_id="'old-' || n", next_retry_at="NULL", verdict="'processed'")
    analyze(host)
    copy(host, table, task_id="'new-' || n")
    assert most_rows(host, claim_events) < COUNT


@pytest.mark.parametrize(
    ("claim", "due", "status"),
    [(claim_polls, "next_poll_at", "submitted"), (claim_submissions, "next_submit_at", "pending")],
)
def test_a_claim_of_tasks(host: Host, claim: Callable[[Host], int], due: str, status: str) -> None:
    table = host.state.task_model.__table__
    ended = {"status": "'completed'", "next_poll_at": "NULL", "next_submit_at": "NULL"}
    open_ = {"status": f"'{status}'", "next_poll_at": "now() + interval '1 day'"}
    copy(host, table, task_id="'old-' || n", **ended)
    analyze(host)
    copy(host, table, task_id="'new-' || n", **{**open_, due: "now() - interval '1 minute'"})
    assert most_rows(host, claim) < COUNT


def test_a_claim_of_a_forward(host: Host) -> None:
    host.retry()
    table = host.state.models.forward.__table__
    copy(host, table, status="'delivered'", next_try_at="NULL", message_id="'old-' || n")
    analyze(host)
    due = {"status": "'waiting'", "next_try_at": "now() - interval '1 minute'"}
    copy(host, table, message_id="'new-' || n", **due)
    assert most_rows(host, claim_forward) < COUNT
