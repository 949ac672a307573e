"""Completed events: their SQL, their answer, their repeats and their races."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.core.state_machine import Trigger
from tests.support.answers import outcome
from tests.support.host import Host, at_once, completed, failed

Build = Callable[..., Host]


def test_a_completed_callback_costs_an_update_two_inserts_and_a_commit(host: Host):
    first, second = host.add_task(), host.add_task()
    host.post(first, completed(first))  # SQLAlchemy looks at a new connection once

    with host.statements() as statements:
        answer = host.post(second, completed(second), attempt=1)

    assert outcome(answer) == "processed"
    ours, theirs, commit = " ".join(statements[:-2]), *statements[-2:]
    reads = 1 if host.engine.dialect.name == "mysql" else 0  # where an UPDATE cannot return the row
    assert len(statements) <= 4 + reads  # PostgreSQL can do the first two in one
    assert ours.count("UPDATE content_generation_tasks SET") == ours.count("INSERT INTO webhook_deliveries") == 1
    assert ours.count("SELECT content_generation_tasks") == reads
    assert theirs.startswith("INSERT INTO contents")
    assert commit == "COMMIT"


def test_a_repeat_costs_a_statement_less_where_one_can_tell_it_from_the_first(host: Host):
    task_id = host.add_task()
    host.post(task_id, completed(task_id))

    with host.statements() as statements:
        answer = host.post(task_id, completed(task_id), attempt=1)

    assert outcome(answer) == "duplicate"
    steps = ["WITH"] if host.engine.dialect.name == "postgresql" else ["UPDATE", "INSERT"]
    assert [statement.split()[0] for statement in statements] == [*steps, "COMMIT"]


def test_psycopg_can_keep_what_it_makes_of_each_statement(hosts: Build, postgres_url: str):
    """It keeps nothing of one with more than 4,096 characters or 50 parameters, which would cost 0.1 ms each time."""
    for processing in ("inline", "worker"):
        host = hosts(postgres_url, WEBHOOK_PROCESSING=processing)
        sent: list[tuple[str, int]] = []

        def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            sent.append((statement, len(parameters)))  # noqa: B023

        sa.event.listen(host.engine, "before_cursor_execute", note)
        task_id = host.add_task()
        for event in (completed(task_id), completed(task_id)):
            assert host.post(task_id, event, attempt=1).status_code in {200, 202}
        with host.app.app_context():
            host.webhook.retry_due_deliveries()
        assert len(sent) > 3
        assert [statement for statement, bound in sent if len(statement) > 4096 or bound > 50] == []


def test_the_answer_has_the_shape_of_the_contract(host: Host):
    task_id = host.add_task()

    answer = host.post(task_id, completed(task_id), attempt=1)

    assert answer.mimetype == "application/json"
    assert answer.json is not None
    assert answer.json == {
        "success": True,
        "message": "The event was applied.",
        "outcome": "processed",
        "delivery_id": host.deliveries()[0].id,
        "details": answer.json["details"],
    }
    assert answer.json["details"]["status"] == "completed"


def test_a_second_completion_is_a_duplicate_and_answers_200(host: Host):
    task_id = host.add_task()

    answers = [host.post(task_id, completed(task_id, text), attempt=1) for text in ("one", "one", "two")]

    assert [outcome(answer) for answer in answers] == ["processed", "duplicate", "duplicate"]
    assert host.contents() == ["one"]


@pytest.mark.parametrize("copies", [8])
def test_completions_at_the_same_moment_have_one_effect(server_host: Host, copies: int):
    host, task_id = server_host, server_host.add_task()

    answers = at_once(*[lambda: host.post(task_id, completed(task_id), attempt=1)] * copies)

    assert [answer.status_code for answer in answers] == [200] * copies
    assert sorted(answer.json["outcome"] for answer in answers) == ["duplicate"] * (copies - 1) + ["processed"]
    assert len(host.contents()) == 1


@pytest.mark.parametrize("status", ["failed", "timeout"])
def test_a_late_completion_counts_and_says_so(host: Host, status: str):
    task_id = host.add_task(status=status, error_code="OLD", error_message="old")

    answer = host.post(task_id, completed(task_id), attempt=1)
    task = host.task(task_id)

    assert outcome(answer) == "processed"
    assert answer.json is not None
    assert answer.json["details"]["late"] is True
    assert host.deliveries(task_id)[0].late
    assert (task.status, task.previous_status, task.error_code, task.error_message) == ("completed", status, None, None)
    assert len(host.contents()) == 1


def test_a_completion_of_an_older_attempt_counts(host: Host):
    task_id = host.add_task(attempt=3, status="pending")

    assert outcome(host.post(task_id, completed(task_id), attempt=1)) == "processed"
    assert host.task(task_id).status == "completed"


def test_a_completion_after_a_cancellation_is_recorded_and_ignored(host: Host):
    task_id = host.add_task()
    host.trigger(task_id, Trigger.CANCELLED)

    assert outcome(host.post(task_id, completed(task_id), attempt=1)) == "ignored"
    assert host.contents() == []
    assert [row.verdict for row in host.deliveries(task_id)][-1] == "ignored"


@pytest.mark.parametrize("content", [None, "", "   "])
def test_a_completion_without_content_fails_the_task_for_good(host: Host, content: str | None):
    task_id = host.add_task()

    answer = host.post(task_id, completed(task_id, content), attempt=1)
    task = host.task(task_id)

    assert outcome(answer) == "processed"
    assert (task.status, task.error_code, task.attempt) == ("failed", "INVALID_RESULT", 1)
    assert "content" in task.error_message
    assert host.contents() == []


def test_a_thin_completion_of_an_older_attempt_fails_no_newer_one(host: Host):
    task_id = host.add_task(attempt=2)

    assert outcome(host.post(task_id, completed(task_id, None), attempt=1)) == "stale"
    assert host.task(task_id).status == "submitted"


def test_a_completed_task_is_not_polled_any_more(host: Host):
    task_id = host.add_task()
    host.post(task_id, completed(task_id), attempt=1)
    task = host.task(task_id)

    assert (task.next_poll_at, task.next_submit_at, task.finished_at) == (None, None, host.clock.now)


def test_only_the_chosen_result_fields_are_stored_and_handlers_get_all(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_STORED_RESULT_FIELDS="wordCount,cover")
    task_id = host.add_task()

    host.post(task_id, completed(task_id, "text"))

    assert host.task(task_id).result == {"wordCount": 3}
    assert host.contents() == ["text"]


def test_fields_within_the_result_are_chosen_and_required_by_their_paths(hosts: Build, sqlite_url: str):
    host = hosts(
        sqlite_url,
        WEBHOOK_STORED_RESULT_FIELDS=["metrics.cost", "metrics.duration", "content.none"],
        WEBHOOK_REQUIRED_RESULT_FIELDS="content,metrics.cost",
    )
    whole, thin = host.add_task(), host.add_task()
    without_cost = completed(thin)
    del without_cost["result"]["metrics"]["cost"]

    host.post(whole, completed(whole))
    host.post(thin, without_cost)

    assert host.task(whole).result == {"metrics": {"cost": 0.01, "duration": 900}}
    assert (host.task(thin).status, host.task(thin).error_code) == ("failed", "INVALID_RESULT")


def test_a_failure_racing_a_completion_leaves_one_truth(server_host: Host):
    host = server_host
    for _ in range(5):
        task_id = host.add_task(max_retries=0)

        answers = at_once(
            *[lambda task_id=task_id: host.post(task_id, completed(task_id), attempt=1)] * 3,
            *[lambda task_id=task_id: host.post(task_id, failed(task_id), attempt=1)] * 3,
        )

        assert [answer.status_code for answer in answers] == [200] * 6
        assert host.task(task_id).status == "completed"
        assert len(host.contents(task_id)) == 1
