"""The output for people and for programs, and secrets that never appear in it."""

from __future__ import annotations

import json
import sys
from urllib.parse import parse_qs, urlsplit

import click
import pytest

from flask_contenthub_webhook.cli.terminal import escaped
from flask_contenthub_webhook.core.signatures import verify_url
from tests.cli.conftest import run, run_json
from tests.support.host import SECRET, completed

LISTS = [("tasks",), ("tasks", "show", "x"), ("deliveries", "list"), ("deliveries", "show", 1), ("stats",), ("alerts",)]


def test_the_group_is_there_on_every_app_and_lists_its_commands(sqlite_host):
    result = run(sqlite_host, "--help")

    assert result.exit_code == 0
    for name in (
        *("alerts", "deliveries", "doctor", "migrations", "purge", "reconcile", "scheduler"),
        *("secret", "send", "simulate", "stats", "hand-over", "tasks", "url"),
    ):
        assert f"\n  {name} " in result.stdout
    assert "Exit codes: 0" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("tasks", "--status", "odd"),
        ("tasks", "--since", "yesterday-ish"),
        ("url", "id", "--attempt", "0"),
        ("send",),
        ("send", "id", "--result", "{"),
        ("send", "id", "--result", "[]"),
        ("deliveries", "show", "x"),
        ("deliveries", "replay"),
        ("deliveries", "replay", "1", "--verdict", "dead"),
        ("reconcile", "--once", "--limit", "0"),
        ("purge", "--older-than", "-1"),
        ("purge", "--verdict", "odd"),
        ("simulate", "--lose", "2"),
    ],
)
def test_wrong_usage_exits_with_2(sqlite_host, arguments):
    assert run(sqlite_host, *arguments).exit_code == 2


class TestSecretAndUrl:
    def test_a_secret_alone_is_on_stdout_and_different_each_time(self, sqlite_host):
        first, second = run(sqlite_host, "secret"), run(sqlite_host, "secret")

        assert first.stdout.startswith("whsec_")
        assert first.stdout.count("\n") == 1
        assert len(first.stdout.strip()) >= 32
        assert first.stdout != second.stdout
        assert first.stderr == ""

    @pytest.mark.parametrize(("given", "attempt"), [((), 1), (("--attempt", 3), 3), (("--attempt", "current"), None)])
    def test_the_url_is_the_one_that_the_creator_is_given(self, sqlite_host, given, attempt):
        url = urlsplit(run(sqlite_host, "url", "some-task", *given).stdout.strip())

        assert (url.scheme, url.netloc, url.path) == ("https", "hub.example", "/api/v1/content/callback/some-task")
        query = parse_qs(url.query)
        assert query.get("attempt") == (None if attempt is None else [str(attempt)])
        assert verify_url(SECRET, "some-task", attempt, query["token"][0])

    def test_the_url_needs_no_database(self, hosts):
        host = hosts("sqlite:////no/such/folder/x.db", create_tables=False)

        document = run_json(host, "url", "t", "--base-url", "https://other.example/sub")

        assert document["url"].startswith("https://other.example/sub/api/v1/content/callback/t?attempt=1&token=")
        missing = run(host, "url", "t")
        assert missing.exit_code == 1
        assert missing.stderr.startswith("Error: WEBHOOK_CALLBACK_BASE_URL is not set")


class TestWithoutRich:
    @pytest.fixture(autouse=True)
    def no_rich(self, monkeypatch):
        for name in [name for name in sys.modules if name == "rich" or name.startswith("rich.")]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, "rich", None)

    def test_the_lists_are_the_same(self, sqlite_host):
        task_id = sqlite_host.add_task(topic="内容")
        sqlite_host.post(task_id, completed(task_id))

        assert run(sqlite_host, "tasks").stdout.splitlines()[1].split()[0] == task_id
        assert run(sqlite_host, "tasks", "show", task_id).stdout.splitlines()[-1].split()[3:6] == [
            *("processed", "completed", task_id)
        ]
        assert "processed" in run(sqlite_host, "deliveries", "list").stdout
        assert run(sqlite_host, "alerts").stdout.splitlines()[0].split() == [
            *("alert", "status", "since", "checked", "message")
        ]

    @pytest.mark.parametrize(
        "arguments",
        [
            ("tasks",),
            ("deliveries", "list"),
            ("stats",),
            ("deliveries", "replay", "--verdict", "dead", "--yes"),
            ("tasks", "--json"),
            ("stats", "--json"),
            ("secret",),
            ("url", "t"),
            ("purge",),
            ("purge", "--yes"),
            ("alerts", "--check", "--json"),
            ("deliveries", "list", "--json"),
        ],
    )
    def test_the_rest_works(self, sqlite_host, arguments):
        assert run(sqlite_host, *arguments).exit_code == 0


