"""The lists in a real pseudo-terminal: every line fits, ids and verdicts are whole, a row takes at most two lines."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import run
from tests.support.host import Host, completed, custom
from tests.support.processes import wait_until
from tests.support.terminal import Terminal

UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
FLASK = [sys.executable, "-m", "flask", "--app", "tests.cli.host_app"]
LISTS = {"tasks": ["tasks"], "deliveries": ["deliveries", "list"], "forwards": ["forwards", "list"]}


@pytest.fixture
def history(hosts: Callable[..., Host], sqlite_url: str) -> Host:
    """Tasks, deliveries and forwards with whatever makes lines long."""
    host = hosts(sqlite_url)
    for topic in ("Tea", "内容营销" * 20, "one topic " * 30):
        task_id = host.add_task(topic=topic, error_code="E_LONG", error_message="because of this " * 30)
        host.post(task_id, completed(task_id))
        host.post(task_id, completed(task_id))
        host.post(task_id, custom(task_id, "illustrated"))
    broken = host.add_task()
    host.post(broken, b"no json " * 30)
    host.publisher.broken = True
    host.post(broken, completed(broken))
    forwards = host.state.outbox.forwards.model
    common = {"task_id": broken, "event": "completed", "delivery_id": 1, "message_id": "m", "body": b"{}"}
    urls = ("https://two.example/", "https://one.example/" + "long/" * 30)
    with host.app.app_context():
        host.db.session.add_all(
            forwards(**common, status="dead", tries=12, url=url, created_at=host.clock.now) for url in urls
        )
        host.db.session.commit()
    return host


@pytest.fixture
def shown(sqlite_url: str) -> Callable[..., Terminal]:
    """A function that runs `flask webhook ...` in a terminal of some width, to its end."""

    def show(arguments: list[str], columns: int) -> Terminal:
        with Terminal([*FLASK, "webhook", *arguments], columns, DATABASE_URL=sqlite_url) as terminal:
            assert terminal.wait() == 0, terminal.text
            return terminal

    return show


def width(line: str) -> int:
    """The columns that a terminal needs for a line."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


def whole_ids(host: Host, kind: str) -> list[str]:
    """The task ids that a list must show, in order."""
    if kind == "tasks":
        return [row.task_id for row in reversed(host.tasks())]
    if kind == "forwards":
        return [host.tasks()[-1].task_id] * 2
    return [row.task_id for row in reversed(host.deliveries())]


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_fits_the_terminal(history: Host, shown: Callable[..., Terminal], kind: str, columns: int) -> None:
    heading, *lines = shown(LISTS[kind], columns).lines
    total = lines.pop()

    assert [line for line in (heading, *lines, total) if width(line) > columns] == []
    assert UUID.findall("\n".join(lines)) == whole_ids(history, kind)
    rows = len(whole_ids(history, kind))
    assert len(lines) <= 2 * rows
    assert total.startswith(f"{rows} ")
    if kind == "deliveries":
        firsts = [line for line in lines if UUID.search(line)]
        assert [line.split()[0] for line in firsts] == [str(row.id) for row in reversed(history.deliveries())]
        assert all(
            row.verdict in line.split() for row, line in zip(reversed(history.deliveries()), firsts, strict=True)
        )
        assert "completed" in "".join(firsts)
        assert "BrokenHandler" in "".join(lines)


def test_a_long_id_takes_the_second_line_whole(history: Host, shown: Callable[..., Terminal]) -> None:
    task_id = "order-2026-11-" + "7" * 40
    history.add_task(task_id=task_id, topic="long")
    history.publisher.broken = False
    history.post(task_id, completed(task_id))

    for kind in ("tasks", "deliveries"):
        lines = shown([*LISTS[kind], "--limit", "3"], 80).lines
        assert task_id in lines[2].split()
        assert max(map(width, lines)) <= 80


@pytest.mark.parametrize("kind", LISTS)
def test_wide_is_one_whole_line_a_row_as_for_a_pipe(history: Host, shown: Callable[..., Terminal], kind: str) -> None:
    lines = shown([*LISTS[kind], "--wide"], 80).lines
    piped = run(history, *LISTS[kind]).stdout.splitlines()

    assert lines == piped
    assert len(lines) == len(whole_ids(history, kind)) + 2
    assert "…" not in "".join(lines)


def ids_in(terminal: Terminal) -> list[int]:
    """The ids of the rows that stand in it whole."""
    return [int(line.split()[0]) for line in terminal.text.split("\n")[:-1] if re.match(r" *\d+ ", line)]


def test_follow_goes_on_with_new_ones_and_changed_verdicts_until_ctrl_c(history: Host, sqlite_url: str) -> None:
    follow = [*FLASK, "webhook", "deliveries", "list", "--follow", "--limit", "2"]
    with (
        Terminal(follow, DATABASE_URL=sqlite_url) as terminal,
        Terminal([*follow, "--json"], 200, DATABASE_URL=sqlite_url) as programs,
    ):
        known, newest = history.deliveries()[-2:]
        for each in (terminal, programs):
            each.wait_for(newest.task_id)
        task_id = history.add_task()
        history.post(task_id, completed(task_id))  # the handler fails
        terminal.wait_for(task_id)
        programs.wait_for(task_id)
        history.publisher.broken = False
        failed_id = history.deliveries()[-1].id
        run(history, "deliveries", "replay", failed_id)
        replay_id = history.deliveries()[-1].id
        wait_until(lambda: replay_id in ids_in(terminal), timeout=300, what="the replay", log=lambda: terminal.text)
        programs.wait_for(f'"id": {replay_id},')
        terminal.interrupt()
        programs.interrupt()
        assert (terminal.wait(), programs.wait()) == (0, 0)

    assert ids_in(terminal) == [known.id, newest.id, failed_id, failed_id, replay_id]
    assert "replayed" in terminal.text
    documents: list[dict[str, Any]] = [json.loads(line) for line in programs.lines if line.startswith("{")]
    assert sorted((row["id"], row["verdict"]) for row in documents) == sorted(
        [
            (known.id, known.verdict),
            (newest.id, newest.verdict),
            (failed_id, "failed"),
            (failed_id, "replayed"),
            (replay_id, "processed"),
        ]
    )


@pytest.mark.parametrize(("shell", "variables"), [("bash", {"COMP_CWORD": "2"}), ("zsh", {"COMP_CWORD": "2"})])
def test_a_shell_completes_the_commands(shell: str, variables: dict[str, str], sqlite_url: str) -> None:
    env = {
        "_FLASK_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "flask webhook deliv",
        "FLASK_APP": "tests.cli.host_app",
    }
    program = [sys.executable, "-c", "import sys; sys.argv[0] = 'flask'; from flask.cli import main; main()"]
    with Terminal(program, **env, **variables, DATABASE_URL=sqlite_url) as terminal:
        terminal.wait()

    assert "deliveries" in terminal.text


@pytest.mark.parametrize("columns", [80, 100])
def test_the_doctor_breaks_its_lines_between_words(history: Host, sqlite_url: str, columns: int) -> None:
    shown = []
    for each in (columns, 1000):
        with Terminal([*FLASK, "webhook", "doctor"], each, DATABASE_URL=sqlite_url) as terminal:
            terminal.wait()
        shown.append(terminal)

    narrow, wide = shown
    assert max(map(width, wide.lines)) > columns
    assert [line for line in narrow.lines if width(line) > columns] == []
    assert narrow.text.split() == wide.text.split()
