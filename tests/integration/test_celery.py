"""Celery as the engine: real workers on a real Redis, and what happens without either."""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from flask import Flask

from flask_contenthub_webhook.cli.checks import DoctorContext
from flask_contenthub_webhook.cli.checks.celery import check_celery
from flask_contenthub_webhook.contrib import celery as celery_engine
from flask_contenthub_webhook.contrib.celery import TASK_NAME
from flask_contenthub_webhook.engine.retry import retry_due_deliveries
from flask_contenthub_webhook.errors import ConfigurationError
from flask_contenthub_webhook.models.columns import utc_now
from flask_contenthub_webhook.runtime.state import CELERY_KEY
from tests.support.celery_host import WEB_APP, add_celery
from tests.support.celery_worker import CeleryWorker, Pool
from tests.support.gunicorn import Gunicorn
from tests.support.host import Host, encode, progress
from tests.support.host import completed as completed_event
from tests.support.processes import wait_until
from tests.support.rabbitmq import NO_RABBITMQ, RabbitMQServer, has_rabbitmq
from tests.support.raw_http import Answer, callback, completed, post, send
from tests.support.redis import NO_REDIS, RedisServer, find_redis
from tests.support.web_database import HostDatabase
from tests.support.web_host import create_app

pytestmark = pytest.mark.filterwarnings("ignore::flask_contenthub_webhook.errors.InsecureConfiguration")

Build = Callable[..., Host]

Broker = RedisServer | RabbitMQServer


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Each kind of broker; on a machine without it, its tests are skipped."""
    if request.param == "redis" and find_redis() is None:
        pytest.skip(NO_REDIS)
    if request.param == "rabbitmq" and not has_rabbitmq():
        pytest.skip(NO_RABBITMQ)
    with RedisServer() if request.param == "redis" else RabbitMQServer() as server:
        yield server


@dataclass
class Site:
    """Web processes, a Celery worker and its database; nobody sweeps, unless a test does."""

    gunicorn: Gunicorn
    worker: CeleryWorker
    database: HostDatabase
    broker: Broker
    switch: Path
    app: Flask

    def post(self, task_id: str, body: bytes) -> Answer:
        return send(self.gunicorn.port, post(callback(task_id), body))

    def settled(self, task_id: str, verdicts: list[str]) -> None:
        """Wait for the verdicts of a task."""
        wait_until(
            lambda: self.database.verdicts(task_id) == verdicts,
            timeout=30,
            what=f"the verdicts are {self.database.verdicts(task_id)}, not {verdicts}",
            log=lambda: self.worker.log[-5_000:],
        )

    def sweep(self, *, later: float) -> int:
        """What the scheduler's job does some seconds later; how many it took."""
        state = self.app.extensions["contenthub_webhook"]
        state.clock = lambda: utc_now() + timedelta(seconds=later)
        with self.app.app_context():
            return retry_due_deliveries(state).claimed


