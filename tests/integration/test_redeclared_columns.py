"""Columns that a host's models declare anew, and that therefore come first in its tables.

MySQL and MariaDB assign from left to right, and see what was assigned before; other databases see the row as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import mapped_column

from flask_contenthub_webhook import DeliveryMixin, GenerationTaskMixin
from flask_contenthub_webhook.models.columns import UTCDateTime
from tests.support.host import Host, completed, failed

Build = Callable[..., Host]
LEASE = timedelta(minutes=1)


def models(db: SQLAlchemy) -> dict[str, Any]:
    status = mapped_column("state", sa.String(16), nullable=False, default="pending")
    polls = mapped_column(sa.Integer, nullable=False, default=0)
    task = {"__tablename__": "jobs", "status": status, "polls": polls}
    log = {"__tablename__": "job_log", "claimed_until": mapped_column("lease", UTCDateTime, nullable=True)}
    return {
        "task_model": type("Job", (GenerationTaskMixin, db.Model), task),
        "delivery_model": type("JobLog", (DeliveryMixin, db.Model), log),
    }


@pytest.mark.parametrize("event", [completed, failed])
def test_the_state_before_is_the_one_before(hosts: Build, database_url: str, event: Callable[..., Any]) -> None:
    host = hosts(database_url, db=SQLAlchemy(), models=models)
    task_id = host.add_task()

    assert host.post(task_id, event(task_id), attempt=1).status_code == 200

    (delivery,) = host.deliveries(task_id)
    assert host.task(task_id).previous_status == "submitted"
    assert (delivery.status_before, delivery.status_after) == ("submitted", host.task(task_id).status)


def test_a_claim_that_is_given_back_is_no_lost_one(hosts: Build, database_url: str) -> None:
    host = hosts(database_url, db=SQLAlchemy(), models=models, WEBHOOK_PROCESSING="worker")
    task_id = host.add_task()
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 202
    inbox = host.state.store.inbox

    for _ in range(4):
        with host.app.app_context(), host.state.database.begin() as connection:
            (claimed,) = inbox.claim(connection, lease=LEASE, limit=1)
        with host.app.app_context(), host.state.database.begin() as connection:
            inbox.release(connection, [claimed.row])

    (delivery,) = host.deliveries(task_id)
    assert (delivery.tries, delivery.error) == (0, None)
    assert host.retry().outcomes == {"processed": 1}


def test_a_poll_backs_off_by_the_number_of_polls_before(hosts: Build, database_url: str) -> None:
    host = hosts(database_url, db=SQLAlchemy(), models=models)
    task_id = host.add_task(next_poll_at=host.clock.now, callback_url="https://hub.example/", deadline_at=None)

    with host.app.app_context():
        host.state.database.write(lambda tx: host.state.store.claim_polls(tx, early=timedelta(), limit=1))

    task = host.task(task_id)
    first = host.state.settings.poll_intervals[1]
    assert (task.polls, task.next_poll_at - host.clock.now) == (1, first)
