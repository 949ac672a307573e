"""`make serve`, as people run it: as a process, over real HTTP."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial

import httpx
import pytest

from tests.support.demo import wait_for
from tests.support.processes import PROJECT_ROOT, clean_environment

SECRET = "a-secret-of-the-tests-that-is-long-enough"
SERVE = [sys.executable, "-m", "example_app.serve"]


def refuses(url):
    try:
        httpx.get(url)
    except httpx.TransportError:
        return True
    return False


@pytest.fixture
def serve(database_url):
    """Start it on a free port; give what it printed before the server's own lines."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = clean_environment(DATABASE_URL=database_url, WEBHOOK_SECRET_KEY=SECRET, PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        [*SERVE, str(port)],
        cwd=PROJECT_ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        lines = []
        for line in server.stdout:
            lines.append(line)
            if "Booting worker" in line or len(lines) > 100:
                break
        yield f"http://127.0.0.1:{port}", "".join(lines)
        server.terminate()
        log = server.stdout.read()
        assert server.wait(60) == 0
        assert "POST /api/v1/content/callback/" in log
        assert "token=" not in log


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_printed_commands_work_as_they_stand(serve):
    url, printed = serve
    progress, completed = re.findall(r"^curl .*\\\n  -d .*$", printed, re.MULTILINE)

    def answer(command):
        output = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, check=True).stdout
        return re.findall(r'"(?:outcome|status)": ?"(\w+)"', output)

    assert sorted(answer(progress)) == ["processed", "processing"]
    assert sorted(answer(completed)) == ["completed", "processed"]
    assert sorted(answer(completed)) == ["completed", "duplicate"]
    contents = httpx.get(f"{url}/api/hub/contents").json()
    assert [(content["title"], content["review_status"]) for content in contents] == [("Hello from curl", "approved")]
    assert "Hello from curl" in httpx.get(url).text


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_simulated_creator_works_on_what_is_ordered_and_ends_with_it(how, sqlite_url):
    environment = clean_environment(DATABASE_URL=sqlite_url, CREATOR="simulator", PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        [*SERVE, "0"],
        cwd=PROJECT_ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        printed = ""
        while "webhook deliveries list" not in printed:
            line = server.stdout.readline()
            assert line, printed
            printed += line
        (url,) = re.findall(r"ContentHub is on (\S+) ", printed)
        (creator,) = re.findall(r"A simulated creator is on (\S+)\. ", printed)
        assert httpx.post(f"{url}/api/hub/tasks", json={"topic": "Cats"}).status_code == 201
        wait_for(lambda: httpx.get(f"{creator}/api/stats").json()["data"]["tasks"]["total"] == 1)
        wait_for(lambda: httpx.get(f"{url}/api/hub/tasks").json()[0]["status"] != "pending")
        server.send_signal(how)
        server.stdout.read()
        assert server.wait(60) == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    for address in (url, creator):
        wait_for(partial(refuses, address))


def test_an_unknown_creator_is_reported(sqlite_url):
    served = subprocess.run(
        SERVE,
        cwd=PROJECT_ROOT,
        env=clean_environment(DATABASE_URL=sqlite_url, CREATOR="somebody"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert served.returncode == 1
    assert "CREATOR=simulator" in served.stderr
    assert "Traceback" not in served.stderr


def test_a_port_that_is_taken_is_reported(sqlite_url):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        served = subprocess.run(
            [*SERVE, str(taken.getsockname()[1])],
            cwd=PROJECT_ROOT,
            env=clean_environment(DATABASE_URL=sqlite_url),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert served.returncode == 1
    assert "cannot be used" in served.stderr
    assert "Traceback" not in served.stderr


def test_a_configuration_that_cannot_be_used_is_reported(sqlite_url):
    served = subprocess.run(
        [*SERVE, "0"],
        cwd=PROJECT_ROOT,
        env=clean_environment(DATABASE_URL=sqlite_url, WEBHOOK_SECRET_KEY=""),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert served.returncode == 1
    assert "WEBHOOK_SECRET_KEY is empty" in served.stderr
    assert "Traceback" not in served.stderr


@pytest.mark.parametrize("port", ["eighty", "99999999"])
def test_what_is_no_port_is_reported(port):
    served = subprocess.run(
        [*SERVE, port],
        cwd=PROJECT_ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert served.returncode == 1
    assert "Traceback" not in served.stderr