class TestTroubleWithTheDatabase:
    def test_one_that_is_not_migrated_is_one_clean_line(self, hosts, database_url):
        host = hosts(database_url, create_tables=False)

        for arguments in (*LISTS, ("deliveries", "replay", "--verdict", "dead"), ("purge",), ("purge", "--yes")):
            result = run(host, *arguments)

            assert result.exit_code == 1
            assert result.stdout == ""
            assert result.stderr.startswith("Error: The database lacks tables or columns of this version")
            assert "flask webhook migrations install" in result.stderr
            assert "flask db upgrade" in result.stderr
            assert "Traceback" not in result.output

    def test_one_that_is_away_is_one_clean_line(self, hosts, postgres_url):
        host = hosts(postgres_url.replace("host=", "host=/no/such/place"), create_tables=False)

        result = run(host, "stats")

        assert result.exit_code == 1
        assert result.stderr.startswith("Error: The database cannot be used: ")
        assert result.stderr.count("\n") == 1


class TestStrangersText:
    HOSTILE = "a\x1b]0;owned\x07\x9b2J\r\u202egnp.exe\u2028[bold]b[/bold]\ud800"

    def test_control_characters_are_shown_and_not_obeyed(self):
        assert escaped("\x1b[31m\x07\x7f\x9b\u202e\r") == r"\x1b[31m\x07\x7f\x9b\u202e\x0d"
        assert escaped("a\nb\tc") == r"a\nb\tc"
        assert escaped("a\nb\tc\r", lines=True) == "a\nb\tc\\x0d"
        assert escaped("键 🚀 é") == "键 🚀 é"

    def test_a_hostile_body_cannot_steer_the_terminal(self, host):
        task_id = host.add_task(topic=self.HOSTILE[:-1])
        event = completed(task_id, self.HOSTILE[:-1])
        host.post(task_id, event, headers={"X-Odd": "\x9b31m"})
        host.post(task_id, b"\x1b]0;owned\x07 no json \xff", headers={"User-Agent": "[red]x"})

        for arguments in (
            *(("tasks",), ("tasks", "show", task_id)),
            *(("deliveries", "list"), ("deliveries", "show", 1), ("deliveries", "show", 2)),
        ):
            for result in (run(host, *arguments), run(host, *arguments, "--json")):
                assert result.exit_code == 0
                assert set(result.stdout).isdisjoint("\x1b\x07\x9b\r\u202e\u2028"), arguments
        assert "[bold]b[/bold]" in run(host, "deliveries", "show", 1).stdout
        assert r"\x1b]0;owned\x07 no json \xff" in run(host, "deliveries", "show", 2).stdout
        shown = run_json(host, "deliveries", "show", 1)["delivery"]
        assert json.loads(shown["body"]) == event

    def test_an_error_message_is_escaped_too(self, sqlite_host):
        result = run(sqlite_host, "tasks", "show", "\x1b[2J")

        assert result.stderr == "Error: There is no task \\x1b[2J.\n"


def test_a_documents_stdout_is_json_alone_also_when_a_handler_logs(host):
    task_id = host.add_task()
    host.publisher.broken = True
    host.post(task_id, completed(task_id))

    result = run(host, "deliveries", "replay", host.deliveries()[0].id, "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["failures"][0]["code"] == "handler_failed"


def test_click_is_told_what_each_option_is_for(sqlite_host):
    def walk(command, path):
        yield path, command
        for name, sub in getattr(command, "commands", {}).items():
            yield from walk(sub, (*path, name))

    for path, command in walk(sqlite_host.app.cli.commands["webhook"], ("webhook",)):
        assert command.help, path
        options = [option for option in command.params if isinstance(option, click.Option)]
        assert [option.name for option in options if not option.help and not option.show_default] == [], path
