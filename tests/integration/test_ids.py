"""An id never comes again: forwards, replays and people's notes name rows that a purge has deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import DeliveryMixin, GenerationTaskMixin
from tests.support.host import Host, completed

Build = Callable[..., Host]
RECEIVER = "http://127.0.0.1:9/"
OUR_TABLES = ("content_generation_tasks", "webhook_deliveries", "webhook_forward_attempts", "webhook_forwards")


def own_models(db: SQLAlchemy) -> Mapping[str, type[Any]]:
    return {
        "task_model": type("Task", (GenerationTaskMixin, db.Model), {"__tablename__": "jobs"}),
        "delivery_model": type("Delivery", (DeliveryMixin, db.Model), {"__tablename__": "job_history"}),
    }


def purge_everything(host: Host) -> None:
    host.clock.advance(3600)
    with host.app.app_context():
        host.webhook.purge(before=host.clock.now - timedelta(seconds=1))


def forward_ids(host: Host) -> list[int]:
    forward = host.state.models.forward
    with host.app.app_context():
        return list(host.db.session.scalars(sa.select(forward.id)))


def deliver(host: Host) -> int:
    task_id = host.add_task(forward_to=[RECEIVER])
    assert host.post(task_id, completed(task_id)).status_code == 200
    return int(host.deliveries(task_id)[0].id)


def test_a_delivery_that_follows_a_purge_has_an_id_of_its_own(host: Host) -> None:
    before = deliver(host)
    purge_everything(host)
    assert host.deliveries() == []
    assert deliver(host) > before


def test_so_it_is_in_a_history_of_the_hosts_own(hosts: Build, database_url: str) -> None:
    host = hosts(database_url, models=own_models)
    before = deliver(host)
    purge_everything(host)
    assert host.deliveries() == []
    assert deliver(host) > before


def test_a_forward_never_shows_under_another_delivery(host: Host) -> None:
    deliver(host)
    forward = host.state.models.forward
    with host.app.app_context():
        host.db.session.execute(sa.update(forward).values(status="dead", next_try_at=None, finished_at=host.clock.now))
        host.db.session.commit()
    before = forward_ids(host)
    purge_everything(host)
    assert forward_ids(host) == []
    deliver(host)
    assert min(forward_ids(host)) > max(before)


def test_sqlite_counts_on_in_every_table_with_ids_that_it_makes(sqlite_host: Host) -> None:
    with sqlite_host.engine.connect() as connection:
        made = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
        assert sorted(made.scalars()) == list(OUR_TABLES)
