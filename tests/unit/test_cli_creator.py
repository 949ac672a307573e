"""The creator behind a command line program, with a program that behaves as the real one does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_contenthub_webhook.creators import CliCreator, Creator, Job, RemoteState, Report
from flask_contenthub_webhook.errors import ConfigurationError, CreatorRefused, CreatorUnclear, CreatorUnreachable
from tests.support.fake_cli import FakeCli
from tests.support.processes import PROJECT_ROOT, wait_until

ID = "323f4099-0c98-47eb-a086-19faa5b14936"
OTHER = "11111111-1111-4111-8111-111111111111"
TOKEN = "a-token-that-nobody-may-see"
CALLBACK = f"https://hub.example.com/callback/1?attempt=1&token={TOKEN}"
JOB = Job(creator_task_id=ID, topic="T", requirements="R", target_audience="A")
LONG = 30.0  # seconds that no test waits for


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[FakeCli]:
    fake = FakeCli(tmp_path)
    yield fake
    fake.fault("stop")  # what a test left running ends by itself


@pytest.fixture
def creator(cli: FakeCli) -> CliCreator:
    return CliCreator(cli.path, timeout=LONG)


def eventually(condition, what="it happens"):
    wait_until(condition, timeout=15, what=what, log=lambda: "")


def is_zombie_or_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


# --- submitting ----------------------------------------------------------------------------------------------


def test_it_is_a_creator(creator):
    assert isinstance(creator, Creator)


def test_a_submission_is_a_list_of_arguments(cli, creator):
    job = Job(
        creator_task_id=ID,
        topic="人工智能; rm -rf / $(id) `id` 'x' \"y\"\nline",
        requirements="R",
        target_audience="A",
        keywords=("AI", "网络"),
        tone="专业",
        priority=4,
        callback_url=CALLBACK,
        callback_events=("completed", "failed"),
        options={"imageSize": "2k"},
    )

    report = creator.submit(job, wait=LONG)

    assert report == Report(state=RemoteState.OPEN)
    assert cli.commands == [
        [
            *["create", "--type", "content-creator", "--mode", "sync", "--priority", "urgent"],
            *["--topic", job.topic, "--requirements", "R", "--target-audience", "A"],
            *["--keywords", "AI,网络", "--tone", "专业", "--image-size", "2k", "--callback-url", CALLBACK],
            *["--callback-events", "completed,failed", "--taskId", ID],
        ]
    ]


def test_what_a_job_does_not_have_is_left_out(cli, creator):
    creator.submit(Job(creator_task_id=ID), wait=LONG)

    assert cli.commands == [
        ["create", "--type", "content-creator", "--mode", "sync", "--priority", "normal", "--taskId", ID]
    ]


@pytest.mark.parametrize(("priority", "word"), [(1, "low"), (2, "normal"), (3, "high"), (4, "urgent"), (9, "normal")])
def test_priorities_are_words(cli, creator, priority, word):
    creator.submit(Job(creator_task_id=ID, priority=priority), wait=LONG)

    assert cli.commands[0][6] == word


@pytest.mark.parametrize("topic", ["--help", "-t", "--callback-url=http://evil.example", "-"])
def test_a_value_that_looks_like_an_option_stays_a_value(cli, creator, topic):
    creator.submit(Job(creator_task_id=ID, topic=topic), wait=LONG)

    assert cli.tasks[0]["topic"] == topic
    assert cli.tasks[0]["id"] == ID


def test_the_programs_environment_has_the_hosts_but_not_its_webhook_secrets(cli, creator, monkeypatch):
    monkeypatch.setenv("WEBHOOK_SECRET_KEY", "secret")
    monkeypatch.setenv("CREATOR_API_KEY", "secret")
    monkeypatch.setenv("LLM_KEY", "needed")

    creator.submit(JOB, wait=LONG)

    assert "LLM_KEY" in cli.calls[0]["environment"]
    assert not {"WEBHOOK_SECRET_KEY", "CREATOR_API_KEY"} & set(cli.calls[0]["environment"])


def test_a_job_that_takes_long_is_left_running_in_a_session_of_its_own(cli, creator):
    cli.fault("work", "60")
    started = time.monotonic()

    report = creator.submit(JOB, wait=0.5)

    assert report == Report(state=RemoteState.OPEN)
    assert time.monotonic() - started < 5
    eventually(lambda: cli.calls)
    (call,) = cli.calls
    assert is_zombie_or_running(call["pid"])
    assert call["session"] == call["pid"] != os.getsid(0)


def test_a_program_that_was_left_running_finishes_and_leaves_no_zombie(cli, creator):
    cli.fault("work", "1")

    assert creator.submit(JOB, wait=0).state is RemoteState.OPEN

    eventually(lambda: cli.tasks)
    eventually(lambda: not is_zombie_or_running(cli.calls[0]["pid"]), "the child is reaped")
    eventually(lambda: len(creator._keeper) == 0)


def test_all_children_are_watched_by_one_thread_that_ends_with_them(cli, creator):
    cli.fault("work", "1.5")

    for number in range(5):
        creator.submit(Job(creator_task_id=f"{number}"), wait=0)

    watcher = creator._keeper._kept.value.thread
    assert len(creator._keeper) == 5
    assert watcher is not None
    watcher.join(20)
    assert not watcher.is_alive()
    assert all(not is_zombie_or_running(call["pid"]) for call in cli.calls)
    assert len(cli.calls) == 5


def test_a_program_outlives_the_process_that_started_it(cli):
    cli.fault("work", "60")
    script = f"""
        from flask_contenthub_webhook.creators import CliCreator, Job
        print(CliCreator({str(cli.path)!r}).submit(Job(creator_task_id={ID!r}), wait=0).state)
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "open\n"
    assert cli.tasks == []
    cli.fault("stop")
    eventually(lambda: cli.tasks, "the job is done after its submitter ended")


