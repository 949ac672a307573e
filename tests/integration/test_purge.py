"""History goes when it is old: in batches, and never what still waits for its effect."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.operations import purge as purge_module
from tests.support.host import Host, at_once, completed

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


def purge_regularly(host: Host) -> tuple[int, int]:
    """As the scheduler does: the rows that went, and the pages that were looked at."""
    with host.app.app_context(), host.statements() as statements:
        deleted = purge_module.purge_regularly(host.state)
    return deleted, looks(statements)


def looks(statements: Sequence[str]) -> int:
    """Count the pages that were read; MariaDB locks rows in a statement of its own before it changes them."""
    selects = [line for line in statements if line.startswith("SELECT") and "webhook_deliveries" in line]
    return sum(not line.endswith("FOR UPDATE SKIP LOCKED") for line in selects)


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
    assert len(deletes) == statements.count("COMMIT") - 1 >= 2500 / 500  # the last one is of the note for the pages
    tidied = statements.count("PRAGMA wal_checkpoint(PASSIVE)")  # by the purge, so that no callback's commit has to
    assert tidied == (len(deletes) if host.engine.dialect.name == "sqlite" else 0)
    assert looks(statements) == 3
    assert ages(host) == [1] * 10


def test_a_batch_is_as_large_as_its_time_allows(sqlite_host):
    sizes: list[int] = []
    rows(sqlite_host, 1500, days=100)
    with sqlite_host.app.app_context():
        purge_module.purge_deliveries(sqlite_host.state, on_progress=sizes.append, hold=1e9)
    assert sizes == [10, 20, 40, 80, 160, 320, 370, 500]  # a page ends after 1000

    sizes.clear()
    rows(sqlite_host, 45, days=100)
    with sqlite_host.app.app_context():
        purge_module.purge_deliveries(sqlite_host.state, on_progress=sizes.append, hold=0)
    assert sizes == [10, 10, 10, 10, 5]


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
    assert looks(statements) == 1


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


# --- by verdict ----------------------------------------------------------------------------------------------------


BY_VERDICT = {"rejected": 7, "duplicate": 30, "dead": 365, "replayed": 0}


def verdicts(host: Host) -> Counter[tuple[str, int]]:
    now = host.clock.now
    return Counter((row.verdict, round((now - row.received_at) / timedelta(days=1))) for row in host.deliveries())


def test_each_verdict_goes_at_its_own_age(hosts, database_url):
    host = hosts(database_url, WEBHOOK_HISTORY_RETENTION_BY_VERDICT=BY_VERDICT)
    for days in (400, 200, 60, 20, 3):
        for verdict in ("processed", "rejected", "duplicate", "dead", "replayed"):
            rows(host, 1, days=days, verdict=verdict)
    assert purge(host) == 10
    kept = {"processed": (60, 20, 3), "rejected": (3,), "duplicate": (20, 3), "dead": (200, 60, 20, 3)}
    kept["replayed"] = (400, 200, 60, 20, 3)
    assert verdicts(host) == Counter((verdict, days) for verdict, all_days in kept.items() for days in all_days)


def test_single_verdicts_can_be_chosen(host):
    for verdict in ("processed", "rejected", "dead"):
        rows(host, 2, days=100, verdict=verdict)
    assert purge(host, verdicts=["rejected"]) == 2
    assert purge(host, verdicts=["dead", "rejected"], before=host.clock.now - timedelta(days=99)) == 2
    assert verdicts(host) == {("processed", 100): 2}
    with pytest.raises(ValueError, match="odd"):
        purge(host, verdicts=["odd"])


def test_the_scheduler_walks_through_the_whole_history_once_a_day_and_else_looks_at_what_is_new(hosts, database_url):
    host = hosts(database_url, WEBHOOK_HISTORY_RETENTION_BY_VERDICT={"rejected": 7, "duplicate": 30})
    for days in range(50, 0, -1):
        rows(host, 100, days=days)
        rows(host, 1, days=days, verdict="rejected")
        rows(host, 1, days=days, verdict="duplicate")
    rows(host, 1, days=0.5, verdict="rejected")
    assert purge_regularly(host) == (43 + 20, 5)  # of five thousand rows all but those of a week

    host.clock.advance(3600)
    assert purge_regularly(host) == (2, 2)  # one rejected and one duplicate have just come of age: a page for each
    host.clock.advance(3600)
    deleted, pages = purge_regularly(host)
    assert (deleted, pages <= 2) == (0, True)

    host.clock.advance(23 * 3600)
    deleted, pages = purge_regularly(host)
    assert (deleted, pages >= 5) == (2, True)


def test_what_expires_by_its_verdict_alone_goes_the_next_day(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_HISTORY_RETENTION_BY_VERDICT={"dead": 365})
    rows(host, 1, days=200, verdict="dead")
    rows(host, 1500, days=1)
    assert purge_regularly(host)[0] == 0
    with host.app.app_context():
        host.db.session.execute(sa.text("UPDATE webhook_deliveries SET verdict = 'replayed' WHERE verdict = 'dead'"))
        host.db.session.commit()
    host.clock.advance(3600)
    assert purge_regularly(host)[0] == 0
    host.clock.advance(86_400)
    assert purge_regularly(host)[0] == 1


# --- beside others -------------------------------------------------------------------------------------------------


def test_it_ends_with_the_batch_at_hand_when_the_scheduler_is_stopped_and_goes_on_later(sqlite_host):
    rows(sqlite_host, 100, days=100)
    sqlite_host.state.jobs.value.stopping.set()
    assert purge_regularly(sqlite_host)[0] == 10
    assert sqlite_host.state.jobs.value.purge_memory is None
    sqlite_host.state.jobs.value.stopping.clear()
    assert purge_regularly(sqlite_host)[0] == 90


def test_a_row_that_comes_to_wait_between_the_look_and_the_deletion_is_kept(host):
    rows(host, 3, days=100, verdict="failed")
    engine, changed = host.engine, list[bool]()

    def revive(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE") and not changed:
            changed.append(True)
            cursor.execute("UPDATE webhook_deliveries SET next_retry_at = received_at WHERE id = 2")

    sa.event.listen(engine, "before_cursor_execute", revive)
    assert purge(host) == 2
    assert [row.id for row in host.deliveries()] == [2]


def test_a_row_that_somebody_holds_is_left_to_the_next_purge_and_not_waited_for(server_host):
    rows(server_host, 30, days=100)
    with server_host.engine.begin() as other:
        other.execute(sa.text("SELECT id FROM webhook_deliveries WHERE id IN (7, 25) FOR UPDATE")).all()
        assert purge(server_host) == 28
    assert purge(server_host) == 2


def test_on_mariadb_it_locks_only_what_it_deletes(hosts, mariadb, mariadb_url):
    host = hosts(mariadb_url)
    rows(host, 100, days=100)
    rows(host, 3000, days=1)
    locked: list[int] = []

    def look(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE"):
            (most,) = mariadb.execute("SELECT max(trx_rows_locked) FROM information_schema.innodb_trx")
            locked.append(int(most[0]))

    sa.event.listen(host.engine, "after_cursor_execute", look)
    with host.app.app_context():
        purge_module.purge_deliveries(host.state, hold=0)  # ten at a time

    assert len(locked) == 10
    assert max(locked) <= 30


@pytest.mark.parametrize("skip_locked", [True, False])
def test_two_at_once_delete_everything_once(hosts, database_url, skip_locked):
    host = hosts(database_url)
    if not skip_locked:
        host.use_features(returning=False, skip_locked=False)
    rows(host, 600, days=100)
    rows(host, 5, days=1)

    def purge_to_the_end() -> int:
        with host.app.app_context():
            return purge_module.purge_deliveries(host.state, stop=threading.Event())

    deleted = at_once(purge_to_the_end, purge_to_the_end)
    assert sum(deleted) + purge(host) == 600
    assert len(ages(host)) == 5


def test_rows_whose_times_are_out_of_order_are_found_where_they_are_few(host):
    for days in (1, 200, 5, 100):
        rows(host, 3, days=days)
    assert purge(host) == 6
    assert ages(host) == [1, 1, 1, 5, 5, 5]
