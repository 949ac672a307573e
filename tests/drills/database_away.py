"""The database is away for a minute, under a web server with callbacks, a worker and a scheduler.

Each process writes one traceback, then counts, and says when the database is back; no line holds a result, and every
callback has its effect in the end.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from tests.support.postgres import PostgresServer
from tests.support.raw_http import callback, completed, post, send
from tests.support.web_server import WebServer, serve

from .parts import eventually, passed, running, say

_APP = "tests.support.worker_host"
_CONTENT = "These words of a result must not be logged. " * 200
_MOST_BYTES = 12_000
"""Bytes that one process may log about an outage of a minute; a traceback has about 6,000."""
_BACK = "The database works again"


def drill(directory: Path, *, away: float = 60.0) -> None:
    """Run the drill.

    Args:
        directory: for logs.
        away: seconds without a database.
    """
    with PostgresServer() as postgres:
        url = postgres.create_database()
        env = {"DATABASE_URL": url}
        with (
            serve(url, directory, workers=2) as web,
            running("worker", app=_APP, env=env, directory=directory) as worker,
            running("scheduler", app=_APP, env=env, directory=directory) as scheduler,
        ):
            worker.wait_for("The worker runs")
            scheduler.wait_for("The scheduler runs")
            task_ids = web.database.add_tasks(200)
            parts = {"web": web.gunicorn.log_path, "worker": worker.log_path, "scheduler": scheduler.log_path}
            assert web.post(task_ids[0], completed(task_ids[0])).status == 200
            before = {name: path.stat().st_size for name, path in parts.items()}
            refused = 0
            with postgres.outage():
                over = passed(away)
                for task_id in itertools.cycle(task_ids):
                    answer = send(web.port, post(callback(task_id), completed(task_id, _CONTENT)))
                    assert (answer.status, answer.code) == (503, "database_unavailable")
                    refused += 1
                    if over():
                        break
                    time.sleep(0.05)
                logged = {name: path.read_bytes()[before[name] :].decode() for name, path in parts.items()}
            answers = [send(web.port, post(callback(task_id), completed(task_id, _CONTENT))) for task_id in task_ids]
            effects = web.database.contents(*task_ids)
            eventually(lambda: _BACK in worker.log and _BACK in scheduler.log, "the database is not said to be back")
            eventually(lambda: _is_said(web, task_ids[0]), "the web processes do not say it")

        say("seconds without the database", f"{away:g}")
        say("callbacks refused with 503, per second", f"{refused / away:.0f}")
        for name, text in logged.items():
            say(f"{name}: bytes of log, tracebacks", f"{len(text)}, {tracebacks(text)}")
        say("callbacks answered with 200 afterwards", sum(answer.status == 200 for answer in answers))
        say("tasks with one effect", sum(count == 1 for count in effects.values()))

        assert refused > 5 * away
        for name, text in logged.items():
            processes = 2 if name == "web" else 1
            assert tracebacks(text) <= processes, name
            assert len(text) < processes * _MOST_BYTES, name
            assert "These words of a result" not in text, name
        assert {answer.status for answer in answers} == {200}
        assert set(effects.values()) == {1}


def tracebacks(text: str) -> int:
    """Count the tracebacks, those of causes not."""
    return text.count("Traceback (most recent call last)") - text.count("direct cause of the following exception")


def _is_said(web: WebServer, task_id: str) -> bool:
    """Send a repeat, since a web process learns only from its requests that the database is back."""
    web.post(task_id, completed(task_id))
    return web.gunicorn.log.count(_BACK) == 2