@pytest.fixture(scope="module")
def site(
    new_database: Callable[[str], str], broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """An installation on each kind of broker, with a kind of database server each: their faults do not depend."""
    kind = "postgresql" if isinstance(broker, RedisServer) else "mariadb"
    url, switch = new_database(kind), tmp_path_factory.mktemp("celery") / "switch"
    database = HostDatabase(url).create()
    env = {"DATABASE_URL": url, "TEST_HOST_BROKER": broker.url, "TEST_HOST_SWITCH": str(switch)}
    env |= {"WEBHOOK_PROCESSING": "celery"}
    with pytest.MonkeyPatch.context() as patch, Gunicorn(WEB_APP, env=env) as gunicorn, CeleryWorker(env) as worker:
        patch.setenv("TEST_HOST_SWITCH", str(switch))
        app = create_app(DATABASE_URL=url, WEBHOOK_PROCESSING="celery")
        yield Site(gunicorn, worker, database, broker, switch, app)


@pytest.fixture(autouse=True)
def switched_off(request: pytest.FixtureRequest) -> None:
    if "site" in request.fixturenames:
        request.getfixturevalue("site").switch.write_text("")


def test_the_doctor_finds_the_worker_that_knows_our_task(site: Site) -> None:
    add_celery(site.app, site.broker.url)
    (broker, _sweep) = check_celery(DoctorContext(site.app.extensions["contenthub_webhook"], httpx.Client()))

    assert (
        broker.message == "The broker is up, and 1 Celery worker(s) have registered `flask_contenthub_webhook.process`."
    )


class TestAnEvent:
    def test_it_is_accepted_at_once_and_applied_by_a_worker(self, site: Site) -> None:
        task_ids = site.database.add_tasks(20)
        answers = [site.post(task_id, completed(task_id)) for task_id in task_ids]

        assert {(answer.status, answer.outcome) for answer in answers} == {(202, "queued")}
        for task_id in task_ids:
            site.settled(task_id, ["processed"])
        assert site.database.contents(*task_ids) == dict.fromkeys(task_ids, 1)
        assert site.sweep(later=60) == 0

    def test_those_of_a_batch_are_applied_too(self, site: Site) -> None:
        task_ids = site.database.add_tasks(5)
        batch = b'{"events": [%b]}' % b", ".join(completed(task_id) for task_id in task_ids)
        answer = send(site.gunicorn.port, post("/api/v1/content/callbacks", batch))

        assert {one["outcome"] for one in answer.json["results"]} == {"queued"}
        for task_id in task_ids:
            site.settled(task_id, ["processed"])

    def test_those_of_one_task_are_applied_in_the_order_of_their_arrival(self, site: Site) -> None:
        """Progress that came out of order would be ignored."""
        task_id = site.database.add_task()
        for percentage in range(10, 100, 10):
            site.post(task_id, encode(progress(task_id, percentage)))
        site.post(task_id, completed(task_id))

        site.settled(task_id, ["processed"] * 10)
        assert site.database.status(task_id) == "completed"
        assert site.sweep(later=60) == 0

    def test_one_that_comes_while_an_earlier_one_is_in_hand_is_applied_after_it(self, site: Site) -> None:
        """Its own wake-up finds the task in another worker's hands, and is spent; that worker looks again."""
        task_id = site.database.add_task()
        site.switch.write_text("sleep 1.5")
        site.post(task_id, completed(task_id))
        wait_until(
            lambda: site.database.deliveries(task_id)[0].claimed_until is not None,
            timeout=20,
            what="the first event is not in hand",
            log=lambda: site.worker.log[-5_000:],
        )
        site.post(task_id, completed(task_id, "another"))

        site.settled(task_id, ["processed", "duplicate"])
        assert site.database.contents(task_id) == {task_id: 1}
        assert site.sweep(later=60) == 0

    def test_one_whose_handler_fails_is_the_sweeps_and_dead_in_the_end(self, site: Site) -> None:
        task_id = site.database.add_task()
        site.switch.write_text("raise")
        site.post(task_id, completed(task_id))
        site.settled(task_id, ["failed"])

        for later in (60, 180, 400):
            assert site.database.verdicts(task_id) == ["failed"]
            assert site.sweep(later=later) == 1
        (delivery,) = site.database.deliveries(task_id)
        assert (delivery.verdict, delivery.tries) == ("dead", 4)
        assert site.database.contents(task_id) == {task_id: 0}

    def test_it_is_taken_by_the_sweep_where_its_wake_up_was_purged(self, site: Site) -> None:
        task_ids = site.database.add_tasks(5)
        site.worker.stop()
        for task_id in task_ids:
            assert site.post(task_id, completed(task_id)).status == 202
        celery = add_celery(site.app, site.broker.url)
        purged: list[int] = []

        def is_purged() -> bool:
            purged.append(celery.control.purge())
            return sum(purged) >= len(task_ids)

        wait_until(is_purged, timeout=30, what="not all wake-ups reached the broker", log=lambda: site.gunicorn.log)
        site.worker.start()

        assert site.sweep(later=60) == 5
        assert site.database.contents(*task_ids) == dict.fromkeys(task_ids, 1)

    def test_it_is_taken_by_the_sweep_after_the_grace_where_the_broker_is_down(self, site: Site) -> None:
        before, task_ids = site.database.add_tasks(5), site.database.add_tasks(10)
        usual = max(site.post(task_id, completed(task_id)).seconds for task_id in before)
        for task_id in before:
            site.settled(task_id, ["processed"])
        site.broker.stop()
        began = time.monotonic()
        try:
            answers = [site.post(task_id, completed(task_id)) for task_id in task_ids]
        finally:
            site.broker.start()

        assert [answer.status for answer in answers] == [202] * 10
        assert max(answer.seconds for answer in answers) < 2 + 10 * usual  # the wake-ups are another thread's
        assert site.sweep(later=10 - (time.monotonic() - began)) == 0
        assert site.sweep(later=20) == 10
        assert site.database.contents(*task_ids) == dict.fromkeys(task_ids, 1)

    def test_it_wakes_workers_again_once_the_broker_is_back(self, site: Site) -> None:
        site.broker.stop()
        for task_id in site.database.add_tasks(4):
            site.post(task_id, completed(task_id))
        site.broker.start()

        def is_applied_by_a_worker() -> bool:
            task_id = site.database.add_task()
            site.post(task_id, completed(task_id))
            deadline = time.monotonic() + 3  # a worker's time for it; there is another event otherwise
            while site.database.verdicts(task_id) != ["processed"] and time.monotonic() < deadline:
                time.sleep(0.02)
            return site.database.verdicts(task_id) == ["processed"]

        wait_until(is_applied_by_a_worker, timeout=90, what="no wake-up", log=lambda: site.worker.log[-5_000:])
        assert site.gunicorn.log.count("The broker accepts no wake-ups") >= 1
        site.sweep(later=60)


@pytest.mark.parametrize(
    ("kind", "pool"), [("sqlite_url", "solo"), ("postgres_url", "threads"), ("mariadb_url", "prefork")]
)
def test_every_kind_of_pool_applies_events(
    request: pytest.FixtureRequest, broker: Broker, kind: str, pool: Pool
) -> None:
    assert_applied(request.getfixturevalue(kind), broker.url, pool, queue=pool)


def assert_applied(url: str, broker: str, pool: Pool, *, queue: str) -> None:
    """Events that this process accepts are applied by a worker of that kind."""
    database = HostDatabase(url).create()
    web = create_app(DATABASE_URL=url, WEBHOOK_PROCESSING="celery")
    celery = add_celery(web, broker, queue=queue)
    task_ids = database.add_tasks(6)
    env = {"DATABASE_URL": url, "TEST_HOST_BROKER": broker, "TEST_HOST_QUEUE": queue, "WEBHOOK_PROCESSING": "celery"}
    with CeleryWorker(env, pool=pool) as worker:
        with web.test_client() as client:
            for task_id in task_ids:
                answer = client.post(callback(task_id), data=completed(task_id), content_type="application/json")
                assert answer.status_code == 202
        wait_until(
            lambda: set(database.contents(*task_ids).values()) == {1},
            timeout=30,
            what="not applied",
            log=lambda: worker.log,
        )
        assert worker.stop() == 0
    engine = web.extensions[CELERY_KEY]
    engine.close()
    with celery.connection_for_write() as connection:
        celery.amqp.queues[queue](connection.default_channel).delete()


# --- in this process -----------------------------------------------------------------------------------------


def celery_app(broker: str = "memory://", **config: Any) -> Celery:
    app = Celery("host", broker=broker, set_as_current=False)
    app.conf.update(config)
    return app


def host_with(hosts: Build, url: str, celery: Celery | None) -> Host:
    return hosts(url, WEBHOOK_PROCESSING="celery", models=lambda _: {} if celery is None else {"celery": celery})


class TestTheCeleryApplication:
    @pytest.mark.parametrize("how", ["given", "found"])
    def test_it_has_our_task_once_a_celery_program_loads_it(self, hosts: Build, sqlite_url: str, how: str) -> None:
        celery = celery_app()
        host = host_with(hosts, sqlite_url, celery if how == "given" else None)
        if how == "found":  # after init_app
            host.app.extensions["celery"] = celery
        celery.loader.import_default_modules()

        task = celery.tasks[TASK_NAME]
        assert (task.acks_late, task.reject_on_worker_lost, task.ignore_result) == (True, True, True)

    def test_another_application_of_the_process_does_not_get_our_task(self, hosts: Build, sqlite_url: str) -> None:
        host_with(hosts, sqlite_url, celery_app())
        other = celery_app()
        other.loader.import_default_modules()

        assert TASK_NAME not in other.tasks

    def test_the_task_applies_all_that_waits_for_a_task_and_nothing_else(self, hosts: Build, sqlite_url: str) -> None:
        celery = celery_app()
        host = host_with(hosts, sqlite_url, celery)
        celery.loader.import_default_modules()
        ours, other = host.add_task(), host.add_task()
        for task_id in (ours, other):
            host.post(task_id, progress(task_id, 50))
            host.post(task_id, completed_event(task_id))

        celery.tasks[TASK_NAME].apply((ours,))

        assert [row.verdict for row in host.deliveries(ours)] == ["processed", "processed"]
        assert [row.verdict for row in host.deliveries(other)] == ["queued", "queued"]

    def test_without_one_events_are_accepted_and_one_error_says_what_to_do(
        self, hosts: Build, sqlite_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        host = host_with(hosts, sqlite_url, None)
        task_ids = [host.add_task() for _ in range(3)]
        with caplog.at_level(logging.ERROR, "flask_contenthub_webhook"):
            for task_id in task_ids:
                assert host.post(task_id, completed_event(task_id)).status_code == 202

        (record,) = caplog.records
        assert "Pass celery= to init_app" in record.getMessage()
        host.clock.advance(16)
        assert host.retry().claimed == 3

    def test_an_eager_one_applies_events_before_the_answer(self, hosts: Build, sqlite_url: str) -> None:
        host = host_with(hosts, sqlite_url, celery_app(task_always_eager=True))
        task_id = host.add_task()

        assert host.post(task_id, completed_event(task_id)).status_code == 202
        assert host.task(task_id).status == "completed"

    def test_without_the_package_the_app_does_not_start(
        self, hosts: Build, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "celery", None)
        monkeypatch.delitem(sys.modules, "flask_contenthub_webhook.contrib.celery")

        with pytest.raises(ConfigurationError, match=r"flask-contenthub-webhook\[celery\]"):
            host_with(hosts, sqlite_url, None)


class TestABrokerThatDoesNotAnswer:
    @pytest.mark.parametrize("scheme", ["redis", "amqp"])
    def test_it_holds_up_no_request_and_is_then_left_alone(
        self,
        hosts: Build,
        sqlite_url: str,
        scheme: str,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(celery_engine, "_TIMEOUT", 1.0)  # far more than a busy machine needs for five wake-ups
        with socket.create_server(("127.0.0.1", 0), backlog=50) as mute, ThreadPoolExecutor(1) as pool:
            connections: list[socket.socket] = []

            def count() -> None:
                while True:
                    try:
                        connections.append(mute.accept()[0])
                    except OSError:
                        return

            pool.submit(count)
            broker = f"{scheme}://127.0.0.1:{mute.getsockname()[1]}"
            host = host_with(hosts, sqlite_url, celery_app(broker))
            task_ids = [host.add_task() for _ in range(5)]
            wake = host.state.wake

            began = time.monotonic()
            for task_id in task_ids:
                wake(task_id)
            assert time.monotonic() - began < 0.75  # less than one timeout

            wait_until(lambda: "accepts no wake-ups" in caplog.text, timeout=20, what="no trouble", log=lambda: "")
            for task_id in task_ids:
                wake(task_id)
            assert caplog.text.count("accepts no wake-ups") == 1
            mute.shutdown(socket.SHUT_RDWR)
        assert len(connections) == 1
        for connection in connections:
            connection.close()
