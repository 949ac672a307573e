"""Work that takes longer than its lease stays with the worker that does it; what waits behind it does not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.engine.retry import RetryReport, work_off
from flask_contenthub_webhook.forwarding import send as forwarding
from tests.support.host import Host, completed
from tests.support.processes import wait_until
from tests.support.receiver import Receiver
from tests.support.skew import set_clock
from tests.support.submission import BASE, DONE, own, submit, with_own_creator

Build = Callable[..., Host]
QUICK: dict[str, Any] = {
    "WEBHOOK_PROCESSING": "worker",
    "WEBHOOK_CALLBACK_BASE_URL": BASE,
    "WEBHOOK_SUBMIT_THREADS": 0,
    "WEBHOOK_TIMEOUT": 0.2,
    "CREATOR_API_TIMEOUT": 0.2,
    "WEBHOOK_FORWARD_SECRET": "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw==",
    "WEBHOOK_FORWARD_ALLOWED_NETWORKS": "127.0.0.0/8",
}
"""A lease lasts 1.8 s."""


@pytest.fixture
def two(hosts: Build, database_url: str) -> tuple[Host, Host]:
    """Two servers with a real clock."""
    one, other = (with_own_creator(hosts(database_url, **QUICK, create_tables=first)) for first in (True, False))
    return set_clock(one, timedelta()), set_clock(other, timedelta())


def work(host: Host, *, limit: int = 100) -> RetryReport:
    report = RetryReport()
    work_off(host.state, report, limit=limit)
    return report


def lease_of(host: Host, table: str, column: str) -> Any:
    with host.engine.connect() as connection:
        return connection.scalar(sa.text(f"SELECT {column} FROM {table}"))


def see_it_renewed_twice(host: Host, table: str, column: str, meanwhile: Callable[[], None]) -> None:
    for _ in range(2):
        until = lease_of(host, table, column)
        meanwhile()
        wait_until(partial(has_changed, host, table, column, until), timeout=20, what="a renewal", log=str)
    meanwhile()


def has_changed(host: Host, table: str, column: str, until: Any) -> bool:
    return bool(lease_of(host, table, column) != until)


def test_an_event_whose_result_takes_long_to_fetch_is_handled_by_one_worker(two: tuple[Host, Host]):
    one, other = two
    stolen: list[int] = []
    table = one.state.delivery_model.__tablename__
    own(one).known["job-1"] = DONE
    own(one).on_statuses = lambda: see_it_renewed_twice(
        other, table, "claimed_until", lambda: stolen.append(work(other).claimed)
    )
    task_id = one.add_task(creator_task_id="job-1")
    assert one.post(task_id, completed(task_id, content=None), attempt=1).status_code == 202
    assert work(one).outcomes == {"processed": 1}
    assert stolen == [0, 0, 0]
    assert one.contents(task_id) == ["early"]
    assert one.deliveries(task_id)[0].tries == 1


def test_what_waits_behind_an_event_that_takes_long_is_left_to_others(hosts: Build, server_url: str):
    one, other = (set_clock(hosts(server_url, **QUICK, create_tables=first), timedelta()) for first in (True, False))
    slow, quick = one.add_task(), one.add_task()
    for task_id in (slow, quick):
        one.post(task_id, completed(task_id), attempt=1)

    def wait_for_the_other(app: Any, *, task: Any, **extra: Any) -> None:
        if task.task_id == slow:
            wait_until(lambda: work(other).claimed == 1, timeout=20, what="the event that waits", log=str)

    one.connect(task_completed, wait_for_the_other)
    assert work(one).outcomes == {"processed": 1}
    assert [len(one.contents(task_id)) for task_id in (slow, quick)] == [1, 1]
    assert [row.tries for row in one.deliveries()] == [1, 1]


def test_a_forward_that_takes_long_is_sent_once(two: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forwarding, "_LEASE_MARGIN", timedelta(seconds=-9))  # of WEBHOOK_FORWARD_TIMEOUT, 10 s
    one, other = two
    stolen: list[int] = []
    table = one.state.outbox.forwards.table.name

    def send(host: Host) -> int:
        with host.app.app_context():
            return int(host.webhook.send_due_forwards().claimed)

    def answer(*_: Any) -> int:
        see_it_renewed_twice(other, table, "next_try_at", lambda: stolen.append(send(other)))
        return 200

    with Receiver(answer) as receiver:
        task_id = submit(one, forward_to=[receiver.url("/")])
        one.post(task_id, completed(task_id), attempt=1)
        assert work(one).outcomes == {"processed": 1}
        assert send(one) == 1
        assert stolen == [0, 0, 0]
        assert len(receiver.requests) == 1