def test_what_a_program_complains_about_for_ever_does_not_fill_the_disk(tmp_path):
    program = tmp_path / "chatty"
    program.write_text('#!/bin/sh\nhead -c 9000000 /dev/zero >&2\n: > "$0.done"\nexec sleep 60\n')
    program.chmod(0o755)
    creator = CliCreator(program)

    creator.submit(JOB, wait=0)

    (child,) = creator._keeper._kept.value.children
    eventually((tmp_path / "chatty.done").exists)
    eventually(lambda: os.fstat(child._errors.fileno()).st_size <= 1024 * 1024, "the log is cut short")
    child.kill()
    eventually(lambda: len(creator._keeper) == 0)


def test_a_program_that_fails_at_once_refuses_and_its_last_words_are_shown_without_the_token(cli, creator):
    cli.fault("create-fails", "x" * 100_000 + f"\n错误: 回调地址 {CALLBACK} 无效")
    cli.fault("exit-code", "3")

    with pytest.raises(CreatorRefused, match="exit code 3") as caught:
        creator.submit(Job(creator_task_id=ID, callback_url=CALLBACK), wait=LONG)

    assert "错误: 回调地址 https://hub.example.com" in caught.value.message
    assert TOKEN not in caught.value.message
    assert len(caught.value.message) < 600
    assert caught.value.details == {"exitCode": 3}


def test_a_program_that_is_killed_is_unclear(tmp_path):
    program = tmp_path / "killed"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)

    with pytest.raises(CreatorUnclear, match="signal 9"):
        CliCreator(program).submit(JOB, wait=LONG)


def test_a_program_that_is_not_there_is_unreachable_and_the_message_says_what_to_do(tmp_path):
    with pytest.raises(CreatorUnreachable, match=r"No such file.*CREATOR_CLI_PATH"):
        CliCreator(tmp_path / "nothing").submit(JOB, wait=1)


@pytest.mark.parametrize(
    ("content", "mode"), [("#!/bin/sh\n", 0o644), ("#!/no/such/interpreter\n", 0o755), ("no program", 0o755)]
)
def test_a_program_that_cannot_be_run_is_unreachable(tmp_path, content, mode):
    program = tmp_path / "program"
    program.write_text(content)
    program.chmod(mode)

    for call in (lambda c: c.submit(JOB, wait=1), lambda c: c.statuses([ID]), lambda c: c.status(ID)):
        with pytest.raises(CreatorUnreachable, match="CREATOR_CLI_PATH"):
            call(CliCreator(program))


@pytest.mark.parametrize(
    "job",
    [
        Job(creator_task_id=ID, topic="nul \0 inside"),
        Job(creator_task_id=ID, topic="half a pair \ud83d"),
        Job(creator_task_id=ID, topic="x" * 3_000_000),
        Job(creator_task_id="--help"),
        Job(creator_task_id=""),
        Job(creator_task_id="a\nb"),
        Job(creator_task_id=ID, options={"hardConstraints": {"minWords": 800}}),
    ],
)
def test_a_job_that_cannot_be_written_as_arguments_is_refused_and_nothing_is_run(cli, creator, job):
    with pytest.raises(CreatorRefused):
        creator.submit(job, wait=LONG)

    assert cli.calls == []


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_is_none_is_refused_at_once(path):
    with pytest.raises(ConfigurationError, match="CREATOR_CLI_PATH"):
        CliCreator(path)


# --- asking --------------------------------------------------------------------------------------------------


def row(name: str, status: str, **more: object) -> dict[str, object]:
    return {"id": name, "status": status, "errorMessage": None, **more}


