"""Hosts whose session holds a connection while we need one: a pool of one is enough, nothing of theirs is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, g

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.contrib.dashboard import create_dashboard
from flask_contenthub_webhook.creators import RemoteState, Report
from flask_contenthub_webhook.operations.jobs import JOBS
from flask_contenthub_webhook.storage.host_session import make_room
from tests.support.host import PREFIX, Host, at_once, completed, failed, progress

Build = Callable[..., Host]
ONE = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 3}


class Accepting:
    """A creator that takes every job."""

    def submit(self, job: Any, *, wait: float) -> Report:
        return Report(state=RemoteState.OPEN)

    def statuses(self, names: Any, *, since: Any = None) -> dict[str, Report]:
        return {name: Report(state=RemoteState.OPEN) for name in names}

    def status(self, name: str) -> Report:
        return Report(state=RemoteState.OPEN)

    result = status

    def cancel(self, name: str) -> None:
        pass


class Requests:
    """The host's functions around each request; they use its session, as those of a login do."""

    def __init__(self) -> None:
        self.host: Host
        self.before: Callable[[Any], object] = lambda session: session.scalars(sa.select(self.host.Content)).first()
        self.names: list[str] = []

    def register(self, app: Flask) -> None:
        @app.before_request
        def begin() -> None:
            g.user = self.before(self.host.db.session)

        @app.after_request
        def end(response: Any) -> Any:
            if isinstance(g.user, self.host.Content):
                self.names.append(g.user.body)
            return response

        app.register_blueprint(create_dashboard(permission=lambda: True), url_prefix="/webhooks")


@pytest.fixture
def requests() -> Requests:
    return Requests()


@pytest.fixture(params=["inline", "worker"])
def host(request: pytest.FixtureRequest, hosts: Build, database_url: str, requests: Requests) -> Host:
    return small(hosts, database_url, requests, WEBHOOK_PROCESSING=request.param)


def small(hosts: Build, url: str, requests: Requests, view: Callable[..., Any] = str, **config: Any) -> Host:
    host = hosts(
        url,
        engine_options=ONE,
        before=requests.register,
        after=lambda app: app.add_url_rule("/act", "act", view),
        WEBHOOK_CALLBACK_BASE_URL="https://hub.example",
        WEBHOOK_SUBMIT_THREADS=0,
        **config,
    )
    requests.host = host
    host.state.creator = Accepting()
    with host.app.app_context():
        host.db.session.add(host.Content(task_id="none", body="Ada"))
        host.db.session.commit()
    return host


def test_the_whole_life_of_tasks_in_a_pool_of_one(host: Host, requests: Requests):
    first, second, third = (host.add_task() for _ in range(3))
    accepted = (200, 202)

    assert host.post(first, completed(first), attempt=1).status_code in accepted
    assert host.post(first, completed(first), attempt=1).status_code in accepted
    assert host.post(second, failed(second, retryable=False), attempt=1).status_code in accepted
    assert host.post_batch([progress(third, 5), completed(third)], scheme="contenthub").status_code in accepted
    assert host.post(third, b"{", attempt=1).status_code == 400
    assert host.app.test_client().post(f"{PREFIX}/callback/{third}", json=completed(third)).status_code == 403
    host.retry()
    assert [host.task(task_id).status for task_id in (first, second, third)] == ["completed", "failed", "completed"]
    for path in ("/", "/deliveries", f"/task?id={first}", f"/deliveries/{host.deliveries(first)[0].id}", "/forwards"):
        assert host.app.test_client().get(f"/webhooks{path}").status_code == 200, path
    assert set(requests.names) == {"Ada"}
    assert len(requests.names) >= 6


