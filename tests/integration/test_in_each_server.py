"""A callback, the in-process scheduler and SIGTERM in each server that hosts run in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from flask_contenthub_webhook.core.signatures import sign_url
from tests.support.host import SECRET, completed
from tests.support.served import SERVERS, Served, ServerKind
from tests.support.web_database import HostDatabase

STARTED = "The scheduler runs in this process."
NOT_STARTED = "The scheduler could not be started in this process"


@contextmanager
def served(kind: ServerKind, url: str, journal: Path, **env: str) -> Iterator[tuple[Served, HostDatabase]]:
    database = HostDatabase(url).create()
    settings = {
        "DATABASE_URL": url,
        "TEST_JOURNAL": str(journal),
        "WEBHOOK_SECRET_KEY": SECRET,
        "WEBHOOK_REQUIRE_SIGNATURE": "true",
        "WEBHOOK_CALLBACK_BASE_URL": "https://hub.example",
        "WEBHOOK_SCHEDULER_ENABLED": "true",
    }
    with Served(kind, settings | env) as server:
        try:
            yield server, database
        finally:
            print(f"--- {kind}\n{server.log}")  # noqa: T201 - shown on failure


def call_back(server: Served, task_id: str) -> str:
    url = f"{server.base_url}/api/v1/content/callback/{task_id}?token={sign_url(SECRET, task_id, None)}"
    answer = httpx.post(url, json=completed(task_id), timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["outcome"])


@pytest.mark.parametrize("kind", SERVERS, ids=str)
def test_callback_scheduler_and_sigterm(kind, postgres_url, tmp_path):
    journal = tmp_path / "journal"
    with served(kind, postgres_url, journal) as (server, database):
        task_id = database.add_task()

        pid = int(httpx.get(f"{server.base_url}/pid", timeout=60).text)
        assert call_back(server, task_id) == "processed"
        assert call_back(server, task_id) == "duplicate"
        assert httpx.get(f"{server.base_url}/async", timeout=60).text == "Ada: 2"

        if kind.runs_scheduler:
            server.wait_for(lambda: journal.exists() and str(pid) in journal.read_text().split(), "a pass")
            assert STARTED in server.log
        else:
            assert not journal.exists()
            assert 1 <= server.log.count(NOT_STARTED) <= 2  # once in each process
        server.terminate()

        assert database.verdicts(task_id) == ["processed", "duplicate"]
        assert database.contents(task_id) == {task_id: 2}
        assert server.log.count("Traceback") == server.log.count(NOT_STARTED)
