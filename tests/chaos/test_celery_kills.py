"""Celery's worker, its broker, the database: each is taken away in the middle, and no event is lost or doubled.

``CELERY_CALLBACKS=1000 python -m pytest tests/chaos/test_celery_kills.py -rP`` is the full run.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from flask_contenthub_webhook.engine.retry import retry_due_deliveries
from tests.support.audited import audited
from tests.support.celery_host import WEB_APP
from tests.support.celery_worker import CeleryWorker, Pool
from tests.support.databases import SERVERS
from tests.support.gunicorn import Gunicorn
from tests.support.mariadb import MariaDBServer
from tests.support.postgres import PostgresServer
from tests.support.processes import wait_until
from tests.support.raw_http import callback, completed, post, send
from tests.support.redis import NO_REDIS, RedisServer, find_redis
from tests.support.web_database import HostDatabase
from tests.support.web_host import create_app
from tests.support.web_server import figure

CALLBACKS = int(os.environ.get("CELERY_CALLBACKS", "100"))
FULL = 1_000
SENDERS = 8
POOL: Pool = "prefork" if CALLBACKS >= FULL else "threads"
"""Celery's prefork workers may take half a minute to end, waiting for their parent to read what they said last."""
SETTINGS = {
    "WEBHOOK_PROCESSING": "celery",
    "WEBHOOK_CELERY_GRACE": "2",
    "WEBHOOK_TIMEOUT": "1",  # so that a lease ends after six seconds
    "WEBHOOK_INBOX_LIMIT": "0",
}
MISSED = "The broker accepts no wake-ups"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.on("redis"),
    pytest.mark.filterwarnings("ignore::flask_contenthub_webhook.errors.InsecureConfiguration"),
]


class Sweeper:
    """The scheduler's job, again and again; counts what it took."""

    def __init__(self, url: str) -> None:
        self._app = create_app(DATABASE_URL=url, **SETTINGS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.swept = 0
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        state = self._app.extensions["contenthub_webhook"]
        while not self._stopped.wait(0.5):
            with self._app.app_context():
                self.swept += retry_due_deliveries(state).claimed


@dataclass
class Site:
    """Everything of one installation, and those who send to it."""

    gunicorn: Gunicorn
    worker: CeleryWorker
    redis: RedisServer
    server: PostgresServer | MariaDBServer
    database: HostDatabase
    sweeper: Sweeper
    acknowledged: dict[str, float] = field(default_factory=dict)
    refused: int = 0

    def deliver(self, task_id: str) -> None:
        """As a sender does: again and again until it is acknowledged."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                answer = send(self.gunicorn.port, post(callback(task_id), completed(task_id)))
            except (OSError, http.client.HTTPException):
                answer = None
            if answer is not None and answer.status == 202:
                self.acknowledged[task_id] = answer.seconds
                return
            assert answer is None or answer.status == 503, answer
            self.refused += 1
            time.sleep(0.05)
        raise AssertionError("never acknowledged")

    def wait_for_more(self, count: int) -> None:
        target = min(len(self.acknowledged) + count, CALLBACKS)
        wait_until(
            lambda: len(self.acknowledged) >= target, timeout=120, what="too slow", log=lambda: self.gunicorn.log
        )


@pytest.fixture(scope="module", params=SERVERS)
def site(request: pytest.FixtureRequest, server_of: Callable[[str], Any]) -> Iterator[Site]:
    if find_redis() is None:
        pytest.skip(NO_REDIS)
    server = server_of(request.param)
    url = server.create_database()
    database = HostDatabase(url).create()
    with audited(url), RedisServer() as redis:
        env = {"DATABASE_URL": url, "TEST_HOST_BROKER": redis.url, **SETTINGS}
        with Gunicorn(WEB_APP, env=env) as gunicorn, CeleryWorker(env, pool=POOL) as worker:
            sweeper = Sweeper(url)
            try:
                yield Site(gunicorn, worker, redis, server, database, sweeper)
            finally:
                sweeper.stop()


@contextmanager
def kill_the_worker(site: Site) -> Iterator[None]:
    site.worker.kill()
    yield
    site.wait_for_more(10)
    site.worker.start()


@contextmanager
def end_the_worker(site: Site) -> Iterator[None]:
    assert site.worker.stop(timeout=60) == 0
    yield
    site.wait_for_more(10)
    site.worker.start()


@contextmanager
def kill_the_broker(site: Site) -> Iterator[None]:
    """It comes back empty, and not before a web process has missed it."""
    missed_before = site.gunicorn.log.count(MISSED)
    site.redis.stop()
    yield
    site.wait_for_more(10)
    wait_until(
        lambda: site.gunicorn.log.count(MISSED) > missed_before,
        timeout=60,
        what="no wake-up failed",
        log=lambda: site.gunicorn.log[-5_000:],
    )
    site.redis.start()


@contextmanager
def restart_the_database(site: Site) -> Iterator[None]:
    site.server.stop("immediate")
    yield
    time.sleep(0.5)
    site.server.start()


@pytest.mark.parametrize("accident", [kill_the_worker, end_the_worker, kill_the_broker, restart_the_database])
def test_every_acknowledged_callback_has_its_effect_and_none_has_two(
    site: Site, accident: Callable[[Site], AbstractContextManager[None]]
) -> None:
    site.acknowledged.clear()
    site.refused, swept_before = 0, site.sweeper.swept
    task_ids = site.database.add_tasks(CALLBACKS)
    some = 2 * CALLBACKS // 3
    began = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as pool:
        sending = [pool.submit(site.deliver, task_id) for task_id in task_ids[:some]]
        site.wait_for_more(CALLBACKS // 3)
        wait_until(
            lambda: sum(site.database.contents(*task_ids).values()) > CALLBACKS // 10,
            timeout=60,
            what="nothing is applied",
            log=lambda: site.worker.log[-5_000:],
        )
        with accident(site):
            sending += [pool.submit(site.deliver, task_id) for task_id in task_ids[some:]]
        for one in sending:
            one.result()
    sent = time.monotonic() - began
    assert len(site.acknowledged) == CALLBACKS

    wait_until(
        lambda: all(site.database.contents(*task_ids).values()),
        timeout=180,
        what=f"{Counter(site.database.contents(*task_ids).values())} effects",
        log=lambda: site.worker.log[-5_000:],
    )
    if accident is kill_the_broker:  # what was accepted meanwhile woke nobody; a sweep is counted when it has ended
        wait_until(lambda: site.sweeper.swept > swept_before, timeout=60, what="nothing was swept", log=lambda: "")
    swept = site.sweeper.swept - swept_before
    figure(
        f"{accident.__name__}: {CALLBACKS} acknowledged in {sent:.1f} s ({site.refused} tries refused, the "
        f"slowest answer {max(site.acknowledged.values()):.2f} s), all applied "
        f"{time.monotonic() - began - sent:.1f} s later, {swept} of them by the sweep"
    )
    assert site.database.contents(*task_ids) == dict.fromkeys(task_ids, 1)
    for task_id in task_ids[:: max(CALLBACKS // 100, 1)]:
        wait_for_a_quiet_history(site, task_id)


def wait_for_a_quiet_history(site: Site, task_id: str) -> None:
    """One event had the effect, and a second try of the sender's is a duplicate of it."""

    def is_quiet() -> bool:
        verdicts: Any = Counter(site.database.verdicts(task_id))
        return verdicts.pop("processed") == 1 and set(verdicts) <= {"duplicate"}

    wait_until(is_quiet, timeout=30, what=f"{site.database.verdicts(task_id)}", log=lambda: "")
