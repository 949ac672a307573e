"""The doctor says what is wrong and what to do: one wrong thing at a time, in a set-up that is right otherwise."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import logging.config
import re
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import trustme
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from celery import Celery
from click.testing import CliRunner
from flask import Flask
from flask.cli import FlaskGroup
from flask_migrate import Migrate, init

from flask_contenthub_webhook import task_completed
from flask_contenthub_webhook.cli import webhook_group
from flask_contenthub_webhook.cli.checks import DoctorContext
from flask_contenthub_webhook.cli.checks.celery import check_celery
from flask_contenthub_webhook.cli.checks.clock import check_clock
from flask_contenthub_webhook.errors import InsecureConfiguration
from flask_contenthub_webhook.operations.jobs import JOBS, record_pass
from flask_contenthub_webhook.testing import CreatorSimulator
from tests.cli.conftest import run, run_json
from tests.cli.proxy import Fault, proxy
from tests.support.gunicorn import Gunicorn
from tests.support.host import OTHER_SECRET, SECRET, Host, make_host
from tests.support.skew import set_clock
from tests.support.web_database import HostDatabase
from tests.support.web_host import FACTORY

pytestmark = pytest.mark.filterwarnings(f"ignore::{InsecureConfiguration.__module__}.InsecureConfiguration")

NAME = "hub.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """The running app, which requires signatures."""
    url = f"sqlite:///{tmp_path_factory.mktemp('server') / 'test.db'}"
    HostDatabase(url).create()
    env = {"DATABASE_URL": url, "WEBHOOK_SECRET_KEY": SECRET, "WEBHOOK_REQUIRE_SIGNATURE": "true"}
    with Gunicorn(FACTORY, workers=1, env=env) as gunicorn:
        yield gunicorn


@pytest.fixture(scope="module")
def lenient_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """The running app, which also takes what is not signed."""
    url = f"sqlite:///{tmp_path_factory.mktemp('server') / 'test.db'}"
    HostDatabase(url).create()
    with Gunicorn(FACTORY, workers=1, env={"DATABASE_URL": url, "WEBHOOK_SECRET_KEY": SECRET}) as gunicorn:
        yield gunicorn


@pytest.fixture(scope="module")
def creator() -> Iterator[CreatorSimulator]:
    with CreatorSimulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for the name, by an authority that this process believes; and the name leads to this machine."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1" if host == NAME else host, *rest, **more)
    )
    return tmp_path / "server.pem"


@pytest.fixture
def setup(
    server: Gunicorn,
    creator: CreatorSimulator,
    certificate: Path,
    hosts: Callable[..., Host],
    sqlite_url: str,
) -> Iterator[Callable[..., Host]]:
    """A function that makes a right set-up, except for what it is given."""
    with contextlib.ExitStack() as stack:

        def build(url: str = sqlite_url, *, fault: Fault = "", port: int | None = None, **config: Any) -> Host:
            front = stack.enter_context(proxy(port or server.port, certificate=certificate, fault=fault))
            right = {
                "WEBHOOK_CALLBACK_BASE_URL": f"https://{NAME}:{front}",
                "CREATOR_API_BASE_URL": creator.base_url,
                "TESTING": False,
            }
            return hosts(url, **{**right, **config})

        yield build


def troubles(host: Host | Flask) -> dict[str, str]:
    """Message and remedy of what is not all right, by level and check."""
    findings = run_json(host, "doctor")["findings"]
    assert all(f["remedy"] for f in findings if f["level"] in {"fail", "warn"})
    return {
        f"{f['level']} {f['check']}": f"{f['message']} -> {f['remedy']}"
        for f in findings
        if f["level"] in {"fail", "warn"}
    }


def copy_table(host: Host, table: str, kwargs: dict[str, Any]) -> None:
    with host.engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        with op.batch_alter_table(table, recreate="always", table_kwargs=kwargs):
            pass


def test_a_right_set_up_is_healthy(setup, database_url):
    host = setup(database_url)
    for job in JOBS:
        record_pass(host.state, job.name)

    result = run(host, "doctor")

    assert result.exit_code == 0, result.output
    assert "0 failed, 0 warnings." in result.stdout
    assert "its token was accepted, and a wrong one refused" in result.stdout
    assert SECRET not in result.output
    assert {f["level"] for f in run_json(host, "doctor")["findings"]} == {"ok"}


def test_its_two_requests_stand_in_the_history_as_refused(setup, server):
    run(setup(), "doctor")

    shown = HostDatabase(server._env["DATABASE_URL"])
    with shown.engine.connect() as connection:
        rows = connection.execute(sa.text("select verdict, error from webhook_deliveries")).all()
    assert {(row.verdict, row.error) for row in rows} == {
        ("rejected", "task_not_found"),
        ("rejected", "signature_invalid"),
    }


@pytest.mark.parametrize(
    ("config", "check", "says", "advises"),
    [
        ({"WEBHOOK_SECRET_KEY": None, "WEBHOOK_REQUIRE_SIGNATURE": False}, "secret", "not set", "flask webhook secret"),
        ({"WEBHOOK_SECRET_KEY": "short"}, "secret", "has 5 characters", "flask webhook secret"),
        ({"WEBHOOK_SECRET_KEY": [SECRET, "old"]}, "secret", "Secret 2 of 2", "remove this old one"),
        ({"WEBHOOK_SECRET_KEY": "abc" * 20}, "secret", "repeats itself", "flask webhook secret"),
        (
            {"WEBHOOK_SECRET_KEY": "please-change-me-before-you-go-live-9"},
            "secret",
            "placeholder",
            "flask webhook secret",
        ),
        ({"WEBHOOK_REQUIRE_SIGNATURE": False}, "signature", "unsigned callbacks are accepted", "=true"),
        ({"WEBHOOK_CALLBACK_BASE_URL": None}, "base URL", "is not set", "https://hub.example.com"),
        (
            {"WEBHOOK_CALLBACK_BASE_URL": "http://localhost", "CREATOR_API_BASE_URL": "http://192.0.2.1"},
            "base URL",
            "points at localhost",
            "hub.example.com",
        ),
        (
            {"WEBHOOK_CALLBACK_BASE_URL": "https://127.8.9.1:1", "CREATOR_API_BASE_URL": "http://creator.invalid"},
            "base URL",
            "points at localhost",
            "hub.example.com",
        ),
        ({"WEBHOOK_CALLBACK_BASE_URL": f"http://{NAME}:1"}, "base URL", "plain http", "certificate"),
        (
            {"WEBHOOK_CALLBACK_BASE_URL": f"https://{NAME}:1/api/v1/content"},
            "base URL",
            "appends again",
            "Leave the prefix out",
        ),
        ({"WEBHOOK_CALLBACK_BASE_URL": f"https://{NAME}:1"}, "callback", "connection was refused", "Start the app"),
        (
            {"WEBHOOK_CALLBACK_BASE_URL": "https://no.such.name.invalid"},
            "callback",
            "cannot be resolved",
            "correct WEBHOOK_",
        ),
        (
            {"WEBHOOK_SECRET_KEY": OTHER_SECRET},
            "callback",
            "refused because of its token",
            "the same WEBHOOK_SECRET_KEY",
        ),
        ({"WEBHOOK_URL_PREFIX": "/hooks"}, "callback", "not this app's", "WEBHOOK_URL_PREFIX"),
        ({"CREATOR_API_BASE_URL": "http://127.0.0.1:1"}, "creator", "is down", "Start the service"),
        (
            {"CREATOR_API_BASE_URL": None, "CREATOR_CLI_PATH": "/no/such"},
            "creator",
            "does not exist",
            "CREATOR_CLI_PATH",
        ),
        (
            {"WEBHOOK_ENABLED": False, "CREATOR_API_BASE_URL": None},
            "enabled",
            "refused with 404",
            "WEBHOOK_ENABLED=true",
        ),
    ],
)
def test_what_is_wrong_and_what_to_do(setup, config, check, says, advises):
    host = setup(**config)

    found = troubles(host)[f"fail {check}"]

    assert says in found.partition(" -> ")[0]
    assert advises in found.partition(" -> ")[2]
    assert run(host, "doctor").exit_code == 1


@pytest.mark.parametrize(
    ("fault", "says", "advises"),
    [
        ("strip query", "a reverse proxy strips the query string", "pass the query string on"),
        ("change query", "a reverse proxy changes the query string", "pass both on as they are"),
        ("redirect", f"with a redirect (301) to https://www.{NAME}", "final address"),
        (
            "welcome page",
            "Welcome to nginx!): the service would consider its callbacks delivered",
            "WEBHOOK_URL_PREFIX",
        ),
        ("login", "stopped by a login in front of the app (401", "pass without one"),
        ("bad gateway", "answered 502 (an HTML page: 502 Bad Gateway)", "Start the app"),
    ],
)
def test_what_a_reverse_proxy_does_wrong(setup, fault, says, advises):
    host = setup(fault=fault)

    found = troubles(host)

    assert list(found) == ["fail callback"]
    assert says in found["fail callback"].partition(" -> ")[0]
    assert advises in found["fail callback"].partition(" -> ")[2]
    assert run(host, "doctor").exit_code == 1


def test_a_stripped_query_is_noticed_where_signatures_are_not_required(setup, lenient_server):
    host = setup(fault="strip query", port=lenient_server.port, WEBHOOK_REQUIRE_SIGNATURE=False)

    assert "a wrong token was not noticed" in troubles(host)["fail callback"]
    healthy = setup(f"{host.app.config['SQLALCHEMY_DATABASE_URI']}2", port=lenient_server.port)
    assert "fail callback" not in troubles(healthy)


def test_a_certificate_that_is_not_believed(setup, monkeypatch):
    host = setup()
    monkeypatch.delenv("SSL_CERT_FILE")

    assert "the certificate is not trusted" in troubles(host)["fail callback"]


def test_a_port_that_does_not_speak_tls(setup, server):
    host = setup(WEBHOOK_CALLBACK_BASE_URL=f"https://{NAME}:{server.port}")

    assert "Does the port speak" in troubles(host)["fail callback"]


def test_clocks_that_are_apart_are_warned_about(setup):
    host = setup(fault="late clock")

    result = run(host, "doctor")

    assert re.search(r"The clock of the base URL is 60[01] s behind ours", result.stdout)
    assert "NTP" in result.stdout
    assert result.exit_code == 0


def test_the_creators_clock_is_looked_at_too(setup):
    with CreatorSimulator(clock=lambda: datetime.now(UTC) + timedelta(minutes=5)) as creator:
        assert "ahead of ours" in troubles(setup(CREATOR_API_BASE_URL=creator.base_url))["warn clock"]


@pytest.mark.parametrize(("minutes", "words"), [(10, "600 s behind ours"), (-10, "600 s ahead of ours")])
def test_the_clock_of_the_database_is_compared(hosts, postgres_url, minutes, words):
    host = set_clock(hosts(postgres_url), timedelta(minutes=minutes))
    with httpx.Client() as client:
        (finding,) = check_clock(DoctorContext(host.state, client))
    assert finding.level == "warn"
    assert f"The clock of the database is {words}; what is due" in finding.message

    set_clock(host, timedelta(seconds=5))
    with httpx.Client() as client:
        (finding,) = check_clock(DoctorContext(host.state, client))
    assert (finding.level, finding.message) == ("ok", "Our clock agrees with that of the database.")


def test_a_misspelled_key_is_warned_about(setup):
    shown = run(setup(WEBHOOK_SECRETKEY="x", CREATOR_COLOUR="red"), "doctor").stdout

    assert "WEBHOOK_SECRETKEY is set, but this extension has no such key" in shown
    assert "Did you mean WEBHOOK_SECRET_KEY?" in shown
    assert "CREATOR_COLOUR is set" in shown


def test_callbacks_that_are_off_are_only_warned_about_where_the_creator_is_polled(setup):
    host = setup(WEBHOOK_ENABLED=False)

    assert list(troubles(host)) == ["warn enabled"]
    assert run(host, "doctor").exit_code == 0


def test_a_right_set_up_on_a_laptop_has_no_failures(setup, server):
    """The service, or whoever plays it, runs on the same machine."""
    for number, creator in enumerate([{}, {"CREATOR_API_BASE_URL": None}]):
        result = run(setup(WEBHOOK_CALLBACK_BASE_URL=server.base_url, **creator), "doctor")

        assert result.exit_code == 0, result.output
        assert "right on a laptop" in result.stdout
        assert "In production: set WEBHOOK_CALLBACK_BASE_URL to the https address" in result.stdout
        assert f"\n0 failed, {1 + number} warning" in result.stdout
        assert "plain http" not in result.stdout


def test_in_debug_mode_localhost_and_http_are_only_warned_about(setup, server, monkeypatch):
    monkeypatch.setenv("FLASK_DEBUG", "1")  # as `flask --debug` does
    elsewhere = {"CREATOR_API_BASE_URL": "http://creator.invalid"}

    local = troubles(setup(WEBHOOK_CALLBACK_BASE_URL=server.base_url, **elsewhere))
    assert "points at localhost: a service on another machine cannot call back" in local["warn base URL"]
    assert "plain http" in troubles(setup(WEBHOOK_CALLBACK_BASE_URL=f"http://{NAME}:1"))["warn base URL"]


class TestSchema:
    def test_no_tables(self, setup, database_url):
        host = setup(database_url, create_tables=False)

        found = troubles(host)["fail database"]

        assert "The schema is behind: the table" in found
        assert "does not exist" in found
        assert "flask webhook migrations install" in found
        assert "flask db upgrade" in found
        assert run(host, "doctor").exit_code == 1

    def test_a_missing_column(self, setup, database_url):
        host = setup(database_url)
        with host.engine.begin() as connection:
            connection.execute(sa.text("alter table content_generation_tasks drop column callback_url"))

        found = troubles(host)["fail database"]

        assert "content_generation_tasks has no column callback_url" in found
        assert "flask db upgrade" in found

    @pytest.mark.parametrize("table", ["webhook_forwards", "webhook_forward_attempts", "webhook_alerts"])
    def test_a_missing_table_of_forwards_or_alerts(self, setup, table):
        host = setup()
        with host.engine.begin() as connection:
            connection.execute(sa.text(f"drop table {table}"))

        assert f"the table {table} does not exist" in troubles(host)["fail database"]

    def test_a_missing_index_is_only_slow(self, setup, database_url):
        host = setup(database_url)
        with host.engine.begin() as connection:
            on = " on content_generation_tasks" if connection.dialect.name == "mysql" else ""
            connection.execute(sa.text(f"drop index ix_content_generation_tasks_next_poll_at{on}"))

        found = troubles(host)

        assert list(found) == ["warn database"]
        assert "no index on next_poll_at" in found["warn database"]

    def test_a_table_whose_ids_come_again_is_told_with_what_mends_it(self, setup):
        host = setup()
        copy_table(host, "webhook_deliveries", {})  # as a change of the host's makes SQLite do

        found = troubles(host)

        assert list(found) == ["warn database"]
        assert "webhook_deliveries to a new one: the table was made without AUTOINCREMENT" in found["warn database"]
        assert "recreate='always', table_kwargs={'sqlite_autoincrement': True}" in found["warn database"]
        copy_table(host, "webhook_deliveries", {"sqlite_autoincrement": True})
        assert troubles(host) == {}

    def test_a_database_that_is_away(self, setup, postgres_url):
        host = setup(postgres_url.replace("host=", "host=/no/such/place"), create_tables=False)

        assert "The database cannot be used" in troubles(host)["fail database"]

    def test_a_revision_that_is_not_applied(self, setup, tmp_path):
        host = setup()
        folder = str(tmp_path / "migrations")
        Migrate(host.app, host.db, directory=folder)
        with host.app.app_context(), contextlib.redirect_stdout(io.StringIO()):
            init()
            config = host.app.extensions["migrate"].migrate.get_config(folder)
        command.revision(config, rev_id="first")
        assert "the newest revision is first" in troubles(host)["fail migrations"]
        assert "flask db upgrade" in troubles(host)["fail migrations"]

        with host.engine.begin() as connection:
            connection.execute(sa.text("create table alembic_version (version_num varchar(32) primary key)"))
            connection.execute(sa.text("insert into alembic_version values ('first')"))
        assert troubles(host) == {}

        command.revision(config, rev_id="left", head="first")
        command.revision(config, rev_id="right", head="first", splice=True)
        assert "have 2 heads (left, right)" in troubles(host)["fail migrations"]
        assert "flask db merge heads" in troubles(host)["fail migrations"]


class TestTheHostsCode:
    def test_a_pool_of_one_connection_is_warned_about(self, setup):
        small = setup(engine_options={"pool_size": 1, "max_overflow": 0})

        assert "pool_size or max_overflow" in troubles(small)["warn connections"]

    def test_a_pool_smaller_than_the_worker_is_warned_about(self, setup):
        options = {"pool_size": 4, "max_overflow": 0}

        assert "4 connections, and a worker uses 5" in troubles(
            setup(engine_options=options, WEBHOOK_PROCESSING="worker")
        ).get("warn connections", "")
        assert "warn connections" not in troubles(setup(engine_options=options))

    def test_a_handler_that_was_collected_is_noticed(self, setup):
        host = setup()
        task_completed.disconnect(host.publisher)

        def make_handler() -> None:
            @task_completed.connect
            def publish(app: Flask, **extra: Any) -> None: ...

        make_handler()
        gc.collect()

        assert "@task_completed.connect_via(app)" in troubles(host)["warn handlers"]

    @pytest.mark.parametrize("weak", [True, False])
    def test_a_live_handler_is_enough(self, setup, weak):
        host = setup()
        task_completed.disconnect(host.publisher)

        def publish(app: Flask, **extra: Any) -> None: ...

        task_completed.connect(publish, sender=host.app, weak=weak)
        assert "warn handlers" not in troubles(host)
        task_completed.disconnect(publish)

    def test_a_subscription_is_a_handler_too(self, setup):
        host = setup()
        task_completed.disconnect(host.publisher)
        host.webhook.on("completed")(lambda *_, **__: None)

        assert "warn handlers" not in troubles(host)

    def test_loggers_that_alembics_env_has_disabled_are_noticed(self, setup, tmp_path):
        host = setup()
        names = [name for name in logging.root.manager.loggerDict if name.startswith("flask_contenthub_webhook")]
        config = tmp_path / "alembic.ini"
        config.write_text(
            "[loggers]\nkeys = root\n[handlers]\nkeys =\n[formatters]\nkeys =\n[logger_root]\nhandlers =\n"
        )
        handlers, level = logging.root.handlers[:], logging.root.level
        state = {name: logging.getLogger(name).disabled for name in logging.root.manager.loggerDict}
        try:
            logging.config.fileConfig(config)
            assert "disable_existing_loggers=False" in troubles(host)["warn logging"]
        finally:
            for name, disabled in state.items():
                logging.getLogger(name).disabled = disabled
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)
        assert names
        assert "warn logging" not in troubles(host)


def test_work_that_nobody_does_is_noticed(setup):
    host = setup()
    host.add_task(next_poll_at=host.clock() - timedelta(minutes=6))
    host.add_task(status="pending", next_submit_at=host.clock() - timedelta(hours=1))

    found = troubles(host)["warn background work"]

    assert "1 poll, 1 submission" in found
    assert "flask webhook scheduler" in found


def test_an_alert_that_is_raised_is_repeated(setup):
    host = setup()
    handed_over = host.clock() - timedelta(hours=1)
    host.add_task(callback_url="https://hub.example/callback", submitted_at=handed_over)
    with host.app.app_context():
        host.webhook.check_alerts()

    found = troubles(host)["warn alerts"]

    assert "No callback has come for 30 min" in found
    assert "can reach WEBHOOK_CALLBACK_BASE_URL" in found


class TestCelery:
    def found(self, hosts: Callable[..., Host], url: str, celery: Celery | None) -> dict[str, list[str]]:
        """Messages by level and check."""
        host = hosts(url, WEBHOOK_PROCESSING="celery")
        if celery is not None:
            host.app.extensions["celery"] = celery
        found: dict[str, list[str]] = {}
        for finding in check_celery(DoctorContext(host.state, httpx.Client())):
            found.setdefault(f"{finding.level} {finding.check}", []).append(f"{finding.message} {finding.remedy}")
        return found

    def test_where_another_engine_applies_events_it_is_not_looked_at(self, host):
        assert check_celery(DoctorContext(host.state, httpx.Client())) == []

    def test_an_app_without_a_celery_application_is_told_so(self, hosts, sqlite_url):
        assert "Pass celery= to init_app" in self.found(hosts, sqlite_url, None)["fail celery"][0]

    def test_a_broker_that_is_away_is_told(self, hosts, sqlite_url):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            broker = f"redis://127.0.0.1:{listener.getsockname()[1]}"

        found = self.found(hosts, sqlite_url, Celery("host", broker=broker, set_as_current=False))

        assert "The broker does not answer" in found["fail celery"][0]
        assert "flask webhook scheduler" in found["ok sweep"][0]

    def test_a_broker_without_workers_is_told(self, hosts, sqlite_url, monkeypatch):
        monkeypatch.setattr("flask_contenthub_webhook.cli.checks.celery._TIMEOUT", 0.1)
        celery = Celery("host", broker="memory://", set_as_current=False)

        assert "no Celery worker answers" in self.found(hosts, sqlite_url, celery)["warn celery"][0]


class TestBrokenConfiguration:
    def test_it_is_one_finding_where_the_group_is_there_without_the_app(self, sqlite_url):
        def create_app() -> Flask:
            return make_host(sqlite_url, WEBHOOK_SECRET_KEY=None).app

        group = FlaskGroup(create_app=create_app)
        group.add_command(webhook_group)

        result = CliRunner().invoke(group, ["webhook", "doctor"])
        assert result.exit_code == 1
        assert (
            "FAIL  configuration  WEBHOOK_REQUIRE_SIGNATURE is true, but WEBHOOK_SECRET_KEY is empty" in result.stdout
        )
        assert "Traceback" not in result.output

        assert CliRunner().invoke(group, ["webhook", "secret"]).exit_code == 0
        other = CliRunner().invoke(group, ["webhook", "stats"])
        assert other.exit_code == 1
        assert other.stderr.startswith("Error: WEBHOOK_REQUIRE_SIGNATURE is true")

    def test_an_app_without_the_extension_is_told_so(self):
        group = FlaskGroup(create_app=lambda: Flask("bare"))
        group.add_command(webhook_group)

        result = CliRunner().invoke(group, ["webhook", "doctor"])

        assert result.exit_code == 1
        assert "not registered on the app 'bare'" in result.output


def test_the_unknown_task_is_never_asked_about_at_the_creator(setup, creator):
    before = creator.requests.copy()
    run(setup(), "doctor")

    assert creator.requests - before == {"GET /health": 1}
    assert creator.deaths == 0


def test_nothing_is_needed_beyond_what_is_installed_anyway(setup, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)

    assert run(setup(), "doctor").exit_code == 0
