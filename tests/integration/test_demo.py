"""`make demo` and `make serve`, as people run them: as processes, over real HTTP."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import flask_migrate
import httpx
import pytest
from rich.console import Console

from example_app import create_app
from example_app.demo.board import Board
from example_app.demo.fates import Arrival, Fate
from example_app.demo.orders import BEFORE, Order
from example_app.extensions import db
from example_app.tasks import account_named, create_task
from tests.support.processes import PROJECT_ROOT, clean_environment

DEMO = [sys.executable, "-m", "example_app.demo"]
SECRET = "a-secret-of-the-tests-that-is-long-enough"
SERVE = [sys.executable, "-m", "example_app.serve"]

ADD = "    db.session.add(content)\n"
ADD_ANOTHER = (
    'db.session.add(Content(task_id=task.task_id, account_id=task.account_id, title="again", body="", images=[]))\n'
)
ADD_TWICE = f"{ADD}    {ADD_ANOTHER}"
ADD_TWICE_IF_POLLED = f'{ADD}    if _extra["delivery"].source == "poll":\n        {ADD_ANOTHER}'
SCHEDULER = '    "WEBHOOK_SCHEDULER_ENABLED": "true",\n'
FIGURES = " time pending submitted processing completed failed timeout callback late poll answer retry deadline"


def run_demo(*acts, folder=PROJECT_ROOT, **environment):
    return subprocess.run(
        [*DEMO, *acts],
        cwd=folder,
        env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), **environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def broken_copy(folder, *changes):
    """The example application with some text replaced: (module, right, wrong)."""
    shutil.copytree(PROJECT_ROOT / "example_app", folder / "example_app")
    for module, right, wrong in changes:
        path = folder / "example_app" / module
        source = path.read_text()
        assert source.count(right) == 1
        path.write_text(source.replace(right, wrong))
    return folder


def rows_of(output):
    return [" ".join(line.split()) for line in output.splitlines()]


def assert_failed(demo, complaint):
    assert demo.returncode == 1, demo.stdout + demo.stderr
    assert "The demo failed." in demo.stdout
    assert "Try next" not in demo.stdout
    assert complaint in " ".join(demo.stdout.split())


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


def children_of(pid):
    """Its workers, where the system tells."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def answers(url):
    try:
        httpx.get(url)
    except httpx.TransportError:
        return False
    return True


