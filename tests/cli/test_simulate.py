"""`flask webhook simulate` and `flask webhook migrations install`: what they pass on."""

from __future__ import annotations

import json

import httpx
import pytest
from flask_migrate import Migrate, init

from tests.cli.conftest import run, run_json
from tests.cli.test_background import FLASK


class TestSimulate:
    def test_it_answers_until_sigterm_and_sums_up(self, start, sqlite_url, journal):
        options = ("--port", "0", "--work-time", "0", "0", "--seed", "7", "--fail", "1", "--api", "paper")
        process = start(*FLASK, "webhook", "simulate", *options, DATABASE_URL=sqlite_url, TEST_JOURNAL=str(journal))
        process.wait_for(lambda: process.stdout.endswith("\n"), "the URL")
        url = process.stdout.strip()
        body = {"mode": "sync", "topic": "T", "requirements": "R", "targetAudience": "A"}

        assert httpx.get(f"{url}/health").json()["status"] == "ok"
        assert httpx.get(f"{url}/api/tasks/unknown").status_code == 404
        assert httpx.post(f"{url}/api/tasks", json=body).json()["data"]["status"] == "failed"

        assert f"CREATOR_API_BASE_URL={url}" in process.stderr
        assert "seed 7" in process.stderr
        assert process.terminate() == 0
        assert "tasks: 1 failed" in process.stdout
        assert "deaths: none" in process.stdout

    def test_as_json_the_summary_alone_is_on_stdout(self, start, sqlite_url, journal):
        arguments = ("webhook", "simulate", "--port", "0", "--json")
        process = start(*FLASK, *arguments, DATABASE_URL=sqlite_url, TEST_JOURNAL=str(journal))
        process.wait_for(lambda: "http://127.0.0.1:" in process.stderr, "the URL")

        assert process.terminate() == 0
        assert json.loads(process.stdout)["tasks"] == {}

    def test_a_port_that_is_taken_is_one_clean_line(self, sqlite_host):
        from flask_contenthub_webhook.testing import CreatorSimulator

        with CreatorSimulator() as other:
            port = other.base_url.rpartition(":")[2]
            result = run(sqlite_host, "simulate", "--port", port)

        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: Port {port} cannot be used: ")


class TestMigrationsInstall:
    @pytest.fixture
    def migrating(self, hosts, sqlite_url, tmp_path, capsys):
        host = hosts(sqlite_url, create_tables=False)
        Migrate(host.app, host.db, directory=str(tmp_path / "migrations"))
        with host.app.app_context():
            init()
        return host

    def test_it_writes_the_revisions_and_says_what_is_next(self, migrating, tmp_path):
        planned = run_json(migrating, "migrations", "install", "--dry-run")
        assert [revision["is_new"] for revision in planned["revisions"]] == [True, True, True]
        assert list((tmp_path / "migrations" / "versions").iterdir()) == []

        result = run(migrating, "migrations", "install")

        assert result.exit_code == 0, result.output
        assert "Now run `flask db upgrade`." in result.stdout
        assert len(list((tmp_path / "migrations" / "versions").glob("*.py"))) == 3
        assert "exists already" in run(migrating, "migrations", "install").stdout

    def test_what_it_cannot_do_is_one_clean_line(self, hosts, sqlite_url):
        result = run(hosts(sqlite_url), "migrations", "install")

        assert result.exit_code == 1
        assert result.stderr.startswith("Error: Flask-Migrate is not registered")
