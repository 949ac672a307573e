"""The database away, restarted, or locked by somebody else: 503 and come again, never a wrong answer.

``CHAOS_OUTAGE=5`` keeps it away for so many seconds.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.audited import serve_and_audit
from tests.support.databases import CHAOS_KINDS, CHAOS_SERVERS
from tests.support.raw_http import callback, completed, failed, post, send, send_together
from tests.support.web_server import figure

AWAY = float(os.environ.get("CHAOS_OUTAGE", "2"))
LOCKED = 1.5
"""Seconds for which somebody holds a lock that we are ready to wait for."""

HELD = sa.text("SELECT 1 FROM content_generation_tasks WHERE task_id IN :ids FOR UPDATE").bindparams(
    sa.bindparam("ids", expanding=True)
)
IDLE = {
    "postgresql": (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    ),
    "mysql": (
        "SELECT 1 FROM information_schema.innodb_trx JOIN information_schema.processlist ON id = trx_mysql_thread_id "
        "WHERE command = 'Sleep' AND db = database()"
    ),
}

pytestmark = pytest.mark.slow


def assert_come_again(answer, within):
    assert (answer.status, answer.code) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.seconds < within
    assert b"psycopg" not in answer.body
    assert b"mysql" not in answer.body.lower()
    assert b"sqlite" not in answer.body.lower()


@pytest.fixture(params=CHAOS_SERVERS)
def server(request, server_of):
    """A database server that may be stopped."""
    server = server_of(request.param)
    yield server
    server.start()


class TestServerStopped:
    @pytest.mark.parametrize("mode", ["immediate", "fast"])
    def test_a_stream_of_callbacks_survives(self, server, tmp_path, mode):
        with serve_and_audit(server.create_database(), tmp_path) as web:
            pids = web.gunicorn.worker_pids()
            task_ids = web.database.add_tasks(4_000)
            answers = {}
            stop = threading.Event()

            def stream(share):
                for task_id in share:
                    if stop.is_set():
                        return
                    answers[task_id] = send(web.port, post(callback(task_id), completed(task_id)))
                    if answers[task_id].status != 200:
                        time.sleep(0.02)  # a sender that is refused waits; the real one waits five seconds

            with ThreadPoolExecutor(4) as pool:
                streams = [pool.submit(stream, task_ids[n::4]) for n in range(4)]
                wait_for(lambda: len(answers) > 100)
                usual = max(answer.seconds for answer in list(answers.values()))
                with server.outage(mode):
                    began = time.monotonic()
                    before = len(answers)
                    wait_for(lambda: time.monotonic() - began > AWAY, AWAY + 5)
                    during = len(answers) - before
                came_back = len(answers)
                wait_for(lambda: len(answers) > came_back + 100)
                stop.set()
                for one in streams:
                    one.result()

            refused = [task_id for task_id, answer in answers.items() if answer.status != 200]
            slowest = max(answer.seconds for answer in answers.values())
            figure(f"{mode}: {len(answers)} answers, {len(refused)} of them 503, the slowest after {slowest:.2f} s")
            assert during > 20
            assert len(refused) > 20
            for task_id in refused:
                assert_come_again(answers[task_id], within=2 + 5 * usual)
            assert slowest < 2 + 5 * usual
            assert [answers[task_id].status for task_id in list(answers)[-20:]] == [200] * 20
            assert web.gunicorn.worker_pids() == pids

            # Two commits may have been cut between the database and us; whatever was acknowledged is there, once.
            contents = web.database.contents(*answers)
            assert {contents[task_id] for task_id in answers if task_id not in refused} == {1}
            assert max(contents.values()) == 1
            for task_id in answers:
                assert send(web.port, post(callback(task_id), completed(task_id))).status == 200
            assert web.database.contents(*answers) == dict.fromkeys(answers, 1)

    def test_it_is_away_when_the_first_request_comes(self, server, tmp_path):
        with serve_and_audit(server.create_database(), tmp_path) as web:
            good, bad = web.database.add_tasks(2)
            with server.outage():
                for _ in range(3):
                    assert_come_again(web.post(good, completed(good)), within=2)
                    assert_come_again(web.post(bad, failed(bad)), within=2)
                refused = web.post(good, b"not json")
                assert (refused.status, refused.code) == (400, "invalid_json")
                batch = b'{"events": [%b, %b]}' % (completed(good), failed(bad))
                assert_come_again(send(web.port, post("/api/v1/content/callbacks", batch)), within=2)
                health = send(web.port, b"GET /api/v1/content/health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert health.status == 200

            assert web.post(good, completed(good)).outcome == "processed"
            assert web.post(bad, failed(bad)).outcome == "processed"
            assert web.database.contents(good) == {good: 1}

    def test_it_goes_away_inside_a_handler(self, server, tmp_path):
        with serve_and_audit(server.create_database(), tmp_path) as web:
            task_id = web.database.add_task()
            web.switch.write_text("sleep 2")
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(web.post, task_id, completed(task_id))
                wait_for(lambda: is_idle_in_transaction(web))
                with server.outage():
                    assert_come_again(answer.result(), within=6)
            web.switch.write_text("")

            assert web.database.status(task_id) == "submitted"
            assert web.post(task_id, completed(task_id)).outcome == "processed"
            assert web.database.contents(task_id) == {task_id: 1}


@pytest.fixture(scope="module", params=CHAOS_KINDS)
def url_of(request, new_database):
    return partial(new_database, request.param)


@pytest.fixture(scope="module")
def patient(url_of, tmp_path_factory):
    with serve_and_audit(url_of(), tmp_path_factory.mktemp("patient"), env=patience(10), workers=4) as web:
        yield web


@pytest.fixture(scope="module")
def impatient(url_of, tmp_path_factory):
    with serve_and_audit(url_of(), tmp_path_factory.mktemp("impatient"), env=patience(1)) as web:
        yield web


class TestLocked:
    """Somebody else holds the rows of the tasks, or the whole database (SQLite)."""

    def test_a_lock_that_ends_in_time_delays_the_answers(self, patient):
        good, bad = patient.database.add_tasks(2)
        requests = [post(callback(good), completed(good)), post(callback(bad), failed(bad))]
        with ThreadPoolExecutor(1) as pool, locked(patient, good, bad) as release:
            pending = pool.submit(send_together, patient.port, requests)
            time.sleep(LOCKED)
            assert not pending.done()
            release()
            answers = pending.result()

        for task_id, answer in zip([good, bad], answers, strict=True):
            assert (answer.status, answer.outcome) == (200, "processed")
            assert LOCKED - 0.5 < answer.seconds < LOCKED + 2
            assert patient.database.verdicts(task_id) == ["processed"]

    def test_copies_that_wait_for_the_lock_together_have_one_effect(self, patient):
        task_id = patient.database.add_task()
        requests = [post(callback(task_id), body(task_id)) for body in (completed, failed) for _ in range(2)]
        with ThreadPoolExecutor(1) as pool, locked(patient, task_id) as release:
            answers = pool.submit(send_together, patient.port, requests)
            time.sleep(1)
            assert not answers.done()
            release()

        assert [answer.status for answer in answers.result()] == [200] * 4
        assert patient.database.contents(task_id) == {task_id: 1}
        assert patient.database.status(task_id) == "completed"

    @pytest.mark.parametrize("make_body", [completed, failed])
    def test_a_lock_that_lasts_longer_means_come_again(self, impatient, make_body):
        task_id, other = impatient.database.add_tasks(2)
        with locked(impatient, task_id):
            answer = impatient.post(task_id, make_body(task_id))
            assert_come_again(answer, within=3)
            assert answer.seconds > 0.9
            if not impatient.database.is_sqlite:  # a row is locked, not everything
                assert impatient.post(other, completed(other)).seconds < 0.9

        assert impatient.database.status(task_id) == "submitted"
        assert impatient.database.verdicts(task_id) == []
        assert impatient.post(task_id, make_body(task_id)).outcome == "processed"
        assert impatient.database.contents(task_id)[task_id] + impatient.database.failures(task_id)[task_id] == 1

    def test_a_batch_does_not_wait_for_the_lock_once_for_each_of_its_events(self, impatient):
        task_id = impatient.database.add_task()
        batch = b'{"events": [%b]}' % b", ".join([completed(task_id)] * 8)
        with locked(impatient, task_id):
            answer = send(impatient.port, post("/api/v1/content/callbacks", batch))

        assert_come_again(answer, within=4)

    def test_a_refused_request_is_answered_although_it_cannot_be_recorded(self, impatient):
        task_id = impatient.database.add_task()
        with locked(impatient, task_id):
            answers = [impatient.post(task_id, b"not json") for _ in range(4)]

        assert {(answer.status, answer.code) for answer in answers} == {(400, "invalid_json")}
        assert sum(answer.seconds for answer in answers) < 5  # two workers wait once each, and count from then on


def patience(seconds):
    """How long the host waits for a lock: our setting on a server, its own engine's on SQLite."""
    return {"WEBHOOK_TIMEOUT": str(seconds), "TEST_HOST_BUSY_TIMEOUT": str(seconds)}


@contextlib.contextmanager
def locked(web, *task_ids):
    """Hold the lock within the block, or until the function that it gives is called."""
    connection: Any
    if web.database.is_sqlite:
        connection = sqlite3.connect(web.database.engine.url.database, isolation_level=None, timeout=30)
        connection.execute("BEGIN IMMEDIATE")
    else:
        connection = web.database.engine.connect()
        connection.execute(HELD, {"ids": task_ids})
    try:
        yield connection.rollback
    finally:
        connection.rollback()
        connection.close()


def is_idle_in_transaction(web):
    """Whether somebody's transaction is open, and no statement of it runs."""
    time.sleep(0.15)  # InnoDB shows its list of them as it was, to whoever looks more often than ten times a second
    with web.database.engine.connect() as connection:
        return connection.exec_driver_sql(IDLE[connection.dialect.name]).first() is not None


def wait_for(condition, timeout=60.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: not within {timeout:g} s"
        time.sleep(0.02)
