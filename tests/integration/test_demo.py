"""`make demo`, as people run it. That it fails where something is broken is in `test_demo_broken`."""

from __future__ import annotations

import io
import re
import signal
import subprocess
from pathlib import Path

import flask_migrate
import pytest
from rich.console import Console

from example_app import create_app
from example_app.demo.expectations import Outcome
from example_app.demo.output import Progress
from example_app.extensions import db
from example_app.models import Content, Delivery, GenerationTask
from example_app.tasks import account_named, create_task
from tests.support.demo import DEMO, is_alive, process_ids, run_demo, wait_for
from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.terminal import Terminal

SECRET = "a-secret-of-the-tests-that-is-long-enough"
TITLES = (" Part 1: what callbacks do ", " Part 2: the whole loop ")
FIGURES = " time pending submitted processing completed failed timeout callback late poll answer retry deadline"


@pytest.fixture(scope="module")
def first():
    """Both parts with all that they show, on a temporary database."""
    return run_demo("--verbose")


@pytest.fixture(scope="module")
def answer():
    """Both parts, as `make demo` runs them, in a terminal of 80 columns."""
    with Terminal(DEMO, 80) as terminal:
        assert terminal.wait() == 0, terminal.text
        return terminal.text


@pytest.fixture(scope="module")
def narrow_then_wide(postgres):
    """Two demos on one PostgreSQL database: the first part in a narrow terminal, then both parts in a wide one."""
    url = postgres.create_database()
    narrow = run_demo("callbacks", "--verbose", COLUMNS="80", DATABASE_URL=url)
    yield narrow, run_demo("--verbose", COLUMNS="160", DATABASE_URL=url)
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def both_parts(request):
    """The first demo of a new database, and the second one of a database that has seen one."""
    if request.param == "sqlite":
        return request.getfixturevalue("first")
    if request.param == "mariadb":
        return run_demo("--verbose", DATABASE_URL=request.getfixturevalue("mariadb_url"))
    return request.getfixturevalue("narrow_then_wide")[1]


def rows_of(output):
    return [" ".join(line.split()) for line in output.splitlines()]


def part_of(demo, number):
    """The output of one part."""
    begins = demo.stdout.index(TITLES[number - 1])
    ends = demo.stdout.index(TITLES[1] if number == 1 else "Every promise was kept")
    return demo.stdout[begins:ends]


