"""History goes when it is old: in batches, and never what still waits for its effect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.host import Host, completed

Build = Callable[..., Host]


def rows(host: Host, count: int, *, days: float, **values: Any) -> None:
    """Deliveries that came so many days ago."""
    received_at = host.clock.now - timedelta(days=days)
    given = {"source": "webhook", "event": "progress", "verdict": "processed", "received_at": received_at, **values}
    with host.app.app_context():
        host.db.session.execute(sa.insert(host.state.delivery_model), [given] * count)
        host.db.session.commit()


def purge(host: Host, **options: Any) -> int:
    with host.app.app_context():
        return host.webhook.purge(**options)


def ages(host: Host) -> list[int]:
    return [round((host.clock.now - row.received_at) / timedelta(days=1)) for row in host.deliveries()]


def test_what_is_older_than_its_retention_goes(host):
    rows(host, 3, days=91)
    rows(host, 2, days=89)
    assert purge(host) == 3
    assert ages(host) == [89, 89]
    assert purge(host) == 0


def test_the_boundary_belongs_to_what_is_kept(host):
    rows(host, 1, days=90 + 1 / 86400)
    rows(host, 1, days=90)
    assert purge(host) == 1
    assert ages(host) == [90]


def test_what_waits_for_another_try_is_kept_however_old(host):
    rows(host, 1, days=200)
    rows(host, 2, days=199, verdict="failed", next_retry_at=host.clock.now - timedelta(days=198))
    rows(host, 1, days=198, verdict="queued", next_retry_at=host.clock.now)
    rows(host, 1, days=197, verdict="dead")
    assert purge(host) == 2
    assert ages(host) == [199, 199, 198]


def test_thousands_go_in_batches_each_in_a_transaction_of_its_own(host):
    rows(host, 2500, days=100)
    rows(host, 10, days=1)
    with host.statements() as statements:
        assert purge(host) == 2500
    deletes = [line for line in statements if line.startswith("DELETE")]
    assert len(deletes) == statements.count("COMMIT") == 3
    assert ages(host) == [1] * 10


def test_a_thousand_that_wait_do_not_hide_what_is_behind_them(host):
    rows(host, 1200, days=300, verdict="failed", next_retry_at=host.clock.now)
    rows(host, 5, days=100)
    assert purge(host) == 5
    assert len(ages(host)) == 1200


def test_it_ends_where_the_rows_get_young_and_scans_nothing(host):
    rows(host, 5, days=100)
    rows(host, 3000, days=1)
    with host.statements() as statements:
        purge(host)
    assert sum(line.startswith("SELECT") and "webhook_deliveries" in line for line in statements) == 1


def test_retention_zero_keeps_everything(hosts, database_url):
    host = hosts(database_url, WEBHOOK_HISTORY_RETENTION_DAYS=0)
    rows(host, 2, days=5000)
    assert purge(host) == 0
    assert len(ages(host)) == 2


@pytest.mark.parametrize("retention", [0, 90])
def test_a_date_by_hand_wins(hosts, sqlite_url, retention):
    host = hosts(sqlite_url, WEBHOOK_HISTORY_RETENTION_DAYS=retention)
    rows(host, 2, days=5)
    rows(host, 1, days=1)
    assert purge(host, before=host.clock.now - timedelta(days=2)) == 2
    assert ages(host) == [1]


def test_tasks_stay(host):
    task_id = host.add_task()
    host.post(task_id, completed(task_id), attempt=1)
    host.clock.advance(100 * 86400)
    assert purge(host) == 1
    assert (host.task(task_id).status, host.contents(task_id)) == ("completed", ["# 键\n\n正文 🚀"])


def test_an_empty_history(host):
    assert purge(host) == 0
