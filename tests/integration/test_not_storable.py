"""An event that the database can never store is refused or parked, on whatever way it came, and holds up no other.

A server of MariaDB cuts the connection over a statement larger than ``max_allowed_packet``, which the drivers mostly
take for a server that has gone away. SQLite and PostgreSQL have limits of their own, made as small here.
"""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.creators import Job, RemoteState, Report
from tests.support.database_drivers import through_mysql
from tests.support.host import OTHER_SECRET, Host, completed, encode
from tests.support.mariadb import NO_MARIADB, PROGRAM, MariaDBServer
from tests.support.submission import BASE, own, reconcile, submit, sweep, with_own_creator

Build = Callable[..., Host]
LIMIT = 1024 * 1024
LARGE = "x" * 1_200_000
EVERYWHERE = ("sqlite", "postgresql", "pymysql", "pymysql over TCP", "mysqldb")
POSTGRES_LIMITS = {
    "webhook_deliveries": "octet_length(body)",
    "webhook_forwards": "octet_length(body)",
    "content_generation_tasks": "octet_length(result::text)",
    "contents": "octet_length(body)",
}


@pytest.fixture(scope="module")
def small_mariadb() -> Iterator[MariaDBServer]:
    if PROGRAM is None:
        pytest.skip(NO_MARIADB)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"max-allowed-packet": str(LIMIT), "port": str(port), "bind-address": "127.0.0.1"}
    with MariaDBServer(settings={**settings, "skip-networking": "0"}) as server:
        yield server


@pytest.fixture(params=EVERYWHERE)
def build(request: pytest.FixtureRequest, hosts: Build) -> Iterator[Build]:
    """A function that builds a host on a database that takes 1 MiB at most."""
    url = _url_of(request)

    def build(**config: Any) -> Host:
        host = hosts(url, WEBHOOK_WORKER_THREADS=1, **config)
        if request.param == "sqlite":
            sa.event.listen(host.engine, "checkout", _limit_sqlite)
        if request.param == "postgresql":
            with host.engine.begin() as connection:
                for table, size in POSTGRES_LIMITS.items():
                    connection.execute(sa.text(f"ALTER TABLE {table} ADD CHECK ({size} < {LIMIT})"))
        return host

    yield build
    if request.param not in {"sqlite", "postgresql"}:
        request.getfixturevalue("small_mariadb").drop_database(url)


def _url_of(request: pytest.FixtureRequest) -> str:
    if request.param in {"sqlite", "postgresql"}:
        url: str = request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])
        return url
    server = request.getfixturevalue("small_mariadb")
    driver, _, network = request.param.partition(" ")
    url = through_mysql(server.create_database(), driver)
    if network:
        port = int(server.execute("SELECT @@port")[0][0])
        made = sa.make_url(url).set(host="127.0.0.1", port=port, query={})
        return made.render_as_string(hide_password=False)
    return url


def _limit_sqlite(driver: Any, *_: object) -> None:
    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LIMIT)


def numbers() -> list[float]:
    """What is longer once it is kept than it came: 1e15 becomes 1000000000000000.0."""
    return [1e15] * 70_000


def shorter(body: bytes) -> bytes:
    return body.replace(b"1000000000000000.0", b"1e15")


def assert_works(host: Host) -> None:
    """The process goes on: no connection, no pool and no outage is left over."""
    task_id = host.add_task()
    assert host.post(task_id, completed(task_id)).status_code in {200, 202}
    host.retry()
    assert host.task(task_id).status == "completed"
    assert not host.state.database.outage.is_on


class TestCallbacks:
    def test_an_event_is_refused_with_words_and_noted(self, build: Build) -> None:
        host = build()
        task_id = host.add_task()
        answer = host.post(task_id, completed(task_id, LARGE))

        assert answer.status_code == 422
        assert answer.json is not None
        assert answer.json["error"]["code"] == "event_not_storable"
        assert answer.json["error"]["message"].startswith("The database of this application can never store this")
        (row,) = host.deliveries()
        assert (row.verdict, row.error, row.task_id) == ("rejected", "event_not_storable", task_id)
        assert 0 < len(row.body) < 10_000
        assert host.task(task_id).status == "submitted"
        assert host.contents() == []
        assert_works(host)

    @pytest.mark.parametrize("build", EVERYWHERE[2:], indirect=True)
    def test_the_refusal_tells_the_sizes(self, build: Build) -> None:
        host = build()
        task_id = host.add_task()
        answer = host.post(task_id, completed(task_id, LARGE))
        assert answer.json is not None
        assert "bytes, and the database takes 1,048,576 (max_allowed_packet)." in answer.json["error"]["message"]

    def test_a_worker_accepts_what_fits_and_refuses_the_rest(self, build: Build) -> None:
        host = build(WEBHOOK_PROCESSING="worker")
        task_id = host.add_task()
        assert host.post(task_id, completed(task_id, LARGE)).status_code == 422
        assert_works(host)

    @pytest.mark.parametrize("processing", ["inline", "worker"])
    def test_a_batch_is_refused_only_where_it_does_not_fit(self, build: Build, processing: str) -> None:
        host = build(WEBHOOK_PROCESSING=processing)
        tasks = [host.add_task() for _ in range(3)]
        texts = ["x" * 400_000, LARGE, "x" * 400_000]  # PyMySQL writes bytes as hex: two do not fit into one statement
        answer = host.post_batch(
            [completed(task, text) for task, text in zip(tasks, texts, strict=True)], scheme="contenthub"
        )
        assert answer.json is not None
        codes = [result.get("error", {}).get("code") for result in answer.json["results"]]
        assert codes == [None, "event_not_storable", None]
        host.retry()
        assert [host.task(task).status for task in tasks] == ["completed", "submitted", "completed"]

    @pytest.mark.parametrize("processing", ["inline", "worker"])
    def test_a_batch_of_one_is_answered_as_any_other(self, build: Build, processing: str) -> None:
        host = build(WEBHOOK_PROCESSING=processing)
        task_id = host.add_task()
        answer = host.post_batch([completed(task_id, LARGE)], scheme="contenthub")
        assert answer.status_code == 200
        assert answer.json is not None
        assert [result["error"]["code"] for result in answer.json["results"]] == ["event_not_storable"]

    def test_an_event_waits_for_its_result_only_if_it_can_be_stored(self, build: Build) -> None:
        host = with_own_creator(build(WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0))
        task_id = host.add_task(creator_task_id="job-1")
        own(host).known["job-1"] = Report(state=RemoteState.OPEN)
        assert host.post(task_id, completed(task_id, None, more=LARGE)).status_code == 422


