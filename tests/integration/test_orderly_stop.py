"""SIGTERM while a process is busy with everything at once: it ends within ten seconds, and nothing is lost.

``STOP_OLD=1000000 STOP_FORWARDS=100000 python -m pytest tests/integration/test_orderly_stop.py -rP`` is the full run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from celery import Celery
from flask import Flask

from flask_contenthub_webhook import default_models
from tests.support.busy_host import FACTORY, SUBMITTED, create_app
from tests.support.celery_host import add_celery
from tests.support.celery_worker import CeleryWorker, Pool
from tests.support.databases import FIXTURES
from tests.support.gunicorn import Gunicorn
from tests.support.processes import PROJECT_ROOT, Guard, clean_environment, wait_until
from tests.support.raw_http import callback, completed
from tests.support.receiver import Receiver, Reply
from tests.support.redis import NO_REDIS, RedisServer, find_redis
from tests.support.web_database import HostDatabase
from tests.support.web_host import db

TASKS, DELIVERIES = (model.__table__ for model in default_models(db))
FORWARDS = db.metadata.tables["webhook_forwards"]

PROMISED = 10.0
BUSY = 8.0
"""Seconds that a machine may add which runs much else; work that is not stopped takes from 19 s to minutes."""
OLD, RECENT, FORWARDED = int(os.environ.get("STOP_OLD", "30000")), 50, int(os.environ.get("STOP_FORWARDS", "20000"))
"""Rows: a purge and a pass over the forwards take minutes for so many; both look whether to stop after each batch."""
SECRET = "a-secret-of-more-than-thirty-two-characters"


class Site:
    """A database with work of every kind, and a service that is slow."""

    def __init__(self, url: str, folder: Path, receiver: Receiver, seconds: float) -> None:
        self.database = HostDatabase(url).create()
        self.receiver = receiver
        self.journal_path = folder / "journal"
        self.journal_path.touch()
        self.environment = {
            "DATABASE_URL": url,
            "TEST_JOURNAL": str(self.journal_path),
            "TEST_SERVICE_SECONDS": str(seconds),
            "WEBHOOK_SECRET_KEY": SECRET,
            "WEBHOOK_FORWARD_SECRET": SECRET[::-1],
            "WEBHOOK_FORWARD_ALLOWED_NETWORKS": "127.0.0.0/8",
        }

    def fill(self) -> None:
        """Write history to purge, and forwards that are due."""
        now = datetime.now(UTC)
        is_mysql = self.database.engine.dialect.name in {"mysql", "mariadb"}  # where || may be a word for "or"
        named = (lambda prefix: f"concat('{prefix}', n)") if is_mysql else (lambda prefix: f"'{prefix}' || n")
        series = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)"
        history = f"""INSERT INTO webhook_deliveries (task_id, event, source, verdict, late, tries, occurrences,
            received_at, body) {series} SELECT {named("old-")}, 'completed', 'webhook', 'processed', false, 1, 1, :at,
            :body FROM numbers"""
        forwards = f"""INSERT INTO webhook_forwards (delivery_id, task_id, event, url, message_id, body, status, tries,
            next_try_at, created_at) {series} SELECT n, {named("f-")}, 'completed', :url, {named("msg_")}, :body,
            'waiting', 0, :at, :at FROM numbers"""
        at = sa.bindparam("at", type_=DELIVERIES.c.received_at.type)
        with self.database.engine.begin() as connection:
            for rows, age in ((OLD, 200), (RECENT, 1)):
                values = {"rows": rows, "at": now - timedelta(days=age), "body": b"{}"}
                connection.execute(sa.text(history).bindparams(at), values)
            values = {"rows": FORWARDED, "at": now, "body": b"{}", "url": self.receiver.url()}
            connection.execute(sa.text(forwards).bindparams(at), values)

    def add_pending(self, count: int) -> None:
        now = datetime.now(UTC)
        for _ in range(count):
            self.database.add_task(
                status="pending", creator_task_id=str(uuid.uuid4()), next_submit_at=now, next_poll_at=now, topic="Tea"
            )

    # --- what has become of it -------------------------------------------------------------------------------

    @property
    def calls(self) -> list[str]:
        return self.journal_path.read_text().splitlines()

    def rows(self, table: Any) -> list[Any]:
        with self.database.engine.connect() as connection:
            return list(connection.execute(sa.select(table)))

    def count_history(self) -> int:
        return self.database.count("webhook_deliveries")

    def wait_until_busy(self, log: Callable[[], str], *, calls: int = 4) -> None:
        full = self.count_history()

        def is_busy() -> bool:
            purges = self.count_history() < full
            return purges and len(self.calls) >= calls and len(self.receiver.requests) > 0

        wait_until(is_busy, timeout=60, what=f"not busy: {len(self.calls)} calls", log=log)

    def assert_that_nothing_is_lost(self) -> None:
        tasks = self.rows(TASKS)
        submitted = [call for call in self.calls if call.startswith("submit ")]
        assert len(tasks) == SUBMITTED
        assert len(submitted) == len(set(submitted))
        for task in tasks:
            assert task.status in {"pending", "submitted"}
            assert task.next_poll_at is not None
            if f"submit {task.creator_task_id}" not in submitted:
                assert (task.status, task.submitting_since) == ("pending", None)
                assert task.next_submit_at is not None
        forwards = self.rows(FORWARDS)
        assert len(forwards) == FORWARDED
        assert {row.status for row in forwards} <= {"waiting", "delivered"}
        assert sum(row.status == "waiting" for row in forwards) > 0
        assert RECENT < self.count_history() < OLD + RECENT


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(Reply(delay=0.05)) as receiver:
        yield receiver


@contextlib.contextmanager
def command(*arguments: str, environment: dict[str, str], log: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until it has said that it is ready; kill what it has not ended by itself."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT_ROOT,
            env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), PYTHONUNBUFFERED="1") | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    guard = Guard(process.pid, signal.SIGKILL)
    try:
        wait_until(lambda: ready in log.read_text(), timeout=30, what="it did not start", log=log.read_text)
        yield process
    finally:
        process.kill()
        process.wait()
        guard.release()


def assert_that_it_ends(process: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    process.terminate()
    assert process.wait(60) == 0
    assert_that_it_was_quick(began)


def assert_that_it_was_quick(began: float) -> None:
    took = time.monotonic() - began
    print(f"It ended after {took:.1f} s.")  # noqa: T201 - for -rP
    assert took < PROMISED + BUSY


@pytest.mark.parametrize(("worker_class", "seconds"), [("sync", 3), ("gthread", 60)])
def test_gunicorn_with_the_scheduler_in_its_workers(
    postgres_url: str, tmp_path: Path, receiver: Receiver, worker_class: str, seconds: float
):
    site = Site(postgres_url, tmp_path, receiver, seconds)
    site.fill()
    environment = site.environment | {"WEBHOOK_SCHEDULER_ENABLED": "true"}
    gunicorn = Gunicorn(FACTORY, workers=1, worker_class=worker_class, threads=4, env=environment)
    with gunicorn:
        assert httpx.post(f"{gunicorn.base_url}/submit", timeout=30).status_code == 200
        site.wait_until_busy(lambda: gunicorn.log)
        began = time.monotonic()
        gunicorn.stop(60)
        assert_that_it_was_quick(began)
    assert "SIGKILL" not in gunicorn.log
    site.assert_that_nothing_is_lost()


@pytest.mark.parametrize("kind", FIXTURES.values())
def test_the_scheduler(request: pytest.FixtureRequest, tmp_path: Path, receiver: Receiver, kind: str):
    site = Site(request.getfixturevalue(kind), tmp_path, receiver, 60)
    site.fill()
    site.add_pending(SUBMITTED)
    log = tmp_path / "log"
    arguments = ("-m", "flask", "--app", "tests.support.busy_host", "webhook", "scheduler")
    with command(*arguments, environment=site.environment, log=log, ready="The scheduler runs") as process:
        site.wait_until_busy(log.read_text, calls=1)
        assert_that_it_ends(process)
    assert log.read_text().endswith("Stopped.\n")
    site.assert_that_nothing_is_lost()


def test_the_command_that_polls(sqlite_url: str, tmp_path: Path, receiver: Receiver):
    site, now = Site(sqlite_url, tmp_path, receiver, 60), datetime.now(UTC)
    task_ids = [
        site.database.add_task(creator_task_id=f"job-{number}", next_poll_at=now, submitted_at=now)
        for number in range(20)
    ]
    log = tmp_path / "log"
    arguments = ("-m", "flask", "--app", "tests.support.busy_host", "webhook", "reconcile")
    with command(*arguments, environment=site.environment, log=log, ready="A pass every") as process:
        wait_until(lambda: len(site.calls) >= 8, timeout=30, what="not busy", log=log.read_text)
        assert_that_it_ends(process)
    assert log.read_text().endswith("Stopped.\n")
    assert len(site.calls) < len(task_ids)
    assert all(site.database.task(task_id).next_poll_at is not None for task_id in task_ids)


@pytest.mark.parametrize("kind", FIXTURES.values())
def test_the_worker(request: pytest.FixtureRequest, tmp_path: Path, receiver: Receiver, kind: str):
    """Its threads wait for results that the service does not return; other events wait behind them."""
    site = Site(request.getfixturevalue(kind), tmp_path, receiver, 60)
    task_ids = post_thin_events(site, processing="worker")
    log = tmp_path / "log"
    environment = site.environment | {"WEBHOOK_PROCESSING": "worker"}
    arguments = ("-m", "flask", "--app", "tests.support.busy_host", "webhook", "worker", "--threads", "4")
    with command(*arguments, environment=environment, log=log, ready="The worker runs") as process:
        wait_until(lambda: len(site.calls) >= 4, timeout=60, what="not busy", log=log.read_text)
        assert_that_it_ends(process)
    assert log.read_text().endswith("Stopped.\n")
    assert_that_events_wait(site, task_ids)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    if find_redis() is None:
        pytest.skip(NO_REDIS)
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize("pool", ["threads", "solo", "prefork"])
def test_celery(postgres_url: str, tmp_path: Path, receiver: Receiver, redis: RedisServer, pool: Pool):
    """As the worker; the events that it had in hand are the scheduler's once their leases end."""
    site = Site(postgres_url, tmp_path, receiver, 60)
    broker = {"TEST_HOST_BROKER": redis.url, "TEST_HOST_QUEUE": pool}
    celery = add_celery(Flask("host"), redis.url, queue=pool)
    environment = site.environment | {"WEBHOOK_PROCESSING": "celery"} | broker
    with CeleryWorker(environment, pool=pool, concurrency=2, app="tests.support.busy_host:celery_app") as worker:
        task_ids = post_thin_events(site, processing="celery", celery=celery)
        busy = 1 if pool == "solo" else 2
        wait_until(lambda: len(site.calls) >= busy, timeout=30, what="not busy", log=lambda: worker.log)
        began = time.monotonic()
        assert worker.stop(60) == 0
        assert time.monotonic() - began < PROMISED + BUSY
    assert_that_events_wait(site, task_ids)


def post_thin_events(site: Site, *, processing: str, celery: Celery | None = None) -> list[str]:
    """Accept a `completed` without its result for each of a hundred tasks."""
    task_ids = site.database.add_tasks(100, creator_task_id="job")
    app = create_app(
        DATABASE_URL=site.database.url,
        WEBHOOK_PROCESSING=processing,
        WEBHOOK_SECRET_KEY=None,
        TESTING=True,
    )
    if celery is not None:
        app.extensions["celery"] = celery
    for task_id in task_ids:
        answer = app.test_client().post(
            callback(task_id),
            data=completed(task_id).replace(b'"content"', b'"other"'),
            content_type="application/json",
        )
        assert answer.status_code == 202, answer.text
    with app.app_context():
        db.engine.dispose()
    return task_ids


def assert_that_events_wait(site: Site, task_ids: list[str]) -> None:
    for task_id in task_ids:
        (delivery,) = site.database.deliveries(task_id)
        assert delivery.verdict == "queued"
        assert delivery.next_retry_at is not None
        assert site.database.status(task_id) == "submitted"
