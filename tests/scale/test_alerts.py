"""What a check of the alerts costs in a long history: it reads the deliveries of the last half hour, and no others.

``ALERT_ROWS=1000000 ALERT_DAYS=90 python -m pytest tests/scale/test_alerts.py -rP`` shows times and plans of the full
size; without it, the plans are looked at in a history of 20,000.
"""

from __future__ import annotations

import os
import statistics
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.storage.id_search import first_id_since
from tests.support.plans import plan_of, whole_tables
from tests.support.web_server import figure

ROWS = int(os.environ.get("ALERT_ROWS", "20000"))
DAYS = float(os.environ.get("ALERT_DAYS", "90"))


@pytest.fixture
def long(hosts, database_url):
    """A host with a long, even history, which ends now: one in fifty failed, one in ten was forged."""
    host = hosts(database_url)
    at, text = {
        "sqlite": ("datetime('now', '-' || ((:rows - n) * :days * 86400 / :rows) || ' seconds')", "randomblob(2000)"),
        "mysql": (
            "utc_timestamp(6) - interval ((:rows - n) * :days * 86400 / :rows) second",
            "repeat('x', 2000)",
        ),
        "postgresql": (
            "now() - interval '1 second' * ((:rows - n) * :days * 86400 / :rows)",
            "decode(repeat(md5(n::text), 125), 'hex')",
        ),
    }[host.engine.dialect.name]
    name = "concat('task-', n)" if host.engine.dialect.name == "mysql" else "'task-' || n"
    numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)"
    deliveries = f"""
        INSERT INTO webhook_deliveries (task_id, event, source, verdict, error, late, tries, occurrences, received_at,
            processed_at, body)
        {numbers} SELECT {name}, 'completed', 'poll',
            CASE WHEN n % 10 = 0 THEN 'rejected' WHEN n % 50 = 1 THEN 'dead' ELSE 'processed' END,
            CASE WHEN n % 10 = 0 THEN 'signature_invalid' END, false, 1, 1, {at}, {at}, {text} FROM numbers"""
    tasks = f"""
        INSERT INTO content_generation_tasks (task_id, status, callback_url, earlier_creator_task_ids, priority,
            auto_approve, attempt, version, submit_tries, polls, times_missing, created_at, updated_at, submitted_at,
            next_poll_at)
        {numbers} SELECT {name}, CASE WHEN n % 1000 = 0 THEN 'submitted' ELSE 'completed' END, 'https://hub',
            '[]', 2, false, 1, 1, 0, 0, 0, {at}, {at}, {at}, CASE WHEN n % 1000 = 0 THEN {at} END FROM numbers"""
    with host.engine.begin() as connection:
        connection.execute(sa.text(deliveries), {"rows": ROWS, "days": DAYS})
        connection.execute(sa.text(tasks), {"rows": ROWS, "days": DAYS})
    tables = " TABLE webhook_deliveries, content_generation_tasks" if host.engine.dialect.name == "mysql" else ""
    with host.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"ANALYZE{tables}"))
    host.clock.now = datetime.now(UTC)
    return host


def test_a_check_scans_no_table(long):
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with long.app.app_context():
        long.webhook.check_alerts()
        sa.event.listen(long.engine, "before_cursor_execute", note)
        alerts = long.webhook.check_alerts()
        sa.event.remove(long.engine, "before_cursor_execute", note)
        took = timed(long.webhook.check_alerts)
        model = long.state.delivery_model
        search = timed(lambda: first_id_since(long.db.session, model, long.clock.now))
        lookup = timed(lambda: long.db.session.execute(sa.select(model.verdict).where(model.id == ROWS // 2)).one())
    plans = [plan for statement in statements if (plan := shown(long, *statement))]
    figure(
        f"{ROWS} rows in {DAYS:g} days: a check takes {took * 1000:.1f} ms in {len(statements)} statements, the search "
        f"for a moment {search * 1000:.2f} ms, one row by its id {lookup * 1000:.2f} ms\n{alerts}\n\n"
        + "\n\n".join(plans)
    )
    assert len(plans) >= 8
    assert [plan for plan in plans if whole_tables(plan)] == []


def timed(call: Any) -> float:
    def once() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return statistics.median(once() for _ in range(15))


def shown(host: Any, statement: str, parameters: Any) -> str:
    if not statement.startswith(("SELECT", "WITH")) or "webhook_alerts" in statement:
        return ""
    with host.engine.connect() as connection:
        return f"{' '.join(statement.split())[:400]}\n{plan_of(connection, statement, parameters)}"
