"""The simulator under load, its start and its end."""

from __future__ import annotations

import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

from flask_contenthub_webhook.testing import CreatorSimulator
from tests.support.receiver import Receiver, Reply
from tests.support.simulator import FIELDS, ID, call, simulator, submitted, wait_for


class TestTheLoad:
    def test_a_hundred_submissions_block_at_once_in_one_thread(self):
        request = json.dumps(FIELDS).encode()
        head = (
            f"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(request)}"
        )
        threads = threading.active_count()
        with simulator(work_time=(0.5, 0.5)) as creator:
            clients = [socket.create_connection(("127.0.0.1", urlsplit(creator.base_url).port)) for _ in range(100)]
            started = time.monotonic()
            for client in clients:
                client.sendall(f"{head}\r\n\r\n".encode() + request)
            wait_for(lambda: len(creator.tasks) == 100)
            running = threading.active_count()
            answers = [client.recv(12) for client in clients]
            elapsed = time.monotonic() - started
            for client in clients:
                client.close()

        assert set(answers) == {b"HTTP/1.1 201"}
        assert elapsed < 20  # one after another they would take 50 s
        assert running == threads + 1

    def test_nothing_is_left_after_the_end(self):
        before = set(threading.enumerate())
        with Receiver(Reply(hang=True)) as receiver, simulator(work_time=None) as creator:
            creator.add_task(ID)
            with submitted(creator, receiver.url(), idempotencyKey="blocked") as answer:
                creator.stop()
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    answer.result()

        assert {thread for thread in threading.enumerate() if thread.name == "creator-simulator"} <= before

    def test_a_port_that_is_taken_is_said_at_once(self):
        with simulator() as creator, pytest.raises(OSError, match="in use"):
            CreatorSimulator(port=urlsplit(creator.base_url).port).start()

    def test_it_can_be_started_again(self):
        creator = CreatorSimulator(seed=1)
        for _ in range(2):
            with creator:
                assert call(creator, "GET", "/health").status_code == 200
        with pytest.raises(RuntimeError, match="not started"):
            creator.crash()

    @pytest.mark.parametrize(
        "options", [{"time_scale": -1}, {"time_scale": 0}, {"work_time": (2, 1)}, {"api": "other"}, {"latency": -1}]
    )
    def test_an_option_that_makes_no_sense_is_refused(self, options):
        with pytest.raises(ValueError, match=r".+"):
            CreatorSimulator(**options)
