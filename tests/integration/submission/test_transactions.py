"""Submission within the caller's transaction, and none while the creator is called."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from flask_contenthub_webhook import task_completed
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
