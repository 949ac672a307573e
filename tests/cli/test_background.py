"""Commands that do the periodic work: once, again and again, and as the scheduler."""

from __future__ import annotations

import json
import re
import signal
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.testing import CreatorSimulator
from tests.cli.conftest import run, run_json

RAN = "executed successfully"
"""Logged by APScheduler after a job."""
FOUND = {"content": "# Found", "htmlContent": "# Found", "images": []}
FLASK = ("-m", "flask", "--app", "tests.cli.host_app")


@pytest.fixture
def creator():
    with CreatorSimulator() as simulator:
        yield simulator


@pytest.fixture
def host(hosts, database_url, creator):
    return hosts(database_url, CREATOR_API_BASE_URL=creator.base_url, WEBHOOK_SUBMIT_THREADS=0)


class TestReconcile:
    def test_once_asks_applies_and_reports(self, host, creator):
        done = creator.add_task(str(uuid.uuid4()), state="completed", result=FOUND)
        task_id = host.add_task(creator_task_id=done.id, next_poll_at=host.clock(), submitted_at=host.clock())

        result = run(host, "reconcile", "--once")

        assert result.exit_code == 0, result.output
        assert "1 due, 1 asked, applied: 1 processed, 0 still open" in result.stdout
        assert host.contents(task_id) == ["# Found"]
        assert run_json(host, "reconcile", "--once")["claimed"] == 0

    def test_once_exits_with_1_when_the_creator_is_down(self, host, creator):
        host.add_task(creator_task_id=str(uuid.uuid4()), next_poll_at=host.clock(), submitted_at=host.clock())
        creator.crash()

        result = run(host, "reconcile", "--once", "--json")

        assert result.exit_code == 1
        assert json.loads(result.stdout)["errors"] == 1

    def test_without_a_creator_it_says_what_to_set(self, hosts, sqlite_url):
        result = run(hosts(sqlite_url), "reconcile", "--once")

        assert result.exit_code == 1
        assert "CREATOR_API_BASE_URL" in result.stderr

    def test_without_once_it_goes_on_until_sigterm(self, start, sqlite_url, journal):
        database = prepared(sqlite_url)
        due(database)
        process = start(*FLASK, "webhook", "reconcile", **env(sqlite_url, journal))

        process.wait_for(lambda: "1 due, 1 asked" in process.stdout, "the first pass")
        process.wait_for(lambda: journal.read_text().count("pass") >= 2, "the second pass")

        assert process.terminate() == 0
        assert process.stdout.startswith("A pass every 1 s")
        assert process.stdout.endswith("Stopped.\n")
        assert statuses(database) == ["completed"]


class TestHandOver:
    def test_one_sweep_hands_over_what_is_due(self, host, creator):
        with host.app.app_context():
            task_id = host.webhook.submit(
                topic="T", requirements="R", target_audience="A", callback_url="https://hub.example"
            ).task_id

        result = run(host, "hand-over")

        assert result.exit_code == 0, result.output
        assert "Due: 1 task (1 submitted)." in result.stdout
        assert host.task(task_id).creator_task_id in creator.tasks

    def test_it_exits_with_1_when_the_creator_is_down(self, host, creator):
        creator.crash()
        with host.app.app_context():
            host.webhook.submit(topic="T", requirements="R", target_audience="A", callback_url="https://hub.example")

        result = run(host, "hand-over", "--json")

        assert result.exit_code == 1
        assert json.loads(result.stdout)["outcomes"] == {"unreachable": 1}


class TestScheduler:
    def test_it_says_what_runs_and_how_often_and_ends_on_sigterm(self, start, sqlite_url, journal):
        prepared(sqlite_url)
        process = start(*FLASK, "webhook", "scheduler", **env(sqlite_url, journal))
        process.wait_for(lambda: "The scheduler runs" in process.stdout, "the scheduler")
        process.wait_for(lambda: process.stderr.count(RAN) >= 6, "the first run of each job")

        started = time.monotonic()
        assert process.terminate() == 0

        assert time.monotonic() - started < 20  # not after the next run of the alerts, in half a minute
        assert re.search(r"^reconcile: every 1 s$", process.stdout, re.MULTILINE)
        assert re.search(r"^alerts: every 30 s$", process.stdout, re.MULTILINE)
        assert re.search(r"^purge: every 3600 s$", process.stdout, re.MULTILINE)
        assert process.stdout.endswith("Stopped.\n")
        assert "Traceback" not in process.stderr
        assert "ERROR" not in process.stderr

    def test_a_running_job_is_finished_first(self, start, database_url, journal):
        database = prepared(database_url)
        due(database)
        process = start(*FLASK, "webhook", "scheduler", **env(database_url, journal, TEST_CREATOR="slow"))
        process.wait_for(lambda: journal.exists() and "asked" in journal.read_text(), "the question")

        assert process.terminate() == 0
        assert "answered" in journal.read_text()
        assert statuses(database) == ["completed"]

    def test_a_creator_that_raises_does_not_stop_the_next_run(self, start, sqlite_url, journal):
        database = prepared(sqlite_url)
        due(database)
        process = start(*FLASK, "webhook", "scheduler", **env(sqlite_url, journal, TEST_CREATOR="broken"))

        process.wait_for(lambda: statuses(database) == ["completed"], "the second try")

        assert process.terminate() == 0
        assert "has a bug in statuses" in process.stderr
        assert "this creator is broken" in process.stderr
        assert journal.read_text().count("asked") == 2

    def test_a_database_that_is_not_migrated_does_not_end_it(self, start, sqlite_url, journal):
        process = start(*FLASK, "webhook", "scheduler", **env(sqlite_url, journal))
        process.wait_for(lambda: "no such table" in process.stderr, "the trouble")

        database = prepared(sqlite_url)
        due(database)
        process.wait_for(lambda: statuses(database) == ["completed"], "the pass after the migration")
        process.send(signal.SIGINT)
        assert process.wait() == 0


def env(url, journal, **more):
    """A pass each second."""
    return {
        "DATABASE_URL": url,
        "TEST_JOURNAL": str(journal),
        "WEBHOOK_ENABLED": "true",
        "WEBHOOK_SECRET_KEY": "correct-horse-battery-staple-of-forty-bytes",
        "WEBHOOK_POLL_INTERVAL": "1",
        "WEBHOOK_POLL_MAX_INTERVAL": "1",
        **more,
    }


def prepared(url):
    """The tables of `host_app`."""
    from flask_contenthub_webhook import default_models
    from tests.cli.host_app import db

    default_models(db)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    db.metadata.create_all(engine)
    return engine


def due(engine):
    """A task that the creator is to be asked about at once."""
    from flask_contenthub_webhook import default_models
    from tests.cli.host_app import db

    past = datetime.now(UTC) - timedelta(seconds=5)
    values = {"task_id": str(uuid.uuid4()), "creator_task_id": str(uuid.uuid4()), "status": "submitted"}
    with engine.begin() as connection:
        table = default_models(db)[0].__table__
        connection.execute(sa.insert(table), {**values, "next_poll_at": past, "submitted_at": past})


def statuses(engine):
    with engine.connect() as connection:
        return list(connection.execute(sa.text("select status from content_generation_tasks")).scalars())
