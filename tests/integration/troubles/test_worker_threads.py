"""A thread of the worker that dies by any cause is replaced."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import pytest

from flask_contenthub_webhook.engine.worker import Worker
from tests.support.host import Host, completed
from tests.support.processes import wait_until

Build = Callable[..., Host]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_of_the_worker_that_dies_is_replaced(hosts: Build, sqlite_url: str, caplog: pytest.LogCaptureFixture):
    host = hosts(sqlite_url, WEBHOOK_PROCESSING="worker")
    worker = Worker(host.state, threads=1)
    runner = threading.Thread(target=worker.run)
    runner.start()
    try:
        wait_until(of_worker, timeout=10, what="no thread", log=str)
        (victim,) = of_worker()
        posted = 0
        while victim.is_alive() and posted < 10:  # what hits it inside a pass ends the pass only
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(victim.ident or 0), ctypes.py_object(SystemExit))
            post_another(host)  # wakes it to its death
            posted += 1
            victim.join(3)
        assert not victim.is_alive()
        post_another(host)
        wait_until(lambda: len(host.contents()) == posted + 1, timeout=20, what="nobody took its place", log=str)
        assert of_worker() != [victim]
    finally:
        worker.stop()
        runner.join(20)
    assert not runner.is_alive()
    assert "died; another one takes its place" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_cannot_be_replaced_now_is_replaced_later(
    hosts: Build, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    host = hosts(sqlite_url, WEBHOOK_PROCESSING="worker")
    worker = Worker(host.state, threads=1)
    start, refused = threading.Thread.start, list[str]()

    def start_the_third_time(thread: threading.Thread) -> None:
        if thread.name.startswith("contenthub-worker") and worker._running and len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    runner = threading.Thread(target=worker.run)
    runner.start()
    try:
        wait_until(of_worker, timeout=10, what="no thread", log=str)
        monkeypatch.setattr(threading.Thread, "start", start_the_third_time)
        (victim,) = of_worker()
        posted = 0
        while victim.is_alive() and posted < 10:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(victim.ident or 0), ctypes.py_object(SystemExit))
            post_another(host)
            posted += 1
            victim.join(3)
        assert not victim.is_alive()
        post_another(host)
        wait_until(lambda: len(host.contents()) == posted + 1, timeout=30, what="nobody took its place", log=str)
    finally:
        worker.stop()
        runner.join(20)
    assert len(refused) == 2
    assert "cannot be started now" in caplog.text


def post_another(host: Host) -> None:
    task_id = host.add_task()
    host.post(task_id, completed(task_id))


def of_worker() -> list[threading.Thread]:
    """Return its threads that run; one that is only about to has no identity yet."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("contenthub-worker")]
    return [thread for thread in threads if thread.ident is not None]
