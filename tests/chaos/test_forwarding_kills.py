"""Senders that are killed, and senders that work at once: every event arrives, and no row is sent by two of them.

As a program (``python -m tests.chaos.test_forwarding_kills``) this file is the senders: for every line on stdin (how
many, whether they die, the time, the database) it forks them, and each sends what is due.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.forwarding.post import Answer, Poster
from tests.support.host import Host, completed, make_host
from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.receiver import Receiver, Reply

LEASE = 41
"""A little more than the lease of a claimed forward: 10 s, and 30 s."""
CONFIG: dict[str, Any] = {
    "WEBHOOK_FORWARD_SECRET": "whsec_" + "Zm9yd2FyZC1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcw==",
    "WEBHOOK_FORWARD_ALLOWED_NETWORKS": "127.0.0.1",
    "WEBHOOK_SUBMIT_THREADS": 0,
}
ROWS = int(os.environ.get("FORWARDING_ROWS", "40"))


class Mortal(Poster):
    """The real thing, in a process that dies between the answer and its record."""

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        super().post(url, body, headers)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def main() -> None:
    for line in sys.stdin:
        many, fate, now, database_url = line.split()
        children = []
        for _ in range(int(many)):
            child = os.fork()
            if child == 0:
                send(database_url, datetime.fromisoformat(now), dies=fate == "die")
            children.append(child)
        for child in children:
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def send(database_url: str, now: datetime, *, dies: bool) -> None:
    """One pass; the exit code is how many it sent."""
    host = make_host(database_url, create_tables=False, **CONFIG)
    host.clock.now = now
    if dies:
        settings = host.state.settings
        host.state.post = Mortal(timeout=10, allowed=settings.forward_allowed_networks).post
    with host.app.app_context():
        report = host.webhook.send_due_forwards()
    os._exit(report.outcomes["delivered"])


class Senders:
    """The program above."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.test_forwarding_kills"],
            cwd=PROJECT_ROOT,
            env=clean_environment(PYTHONPATH=str(PROJECT_ROOT)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, host: Host, many: int = 1, *, die: bool = False) -> list[int]:
        """How each ended: -9 where it was killed, else how many it sent."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        url = host.app.config["SQLALCHEMY_DATABASE_URI"]
        self._process.stdin.write(f"{many} {'die' if die else 'live'} {host.clock.now.isoformat()} {url}\n")
        self._process.stdin.flush()
        return [int(self._process.stdout.readline()) for _ in range(many)]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def senders() -> Iterator[Senders]:
    program = Senders()
    yield program
    program.close()


@pytest.fixture
def hub(database_url: str) -> Iterator[Host]:
    host = make_host(database_url, **CONFIG)
    yield host
    host.close()


def complete(host: Host, url: str) -> None:
    task_id = host.add_task(forward_to=[url])
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200


def rows(host: Host, model: Any) -> list[Any]:
    with host.app.app_context():
        return list(host.db.session.scalars(sa.select(model).order_by(model.id)))


def test_a_sender_that_dies_between_the_answer_and_its_record_sends_it_again_under_the_same_id(
    hub: Host, senders: Senders
) -> None:
    outbox = hub.state.outbox
    with Receiver() as receiver:
        complete(hub, receiver.url())
        assert senders.send(hub, die=True) == [-9]
        assert senders.send(hub) == [0]  # it is claimed, and nobody knows that its owner is gone
        hub.clock.advance(LEASE)
        assert senders.send(hub) == [1]

        first, second = receiver.requests
        assert first.header("webhook-id") == second.header("webhook-id")
        assert first.body == second.body
    (forward,), (attempt,) = rows(hub, outbox.forwards.model), rows(hub, outbox.attempts.model)
    assert (forward.status, forward.tries) == ("delivered", 2)
    assert (attempt.number, attempt.status_code) == (1, 200)


def test_processes_that_send_at_once_never_send_a_row_twice(hub: Host, senders: Senders) -> None:
    with Receiver(Reply(delay=0.02)) as receiver:
        for number in range(ROWS):
            complete(hub, receiver.url(f"/{number}"))
        sent = senders.send(hub, 2)

        assert sum(sent) == ROWS
        ids = [request.header("webhook-id") for request in receiver.requests]
        assert len(ids) == len(set(ids)) == ROWS
        assert {json.loads(request.body)["event"] for request in receiver.requests} == {"completed"}


if __name__ == "__main__":
    main()
