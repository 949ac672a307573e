"""Turns: what became due first is done first, so a backlog that never shrinks delays nothing for longer than itself."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.engine.retry import RetryReport, work_off
from tests.support.host import Host, custom
from tests.support.web_server import figure
from tests.support.workers import size

Build = Callable[..., Host]
BACKLOG = size("BACKLOG", 1_500)
ROUNDS, ROUND = 30, 60
"""Seconds of moved clock."""
A_ROUND = BACKLOG // 5
"""Events that come in a round, and as many that are applied."""
DEPTH = BACKLOG // A_ROUND * ROUND
"""Seconds that the backlog takes."""
POLICY = (30, 60, 120)
"""Seconds after each failure."""
LEASE = 90


class Broken(Exception):
    """The handler fails."""


class Backlog:
    """Events, each of its own task, and a handler that notes when each was tried."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.tasks: list[str] = []
        self.tries: dict[int, list[float]] = {}
        self.lost: dict[int, float] = {}
        """When the leases of those end whose worker was killed."""
        self.broken: set[int] = set()
        self.began = host.clock.now
        host.webhook.on("illustrated")(self)

    def __call__(self, app: object, *, event: Any, **extra: object) -> None:
        number = event.payload["number"]
        self.tries.setdefault(number, []).append(self.now)
        if number in self.broken:
            raise Broken

    @property
    def now(self) -> float:
        return (self.host.clock.now - self.began).total_seconds()

    def come(self, count: int) -> None:
        numbers = range(len(self.tasks), len(self.tasks) + count)
        self.broken.update(numbers[::50])
        self.tasks += [str(uuid.uuid4()) for _ in numbers]
        host, rows = self.host, [{"task_id": self.tasks[number], "status": "submitted"} for number in numbers]
        with host.app.app_context():
            host.db.session.execute(sa.insert(host.state.task_model), rows)
            host.db.session.commit()
        for some in (numbers[start : start + 50] for start in range(0, count, 50)):
            events = [custom(self.tasks[number], "illustrated", number=number) for number in some]
            assert host.post_batch(events, scheme="contenthub").status_code == 200

    def kill_a_worker(self, task_id: str) -> None:
        """Let one claim the first of a task, and never be heard of again."""
        inbox, lease = self.host.state.store.inbox, timedelta(seconds=LEASE)
        for claimed in self.host.state.database.write(
            lambda tx: inbox.claim(tx, lease=lease, limit=1, task_id=task_id)
        ):
            self.lost[json.loads(claimed.row["body"])["number"]] = self.now + LEASE

    def work(self, count: int) -> None:
        report = RetryReport()
        while report.claimed < count:
            work_off(self.host.state, report, limit=min(20, count - report.claimed), longest_hold=60)
            assert not report.interrupted

    def delays_of_retries(self) -> list[float]:
        """Seconds after which each failed one was tried again, beyond what the policy says; not those lost as well."""
        delays = []
        for number in (self.broken & self.tries.keys()) - self.lost.keys():
            tries = self.tries[number]
            for before, then, wait in zip(tries, [*tries[1:], self.now], POLICY, strict=False):
                delays.append(then - before - wait)
        return delays

    def delays_of_lost(self) -> list[float]:
        """The same of those whose worker was killed, after the end of its lease."""
        return [
            next((at for at in self.tries.get(number, []) if at >= ends), self.now) - ends
            for number, ends in self.lost.items()
            if number not in self.broken
        ]


@pytest.mark.slow
def test_a_backlog_that_never_shrinks_delays_retries_and_lost_events_by_no_more_than_itself(
    hosts: Build, database_url: str
) -> None:
    backlog = Backlog(hosts(database_url, WEBHOOK_PROCESSING="worker", WEBHOOK_EVENTS="illustrated"))
    backlog.come(BACKLOG)
    for _ in range(ROUNDS):
        backlog.come(A_ROUND)
        backlog.kill_a_worker(backlog.tasks[-2])
        backlog.work(A_ROUND + A_ROUND // 50 * len(POLICY))
        backlog.host.clock.advance(ROUND)

    retries, lost = backlog.delays_of_retries(), backlog.delays_of_lost()
    figure(
        f"a backlog of {BACKLOG}, as many come as go, {DEPTH} s deep, {ROUNDS * ROUND} s: "
        f"{len(retries)} retries {max(retries):.0f} s at most after they were due, "
        f"{len(lost)} events of killed workers {max(lost):.0f} s at most after their leases"
    )
    assert len(retries) > ROUNDS
    assert max(retries) <= DEPTH + 2 * ROUND
    assert max(lost) <= DEPTH + 2 * ROUND
