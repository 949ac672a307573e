"""The database goes away before each statement of each path through a view: the answer is always the contract's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import sqlalchemy as sa
from werkzeug.test import TestResponse

from flask_contenthub_webhook import delivery_processed, task_failed, task_progress
from flask_contenthub_webhook.signals import callback_rejected
from tests.support.databases import SERVERS
from tests.support.host import Host, completed, custom, failed, make_host, progress
from tests.support.mariadb import MariaDBServer
from tests.support.postgres import PostgresServer
from tests.support.submission import DONE, OwnCreator

MOST = 60
"""More statements than any path has."""
CODES = {500: "handler_failed", 503: "database_unavailable"}


class Door(Protocol):
    """The way to a database, which its administrator may close."""

    url: str

    def cut(self) -> None:
        """End all connections."""

    def shut(self) -> None:
        """Let nobody in."""

    def open(self) -> None:
        """Let everybody in."""


class PostgresDoor:
    def __init__(self, server: PostgresServer) -> None:
        self.url = server.create_database()
        self._name = sa.make_url(self.url).database
        self._admin = sa.create_engine(server.url, isolation_level="AUTOCOMMIT")

    def cut(self) -> None:
        terminate = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
        with self._admin.connect() as connection:
            connection.exec_driver_sql(terminate, (self._name,))

    def shut(self) -> None:
        self._allow("false")

    def open(self) -> None:
        self._allow("true")

    def _allow(self, is_open: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(f'ALTER DATABASE "{self._name}" ALLOW_CONNECTIONS {is_open}')


class MariaDBDoor:
    """An account of this database alone, which is locked."""

    def __init__(self, server: MariaDBServer) -> None:
        url = sa.make_url(server.create_database())
        self._server, self._account = server, f"only_{url.database}"
        server.execute(f"CREATE USER {self._account}@localhost")
        server.execute(f"GRANT ALL ON `{url.database}`.* TO {self._account}@localhost")
        self.url = url.set(username=self._account).render_as_string(hide_password=False)

    def cut(self) -> None:
        self._server.execute(f"KILL HARD CONNECTION USER {self._account}@localhost")

    def shut(self) -> None:
        self._server.execute(f"ALTER USER {self._account}@localhost ACCOUNT LOCK")

    def open(self) -> None:
        self._server.execute(f"ALTER USER {self._account}@localhost ACCOUNT UNLOCK")


@pytest.fixture(params=SERVERS)
def door(request: pytest.FixtureRequest, server_of: Callable[[str], Any]) -> Iterator[Door]:
    """The way to an empty database of each kind of server."""
    server = server_of(request.param)
    door: Door = PostgresDoor(server) if isinstance(server, PostgresServer) else MariaDBDoor(server)
    yield door
    server.drop_database(door.url)


class Cutter:
    """Cuts all connections to a database before the statement or COMMIT with a number, from 1."""

    def __init__(self, door: Door, engine: sa.Engine) -> None:
        self._door = door
        self.at = self.seen = 0
        self.comes_back = False
        sa.event.listen(engine, "before_cursor_execute", self._count)
        sa.event.listen(engine, "commit", self._count)

    def _count(self, *_: Any) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.cut()

    def cut(self) -> None:
        if not self.comes_back:
            self._door.shut()
        self._door.cut()

    @contextlib.contextmanager
    def cutting(self, at: int, *, comes_back: bool) -> Iterator[None]:
        self.at, self.seen, self.comes_back = at, 0, comes_back
        try:
            yield
        finally:
            self.at = 0
            if not comes_back:
                self._door.open()


# --- the paths -------------------------------------------------------------------------------------------------------

Send = Callable[[Host, str], TestResponse]


@dataclass(frozen=True)
class Path:
    """One way through a view.

    Args:
        send: sends the request.
        status: of the answer where the database stays.
        prepare: brings the task into the state in which the request takes this way.
        effects: Content rows that the task has in the end, once the request was sent until it was accepted.
        config: of the application.
    """

    send: Send
    status: int = 200
    prepare: Callable[[Host, str], object] = lambda host, task_id: None
    effects: int = 0
    config: tuple[tuple[str, object], ...] = ()


def fully(host: Host, task_id: str) -> TestResponse:
    return host.post(task_id, completed(task_id), attempt=1)


def without_result(host: Host, task_id: str) -> TestResponse:
    return host.post(task_id, completed(task_id, content=None), attempt=1)


def failure(host: Host, task_id: str) -> TestResponse:
    return host.post(task_id, failed(task_id), attempt=1)


def break_handler(host: Host, task_id: str) -> None:
    host.publisher.broken = True


def batch(host: Host, task_id: str) -> TestResponse:
    events = [
        {**event, "taskId": task_id, "attempt": 1, "token": host.token(task_id, 1)}
        for event in (progress(task_id, 10), completed(task_id))
    ]
    return host.post_batch(events)


def badly(host: Host, task_id: str) -> TestResponse:
    return host.post(task_id, b'{"event": "completed"}', attempt=1)


WORKER = (("WEBHOOK_PROCESSING", "worker"),)
PATHS = {
    "completed": Path(fully, effects=1),
    "completed again": Path(fully, prepare=fully, effects=1),
    "completed after a failure": Path(fully, prepare=failure, effects=1, config=(("WEBHOOK_MAX_RETRIES", 0),)),
    "completed without its result": Path(without_result, effects=1),
    "progress": Path(lambda host, task_id: host.post(task_id, progress(task_id, 10), attempt=1)),
    "failed": Path(failure),
    "custom": Path(lambda host, task_id: host.post(task_id, custom(task_id, "illustrated"), attempt=1)),
    "a handler that fails": Path(fully, status=500, prepare=break_handler),
    "a batch": Path(batch, effects=1),
    "signed over its body": Path(
        lambda host, task_id: host.post_signed(task_id, completed(task_id), "contenthub", attempt=1), effects=1
    ),
    "an unknown task": Path(lambda host, _: host.post("nobody", completed("nobody"), attempt=1), status=404),
    "a mismatch": Path(lambda host, task_id: host.post_signed(task_id, completed("other"), "contenthub"), status=409),
    "refused, but signed": Path(badly, status=400),
    "refused, by a stranger": Path(
        lambda host, task_id: host.post(task_id, completed(task_id), path=f"/api/v1/content/callback/{task_id}"),
        status=403,
    ),
    "accepted": Path(fully, status=202, config=WORKER),
    "a failure, accepted": Path(failure, status=202, config=WORKER),
    "a batch, accepted": Path(batch, config=WORKER),
    "signed over its body, accepted": Path(
        lambda host, task_id: host.post_signed(task_id, completed(task_id), "contenthub"), status=202, config=WORKER
    ),
}


def connect_receivers(host: Host) -> None:
    """Receivers of everything, which use the database as hosts do."""
    for signal in (task_failed, task_progress, delivery_processed, callback_rejected):
        host.connect(signal, lambda app, **extra: host.db.session.execute(sa.text("SELECT 1")))


@pytest.mark.parametrize("comes_back", [False, True], ids=["away", "cut"])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_every_answer_is_one_of_the_contract(door: Door, path: Path, comes_back: bool) -> None:
    host = make_host(
        door.url,
        WEBHOOK_EVENTS="illustrated",
        WEBHOOK_INBOX_LIMIT=1000,
        WEBHOOK_RETRY_BACKOFF="30,60,120",
        WEBHOOK_FORWARD_URLS="https://receiver.example/hook",
        WEBHOOK_FORWARD_SECRET="another secret of more than thirty-two bytes",
        WEBHOOK_SUBMIT_THREADS=0,
        **dict(path.config),
    )
    host.state.creator = creator = OwnCreator(host)
    connect_receivers(host)
    cutter = Cutter(door, host.engine)
    for at in range(1, MOST):
        host.publisher.broken = False
        task_id = host.add_task(creator_task_id=f"job-{at}")
        creator.known[f"job-{at}"] = DONE
        path.prepare(host, task_id)
        host.state.refusals._memory.renew()  # a refusal is written at once again
        with cutter.cutting(at, comes_back=comes_back):
            answer = path.send(host, task_id)
        assert_is_of_the_contract(answer, path.status)
        if cutter.seen < at:
            assert answer.status_code == path.status, answer.text
            break
        host.publisher.broken = False
        assert_ends_well(host, task_id, path)
    assert 1 < at < MOST - 1
    host.close()


def assert_is_of_the_contract(answer: TestResponse, usual: int) -> None:
    assert answer.mimetype == "application/json", answer.text
    body = answer.get_json()
    assert answer.status_code in {200, 202, usual, *CODES}, answer.text
    if "results" in body:
        assert all(("outcome" in one) == one["success"] for one in body["results"])
    elif answer.status_code < 300:
        assert body["success"] is True
        assert body["outcome"] in {"processed", "duplicate", "queued"}
        assert body["delivery_id"] is not None
    else:
        assert body["success"] is False
        expected = CODES.get(answer.status_code)
        assert expected is None or body["error"]["code"] == expected
    assert (answer.status_code == 503) == ("Retry-After" in answer.headers)


def assert_ends_well(host: Host, task_id: str, path: Path) -> None:
    """The sender sends it until it is accepted, and a worker does the rest: there is one effect."""
    if path.status in {400, 403, 404, 409}:
        return
    answer = path.send(host, task_id)
    assert answer.status_code in {200, 202}, answer.text
    host.clock.advance(3600)
    host.retry()
    if path.effects or path.status == 202:
        assert len(host.contents(task_id)) <= 1
    if path.effects:
        assert len(host.contents(task_id)) == path.effects
        assert host.task(task_id).status == "completed"
