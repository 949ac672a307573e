"""Metrics under a real gunicorn: whichever worker answers, a scrape tells what the history table tells."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.core.signatures import CONTENTHUB_HEADER, sign_contenthub, sign_url
from tests.support.metrics_host import FACTORY
from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.raw_http import PREFIX, Answer, callback, completed, failed, post, send_together
from tests.support.scrapes import Scrape
from tests.support.web_database import HostDatabase
from tests.support.web_server import WebServer, serve

SECRET = "correct-horse-battery-staple-of-forty-bytes"
SETTLED = ("processed", "duplicate", "ignored", "stale")
WORKERS = 4


class Hub:
    """A host with four workers that share their counts, and what is sent to it."""

    def __init__(self, web: WebServer, env: dict[str, str], counts: Path) -> None:
        self.web = web
        self.counts = counts
        self._env = env

    @property
    def database(self) -> HostDatabase:
        return self.web.database

    def send(self, *requests: bytes, expect: set[int]) -> list[Answer]:
        """All at one moment, so that every worker gets some."""
        answers = send_together(self.web.port, requests)
        assert {answer.status for answer in answers} == expect, [answer.body for answer in answers]
        return answers

    def scrape(self) -> Scrape:
        answer = self.web.send(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert answer.status == 200
        return Scrape(answer.body.decode())

    def run(self, *jobs: str) -> None:
        """Do these things in a process of their own, such as the scheduler is."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.metrics_host", *jobs],
            cwd=PROJECT_ROOT,
            env=clean_environment(PYTHONPATH=str(PROJECT_ROOT)) | self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def break_handlers(self, *, broken: bool) -> None:
        self.web.switch.write_text("raise" if broken else "")

    def counted(self) -> set[int]:
        """The processes that have counted something."""
        return {int(path.stem.removeprefix("counter_")) for path in self.counts.glob("counter_*.db")}


def with_token(task_id: str, body: bytes, attempt: int = 1) -> bytes:
    return post(callback(task_id, f"attempt={attempt}&token={sign_url(SECRET, task_id, attempt)}"), body)


def with_signature(task_id: str, body: bytes) -> bytes:
    return post(callback(task_id), body, {CONTENTHUB_HEADER: sign_contenthub(body, SECRET)})


def unsigned(task_id: str, body: bytes, **headers: str | None) -> bytes:
    return post(callback(task_id), body, {name.replace("_", "-"): value for name, value in headers.items()})


def custom(task_id: str, event: str, **fields: Any) -> bytes:
    return json.dumps({"event": event, "taskId": task_id, **fields}).encode()


@pytest.fixture
def hub(database_url: str, tmp_path: Path) -> Iterator[Hub]:
    counts = tmp_path / "counts"
    counts.mkdir()
    env = {
        "DATABASE_URL": database_url,
        "TEST_HOST_SWITCH": str(tmp_path / "switch"),
        "PROMETHEUS_MULTIPROC_DIR": str(counts),
        "WEBHOOK_SECRET_KEY": SECRET,
        "WEBHOOK_REQUIRE_SIGNATURE": "false",  # so that there are unsigned ones among them
        "WEBHOOK_RETRY_BACKOFF": "30",
        "WEBHOOK_EVENTS": "illustrated",
    }
    with serve(database_url, tmp_path, factory=FACTORY, env=env, workers=WORKERS) as web:
        yield Hub(web, env, counts)


def table(hub: Hub, where: str, *columns: str, what: str = "count(*)") -> dict[tuple[str, ...], float]:
    """What the history table holds, grouped by columns."""
    keys = ", ".join(f"coalesce({column}, 'none')" for column in columns)
    query = f"SELECT {keys}, {what} FROM webhook_deliveries WHERE {where} GROUP BY {keys}"
    with hub.database.engine.connect() as connection:
        return {tuple(row[:-1]): float(row[-1]) for row in connection.execute(sa.text(query))}


def assert_scrape_is_the_table(hub: Hub, scrape: Scrape) -> None:
    labels = ("source", "scheme", "event", "verdict")
    verdicts = ", ".join(f"'{verdict}'" for verdict in SETTLED)
    assert scrape.counts("deliveries_total", *labels) == table(hub, f"verdict IN ({verdicts})", *labels)
    assert scrape.counts("rejections_total", "reason") == table(
        hub, "verdict = 'rejected'", "error", what="sum(occurrences)"
    )
    assert scrape.counts("waiting_deliveries", "verdict") == table(hub, "next_retry_at IS NOT NULL", "verdict")
    assert scrape.value("dead_deliveries") == sum(table(hub, "verdict = 'dead'", "verdict").values())


