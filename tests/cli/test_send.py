"""`flask webhook send` against a running server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_contenthub_webhook.core.signatures import SCHEMES
from flask_contenthub_webhook.errors import InsecureConfiguration
from tests.cli.conftest import run, run_json
from tests.support.gunicorn import Gunicorn
from tests.support.host import SECRET
from tests.support.web_database import HostDatabase
from tests.support.web_host import FACTORY

pytestmark = pytest.mark.filterwarnings(f"ignore::{InsecureConfiguration.__module__}.InsecureConfiguration")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> HostDatabase:
    return HostDatabase(f"sqlite:///{tmp_path_factory.mktemp('send') / 'test.db'}").create()


@pytest.fixture(scope="module")
def server(database: HostDatabase) -> Iterator[Gunicorn]:
    env = {
        "DATABASE_URL": database.url,
        "WEBHOOK_SECRET_KEY": SECRET,
        "WEBHOOK_REQUIRE_SIGNATURE": "true",
        "WEBHOOK_EVENTS": "illustrated",
    }
    with Gunicorn(FACTORY, workers=1, env=env) as gunicorn:
        yield gunicorn


@pytest.fixture
def host(hosts, sqlite_url, server):
    """The app that the command runs in: it only needs the secret and the address."""
    return hosts(sqlite_url, WEBHOOK_CALLBACK_BASE_URL=server.base_url, create_tables=False)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_completed_event_is_applied_whatever_signs_it(host, database, scheme):
    task_id = database.add_task()

    result = run(host, "send", task_id, "--scheme", scheme, "--content", "# Hello")

    assert result.exit_code == 0, result.output
    assert "200 OK" in result.stdout
    assert '"outcome": "processed"' in result.stdout
    assert f"signed by: {scheme}" in result.stdout
    assert database.task(task_id).result == {"content": "# Hello"}
    assert database.deliveries(task_id)[0].scheme == scheme


def test_the_token_is_not_shown(host, database):
    task_id = database.add_task()

    result = run(host, "send", task_id)

    assert "token=***" in result.stdout
    assert host.token(task_id) not in result.output


def test_each_kind_of_event(host, database):
    task_id = database.add_task(max_retries=0)

    for arguments in (
        ("--event", "illustrated", "--result", '{"pages": 3}'),
        ("--event", "progress", "--percentage", 70, "--message", "at it"),
        ("--event", "failed", "--message", "out of ink", "--attempt", 1),
    ):
        assert run(host, "send", task_id, *arguments).exit_code == 0

    assert database.verdicts(task_id) == ["processed"] * 3
    assert database.status(task_id) == "failed"
    bodies = [json.loads(row.body) for row in database.deliveries(task_id)]
    assert bodies[0]["result"] == {"pages": 3}
    assert bodies[1]["progress"] == {"percentage": 70, "message": "at it"}
    assert bodies[2]["error"]["message"] == "out of ink"


def test_a_file_is_sent_as_it_is(host, database, tmp_path: Path):
    task_id = database.add_task()
    raw = json.dumps({"event": "completed", "taskId": task_id, "result": {"content": "x"}}, indent=4).encode()
    (tmp_path / "event.json").write_bytes(raw)

    assert run_json(host, "send", task_id, "--body", tmp_path / "event.json")["answer"]["outcome"] == "processed"
    assert bytes(database.deliveries(task_id)[0].body) == raw


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [(("--scheme", "none"), 403, "signature_missing"), (("--event", "unheard-of"), 400, "unknown_event")],
)
def test_a_refusal_is_shown_and_exits_with_1(host, database, arguments, status, code):
    result = run(host, "send", database.add_task(), *arguments)

    assert result.exit_code == 1
    assert str(status) in result.stdout
    assert code in result.stdout


def test_an_unknown_task_exits_with_1(host):
    document = run(host, "send", "nobody", "--json")

    assert document.exit_code == 1
    assert json.loads(document.stdout)["status"] == 404


def test_a_whole_url_is_used_as_it_is(host, server, database):
    task_id = database.add_task()

    url = f"{server.base_url}/api/v1/content/callback/{task_id}"
    assert run(host, "send", task_id, "--url", url).exit_code == 0
    assert run(host, "send", task_id, "--url", url, "--scheme", "github").exit_code == 0
    assert run(host, "send", task_id, "--url", url, "--base-url", "https://x.example").exit_code == 2


def test_a_server_that_is_down_is_one_clean_line(host):
    result = run(host, "send", "t", "--base-url", "http://127.0.0.1:1")

    assert result.exit_code == 1
    assert "could not be reached: the connection was refused" in result.stderr
    assert "token=***" in result.stderr


def test_without_a_secret_nothing_can_be_signed(hosts, sqlite_url, server, database):
    host = hosts(sqlite_url, WEBHOOK_SECRET_KEY=None, WEBHOOK_REQUIRE_SIGNATURE=False, create_tables=False)

    signed = run(host, "send", database.add_task(), "--scheme", "standard", "--base-url", server.base_url)
    assert signed.exit_code == 1
    assert "WEBHOOK_SECRET_KEY is empty" in signed.stderr
    assert "signed by: none" in run(host, "send", "t", "--base-url", server.base_url).stdout
