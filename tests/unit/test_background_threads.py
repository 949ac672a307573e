"""Background work right after a commit, and where threads cannot run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from celery import Celery

from flask_contenthub_webhook.contrib.celery import _Sender
from flask_contenthub_webhook.creators.processes import Child, Keeper
from flask_contenthub_webhook.operations.lookout import Lookout
from flask_contenthub_webhook.runtime.background import BackgroundThreads
from tests.support.host import Host
from tests.support.processes import wait_until


@pytest.fixture
def uwsgi_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that uWSGI makes, as far as it says whether threads run."""
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(has_threads=False))


def test_work_runs_in_a_thread():
    ran: list[str] = []
    done = threading.Event()

    def work() -> None:
        ran.append(threading.current_thread().name)
        done.set()

    BackgroundThreads(1).submit(work)

    assert done.wait(60)
    assert ran != [threading.current_thread().name]


def test_uwsgi_without_threads_starts_none_and_leaves_the_work_to_the_sweep(uwsgi_without_threads):
    before = threading.active_count()
    ran: list[bool] = []

    BackgroundThreads(1).submit(ran.append, True)

    assert threading.active_count() == before
    assert ran == []


def test_uwsgi_without_threads_does_at_once_what_no_sweep_does(uwsgi_without_threads):
    ran: list[bool] = []

    BackgroundThreads(1).submit_or_run(ran.append, True)

    assert ran == [True]


class TestWhereNoThreadCanBeStarted:
    """The system allows no further one at the moment."""

    @pytest.fixture
    def full(self, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        full = monkeypatch
        full.setattr(threading.Thread, "start", refuse)
        return full

    def test_work_is_left_and_the_caller_is_told(self, full: pytest.MonkeyPatch) -> None:
        ran: list[bool] = []
        threads = BackgroundThreads(1)
        assert not threads.submit_or_run(ran.append, True)
        full.undo()
        assert threads.submit_or_run(ran.append, False)
        wait_until(lambda: ran == [False], timeout=20, what="no work", log=lambda: "")

    def test_celery_is_woken_with_the_next_event(self, full: pytest.MonkeyPatch) -> None:
        celery_app = Celery(broker="memory://", set_as_current=False)
        celery_app.conf.task_default_queue = "threads"  # all brokers in memory share their queues
        sender = _Sender()
        sender.send(celery_app, ("1", 0))
        full.undo()
        sender.send(celery_app, ("2", 0))
        with celery_app.connection_for_read() as connection, connection.SimpleQueue("threads") as queue:
            woken = {queue.get(timeout=20).payload[0][0] for _ in range(2)}
        assert woken == {"1", "2"}

    def test_a_program_is_waited_for_with_the_next_one(self, full: pytest.MonkeyPatch) -> None:
        ended: list[Child] = []
        keeper = Keeper(ended.append)
        first = Child([sys.executable, "-c", ""], environment=os.environ, keep_output=False)
        keeper.keep(first)
        full.undo()
        second = Child([sys.executable, "-c", ""], environment=os.environ, keep_output=False)
        keeper.keep(second)
        wait_until(lambda: len(ended) == 2, timeout=20, what="no end", log=lambda: "")
        assert set(ended) == {first, second}

    def test_a_scheduler_looks_instead_of_listening(
        self, full: pytest.MonkeyPatch, hosts: Callable[..., Host], sqlite_url: str
    ) -> None:
        lookout = Lookout(hosts(sqlite_url, WEBHOOK_PROCESSING="worker").state)
        lookout.listen(threading.Event())
        full.undo()
        lookout.join(1)
        assert not lookout.is_woken