class TestWhatFitsAsItCame:
    """The body of the event is kept; what it leads to is too large: that event alone fails, and is parked."""

    @pytest.mark.parametrize("processing", ["inline", "worker"])
    def test_a_result_that_does_not_fit_is_parked(self, build: Build, processing: str) -> None:
        host = build(WEBHOOK_PROCESSING=processing, WEBHOOK_RETRY_BACKOFF=[10])
        task_id = host.add_task()
        answer = host.post(task_id, shorter(encode(completed(task_id, result={"content": "#", "numbers": numbers()}))))
        assert answer.status_code == (500 if processing == "inline" else 202)
        for _ in range(3):
            host.clock.advance(20)
            report = host.retry()
            assert not report.interrupted
        assert [row.verdict for row in host.deliveries()] == ["dead"]
        assert host.task(task_id).status == "submitted"
        assert_works(host)

        with pytest.raises(Exception, match="kept and will be tried again"):
            host.replay(host.deliveries()[0].id)

    def test_a_forward_that_does_not_fit_is_parked(self, build: Build) -> None:
        host = build(
            WEBHOOK_FORWARD_URLS=["https://other.example/hook"],
            WEBHOOK_FORWARD_SECRET=OTHER_SECRET,
            WEBHOOK_RETRY_BACKOFF=[10],
        )
        task_id = host.add_task()
        with host.engine.begin() as connection:
            for statement in _refuse_forwards(host.engine.dialect.name):
                connection.execute(sa.text(statement))
        assert host.post(task_id, completed(task_id)).status_code == 500
        host.clock.advance(20)
        host.retry()
        (row,) = host.deliveries()
        assert row.verdict == "dead"
        assert host.task(task_id).status == "submitted"

    def test_what_a_handler_writes_is_its_own_trouble(self, build: Build) -> None:
        host = build(WEBHOOK_RETRY_BACKOFF=[10])
        task_id = host.add_task()
        written: list[int] = []

        def publish(app: Any, *, task: Any, **extra: Any) -> None:
            if task.task_id == task_id:
                written.append(1)
                host.db.session.add(host.Content(task_id=task.task_id, body=LARGE))

        host.connect(task_completed, publish)
        assert host.post(task_id, completed(task_id)).status_code == 500
        assert written == [1]  # it is not run again at once, as after a lost connection
        (row,) = host.deliveries()
        assert (row.verdict, row.tries) == ("failed", 1)
        assert_works(host)


class TestAnswersOfTheCreator:
    @pytest.fixture
    def hub(self, build: Build) -> Host:
        return with_own_creator(build(WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0))

    def assert_failed_once(self, hub: Host, task_id: str) -> None:
        task = hub.task(task_id)
        assert (task.status, task.error_code) == ("failed", "NOT_STORABLE")
        assert task.error_message.startswith("The database of this application can never store this event.")
        asked = len(own(hub).calls)
        hub.clock.advance(86_400)
        reconcile(hub)
        assert "result" not in own(hub).calls[asked:]
        assert_works(hub)

    def test_a_polled_result_fails_the_task(self, hub: Host) -> None:
        task_id = submit(hub)
        sweep(hub)
        hub.clock.advance(3600)
        name = hub.task(task_id).creator_task_id
        own(hub).known[name] = Report(state=RemoteState.COMPLETED, result={"content": LARGE}, raw=b"{}")
        reconcile(hub)
        self.assert_failed_once(hub, task_id)

    def test_a_result_that_comes_with_the_submission_fails_the_task(self, hub: Host) -> None:
        def answer(job: Job) -> Report:
            return Report(state=RemoteState.COMPLETED, result={"content": LARGE}, raw=b"{}")

        own(hub).on_submit = answer
        task_id = submit(hub)
        sweep(hub)
        self.assert_failed_once(hub, task_id)


def _refuse_forwards(dialect: str) -> list[str]:
    if dialect == "sqlite":
        return [
            "CREATE TRIGGER none BEFORE INSERT ON webhook_forwards BEGIN SELECT RAISE(ABORT, 'too large'); END",
        ]
    return ["ALTER TABLE webhook_forwards ADD CHECK (octet_length(body) < 10)"]