def children_of(pid):
    """The workers of a server, where /proc lists them."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


class TestAnswer:
    @pytest.mark.slow
    def test_it_is_short_and_comes_first(self, answer):
        beginning, _, _ = answer.partition("■")  # the squares have vanished at the end
        _, headline, end = answer.rpartition("Every promise was kept")
        shown = f"{beginning.strip()}\n{headline}{end}"
        lines = shown.splitlines()
        words = set(shown.split())
        assert len(lines) < 40, shown
        assert headline in "\n".join(lines[:4]), shown
        assert max(map(len, lines)) <= 80, shown
        assert {"settled,", "creator's", "acknowledged", "contradictory,", "submissions,"} <= words, shown
        assert shown.count("ok  ") == 12, shown
        assert "20 of 20 steps went as expected." in shown
        assert "40 of 40 tasks were settled" in shown

    @pytest.mark.slow
    def test_it_offers_its_history_and_keeps_it_for_make_serve(self, answer):
        (url,) = re.findall(r"make serve DATABASE_URL=(\S+)", answer)
        app = create_app({"SQLALCHEMY_DATABASE_URI": url, "WEBHOOK_SECRET_KEY": SECRET, "TESTING": True})
        page = app.test_client().get("/webhooks/")
        assert page.status_code == 200
        with app.app_context():
            kept = db.session.query(Delivery).count()
            db.engine.dispose()
        assert kept > 100


class TestDemo:
    @pytest.mark.slow
    def test_it_runs_both_parts_and_ends_well_by_itself(self, both_parts):
        demo = both_parts
        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert demo.stderr == ""
        lines = demo.stdout.splitlines()
        parts = [lines.index(title) for title in TITLES]
        assert parts == sorted(parts)
        assert "20 of 20 steps went as expected" in demo.stdout
        assert "40 of 40 tasks were settled" in demo.stdout
        assert "BROKEN" not in demo.stdout
        assert "Try next:" in demo.stdout
        assert "\x1b" not in demo.stdout
        servers = process_ids(demo.stdout)
        assert len(servers) == 2
        assert not any(map(is_alive, servers))

    @pytest.mark.slow
    def test_it_runs_twice_on_one_database(self, narrow_then_wide):
        assert [demo.returncode for demo in narrow_then_wide] == [0, 0]
        assert "40 of 40 tasks were settled" in narrow_then_wide[1].stdout

    @pytest.mark.slow
    def test_it_fits_the_terminal(self, first, narrow_then_wide):
        for demo, columns in zip([first, *narrow_then_wide], [100, 80, 160], strict=True):
            _migrations, _, output = demo.stdout.partition("is served by gunicorn")
            output = re.sub(r"  make serve DATABASE_URL=\S+", "", output)
            assert max(map(len, output.splitlines())) <= columns

    @pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/nothing", "sqlite:////no/such/folder/x.db", "nonsense"])
    def test_it_says_so_when_there_is_no_database(self, url):
        demo = run_demo(DATABASE_URL=url)
        assert demo.returncode == 1
        assert demo.stderr.startswith("The demo cannot use the database: ")
        assert "Traceback" not in demo.stderr

    def test_it_says_so_when_there_is_no_such_part(self):
        demo = run_demo("third")
        assert (demo.returncode, demo.stdout) == (1, "")
        assert demo.stderr.startswith("There is no part 'third'. Usage: ")

    @pytest.mark.parametrize("part", ["callbacks", "loop"])
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    def test_it_leaves_no_server_however_it_ends(self, how, part, tmp_path):
        demo = subprocess.Popen(
            [*DEMO, "--verbose", part],
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


class TestCallbacks:
    @pytest.mark.slow
    def test_it_shows_what_callbacks_do(self, first):
        shown = part_of(first, 1)
        for row in (
            "completed URL token 200 processed completed 1 approved",
            "completed, no images URL token 200 processed completed 1 in review",
            "completed, forged wrong token 401 signature_invalid pending none",
            "completed, forged none 403 signature_missing pending none",
            "completed with a NaN URL token 400 invalid_json pending none",
            "completed with 20 MB URL token 413 payload_too_large pending none",
            "completed, 20 copies at the same URL token 200 processed completed 1 approved",
        ):
            assert row in rows_of(shown), f"{row!r} is not in\n{shown}"
        assert "19x 200 duplicate" in shown


class TestLoop:
    @pytest.mark.slow
    def test_it_shows_how_every_task_is_settled(self, first):
        shown = part_of(first, 2)
        lines = shown.splitlines()
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
        rows = rows_of(shown)
        for row in (
            r"nothing .*completed: processed .* completed 1 (approved|in review)",
            r"its callback is never (poll|answer) completed: processed (poll|answer) completed 1 (approved|in review)",
            r"its callback comes .*completed: processed .* completed 1 .*",
            r"callback completed: duplicate",
            r"a forged callback .*completed 1 .*",
            r"refused: signature_(missing|invalid).*",
            r"is refused: 400 answer failed: processed answer failed none",
            r"dies with the creator deadline: given up deadline timeout none",
            r"finds the creator down .* completed 1 .*",
            r"callback failed: ignored",
        ):
            pattern = re.compile(row) if not row.startswith("refused") else re.compile(f"(.* )?{row}")
            assert any(pattern.fullmatch(found) for found in rows), f"{row!r} is not in\n{shown}"
        checks = [row for row in rows if row.startswith(("ok ", "BROKEN "))]
        assert len(checks) == 7
        assert all(check.startswith("ok ") for check in checks)
        assert "(40 tasks, 0 differ)" in shown

    def test_it_leaves_the_tasks_of_others_alone(self, sqlite_url):
        app = create_app({"SQLALCHEMY_DATABASE_URI": sqlite_url, "WEBHOOK_SECRET_KEY": SECRET, "TESTING": True})
        with app.app_context():
            flask_migrate.upgrade()
            create_task(account_named("Somebody else"), "Cats", base_url="http://localhost")
            db.session.commit()
            db.engine.dispose()
        demo = run_demo("loop", DATABASE_URL=sqlite_url)
        assert demo.returncode == 0
        assert "Skipped: this database has 1 open task(s) that are not the demo's" in " ".join(demo.stdout.split())
        assert process_ids(demo.stdout) == []

    def test_a_terminal_shows_a_square_for_each_task_in_lines_that_fit(self):
        outcomes = [
            Outcome(
                GenerationTask(status="completed", attempt=1),
                [Delivery(event="completed", source="poll", verdict="processed", status_after="completed", late=False)],
                [Content(review_status="approved", body="text")],
            ),
            Outcome(GenerationTask(status="submitted", attempt=1)),
        ]
        screen = io.StringIO()
        console = Console(force_terminal=True, color_system=None, width=80, height=40, file=screen)
        progress = Progress(console, console, 40)
        with progress.open():
            progress.show(outcomes)
            progress.print_news("Something happened.")
        shown = screen.getvalue()
        assert " ".join(["■"] * 2 + ["·"] * 38) in shown
        assert re.search(r"pending 0 +submitted 1 +processing 0 +completed 1 +failed 0 +timeout 0", shown)
        assert re.search(r"poll 1 ", shown)
        assert "Something happened." in shown
