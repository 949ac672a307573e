"""Many forwards wait for one URL that fails: they are moved in portions, and not again at each try of the URL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.forwarding.pauses import PORTION
from flask_contenthub_webhook.forwarding.send import ForwardReport
from tests.support.host import Host
from tests.support.receiver import Receiver
from tests.support.workers import size

WAITING = size("FORWARDS_WAITING", 700)
CONFIG = {
    "WEBHOOK_FORWARD_SECRET": "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw==",
    "WEBHOOK_FORWARD_ALLOWED_NETWORKS": "127.0.0.0/8",
    "WEBHOOK_SUBMIT_THREADS": 0,
}


@pytest.fixture
def hub(hosts: Callable[..., Host], database_url: str) -> Host:
    return hosts(database_url, **CONFIG)


def add(host: Host, url: str, count: int) -> None:
    now = host.clock.now
    common = {"delivery_id": 1, "task_id": "t", "event": "completed", "url": url, "status": "waiting", "tries": 0}
    common |= {"next_try_at": now, "created_at": now, "body": b"{}"}
    with host.engine.begin() as connection:
        rows = [{**common, "message_id": f"m{number}"} for number in range(count)]
        connection.execute(sa.insert(host.state.outbox.forwards.table), rows)


def send(host: Host, **options: Any) -> ForwardReport:
    with host.app.app_context():
        return host.webhook.send_due_forwards(**options)


def count(host: Host, **values: Any) -> int:
    table = host.state.outbox.forwards.table
    with host.engine.connect() as connection:
        query = sa.select(sa.func.count()).select_from(table).filter_by(**values)
        return int(connection.execute(query).scalar_one())


@contextmanager
def changes(host: Host) -> Iterator[list[int]]:
    """The number of forwards that each transaction changed."""
    made: list[int] = []
    under_way: Counter[int] = Counter()  # several threads send

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("UPDATE webhook_forwards", "WITH")):
            under_way[id(connection)] += max(cursor.rowcount, 0)

    def end(connection: Any) -> None:
        made.append(under_way.pop(id(connection), 0))

    sa.event.listen(host.engine, "after_cursor_execute", note)
    sa.event.listen(host.engine, "commit", end)
    yield made
    sa.event.remove(host.engine, "after_cursor_execute", note)
    sa.event.remove(host.engine, "commit", end)


def pass_the_pause(host: Host) -> None:
    host.clock.advance(11 * 60)


def test_they_are_moved_in_portions_and_not_again_at_each_try(hub: Host) -> None:
    with Receiver(500) as receiver:
        add(hub, receiver.url(), WAITING)
        with changes(hub) as made:
            while send(hub).claimed or sum(made) < WAITING:
                pass
        assert max(made) <= PORTION
        tried = len(receiver.requests)
        assert tried < 20
        for _ in range(4):
            pass_the_pause(hub)
            with changes(hub) as made:
                assert send(hub).claimed == 1
            assert sum(made) < 20  # of those that were tried before
        assert len(receiver.requests) == tried + 4


def test_once_it_answers_again_none_waits_for_the_rest_of_its_time(hub: Host) -> None:
    status = 500
    with Receiver(lambda request, number: status) as receiver:
        add(hub, receiver.url(), WAITING)
        while send(hub).claimed:
            pass
        status = 200
        hub.clock.advance(34)
        with changes(hub) as made:
            send(hub, limit=WAITING)
        assert max(made) <= PORTION
        hub.clock.advance(34)  # the first few failed, and have their own times
        send(hub)
    assert count(hub, status="delivered") == WAITING


def test_another_process_finds_them_too(hub: Host, hosts: Callable[..., Host]) -> None:
    status = 500
    with Receiver(lambda request, number: status) as receiver:
        add(hub, receiver.url(), 40)
        send(hub)
        status = 200
        other = hosts(str(hub.engine.url.render_as_string(hide_password=False)), create_tables=False, **CONFIG)
        other.clock = other.state.clock = hub.clock
        hub.clock.advance(34)
        send(other)
        hub.clock.advance(34)
        send(other)
    assert count(other, status="delivered") == 40


def test_new_ones_for_a_url_that_is_left_alone_wait_with_the_others(hub: Host) -> None:
    with Receiver(500) as receiver, Receiver() as well:
        add(hub, receiver.url(), 40)
        send(hub)
        tried = len(receiver.requests)
        add(hub, receiver.url(), 10)
        add(hub, well.url(), 10)
        assert send(hub).outcomes == {"delivered": 10}
        assert len(receiver.requests) == tried
