"""The in-process scheduler runs in each serving process after its first request, and nowhere else."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import httpx
import pytest

from flask_contenthub_webhook.operations.jobs import JOBS
from tests.cli.conftest import run
from tests.cli.test_background import FLASK, RAN, env, prepared
from tests.support.processes import PROJECT_ROOT, clean_environment, wait_until

A_MOMENT = 0.7
"""Seconds in which a scheduler that should not be there would have made its first pass, which comes at once."""
STARTED = "The scheduler runs in this process."
NOT_CLEAR = "the first request does not look like a server's"
_ASK_AS_THREADED = (
    "print(repr(httpx.Client(transport=httpx.WSGITransport(app), base_url='http://localhost').get('/pid')))\n"
)


@pytest.fixture
def settings(sqlite_url, journal):
    prepared(sqlite_url)
    return env(sqlite_url, journal, WEBHOOK_SCHEDULER_ENABLED="true")


def passes(journal):
    """Count the passes of each process."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return Counter(int(line.split()[1]) for line in lines if line.startswith("pass"))


def test_flask_run_with_the_reloader_runs_it_in_the_serving_child_and_once(start, settings, journal):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start(*FLASK, "--debug", "run", "--port", str(port), **settings)
    process.wait_for(lambda: "Debugger is active" in process.stderr, "the serving child")
    time.sleep(A_MOMENT)
    assert passes(journal) == {}

    child = int(httpx.get(f"http://127.0.0.1:{port}/pid").text)
    for _ in range(5):
        assert int(httpx.get(f"http://127.0.0.1:{port}/pid").text) == child
    process.wait_for(lambda: sum(passes(journal).values()) >= 2, "two passes")

    assert child != process.pid
    assert set(passes(journal)) == {child}
    assert process.stderr.count(STARTED) == 1


def test_each_of_two_gunicorn_workers_runs_one_after_its_first_request(gunicorn, settings, journal):
    server = gunicorn("tests.cli.host_app:create_app()", workers=2, env=settings)
    time.sleep(A_MOMENT)
    assert passes(journal) == {}

    seen: set[int] = set()
    deadline = time.monotonic() + 60
    while len(seen) < 2 and time.monotonic() < deadline:
        seen.add(int(httpx.get(f"{server.base_url}/pid").text))
    wait_until(
        lambda: server.log.count(RAN) >= 2 * len(JOBS),
        timeout=60,
        what="each job in each worker",
        log=lambda: server.log,
    )

    assert seen == set(server.worker_pids()) == set(passes(journal))
    assert server.log.count(STARTED) == 2
    server.stop()
    assert "Traceback" not in server.log


def test_a_gunicorn_that_preloads_runs_none_in_its_master(gunicorn, settings, journal):
    server = gunicorn("tests.cli.host_app:create_app()", workers=1, env=settings, options=["--preload"])

    httpx.get(f"{server.base_url}/pid")
    wait_until(lambda: passes(journal), timeout=60, what="a pass", log=lambda: server.log)

    assert set(passes(journal)) == set(server.worker_pids())


def test_a_serving_process_that_is_told_to_stop_ends_in_order(start, settings, journal):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start(*FLASK, "run", "--port", str(port), **settings)
    process.wait_for(lambda: "Running on" in process.stderr, "the server")
    httpx.get(f"http://127.0.0.1:{port}/pid")
    process.wait_for(lambda: process.stderr.count(RAN) >= len(JOBS), "the first run of each job")

    process.send(signal.SIGINT)
    process.wait()

    assert "Traceback" not in process.stderr


def flask(settings, *arguments, stdin=""):
    """A command to its end."""
    return subprocess.run(
        [sys.executable, *FLASK, *arguments],
        input=stdin,
        cwd=PROJECT_ROOT,
        env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), **settings),
        capture_output=True,
        text=True,
        timeout=200,  # only ends what hangs
        check=False,
    )


