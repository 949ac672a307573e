"""A worker that is killed at any moment takes nothing with it that was acknowledged, and leaves nothing twice.

``CHAOS_CALLBACKS=1000`` has more calm between the kills, ``CHAOS_KILLS`` more kills.
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.databases import CHAOS_KINDS
from tests.support.raw_http import callback, completed, post, send
from tests.support.web_server import figure, serve

CALLBACKS = int(os.environ.get("CHAOS_CALLBACKS", "400"))
KILLS = int(os.environ.get("CHAOS_KILLS", "8"))
SENDERS = 8

pytestmark = pytest.mark.slow


@pytest.fixture(params=CHAOS_KINDS)
def database_url(request, new_database):
    return new_database(request.param)


def test_every_acknowledged_callback_has_its_effect_and_none_has_two(database_url, tmp_path):
    with serve(database_url, tmp_path) as web:
        task_ids = web.database.add_tasks(CALLBACKS)
        acknowledged: set[str] = set()
        lost: list[str] = []
        sent = itertools.count(1)
        kill_at = {CALLBACKS * n // (KILLS + 1) for n in range(1, KILLS + 1)}
        killing = threading.Semaphore(0)

        def deliver(task_id):
            if next(sent) in kill_at:
                killing.release()
            try:
                answer = send(web.port, post(callback(task_id), completed(task_id, "字" * 2_000)))
            except (OSError, http.client.HTTPException):
                lost.append(task_id)
                return
            assert (answer.status, answer.outcome) == (200, "processed")
            acknowledged.add(task_id)

        def kill():
            for _ in range(KILLS):
                killing.acquire()
                time.sleep(random.uniform(0, 0.02))  # somewhere in the middle of a request
                web.gunicorn.kill_worker(random.choice(web.gunicorn.worker_pids()))
                web.gunicorn.wait_until_ready()

        with ThreadPoolExecutor(SENDERS + 1) as pool:
            killer = pool.submit(kill)
            list(pool.map(deliver, task_ids))
            killer.result()

        contents = web.database.contents(*task_ids)
        assert {contents[task_id] for task_id in acknowledged} == {1}
        assert max(contents.values()) == 1
        for task_id in lost:  # half of nothing: the state, the effect and the history agree
            is_done = contents[task_id] == 1
            assert web.database.status(task_id) == ("completed" if is_done else "submitted")
            assert web.database.verdicts(task_id) == (["processed"] if is_done else [])
        figure(
            f"{KILLS} kills: {len(lost)} of {CALLBACKS} callbacks lost their answer, "
            f"{sum(contents[t] for t in lost)} of those were applied"
        )

        # The sender comes again for what was not acknowledged.
        for task_id in lost:
            assert send(web.port, post(callback(task_id), completed(task_id, "字" * 2_000))).status == 200
        assert web.database.contents(*task_ids) == dict.fromkeys(task_ids, 1)


def test_a_worker_killed_inside_a_handler_leaves_the_task_open(database_url, tmp_path):
    with serve(database_url, tmp_path, workers=1) as web:
        task_id = web.database.add_task()
        web.switch.write_text("sleep 20")
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(web.post, task_id, completed(task_id))
            (worker,) = web.gunicorn.worker_pids()
            deadline = time.monotonic() + 10
            while not is_sleeping_in_a_handler(worker) and time.monotonic() < deadline:
                time.sleep(0.02)
            web.gunicorn.kill_worker(worker)
            with pytest.raises((OSError, http.client.HTTPException)):
                answer.result()
        web.gunicorn.wait_until_ready()
        web.switch.write_text("")

        assert web.database.status(task_id) == "submitted"
        assert web.database.contents(task_id) == {task_id: 0}
        assert web.database.verdicts(task_id) == []
        assert web.post(task_id, completed(task_id)).outcome == "processed"
        assert web.database.contents(task_id) == {task_id: 1}


def is_sleeping_in_a_handler(pid):
    """Whether the process is in `time.sleep`, as far as the kernel can tell."""
    try:
        return "nanosleep" in Path(f"/proc/{pid}/wchan").read_text()
    except ProcessLookupError:
        return False