def test_a_view_that_has_read_may_submit_retry_cancel_and_replay(hosts: Build, database_url: str, requests: Requests):
    def act() -> dict[str, str]:
        task = host.webhook.submit(topic="Tea", requirements="R", target_audience="A")
        outcomes = {
            "cancelled": host.webhook.cancel(task.task_id).verdict,
            "retried": host.webhook.retry(ended).verdict,
            "replayed": host.webhook.replay(host.deliveries(done)[0].id).verdict,
        }
        return {name: str(verdict) for name, verdict in outcomes.items()}

    host = small(hosts, database_url, requests, act)
    ended, done = host.add_task(), host.add_task()
    host.post(ended, failed(ended, retryable=False), attempt=1)
    host.post(done, completed(done), attempt=1)

    answer = host.app.test_client().get("/act").json
    assert answer == {"cancelled": "processed", "retried": "processed", "replayed": "duplicate"}
    assert requests.names[-1] == "Ada"


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda session, content: session.add(content(task_id="own", body="own")), id="pending"),
        pytest.param(lambda session, content: _flush(session, content(task_id="own", body="own")), id="flushed"),
        pytest.param(
            lambda session, content: session.execute(sa.insert(content).values(task_id="own", body="own")), id="core"
        ),
        pytest.param(
            lambda session, content: session.connection().execute(
                sa.text("INSERT INTO contents (task_id, body) VALUES ('own', 'own')")
            ),
            id="text on the connection",
        ),
    ],
)
def test_what_the_host_has_written_stays_its_own_to_commit(
    hosts: Build, server_url: str, requests: Requests, write: Callable[[Any, Any], object]
):
    host = small(hosts, server_url, requests)
    task_id = host.add_task()
    requests.before = lambda session: [session.scalar(sa.text("select 1")), write(session, host.Content)]

    answer = host.post(task_id, completed(task_id), attempt=1)

    assert answer.status_code == 503  # there is no other connection, and this one is the host's
    assert host.contents("own") == []


def _flush(session: Any, row: Any) -> None:
    session.add(row)
    session.flush()


@pytest.mark.parametrize(
    "lock",
    ["select pg_advisory_xact_lock(7)", "select 1 from contents for update", "lock table contents in share mode"],
)
def test_a_lock_that_the_host_holds_is_not_let_go(hosts: Build, postgres_url: str, requests: Requests, lock: str):
    host = small(hosts, postgres_url, requests)
    task_id = host.add_task()
    requests.before = lambda session: session.execute(sa.text(lock))

    assert host.post(task_id, completed(task_id), attempt=1).status_code == 503


def test_the_host_keeps_its_transaction_while_the_pool_has_another_connection(
    hosts: Build, server_url: str, requests: Requests
):
    host = hosts(server_url, engine_options={"pool_size": 2, "max_overflow": 0}, before=requests.register)
    requests.host = host
    seen: list[int] = []
    requests.before = lambda session: seen.append(session.scalar(sa.text("select 1")))

    @host.app.after_request
    def ask_again(response: Any) -> Any:
        seen.append(host.db.session().get_transaction() is not None)
        return response

    task_id = host.add_task()
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    assert seen[1] is True


def test_more_callbacks_at_once_than_the_pool_has_connections(hosts: Build, server_url: str, requests: Requests):
    host = hosts(
        server_url,
        engine_options={"pool_size": 3, "max_overflow": 1, "pool_timeout": 20},
        before=requests.register,
    )
    requests.host = host
    gate = threading.Barrier(4)

    def read_and_meet(session: Any) -> None:
        session.scalar(sa.text("select 1"))
        gate.wait(60)  # now each of the four holds one of the four

    requests.before = read_and_meet
    tasks = [host.add_task() for _ in range(8)]

    answers = at_once(*[lambda id_=id_: host.post(id_, completed(id_), attempt=1).status_code for id_ in tasks])

    assert answers == [200] * 8


def test_every_periodic_job_runs_while_its_caller_has_read(hosts: Build, database_url: str, requests: Requests):
    host = small(hosts, database_url, requests)
    host.add_task(creator_task_id="c-1", next_poll_at=host.clock.now, submitted_at=host.clock.now)
    with host.app.app_context():
        host.webhook.submit(topic="Tea", requirements="R", target_audience="A")
    host.clock.advance(10)

    for job in JOBS:
        with host.app.app_context():
            host.db.session.scalar(sa.text("select 1"))
            job.work(host.state)

    assert [task.polls for task in host.tasks()] == [1, 0]
    assert all(task.submitted_at is not None for task in host.tasks())


def test_no_session_of_ours_is_ended_from_outside(hosts: Build, database_url: str, requests: Requests):
    host = small(hosts, database_url, requests)
    task_id = host.add_task()
    seen: list[bool] = []

    def read(_app: Flask, *, task: Any, **extra: Any) -> None:
        session = host.db.session()
        make_room(host.db, host.state.store.bind_of)
        seen.append(session.in_transaction())

    host.connect(task_completed, read)

    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    assert seen == [True]
    assert len(host.contents(task_id)) == 1
