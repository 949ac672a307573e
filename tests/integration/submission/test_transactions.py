"""Submission within the caller's transaction, and none while the creator is called."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.creators import Job, Report
from flask_contenthub_webhook.errors import CreatorUnreachable
from tests.support.databases import FIXTURES
from tests.support.host import Host, completed
from tests.support.submission import BASE, LEASE, OPEN, Killed, cancel, own, raise_, submit, sweep, with_own_creator

Build = Callable[..., Host]


class TestInTheCallersTransaction:
    @pytest.fixture
    def hub(self, hosts: Build, database_url: str) -> Host:
        """One thread in the background, and on SQLite short patience with locks."""
        options = {"connect_args": {"timeout": 0.3}} if database_url.startswith("sqlite") else {}
        return with_own_creator(
            hosts(database_url, engine_options=options, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=1)
        )

    def background_is_idle(self, host: Host) -> None:
        """Its one thread has done everything that it was told until now."""
        idle = threading.Event()
        host.state.submit_threads.submit_or_run(idle.set)
        assert idle.wait(10)

    def test_it_is_handed_over_right_after_the_commit_and_not_before(self, hub):
        with hub.app.app_context():
            task = hub.webhook.submit(topic="Tea", commit=False)
            hub.db.session.add(hub.Content(task_id=task.task_id, body="with it"))
            assert sweep(hub).claimed == 0
            self.background_is_idle(hub)
            assert own(hub).calls == []
            hub.db.session.commit()
            task_id = task.task_id
        self.background_is_idle(hub)
        assert len(own(hub).jobs) == 1
        assert hub.task(task_id).status == "submitted"
        assert hub.contents(task_id) == ["with it"]

    def test_after_a_rollback_there_is_nothing(self, hub):
        with hub.app.app_context():
            hub.webhook.submit(topic="Tea", commit=False)
            hub.db.session.flush()
            hub.db.session.rollback()
            hub.db.session.commit()
        self.background_is_idle(hub)
        assert sweep(hub).claimed == 0
        assert (hub.tasks(), own(hub).calls) == ([], [])

    def test_several_of_one_transaction_are_all_handed_over(self, hub):
        with hub.app.app_context():
            for _ in range(5):
                hub.webhook.submit(topic="Tea", commit=False)
            hub.db.session.commit()
        self.background_is_idle(hub)
        assert [task.status for task in hub.tasks()] == ["submitted"] * 5

    def test_several_that_are_due_already_when_the_table_is_young_are_all_handed_over(self, hosts, database_url):
        """PostgreSQL knows nothing of a young table yet, and plans as if it were empty."""
        hub = with_own_creator(hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0))
        for _ in range(3):
            submit(hub)
        assert sweep(hub).outcomes == {"submitted": 3}
        assert [task.status for task in hub.tasks()] == ["submitted"] * 3

    def test_a_savepoint_is_no_commit(self, hub):
        with hub.app.app_context():
            with hub.db.session.begin_nested():
                hub.webhook.submit(topic="Tea", commit=False)
            self.background_is_idle(hub)
            assert own(hub).calls == []
            hub.db.session.commit()
        self.background_is_idle(hub)
        assert len(own(hub).jobs) == 1

    def test_a_savepoint_that_is_rolled_back_takes_the_task_with_it(self, hub):
        with hub.app.app_context():
            savepoint = hub.db.session.begin_nested()
            hub.webhook.submit(topic="Tea", commit=False)
            savepoint.rollback()
            hub.db.session.commit()
        self.background_is_idle(hub)
        assert (hub.tasks(), own(hub).calls) == ([], [])

    def test_a_handler_submits_the_next_task_with_its_own_effect(self, hub):
        def and_another(app: Any, *, task: Any, **extra: Any) -> None:
            hub.webhook.submit(topic="The next", commit=False)

        hub.connect(task_completed, and_another)
        first = submit(hub)
        self.background_is_idle(hub)
        assert hub.post(first, completed(first), attempt=1).status_code == 200
        self.background_is_idle(hub)
        assert [task.status for task in hub.tasks()] == ["completed", "submitted"]

    def test_a_failing_handler_takes_the_next_task_with_it(self, hub):
        def and_another(app: Any, *, task: Any, **extra: Any) -> None:
            hub.webhook.submit(topic="The next", commit=False)
            raise ValueError("broken")

        hub.connect(task_completed, and_another)
        first = submit(hub)
        self.background_is_idle(hub)
        assert hub.post(first, completed(first), attempt=1).status_code == 500
        self.background_is_idle(hub)
        assert [task.topic for task in hub.tasks()] == ["Tea"]
        assert len(own(hub).jobs) == 1


class TestNoTransactionIsOpenWhileTheCreatorIsCalled:
    def test_in_a_submission(self, hub):
        submit(hub)
        sweep(hub)
        assert (own(hub).calls, own(hub).connections_in_use) == (["submit"], [0])

    def test_in_the_background(self, hosts, database_url):
        hub = with_own_creator(hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=1))
        committed, idle = threading.Event(), threading.Event()
        # This thread's own connection is back in the pool by then.
        hub.state.submit_threads.submit_or_run(committed.wait, 10)
        with hub.app.app_context():
            hub.webhook.submit(topic="Tea")
        hub.state.submit_threads.submit_or_run(idle.set)
        committed.set()
        assert idle.wait(10)
        assert (own(hub).calls, own(hub).connections_in_use) == (["submit"], [0])

    def test_in_the_question_after_a_crash(self, hub):
        submit(hub)
        own(hub).on_submit = lambda _: raise_(Killed())
        with pytest.raises(Killed):
            sweep(hub)
        hub.clock.advance(LEASE)
        own(hub).on_submit = lambda _: OPEN
        sweep(hub)
        assert (own(hub).calls, own(hub).connections_in_use) == (["submit", "statuses", "submit"], [0, 0, 0])

    def test_in_a_cancellation(self, hub):
        task_id = submit(hub)
        sweep(hub)
        cancel(hub, task_id)
        assert (own(hub).calls, own(hub).connections_in_use) == (["submit", "cancel"], [0, 0])


class _Lost:
    """Ends the connection that is about to send a statement, once."""

    def __init__(self, host: Host, words: str) -> None:
        self.words, self.times = words, 0
        self._host, self._is_mysql = host, host.engine.dialect.name == "mysql"
        sa.event.listen(host.engine, "before_cursor_execute", self)

    def __call__(self, connection: sa.Connection, cursor: object, statement: str, *_: object) -> None:
        if self.times or self.words not in statement:
            return
        self.times += 1
        driver: Any = connection.connection.dbapi_connection
        end = (
            f"KILL {driver.thread_id()}"
            if self._is_mysql
            else f"SELECT pg_terminate_backend({driver.info.backend_pid})"
        )
        other = sa.create_engine(self._host.engine.url)
        with other.connect() as one:
            one.exec_driver_sql(end)
        other.dispose()
        time.sleep(0.1)


@pytest.fixture(params=["postgresql", "mariadb"])
def server_hub(request: pytest.FixtureRequest, hosts: Build) -> Host:
    url = request.getfixturevalue(FIXTURES[request.param])
    return with_own_creator(hosts(url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0))


def test_a_connection_that_is_lost_at_the_mark_of_a_hand_over_is_replaced_at_once(server_hub: Host) -> None:
    """As it is after a deadlock, which on MariaDB two callbacks beside a sweep can make."""
    task_id = submit(server_hub)
    lost = _Lost(server_hub, "submitting_since=")

    assert sweep(server_hub).outcomes == {"submitted": 1}
    assert lost.times == 1
    assert [job.task_id for job in own(server_hub).jobs] == [task_id]


def test_a_connection_that_is_lost_when_a_hand_over_is_postponed_is_replaced_at_once(server_hub: Host) -> None:
    def away(job: Job) -> Report:
        raise CreatorUnreachable

    task_id = submit(server_hub)
    own(server_hub).on_submit = away
    lost = _Lost(server_hub, "submit_tries=")

    assert sweep(server_hub).outcomes == {"unreachable": 1}
    assert (lost.times, server_hub.task(task_id).submit_tries) == (1, 1)
