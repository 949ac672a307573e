"""A long history is purged while callbacks arrive: nothing is lost, and no callback waits for it.

Callbacks come at a steady rate all the time, while a process beside the server purges for some seconds, rests for as
long, and so on: what a callback takes with a purge and without is measured in the same run, interleaved.

``PURGE_ROWS=1000000 python -m pytest tests/scale/test_purge.py -rP`` is the full run; without it, a small one that
looks at the outcome alone, since so few callbacks have no 99th percentile.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest
import sqlalchemy as sa

from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.raw_http import Answer, completed
from tests.support.web_server import WebServer, figure, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = 100_000
ROWS = int(os.environ.get("PURGE_ROWS", "2000"))
BODY = int(os.environ.get("PURGE_BODY", "2000"))
PER_SECOND = float(os.environ.get("PURGE_RATE", "40"))
PHASE = 2.0 if ROWS >= FULL else 0.3
CLIENTS = 4
WAITING = 100
"""Every so many rows one is still to be tried again."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def fill(database: Any, rows: int) -> None:
    """A history that is older than 90 days, written by the database itself."""
    at, body, name = {
        "sqlite": (
            "datetime('now', '-200 days', '+' || (n * 100.0 / :rows) || ' days')",
            "randomblob(:body)",
            "'old-' || n",
        ),
        "postgresql": (
            "now() - interval '200 days' + interval '100 days' * n / :rows",
            "decode(repeat(md5(n::text), :body / 16), 'hex')",
            "'old-' || n",
        ),
        "mysql": (
            "utc_timestamp(6) - interval 200 day + interval (8640000 * n / :rows) second",
            "unhex(repeat(md5(n), :body / 16))",
            "concat('old-', n)",
        ),
    }[database.engine.dialect.name]
    insert = f"""
        INSERT INTO webhook_deliveries (task_id, event, source, verdict, late, tries, occurrences, received_at,
            next_retry_at, body)
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)
        SELECT {name}, 'completed', 'webhook', 'processed', false, 1, 1, {at},
            CASE WHEN n % {WAITING} = 0 THEN {at} END, {body}
        FROM numbers"""
    with database.engine.begin() as connection:
        connection.execute(sa.text(insert), {"rows": rows, "body": BODY})
    if not database.is_sqlite:
        analyze = "VACUUM ANALYZE" if database.engine.dialect.name == "postgresql" else "ANALYZE TABLE"
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(f"{analyze} webhook_deliveries"))


class Load:
    """Callbacks at a steady rate; each is timed from the moment at which it was to be sent."""

    def __init__(self, server: WebServer, task_ids: list[str]) -> None:
        self._server = server
        self._task_ids = iter(task_ids)
        self._ended = threading.Event()
        self._due: queue.Queue[tuple[float, str, str] | None] = queue.Queue()
        self._threads = [threading.Thread(target=run) for run in (self._schedule, *[self._send] * CLIENTS)]
        self.label = "without"
        self.seconds: dict[str, list[float]] = {"without": [], "with": []}
        self.sent: list[str] = []
        self.refused: list[Answer] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _schedule(self) -> None:
        began = time.monotonic()
        for number, task_id in enumerate(self._task_ids):
            due = began + number / PER_SECOND
            if self._ended.wait(max(due - time.monotonic(), 0)):
                break
            self._due.put((due, self.label, task_id))
        for _ in range(CLIENTS):
            self._due.put(None)

    def _send(self) -> None:
        while (item := self._due.get()) is not None:
            due, label, task_id = item
            answer = self._server.post(task_id, completed(task_id, "x" * 4000))
            self.seconds[label].append(time.monotonic() - due)
            self.sent.append(task_id)
            if answer.status != 200:
                self.refused.append(answer)


def test_callbacks_do_not_wait_for_a_purge(database_url, tmp_path):
    with serve(database_url, tmp_path) as server, purger(database_url) as process:
        database = server.database
        fill(database, ROWS)
        task_ids = database.add_tasks(int(PER_SECOND * (30 + ROWS / 500)))
        deleted, began = 0, time.monotonic()
        with Load(server, task_ids) as load:
            time.sleep(PHASE)
            load.seconds["without"].clear()  # the first ones find nothing in any cache
            while True:
                time.sleep(PHASE)
                load.label = "with"
                process.stdin.write(f"{PHASE}\n")
                process.stdin.flush()
                gone = int(process.stdout.readline())
                load.label = "without"
                deleted += gone
                if not gone:
                    break
        took = time.monotonic() - began
        histories = {task_id: database.verdicts(task_id) for task_id in load.sent[:: max(1, len(load.sent) // 500)]}
        contents = database.contents(*load.sent)
        waiting = sa.text("SELECT count(*) FROM webhook_deliveries WHERE next_retry_at IS NOT NULL")
        with database.engine.connect() as connection:
            still_waiting = connection.execute(waiting).scalar_one()

    figure(f"{ROWS} rows of {BODY} bytes, {PER_SECOND:g} callbacks a second, {took:.0f} s: {shown(load.seconds)}")
    assert load.refused == []
    assert set(contents.values()) == {1}
    assert set(map(tuple, histories.values())) == {("processed",)}
    assert deleted == ROWS - ROWS // WAITING
    assert still_waiting == ROWS // WAITING
    if ROWS >= FULL:
        assert percentile(load.seconds["with"], 0.99) <= 2 * percentile(load.seconds["without"], 0.99)


@contextlib.contextmanager
def purger(url: str) -> Iterator[Any]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.purger"],
        cwd=PROJECT_ROOT,
        env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), DATABASE_URL=url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.stdin.close()
    assert process.returncode == 0


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(int(len(seconds) * share), len(seconds) - 1)]


def shown(seconds: dict[str, list[float]]) -> str:
    lines = []
    for label, values in seconds.items():
        figures = ", ".join(f"p{share * 100:g} {percentile(values, share) * 1000:.1f} ms" for share in (0.5, 0.9, 0.99))
        lines.append(f"\n  {label} a purge: {len(values)} callbacks, {figures}, most {max(values) * 1000:.1f} ms")
    usual = percentile(seconds["without"], 0.99)
    ratio = percentile(seconds["with"], 0.99) / usual
    slow = {label: sum(value > 2 * usual for value in values) / len(values) for label, values in seconds.items()}
    lines.append(
        f"\n  p99 with / without: {ratio:.2f}; slower than twice the usual p99: {slow['without']:.2%} without, "
    )
    return "".join(lines) + f"{slow['with']:.2%} with"