def test_a_scrape_of_four_workers_tells_what_the_history_table_tells(hub: Hub):
    database = hub.database
    later = {"deadline_at": datetime.now(UTC) + timedelta(hours=2)}  # than the scheduler's clock
    done, signed, plain, old, failing = (database.add_tasks(count, **later) for count in (60, 20, 20, 20, 12))
    with database.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE content_generation_tasks SET attempt = 2 WHERE task_id = :id"), [{"id": one} for one in old]
        )

    # Processed under every scheme; copies, some of them at the same moment; what comes too late; old attempts.
    hub.send(*(with_token(task_id, completed(task_id)) for task_id in done), expect={200})
    hub.send(*(with_signature(task_id, completed(task_id)) for task_id in signed * 2), expect={200})
    hub.send(*(unsigned(task_id, failed(task_id)) for task_id in plain), expect={200})
    hub.send(*(with_token(task_id, completed(task_id)) for task_id in done[:30]), expect={200})
    hub.send(*(with_token(task_id, failed(task_id)) for task_id in [*done[30:40], *old]), expect={200})
    hub.send(*(with_token(task_id, custom(task_id, "illustrated")) for task_id in done[:10]), expect={200})

    # A worker that has counted dies without a word; its counts stay.
    victim = next(pid for pid in hub.web.gunicorn.worker_pids() if pid in hub.counted())
    hub.web.gunicorn.kill_worker(victim)
    hub.web.gunicorn.wait_until_ready()

    # Refused for one reason and another, believed senders among them; a batch of good and bad items.
    stranger = str(uuid.uuid4())
    bad = {
        401: [post(callback(done[0], "attempt=1&token=forged"), completed(done[0]))] * 9,
        404: [with_token(stranger, completed(stranger))] * 5,
        409: [with_signature(done[0], completed(done[1]))] * 4,
        415: [unsigned(done[0], completed(done[0]), Content_Type="text/plain")] * 3,
        400: [
            *([unsigned(done[0], b"{")] * 8),
            *([with_token(done[0], custom(done[0], "nonsense"))] * 7),
            *([with_token(done[0], b"[]")] * 6),
        ],
    }
    hub.send(*(request for requests in bad.values() for request in requests), expect=set(bad))
    items = [json.loads(body) for body in (completed(done[0]), completed(stranger), custom(done[1], "nonsense"))]
    hub.send(post(f"{PREFIX}/callbacks", json.dumps({"events": items}).encode()), expect={200})

    # Handlers that fail: some events wait, some are given up, some have their effect at the second try.
    hub.break_handlers(broken=True)
    hub.send(*(with_token(task_id, completed(task_id)) for task_id in failing), expect={500})
    hub.run("retry:4")
    hub.break_handlers(broken=False)
    overdue, unwanted = database.add_task(deadline_at=datetime.now(UTC)), database.add_task(**later)
    dead = next(row.id for row in (database.deliveries(task_id)[0] for task_id in failing) if row.verdict == "dead")
    hub.run("retry:5", "reconcile", f"cancel:{unwanted}", f"replay:{dead}")
    assert database.status(overdue) == "timeout"

    scrape = hub.scrape()
    assert_scrape_is_the_table(hub, scrape)
    assert scrape.counts("waiting_deliveries", "verdict") == {("failed",): 3}
    assert scrape.value("dead_deliveries") == 3
    assert scrape.counts("failed_tries_total", "source", "verdict") == {
        ("webhook", "failed"): 12,
        ("webhook", "dead"): 4,
    }
    assert scrape.counts("rejections_total", "reason") == {
        ("signature_invalid",): 9,
        ("task_not_found",): 6,
        ("task_mismatch",): 4,
        ("unsupported_media_type",): 3,
        ("invalid_json",): 8,
        ("invalid_payload",): 6,
        ("unknown_event",): 8,
    }
    assert scrape.counts("deliveries_total", "source", "verdict") == {
        ("webhook", "processed"): 60 + 20 + 20 + 10 + 5,
        ("webhook", "duplicate"): 20 + 30 + 1,
        ("webhook", "ignored"): 10,
        ("webhook", "stale"): 20,
        ("poll", "processed"): 1,
        ("host", "processed"): 1,
        ("replay", "processed"): 1,
    }

    # Whichever worker answers, it answers for all.
    assert len(hub.counted()) > 2
    counters = {name for name in scrape.names if not name.endswith("_seconds")}
    for again in (hub.scrape() for _ in range(6)):
        assert {(s.name, *s.labels.items(), s.value) for s in again.samples if s.name in counters} == {
            (s.name, *s.labels.items(), s.value) for s in scrape.samples if s.name in counters
        }