def test_flask_db_upgrade_runs_none_and_makes_the_schema_that_the_doctor_asks_for(tmp_path, journal):
    settings = env(f"sqlite:///{tmp_path / 'new.db'}", journal, WEBHOOK_SCHEDULER_ENABLED="true")
    folder = ("--directory", str(tmp_path / "migrations"))

    sick = flask(settings, "webhook", "doctor")
    assert "does not exist" in sick.stdout
    assert sick.returncode == 1
    for arguments in (
        ("db", "init", *folder),
        ("webhook", "migrations", "install", *folder),
        ("db", "upgrade", *folder),
    ):
        ended = flask(settings, *arguments)
        assert ended.returncode == 0, ended.stderr
        assert STARTED not in ended.stderr

    assert "All tables have every column" in flask(settings, "webhook", "doctor").stdout
    assert passes(journal) == {}


def test_flask_shell_runs_none_not_even_with_a_test_client(settings, journal):
    code = f"import time; print(app.test_client().get('/pid').status_code); time.sleep({A_MOMENT})\n"

    ended = flask(settings, "shell", stdin=code)

    assert "200" in ended.stdout
    assert ended.returncode == 0
    assert STARTED not in ended.stderr
    assert passes(journal) == {}


def test_no_test_runs_it(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_SCHEDULER_ENABLED=True)
    client = host.app.test_client()

    client.get("/api/v1/content/health")
    client.get("/api/v1/content/health", environ_overrides={"SERVER_SOFTWARE": "pytest"})
    run(host, "stats")

    assert host.state.jobs.value.scheduler is None
    assert host.state.jobs.value.was_started is False


def test_a_test_client_of_an_app_that_is_not_in_testing_mode_runs_none(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_SCHEDULER_ENABLED=True, TESTING=False)

    host.app.test_client().get("/api/v1/content/health")

    assert host.state.jobs.value.scheduler is None


def test_flask_shell_runs_none_with_a_client_that_looks_like_a_server(settings, journal):
    ended = flask(settings, "shell", stdin=f"import httpx, time\n{_ASK_AS_THREADED}time.sleep({A_MOMENT})\n")

    assert "<Response [200 OK]>" in ended.stdout
    assert STARTED not in ended.stderr
    assert NOT_CLEAR not in ended.stderr
    assert passes(journal) == {}


def test_a_script_with_a_test_client_is_told_once_that_none_starts(settings, journal):
    ended = script(
        settings, "client = app.test_client()\nfor _ in range(3): assert client.get('/pid').status_code == 200"
    )

    assert ended.stderr.count(NOT_CLEAR) == 1
    assert STARTED not in ended.stderr
    assert passes(journal) == {}


def test_a_server_that_does_not_name_itself_runs_one(settings, journal):
    ended = script(settings, f"import httpx\n{_ASK_AS_THREADED}")

    assert ended.stderr.count(STARTED) == 1
    assert NOT_CLEAR not in ended.stderr


def test_below_pytest_an_unnamed_server_runs_none_and_says_so(settings, journal):
    ended = script(settings, f"import httpx, pytest\n{_ASK_AS_THREADED}")

    assert STARTED not in ended.stderr
    assert ended.stderr.count(NOT_CLEAR) == 1


def test_a_page_is_served_if_the_scheduler_cannot_start(settings, journal):
    """As in uWSGI without threads, whose module APScheduler looks at."""
    ended = script(
        settings,
        "import sys, types\n"
        "sys.modules['uwsgi'] = types.SimpleNamespace(has_threads=False)\n"
        "server = {'SERVER_SOFTWARE': 'uWSGI'}\n"
        "client = app.test_client()\n"
        "for _ in range(3): assert client.get('/pid', environ_overrides=server).status_code == 200",
    )

    assert ended.stderr.count("The scheduler could not be started in this process") == 1
    assert "has been disabled" in ended.stderr or "have been disabled" in ended.stderr
    assert passes(journal) == {}


def script(settings, code):
    """A program of the host's to its end."""
    return subprocess.run(
        [sys.executable, "-c", f"from tests.cli.host_app import create_app\napp = create_app()\n{code}"],
        cwd=PROJECT_ROOT,
        env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), **settings),
        capture_output=True,
        text=True,
        timeout=200,  # only ends what hangs
        check=True,
    )


def test_it_is_opt_in(gunicorn, settings, journal):
    server = gunicorn("tests.cli.host_app:create_app()", workers=1, env=settings | {"WEBHOOK_SCHEDULER_ENABLED": "no"})

    httpx.get(f"{server.base_url}/pid")
    time.sleep(A_MOMENT)

    assert passes(journal) == {}