def test_the_list_is_found_among_log_lines_and_answers_for_all(cli, creator):
    cli.has(
        row(ID, "completed", steps=[1, [2]]), row(OTHER, "failed", errorMessage="LLM 失败"), row("third", "running")
    )

    reports = creator.statuses([ID, OTHER, "third"])

    assert {name: report.state for name, report in reports.items()} == {
        ID: RemoteState.COMPLETED,
        OTHER: RemoteState.FAILED,
        "third": RemoteState.OPEN,
    }
    assert reports[OTHER].error == {"message": "LLM 失败", "type": "execution_error"}
    assert cli.commands == [["list", "--json"]]


def test_no_program_is_run_for_no_task(cli, creator):
    assert creator.statuses([]) == {}
    assert cli.calls == []


def test_what_is_not_in_the_list_is_asked_about_singly_since_the_list_may_be_short(cli, creator):
    cli.has(row(ID, "running"), row(OTHER, "completed"))
    cli.fault("list-limit", "1")

    reports = creator.statuses([ID, OTHER, "unknown"])

    assert {name: report.state for name, report in reports.items()} == {
        ID: RemoteState.OPEN,
        OTHER: RemoteState.COMPLETED,
        "unknown": RemoteState.MISSING,
    }
    assert cli.commands[1:] == [
        ["result", "-t", OTHER, "--format", "json"],
        ["result", "-t", "unknown", "--format", "json"],
        ["status", "-t", "unknown"],
    ]


def test_a_task_in_a_state_that_is_not_known_is_left_out(cli, creator):
    cli.has(row(ID, "archived"), row(OTHER, "running"))

    assert creator.statuses([ID, OTHER]).keys() == {OTHER}


def test_an_empty_list_is_a_list(cli, creator):
    assert creator.statuses([ID])[ID].state is RemoteState.MISSING


def test_one_task_is_asked_about_by_its_id(cli, creator):
    cli.has(row(ID, "completed"), row(OTHER, "running"))

    assert creator.status(ID).state is RemoteState.COMPLETED
    assert creator.status(OTHER).state is RemoteState.OPEN
    assert creator.status("unknown").state is RemoteState.MISSING


def test_a_program_that_fails_for_another_reason_makes_nothing_missing(cli, creator):
    cli.has(row(ID, "running"))
    for command in ("result", "status", "list"):
        cli.fault(f"{command}-fails", "database is locked")

    with pytest.raises(CreatorUnreachable, match="database is locked"):
        creator.status(ID)
    with pytest.raises(CreatorUnreachable, match="database is locked"):
        creator.statuses([ID])


def test_a_program_that_only_lists_still_tells_about_one_task(cli, creator):
    cli.has(row(ID, "running"))
    cli.fault("result-fails")
    cli.fault("status-fails")

    assert creator.status(ID).state is RemoteState.OPEN


def test_a_question_that_is_not_answered_in_time_is_given_up_and_its_program_killed(cli):
    cli.fault("list-hangs", "60")

    with pytest.raises(CreatorUnreachable, match=r"within 1\.5 s"):
        CliCreator(cli.path, timeout=1.5).statuses([ID])

    assert cli.calls
    assert not is_zombie_or_running(cli.calls[0]["pid"])


def test_a_program_that_prints_without_end_is_killed(cli, creator):
    cli.fault("list-shouts")

    with pytest.raises(CreatorUnclear, match="32 MiB"):
        creator.statuses([ID])

    assert not is_zombie_or_running(cli.calls[0]["pid"])


@pytest.mark.parametrize("name", ["", "-t", "--help", "a b", "x" * 256])
def test_an_id_that_could_be_an_option_is_never_asked_about(cli, creator, name):
    with pytest.raises(CreatorRefused):
        creator.status(name)
    assert cli.calls == []


# --- result and cancel ---------------------------------------------------------------------------------------


def test_the_result_is_all_but_the_article(cli, creator):
    cli.has(row(ID, "completed", wordCount=922, qualityScore=8.4, topic="T"))

    report = creator.result(ID)

    assert report.state is RemoteState.COMPLETED
    assert report.result == {"wordCount": 922, "qualityScore": 8.4}


def test_a_task_that_is_not_completed_has_no_result(cli, creator):
    cli.has(row(ID, "failed", errorMessage="LLM 失败"))

    report = creator.result(ID)

    assert report.state is RemoteState.FAILED
    assert report.result is None


def test_the_result_of_an_unknown_task_is_unclear(creator):
    with pytest.raises(CreatorUnclear):
        creator.result(ID)


def test_cancelling_does_nothing_and_says_so(cli, creator, caplog):
    with caplog.at_level("INFO", "flask_contenthub_webhook"):
        creator.cancel(ID)

    assert cli.calls == []
    assert "cannot cancel" in caplog.text