class TestDemo:
    @pytest.mark.slow
    def test_it_plays_both_acts_and_ends_well_by_itself(self, database_url):
        environment = {} if database_url.startswith("sqlite") else {"DATABASE_URL": database_url}
        started = time.monotonic()
        demo = run_demo(**environment)

        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert demo.stderr == ""
        assert time.monotonic() - started < 60
        lines = demo.stdout.splitlines()
        assert max(map(len, lines[6:])) <= 100
        acts = [lines.index(title) for title in (" Act one: what callbacks do ", " Act two: the whole loop ")]
        assert acts == sorted(acts)
        assert "20 of 20 scenes went as promised" in demo.stdout
        assert "40 of 40 tasks were settled" in demo.stdout
        assert "BROKEN" not in demo.stdout
        assert "Try next" in demo.stdout
        assert "\x1b" not in demo.stdout
        servers = process_ids(demo.stdout)
        assert len(servers) == 2
        assert not any(map(is_alive, servers))

    @pytest.mark.slow
    def test_it_runs_twice_on_one_database(self, postgres_url):
        demos = [run_demo(*acts, DATABASE_URL=postgres_url) for acts in (["callbacks"], [])]
        assert [demo.returncode for demo in demos] == [0, 0]
        assert "40 of 40 tasks were settled" in demos[1].stdout

    @pytest.mark.parametrize("columns", [80, 160])
    def test_it_fits_the_terminal(self, columns):
        demo = run_demo("callbacks", COLUMNS=str(columns))
        assert max(map(len, demo.stdout.splitlines()[6:])) <= columns

    @pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/nothing", "sqlite:////no/such/folder/x.db", "nonsense"])
    def test_it_says_so_when_there_is_no_database(self, url):
        demo = run_demo(DATABASE_URL=url)
        assert demo.returncode == 1
        assert demo.stderr.startswith("The demo cannot use the database: ")
        assert "Traceback" not in demo.stderr

    def test_it_says_so_when_there_is_no_such_act(self):
        demo = run_demo("third")
        assert (demo.returncode, demo.stdout) == (1, "")
        assert demo.stderr.startswith("There is no act 'third'. Usage: ")

    @pytest.mark.parametrize("act", ["callbacks", "loop"])
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    def test_it_leaves_no_server_however_it_ends(self, how, act, tmp_path):
        demo = subprocess.Popen(
            [*DEMO, act],
            cwd=PROJECT_ROOT,
            env=clean_environment(PYTHONUNBUFFERED="1", TMPDIR=str(tmp_path)),  # killed, it cannot tidy up
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with demo:
            server = next(pid for line in demo.stdout for pid in process_ids(line))
            processes = [server, *children_of(server)]
            assert all(map(is_alive, processes))
            demo.send_signal(how)
            demo.wait(20)
        wait_for(lambda: not any(map(is_alive, processes)))


class TestActOne:
    def test_it_shows_what_callbacks_do(self):
        demo = run_demo("callbacks")
        assert demo.returncode == 0, demo.stdout + demo.stderr
        for row in (
            "completed URL token 200 processed completed 1 approved",
            "completed, no images URL token 200 processed completed 1 in review",
            "completed, forged wrong token 401 signature_invalid pending none",
            "completed, forged nobody 403 signature_missing pending none",
            "completed with a NaN URL token 400 invalid_json pending none",
            "completed with 20 MB URL token 413 payload_too_large pending none",
            "completed, 20 copies at the same URL token 200 processed completed 1 approved",
        ):
            assert row in rows_of(demo.stdout), f"{row!r} is not in\n{demo.stdout}"
        assert "19x 200 duplicate" in demo.stdout

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            (("handlers.py", ADD, ADD_TWICE), "Every completed task has one content, no other has any"),
            (
                ("config.py", '"WEBHOOK_REQUIRE_SIGNATURE": True', '"WEBHOOK_REQUIRE_SIGNATURE": False'),
                "promised: 403 signature_missing",
            ),
            (
                ("handlers.py", '    title=title_of(result["content"])', '    title=result["no such field"]'),
                "500 handler_failed",
            ),
        ],
        ids=["doubled effects", "no signature needed", "a handler that raises"],
    )
    def test_the_demo_fails_there_when_the_application_is_broken(self, tmp_path, change, complaint):
        demo = run_demo(folder=broken_copy(tmp_path, change))
        assert_failed(demo, complaint)
        assert "Act two" not in demo.stdout


