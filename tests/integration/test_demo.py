"""`make demo` and `make serve`, as people run them: as processes, over real HTTP."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from tests.support.processes import PROJECT_ROOT, clean_environment

DEMO = [sys.executable, "-m", "example_app.demo"]
SERVE = [sys.executable, "-m", "example_app.serve"]

ADD_TWICE = """\
    db.session.add(content)
    db.session.add(Content(task_id=task.task_id, account_id=task.account_id, title="again", body="", images=[]))
"""


def run_demo(folder=PROJECT_ROOT, **environment):
    return subprocess.run(
        DEMO,
        cwd=folder,
        env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), **environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def process_ids(output):
    return [int(pid) for pid in re.findall(r"\(process (\d+),", output)]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class TestDemo:
    def test_it_ends_well_and_shows_what_happened(self, database_url):
        environment = {} if database_url.startswith("sqlite") else {"DATABASE_URL": database_url}
        started = time.monotonic()
        demo = run_demo(**environment)

        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert demo.stderr == ""
        assert time.monotonic() - started < 30
        lines = demo.stdout.splitlines()
        assert max(map(len, lines[6:])) <= 100
        rows = [" ".join(line.split()) for line in lines]
        for row in (
            "completed URL token 200 processed completed 1 approved",
            "completed, no images URL token 200 processed completed 1 in review",
            "completed, forged wrong token 401 signature_invalid pending none",
            "completed, forged nobody 403 signature_missing pending none",
            "completed with a NaN URL token 400 invalid_json pending none",
            "completed with 20 MB URL token 413 payload_too_large pending none",
            "completed, 20 copies at the same URL token 200 processed completed 1 approved",
        ):
            assert row in rows, f"{row!r} is not in\n{demo.stdout}"
        assert "19x 200 duplicate" in demo.stdout
        assert "20 of 20 scenes went as promised" in demo.stdout
        assert "Try next" in demo.stdout
        assert "\x1b" not in demo.stdout
        assert not any(map(is_alive, process_ids(demo.stdout)))

    def test_it_runs_twice_on_one_database(self, postgres_url):
        assert [run_demo(DATABASE_URL=postgres_url).returncode for _ in range(2)] == [0, 0]

    @pytest.mark.parametrize(
        ("module", "right", "wrong", "complaint"),
        [
            (
                "handlers.py",
                "    db.session.add(content)\n",
                ADD_TWICE,
                "Every completed task has one content, no other has any",
            ),
            (
                "config.py",
                '"WEBHOOK_REQUIRE_SIGNATURE": True',
                '"WEBHOOK_REQUIRE_SIGNATURE": False',
                "promised: 403 signature_missing",
            ),
            (
                "handlers.py",
                '    title=title_of(result["content"])',
                '    title=result["no such field"]',
                "500 handler_failed",
            ),
        ],
        ids=["doubled effects", "no signature needed", "a handler that raises"],
    )
    def test_it_fails_when_the_application_is_broken(self, tmp_path, module, right, wrong, complaint):
        shutil.copytree(PROJECT_ROOT / "example_app", tmp_path / "example_app")
        broken = tmp_path / "example_app" / module
        source = broken.read_text()
        assert source.count(right) == 1
        broken.write_text(source.replace(right, wrong))

        demo = run_demo(tmp_path)

        assert demo.returncode == 1, demo.stdout + demo.stderr
        assert "The demo failed." in demo.stdout
        assert complaint in " ".join(demo.stdout.split())

    @pytest.mark.parametrize("columns", [80, 100, 160])
    def test_it_fits_the_terminal(self, columns):
        demo = run_demo(COLUMNS=str(columns))
        assert max(map(len, demo.stdout.splitlines()[6:])) <= columns

    @pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/nothing", "sqlite:////no/such/folder/x.db", "nonsense"])
    def test_it_says_so_when_there_is_no_database(self, url):
        demo = run_demo(DATABASE_URL=url)
        assert demo.returncode == 1
        assert demo.stderr.startswith("The demo cannot use the database: ")
        assert "Traceback" not in demo.stderr

    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    def test_it_leaves_no_server_however_it_ends(self, how, tmp_path):
        demo = subprocess.Popen(
            DEMO,
            cwd=PROJECT_ROOT,
            env=clean_environment(PYTHONUNBUFFERED="1", TMPDIR=str(tmp_path)),  # killed, it cannot tidy up
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with demo:
            server = next(pid for line in demo.stdout for pid in process_ids(line))
            assert is_alive(server)
            demo.send_signal(how)
            demo.wait(20)
        wait_for(lambda: not is_alive(server))


class TestServe:
    @pytest.fixture
    def serve(self, database_url):
        """Start it on a free port; give what it printed before the server's own lines."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        secret = "a-secret-of-the-tests-that-is-long-enough"
        environment = clean_environment(DATABASE_URL=database_url, WEBHOOK_SECRET_KEY=secret, PYTHONUNBUFFERED="1")
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
            assert server.wait(20) == 0
            assert "POST /api/v1/content/callback/" in log
            assert "token=" not in log

    @pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
    def test_the_printed_commands_work_as_they_stand(self, serve):
        url, printed = serve
        progress, completed = re.findall(r"^curl .*\\\n  -d .*$", printed, re.MULTILINE)

        def answer(command):
            output = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=True).stdout
            return re.findall(r'"(?:outcome|status)": "(\w+)"', output)

        assert sorted(answer(progress)) == ["processed", "processing"]
        assert sorted(answer(completed)) == ["completed", "processed"]
        assert sorted(answer(completed)) == ["completed", "duplicate"]
        contents = httpx.get(f"{url}/api/hub/contents").json()
        assert [(content["title"], content["review_status"]) for content in contents] == [
            ("Hello from curl", "approved")
        ]
        assert "Hello from curl" in httpx.get(url).text

    def test_a_port_that_is_taken_is_reported(self, sqlite_url):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            served = subprocess.run(
                [*SERVE, str(taken.getsockname()[1])],
                cwd=PROJECT_ROOT,
                env=clean_environment(DATABASE_URL=sqlite_url),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        assert served.returncode == 1
        assert "cannot be used" in served.stderr
        assert "Traceback" not in served.stderr

    def test_a_configuration_that_cannot_be_used_is_reported(self, sqlite_url):
        served = subprocess.run(
            [*SERVE, "0"],
            cwd=PROJECT_ROOT,
            env=clean_environment(DATABASE_URL=sqlite_url, WEBHOOK_SECRET_KEY=""),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert served.returncode == 1
        assert "WEBHOOK_SECRET_KEY is empty" in served.stderr
        assert "Traceback" not in served.stderr

    @pytest.mark.parametrize("port", ["eighty", "99999999"])
    def test_what_is_no_port_is_reported(self, port):
        served = subprocess.run(
            [*SERVE, port],
            cwd=PROJECT_ROOT,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert served.returncode == 1
        assert "Traceback" not in served.stderr
