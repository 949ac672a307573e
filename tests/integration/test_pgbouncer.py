"""Behind a real PgBouncer: callbacks are applied, and a worker that cannot be woken looks for work itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.engine.listen import NotifyListener
from flask_contenthub_webhook.runtime.state import get_state
from tests.support.host import Host, at_once, completed
from tests.support.pgbouncer import PROGRAM, PgBouncer
from tests.support.postgres import PostgresServer
from tests.support.workers import Site, site

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not on this machine (apt-get install pgbouncer)")

NOT_HEARD = "Notifications of the database do not arrive"
UNPREPARED = {"connect_args": {"prepare_threshold": None}}
"""As the deployment guide says, for PgBouncer before 1.21."""


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[PgBouncer]:
    with PgBouncer(postgres, pool_mode="transaction") as pgbouncer:
        yield pgbouncer


@pytest.fixture
def pooled_url(pooler: PgBouncer, postgres_url: str) -> str:
    return pooler.url_of(postgres_url)


@pytest.fixture
def hub(pooled_url: str, tmp_path: Path) -> Iterator[Site]:
    with site(pooled_url, tmp_path) as made:
        yield made


def test_a_worker_that_hears_nothing_says_so_once_and_looks_every_two_seconds(
    hub: Site, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING), NotifyListener(get_state(hub.app)) as listener:
        assert not listener.is_listening
        listener._tried_at = float("-inf")  # as after the time of a reconnection
        assert not listener.wait(0.01, threading.Event())

    assert [NOT_HEARD in record.getMessage() for record in caplog.records] == [True]


def test_nothing_is_left_that_listens_on_connections_of_others(hub: Site, pooler: PgBouncer, postgres_url: str):
    with NotifyListener(get_state(hub.app)):
        pass

    engines = [sa.create_engine(pooler.url_of(postgres_url), poolclass=sa.NullPool) for _ in range(6)]
    connections = [engine.connect() for engine in engines[:5]]  # each holds a server connection while in a transaction
    channels = [
        row for connection in connections for row in connection.execute(sa.text("select pg_listening_channels()"))
    ]
    for connection in connections:
        connection.close()

    assert not any(channel == "contenthub_webhook" for (channel,) in channels)


def test_the_worker_applies_events_all_the_same(hub: Site):
    tasks = hub.database.add_tasks(3)
    (worker,) = hub.start(threads=1)
    hub.complete(tasks)
    hub.wait_until_done()

    assert hub.effects() == 3
    hub.wait(lambda: NOT_HEARD in worker.log, "it does not say that it hears nothing")
    assert worker.log.count(NOT_HEARD) == 1


def test_in_session_mode_it_is_woken(postgres: PostgresServer, postgres_url: str, tmp_path: Path):
    with (
        PgBouncer(postgres, pool_mode="session", pool_size=20) as pgbouncer,
        site(pgbouncer.url_of(postgres_url), tmp_path) as made,
        NotifyListener(get_state(made.app)) as listener,
    ):
        assert listener.is_listening
        made.complete(made.database.add_tasks(1))
        started = time.monotonic()
        assert listener.wait(60, threading.Event())
        assert time.monotonic() - started < 30


@pytest.mark.parametrize("processing", ["inline", "worker"])
def test_many_callbacks_over_few_server_connections(hosts: Callable[..., Host], pooled_url: str, processing: str):
    """Each connection would have prepared its statements after five uses, on a server connection that others use."""
    host = hosts(pooled_url, engine_options=UNPREPARED, WEBHOOK_PROCESSING=processing)
    tasks = [host.add_task() for _ in range(40)]

    def deliver(task_ids: list[str]) -> list[int]:
        return [host.post(task_id, completed(task_id), attempt=1).status_code for task_id in task_ids * 2]

    answers = at_once(*[lambda part=tasks[start::8]: deliver(part) for start in range(8)])
    host.retry()

    assert {status for part in answers for status in part} <= {200, 202}
    assert [len(host.contents(task_id)) for task_id in tasks] == [1] * 40


def test_prepared_statements_that_the_pooler_mixes_up_fail_no_event(hosts: Callable[..., Host], pooled_url: str):
    """A set-up that the deployment guide warns of: senders are told to come again, and nothing is counted as failed."""
    host = hosts(pooled_url)
    tasks = [host.add_task() for _ in range(40)]

    def deliver(task_ids: list[str]) -> list[int]:
        return [host.post(task_id, completed(task_id), attempt=1).status_code for task_id in task_ids]

    answers = at_once(*[lambda part=tasks[start::8]: deliver(part) for start in range(8)])

    assert {status for part in answers for status in part} <= {200, 503}
    with sa.create_engine(pooled_url, poolclass=sa.NullPool).connect() as connection:
        verdicts = connection.execute(sa.text("select distinct verdict from webhook_deliveries")).scalars().all()
    assert set(verdicts) <= {"processed"}