class TestActTwo:
    @pytest.mark.slow
    def test_it_shows_how_every_task_is_settled(self):
        demo = run_demo("loop", COLUMNS="100")
        assert demo.returncode == 0, demo.stdout + demo.stderr
        lines = demo.stdout.splitlines()
        figures = [line.split() for line in lines[lines.index(FIGURES) + 1 :] if re.match(r"[ \d]\d\.\ds +\d", line)]
        assert len(figures) > 5
        _, *open_, completed, failed, timeout, callback, _late, poll, _answer, _retry, deadline = figures[-1]
        assert open_ == ["0", "0", "0"]
        assert int(completed) + int(failed) + int(timeout) == 40
        assert int(callback) > 0
        assert int(poll) > 0
        assert int(deadline) > 0
        news = [line for line in lines if "The creator" in line and re.match(r"[ \d]\d\.\ds", line)]
        assert ["crashes" in news[0], "is back" in news[1]] == [True, True]
        rows = rows_of(demo.stdout)
        for row in (
            r"nothing .*completed: processed .* completed 1 (approved|in review)",
            r"its callback is never (poll|answer) completed: processed (poll|answer) completed 1 (approved|in review)",
            r"its callback comes .*completed: processed .* completed 1 .*",
            r"callback completed: duplicate",
            r"a stranger calls back .*completed 1 .*",
            r"stranger: signature_missing.*",
            r"is refused: 400 answer failed: processed answer failed none",
            r"dies with the creator deadline: given up deadline timeout none",
            r"finds no creator .* completed 1 .*",
            r"callback failed: ignored",
        ):
            pattern = re.compile(row) if not row.startswith("stranger") else re.compile(f"(.* )?{row}")
            assert any(pattern.fullmatch(found) for found in rows), f"{row!r} is not in\n{demo.stdout}"
        checks = [row for row in rows if row.startswith(("ok ", "BROKEN "))]
        assert len(checks) == 6
        assert all(check.startswith("ok ") for check in checks)
        assert "(40 tasks, 0 differ)" in demo.stdout

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            (
                [("handlers.py", ADD, ADD_TWICE_IF_POLLED)],
                "Every completed task has one content, no other has any: ",
            ),
            (
                [("demo/act_two.py", SCHEDULER, f'{SCHEDULER}    "WEBHOOK_REQUIRE_SIGNATURE": "false",\n')],
                "No forged callback was believed, and every content is the creator's own: 3 tried, 1 believed",
            ),
            (
                [("demo/act_two.py", SCHEDULER, ""), ("demo/act_two.py", "PATIENCE = 40.0", "PATIENCE = 12.0")],
                "lost is submitted, not completed",
            ),
        ],
        ids=["doubled effects of polls", "no signature needed", "no poller"],
    )
    def test_the_demo_fails_there_when_something_is_broken(self, tmp_path, changes, complaint):
        assert_failed(run_demo("loop", folder=broken_copy(tmp_path, *changes)), complaint)

    def test_it_leaves_the_tasks_of_others_alone(self, sqlite_url):
        app = create_app({"SQLALCHEMY_DATABASE_URI": sqlite_url, "WEBHOOK_SECRET_KEY": SECRET, "TESTING": True})
        with app.app_context():
            flask_migrate.upgrade()
            create_task(account_named("Somebody else"), "Cats", base_url="http://localhost")
            db.session.commit()
            db.engine.dispose()
        demo = run_demo("loop", DATABASE_URL=sqlite_url)
        assert demo.returncode == 0
        assert "Not played: 1 open tasks in this database are not the demo's" in " ".join(demo.stdout.split())
        assert process_ids(demo.stdout) == []

    def test_a_terminal_shows_a_square_for_each_task(self):
        part = BEFORE[0]
        arrival = Arrival("completed", "poll", "processed", "completed", late=False, error=None)
        fates = [
            Fate(Order(part, "1"), "completed", 1, None, ("a",), (arrival,), (("approved", "text"),)),
            Fate(Order(part, "2"), "submitted", 1, None, ("b",), (), ()),
        ]
        screen = io.StringIO()
        console = Console(force_terminal=True, color_system=None, width=100, height=40, file=screen)
        board = Board(console, 3)
        with board.open():
            board.show(fates)
            board.tell("Something happened.")
        shown = screen.getvalue()
        assert "■ ■ · " in shown
        assert re.search(r"submitted 1 +processing 0 +completed 1 ", shown)
        assert re.search(r"poll 1 ", shown)
        assert "Something happened." in shown


class TestServe:
    @pytest.fixture
    def serve(self, database_url):
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
            assert server.wait(20) == 0
            assert "POST /api/v1/content/callback/" in log
            assert "token=" not in log

    @pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
    def test_the_printed_commands_work_as_they_stand(self, serve):
        url, printed = serve
        progress, completed = re.findall(r"^curl .*\\\n  -d .*$", printed, re.MULTILINE)

        def answer(command):
            output = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=True).stdout
            return re.findall(r'"(?:outcome|status)": ?"(\w+)"', output)

        assert sorted(answer(progress)) == ["processed", "processing"]
        assert sorted(answer(completed)) == ["completed", "processed"]
        assert sorted(answer(completed)) == ["completed", "duplicate"]
        contents = httpx.get(f"{url}/api/hub/contents").json()
        assert [(content["title"], content["review_status"]) for content in contents] == [
            ("Hello from curl", "approved")
        ]
        assert "Hello from curl" in httpx.get(url).text

    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    def test_a_simulated_creator_works_on_what_is_ordered_and_ends_with_it(self, how, sqlite_url):
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
            assert server.wait(20) == (-signal.SIGKILL if how == signal.SIGKILL else 0)
        for address in (url, creator):
            wait_for(lambda address=address: not answers(address))

    def test_an_unknown_creator_is_reported(self, sqlite_url):
        served = subprocess.run(
            SERVE,
            cwd=PROJECT_ROOT,
            env=clean_environment(DATABASE_URL=sqlite_url, CREATOR="somebody"),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert served.returncode == 1
        assert "CREATOR=simulator" in served.stderr
        assert "Traceback" not in served.stderr

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
