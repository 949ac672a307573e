"""Calls that kill the simulator as they kill the real creator, and the losses of a crash."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from flask_contenthub_webhook.testing import Faults, read_ledger
from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.receiver import Receiver, Reply
from tests.support.simulator import FIELDS, ID, call, simulator, submit, submitted, wait_for

UNKNOWN = "00000000-0000-4000-8000-000000000000"

TRAPS = {
    "unknown id": ("GET", f"/api/tasks/{UNKNOWN}", None, 404),
    "unknown status": ("GET", f"/api/tasks/{UNKNOWN}/status", None, 404),
    "unknown result": ("GET", f"/api/tasks/{UNKNOWN}/result", None, 404),
    "early result": ("GET", "/api/tasks/running/result", None, 400),
    "result of a failed one": ("GET", "/api/tasks/failed/result", None, 400),
    "cancel unknown": ("DELETE", f"/api/tasks/{UNKNOWN}", None, 404),
    "cancel completed": ("DELETE", "/api/tasks/completed", None, 400),
    "retry completed": ("POST", "/api/tasks/completed/retry", {}, 400),
    "retry unknown": ("POST", f"/api/tasks/{UNKNOWN}/retry", {}, 404),
    "async": ("POST", "/api/tasks", {**FIELDS, "mode": "async"}, 202),
}


class TestTraps:
    @pytest.fixture(autouse=True)
    def rows(self):
        self.states = ("running", "failed", "completed")

    def seeded(self, creator):
        for state in self.states:
            creator.add_task(state, state=state, result={} if state == "completed" else None)

    @pytest.mark.parametrize("trap", TRAPS)
    def test_the_real_one_dies_of_it_and_comes_back(self, trap):
        method, path, body, _ = TRAPS[trap]
        with simulator(restart_after=0.05) as creator:
            self.seeded(creator)
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                call(creator, method, path, body)
            wait_for(lambda: creator.deaths == 1)
            creator.wait_until_up()

            assert call(creator, "GET", "/health").status_code == 200
            assert call(creator, "GET", "/api/tasks").json()["data"]["pagination"]["total"] == 3

    @pytest.mark.parametrize("trap", TRAPS)
    def test_on_paper_it_is_answered(self, trap):
        method, path, body, status = TRAPS[trap]
        with simulator(api="paper") as creator:
            self.seeded(creator)
            answer = call(creator, method, path, body)

            assert answer.status_code == status
            assert creator.deaths == 0
            assert status != 404 or answer.json()["error"]["code"] == "NOT_FOUND"

    def test_on_paper_an_async_task_is_done_later_and_calls_back(self):
        with Receiver() as receiver, simulator(api="paper", work_time=(0.1, 0.1)) as creator:
            answer = submit(creator, receiver.url(), mode="async", idempotencyKey=ID)
            receiver.wait_for(1)

            assert answer.status_code == 202
            assert answer.json()["data"] | {"message": ""} == {"taskId": ID, "status": "pending", "message": ""}
            assert creator.tasks[ID].state == "completed"

    def test_on_postgres_the_list_kills_and_the_single_row_is_safe(self):
        with simulator(database="postgres", restart_after=0.01) as creator:
            creator.add_task(ID)

            assert call(creator, "GET", f"/api/tasks/{ID}").json()["data"]["status"] == "running"
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                call(creator, "GET", "/api/tasks")
            wait_for(lambda: creator.death_reasons == ("GET of the list on Postgres",))

    def test_a_death_cuts_everybody_and_connections_are_refused_until_it_is_back(self):
        with simulator(work_time=None, restart_after=None) as creator:
            with submitted(creator, idempotencyKey=ID) as blocked:
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    call(creator, "GET", f"/api/tasks/{UNKNOWN}")
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    blocked.result()
            with pytest.raises(httpx.ConnectError):
                call(creator, "GET", "/health")
            creator.restart()

            assert call(creator, "GET", "/health").status_code == 200


class TestACrash:
    def test_completed_tasks_stay_and_the_queue_is_lost(self):
        with Receiver(Reply(delay=2)) as receiver, simulator() as creator:
            submit(creator, receiver.url(), idempotencyKey="sent")
            receiver.wait_for(1)
            submit(creator, receiver.url(), idempotencyKey="queued")
            creator.crash()
            creator.restart()
            time.sleep(0.1)

            assert {task.state for task in creator.tasks.values()} == {"completed"}
            assert len(receiver.requests) == 1
            assert [(entry.task_id, entry.faults) for entry in creator.callbacks if entry.attempt == 0] == [
                ("queued", ("crash",))
            ]

    @pytest.mark.parametrize("orphans", ["running", "failed"])
    def test_what_was_being_worked_on_never_finishes(self, orphans):
        with Receiver() as receiver, simulator(work_time=(1, 1), orphans=orphans) as creator:
            with submitted(creator, receiver.url(), idempotencyKey=ID):
                creator.crash()
            creator.restart(after=0.05)
            time.sleep(1.2)
            task = creator.tasks[ID]

            assert (task.state, task.orphaned) == (orphans, True)
            assert call(creator, "GET", f"/api/tasks/{ID}").json()["data"]["status"] == orphans
            assert receiver.requests == []

    def test_the_supervisor_brings_it_back_on_the_same_port(self):
        with simulator() as creator:
            url = creator.base_url
            creator.crash(restart_after=0.05)
            down = not creator.up
            creator.wait_until_idle()

            assert down
            assert creator.base_url == url
            assert creator.death_reasons == ("crash",)
            assert call(creator, "GET", "/health").status_code == 200

    def test_it_dies_at_the_submission_that_was_named(self):
        with simulator(faults=Faults(crash_at=(2,)), restart_after=0.01) as creator:
            assert submit(creator, idempotencyKey="one").status_code == 201
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                submit(creator, idempotencyKey="two")
            wait_for(lambda: creator.deaths == 1)
            creator.wait_until_up()

            assert submit(creator, idempotencyKey="three").status_code == 201
            assert [task.state for task in creator.tasks.values()] == ["completed", "running", "completed"]
            assert creator.deaths == 1

    def test_it_forgets_no_client_that_comes_at_that_moment(self):
        """Whoever leaves a socket open makes the test of a host fail, if warnings are errors there."""
        with simulator() as creator:
            address, ended = urlsplit(creator.base_url), threading.Event()

            def call_on():
                while not ended.is_set():
                    with suppress(OSError), socket.create_connection((address.hostname, address.port), 2) as client:
                        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                        client.recv(100)

            with ThreadPoolExecutor(8) as pool:
                for _ in range(8):
                    pool.submit(call_on)
                for _ in range(20):
                    creator.crash()
                    creator.restart()
                    time.sleep(0.002)
                ended.set()
        gc.collect()  # the warnings, if there are any, fail this test

    def test_the_truth_is_readable_after_the_end(self):
        with simulator() as creator:
            submit(creator, idempotencyKey=ID)

        assert creator.tasks[ID].state == "completed"
        assert creator.requests["POST /api/tasks"] == 1


class TestAProcessOfItsOwn:
    @contextmanager
    def running(self, options):
        script = f"from flask_contenthub_webhook.testing import run_simulator; run_simulator({options})"
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=PROJECT_ROOT,
            env=clean_environment(PYTHONPATH=str(PROJECT_ROOT)),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()
            process.communicate()

    def test_it_runs_until_it_is_told_to_stop(self, tmp_path):
        with self.running(f"state_path={str(tmp_path / 'state.db')!r}, seed=1") as (process, url):
            assert httpx.post(f"{url}/api/tasks", json={**FIELDS, "idempotencyKey": ID}).status_code == 201
            process.send_signal(signal.SIGTERM)

            assert process.wait(10) == 0
        ledger = read_ledger(tmp_path / "state.db")
        assert ledger.tasks()[ID].state == "completed"
        assert ledger.counts("requests") == {"POST /api/tasks": 1}

    def test_a_kill_loses_nothing_of_the_truth(self, tmp_path):
        state = tmp_path / "state.db"
        options = f"state_path={str(state)!r}, seed=1"
        with Receiver() as receiver:
            fields = {**FIELDS, "callbackUrl": receiver.url()}
            with self.running(options) as (process, url):
                httpx.post(f"{url}/api/tasks", json={**fields, "idempotencyKey": "done"})
                receiver.wait_for(1)
                wait_for(lambda: read_ledger(state).callbacks())
                process.kill()
                process.wait()
            with self.running(f"{options}, work_time=(60, 60)") as (process, url):
                with pytest.raises(httpx.ReadTimeout):
                    httpx.post(f"{url}/api/tasks", json={**fields, "idempotencyKey": "running"}, timeout=0.3)
                process.kill()
                process.wait()
            with self.running(options) as (_, url):
                rows = httpx.get(f"{url}/api/tasks").json()["data"]["tasks"]

        ledger = read_ledger(state)
        assert [(row["id"], row["status"]) for row in rows] == [("running", "running"), ("done", "completed")]
        assert ledger.tasks()["running"].orphaned
        assert [(entry.task_id, entry.delivered) for entry in ledger.callbacks()] == [("done", True)]
