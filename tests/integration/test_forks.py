"""A forked child works, whatever other threads of its parent were doing at that moment."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from flask import Flask

from flask_contenthub_webhook.contrib.celery import CeleryEngine
from flask_contenthub_webhook.contrib.prometheus import WebhookMetrics
from flask_contenthub_webhook.runtime.state import CELERY_KEY
from tests.support.databases import FIXTURES
from tests.support.host import Host, completed
from tests.support.receiver import Receiver
from tests.support.submission import BASE, submit, with_own_creator

Build = Callable[..., Host]
PATIENCE = 30
LOCKS = (type(threading.Lock()), type(threading.RLock()))
CONTAINERS = (dict, list, tuple, set, threading.Condition)
PACKAGE = "flask_contenthub_webhook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def build(hosts: Build, url: str, receiver: Receiver) -> Host:
    """An application of which a callback uses nearly everything: it forwards, counts, limits and submits."""
    host = with_own_creator(
        hosts(
            url,
            after=lambda app: WebhookMetrics(app, path="/metrics"),
            TESTING=False,
            DEBUG=True,
            WEBHOOK_CALLBACK_BASE_URL=BASE,
            WEBHOOK_RATE_LIMIT="100000/minute",
            WEBHOOK_FORWARD_URLS=receiver.url(),
            WEBHOOK_FORWARD_SECRET="another secret of more than thirty-two bytes",
            WEBHOOK_FORWARD_ALLOWED_NETWORKS="127.0.0.0/8",
        )
    )
    host.app.extensions[CELERY_KEY] = CeleryEngine(host.state, Celery("host", broker="memory://", set_as_current=False))
    return host


def work(host: Host, *, thoroughly: bool = True) -> None:
    """Do what a process that serves requests does; raise unless all of it was done."""
    task_id = host.add_task(submitted_at=host.clock(), next_poll_at=host.clock())
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    until(lambda: [row[0] for row in rows(host, "status", task_id)] == ["delivered"])
    if not thoroughly:
        return
    assert host.post(task_id, completed(task_id), path=f"/api/v1/content/callback/{task_id}").status_code == 403
    assert host.state.refusals.flush()
    submitted = submit(host)
    until(lambda: host.task(submitted).status == "submitted")
    assert host.app.test_client().get("/metrics").status_code == 200
    host.state.service.pause.failed()
    with host.app.app_context():
        assert host.webhook.reconcile().paused
        host.state.service.pause.succeeded()
        host.webhook.start_scheduler(host.app)
        host.webhook.stop_scheduler(host.app)


def rows(host: Host, column: str, task_id: str) -> list[Any]:
    with host.engine.connect() as connection:
        return list(connection.exec_driver_sql(f"SELECT {column} FROM webhook_forwards WHERE task_id = '{task_id}'"))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE / 2
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def exit_code_of_child(work_of_child: Callable[[], None]) -> int:
    """Fork, and return the exit code of the child: 0 if it could do its work, 1 if that failed, -14 if it hung."""
    unraisable: list[Any] = []  # from the hooks of the fork, which Python only prints
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    child = os.fork()
    sys.unraisablehook = hook
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        code = 1
        try:
            work_of_child()
            code = 1 if unraisable else 0
        except BaseException:  # noqa: BLE001 - the child must not go on as a second pytest
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- every lock at once ----------------------------------------------------------------------------------------------


def locks_of_the_extension(app: Flask) -> list[Any]:
    """All locks that objects of the package refer to, and those of the connection pool."""
    modules = [module for name, module in sys.modules.items() if name.startswith(PACKAGE)]
    found: dict[int, Any] = {}
    seen: set[int] = set()
    left: list[Any] = [*(vars(module) for module in modules), *app.extensions.values()]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        for referent in gc.get_referents(one):
            if isinstance(referent, LOCKS):
                found[id(referent)] = referent
            elif isinstance(referent, CONTAINERS) or is_ours(referent):
                left.append(referent)
    return list(found.values())


def is_ours(value: Any) -> bool:
    return type(value).__module__.startswith(PACKAGE) and not isinstance(value, type | ModuleType)


@pytest.mark.parametrize("kind", FIXTURES.values())
def test_a_child_works_although_its_parent_held_every_lock_and_filled_every_lane(
    request: pytest.FixtureRequest, hosts: Build, receiver: Receiver, kind: str
):
    host = build(hosts, request.getfixturevalue(kind), receiver)
    work(host)
    host.state.service.pause.succeeded()
    for _ in range(host.state.settings.forward_concurrency):
        host.state.forward_lanes.enter(receiver.url())
    pool: Any = host.engine.pool
    locks = [*locks_of_the_extension(host.app), pool._overflow_lock, pool._pool.mutex]
    assert len(locks) > 10
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            assert lock.acquire(timeout=PATIENCE)
        held.set()
        done.wait()
        for lock in locks:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)
    try:
        assert exit_code_of_child(lambda: work(host)) == 0
    finally:
        done.set()
        holder.join()
    for _ in range(host.state.settings.forward_concurrency):
        host.state.forward_lanes.leave(receiver.url())
    work(host)  # the parent, on connections that its child did not use


# --- under load ------------------------------------------------------------------------------------------------------

FORKS = int(os.environ.get("TEST_FORKS", "25"))


def test_children_of_a_busy_process_work(hosts: Build, postgres_url: str, receiver: Receiver):
    host = build(hosts, postgres_url, receiver)
    done = threading.Event()
    answers: set[int] = set()

    def keep_busy() -> None:
        while not done.is_set():
            task_id = host.add_task()
            answers.add(host.post(task_id, completed(task_id), attempt=1).status_code)
            is_forwarded = threading.Event()
            host.state.forward_threads.submit(is_forwarded.set)
            is_forwarded.wait(PATIENCE)

    threads = [threading.Thread(target=keep_busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        codes = [exit_code_of_child(lambda: work(host, thoroughly=False)) for _ in range(FORKS)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * FORKS
    assert answers == {200}
