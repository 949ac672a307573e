"""`flask webhook worker` as a process: it applies, is woken, stops in order, and shares with others."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.engine.listen import NotifyListener
from flask_contenthub_webhook.runtime.state import get_state
from tests.cli.conftest import run
from tests.support.gunicorn import Gunicorn
from tests.support.host import make_host
from tests.support.postgres import PostgresServer
from tests.support.raw_http import callback, completed, failed, post, send
from tests.support.worker_host import FACTORY
from tests.support.workers import Site, site


@pytest.fixture
def hub(database_url: str, tmp_path: Path) -> Iterator[Site]:
    with site(database_url, tmp_path) as made:
        yield made


@pytest.fixture
def postgres_hub(postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    with site(postgres_url, tmp_path) as made:
        yield made


def test_it_applies_what_waits_and_what_comes_and_ends_on_sigterm(hub: Site) -> None:
    early, late, fails = hub.database.add_tasks(3)
    hub.complete([early])
    (worker,) = hub.start()
    hub.complete([late])
    hub.post(fails, failed(fails, retryable=False))
    hub.wait_until_done()

    assert worker.end(signal.SIGTERM) == 0
    assert "2 threads, batches of 20" in worker.log
    assert worker.log.endswith("Stopped.\n")
    assert "Traceback" not in worker.log
    assert hub.database.contents(early, late) == {early: 1, late: 1}
    assert hub.database.failures(fails) == {fails: 1}


def test_its_log_is_at_most_30_bytes_for_an_event(postgres_hub: Site) -> None:
    hub = postgres_hub
    tasks = hub.database.add_tasks(200)
    hub.complete(tasks)
    (worker,) = hub.start()
    began = len(worker.log)
    hub.wait_until_done()

    assert worker.end(signal.SIGTERM) == 0
    log = worker.log[began:]
    assert sum(int(number) for number in re.findall(r"Applied in \d+ s: (\d+) completed\.", worker.log)) == 200
    assert len(log) <= 30 * len(tasks)


def test_what_an_operator_wants_to_know_keeps_its_line(hub: Site) -> None:
    (task_id,) = hub.database.add_tasks(1)
    hub.complete([task_id])
    hub.post(task_id, failed(task_id, retryable=False))
    (worker,) = hub.start()
    hub.wait_until_done()

    assert worker.end(signal.SIGTERM) == 0
    assert "Event failed: ignored (" in worker.log
    assert "Event completed: processed" not in worker.log


def test_it_finishes_what_it_has_in_hand_and_gives_back_the_rest(hub: Site) -> None:
    hub.switch.write_text("sleep 0.5")
    tasks = hub.database.add_tasks(3)
    hub.complete(tasks)
    (worker,) = hub.start(threads=1)
    hub.wait(lambda: hub.leased() == 3, "nothing is claimed")
    assert worker.end(signal.SIGINT) == 0

    done = hub.effects()
    assert 1 <= done < 3
    assert (hub.waiting(), hub.leased()) == (3 - done, 0)


def test_postgresql_wakes_it(postgres_hub: Site) -> None:
    """Nothing else ends a wait of a minute before its time."""
    never = threading.Event()
    state = get_state(postgres_hub.app)
    with NotifyListener(state) as listener:
        assert listener.is_listening
        assert not listener.wait(0.1, never)
        tasks = postgres_hub.database.add_tasks(3)
        for batch in (tasks[:1], tasks[1:]):  # the second time it is a batch that says so
            if len(batch) == 1:
                postgres_hub.complete(batch)
            else:
                events = b",".join(completed(task_id) for task_id in batch)
                answer = postgres_hub.app.test_client().post(
                    "/api/v1/content/callbacks", data=b'{"events":[%s]}' % events, content_type="application/json"
                )
                assert answer.json is not None
                assert answer.json["success"]
            started = time.monotonic()
            assert listener.wait(60, never)
            assert time.monotonic() - started < 30
    assert not listener.is_listening


def test_sqlite_is_looked_at_now_and_then(sqlite_url: str, tmp_path: Path) -> None:
    with site(sqlite_url, tmp_path) as made, NotifyListener(get_state(made.app)) as listener:
        assert not listener.is_listening
        assert not listener.wait(0.01, threading.Event())


def test_the_connection_that_listens_is_made_anew(postgres_hub: Site, postgres: PostgresServer) -> None:
    postgres_hub.start(threads=1)
    postgres_hub.wait(lambda: idle_listeners(postgres_hub) == 1, "nobody listens")
    with postgres.outage():
        pass
    postgres_hub.wait(lambda: idle_listeners(postgres_hub) == 1, "nobody listens any more")
    tasks = postgres_hub.database.add_tasks(1)
    postgres_hub.app.test_client().get("/api/v1/content/health")
    postgres_hub.wait(lambda: postgres_hub.complete(tasks), "the database does not take events again")
    postgres_hub.wait_until_done()
    assert postgres_hub.effects() == 1


def test_two_workers_share_the_work(hub: Site) -> None:
    hub.switch.write_text("sleep 0.05")
    hub.env["WEBHOOK_WORKER_BATCH"] = "2"
    tasks = hub.database.add_tasks(40)
    workers = hub.start(2, threads=1)
    hub.complete(tasks)
    hub.wait_until_done()
    assert hub.database.contents(*tasks) == dict.fromkeys(tasks, 1)
    if not hub.database.is_sqlite:  # whose one writer's lock goes to whoever asks at the right moment
        assert [worker.end(signal.SIGTERM) for worker in workers] == [0, 0]
        assert all(" completed." in worker.log for worker in workers)


def test_a_handler_that_takes_seconds_does_not_slow_the_acceptance_of_others(
    postgres_hub: Site, gunicorn: Callable[..., Gunicorn]
) -> None:
    postgres_hub.switch.write_text("sleep 10")
    tasks = postgres_hub.database.add_tasks(40)
    server = gunicorn(FACTORY, workers=1, env=postgres_hub.env)
    postgres_hub.start(threads=4)

    def deliver(task_id: str) -> Any:
        return send(server.port, post(callback(task_id), completed(task_id)))

    deliver(tasks[0])
    postgres_hub.wait(postgres_hub.leased, "no handler runs")
    with ThreadPoolExecutor(4) as senders:
        answers = list(senders.map(deliver, tasks[1:]))
    assert {answer.status for answer in answers} == {202}
    assert max(answer.seconds for answer in answers) < 8
    assert postgres_hub.effects() < len(tasks)


def test_it_says_where_it_has_little_to_do(sqlite_url: str) -> None:
    host = make_host(sqlite_url)
    try:
        assert "--threads" in run(host, "worker", "--help").output
        assert run(host, "worker", "--threads", "0").exit_code == 2
    finally:
        host.close()


def idle_listeners(made: Site) -> int:
    words = "select count(*) from pg_stat_activity where query like 'LISTEN%' and datname = current_database()"
    with made.database.engine.connect() as connection:
        return int(connection.execute(sa.text(words)).scalar_one())
