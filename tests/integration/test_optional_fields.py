"""A finished job is kept whatever its other fields look like, by every way on which it can come."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_contenthub_webhook.creators import RemoteState, Report
from tests.support.host import Host, completed, encode, failed, progress
from tests.support.submission import BASE, own, reconcile, submit, sweep, with_own_creator

Build = Callable[..., Host]
TEXT = "the article that was paid for"
READ: dict[str, dict[str, Any]] = {
    "doubles": {"wordCount": 1200.0, "qualityScore": 8.0},
    "numbers as text": {"wordCount": "1200", "qualityScore": "8.4"},
    "PHP": {"images": {}, "metrics": []},
    "nulls": {"wordCount": None, "images": None, "metrics": None},
}
NOTED: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"metrics": {"stepsCompleted": 3}}, "`$.result.metrics.stepsCompleted` is a number, not a list"),
    "images": ({"images": "none"}, "`$.result.images` is text, not a list"),
    "score": ({"qualityScore": "good"}, "`$.result.qualityScore` is text, not a number"),
}
RESULTS = {name: (fields, None) for name, fields in READ.items()} | NOTED
WAYS = ("inline", "batch", "worker", "poll", "response")


def deliver(hosts: Build, url: str, way: str, result: dict[str, Any], **envelope: Any) -> tuple[Host, str]:
    """Let a completion arrive, and return the host and the task."""
    processing = "worker" if way == "worker" else "inline"
    host = hosts(url, WEBHOOK_PROCESSING=processing, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0)
    report = Report(state=RemoteState.COMPLETED, result=result, raw=encode(result))
    with_own_creator(host)
    own(host).on_submit = lambda _: report
    if way == "response":
        task_id = submit(host)
        sweep(host)
        return host, task_id
    name, now = str(uuid.uuid4()), host.clock.now
    own(host).known[name] = report
    task_id = host.add_task(
        creator_task_id=name, submitted_at=now, next_poll_at=now, deadline_at=now + timedelta(hours=1)
    )
    event = {**completed(task_id), "result": result, **envelope}
    if way == "poll":
        reconcile(host)
    elif way == "batch":
        assert (host.post_batch([event], scheme="contenthub").json or {})["success"]
    else:
        assert host.post(task_id, event).status_code == (202 if way == "worker" else 200)
    if way == "worker":
        host.retry()
    return host, task_id


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fields", RESULTS)
def test_a_finished_job_is_kept_whatever_its_other_fields_look_like(
    hosts: Build, sqlite_url: str, way: str, fields: str
):
    values, note = RESULTS[fields]
    host, task_id = deliver(hosts, sqlite_url, way, {"content": TEXT, **values})

    assert (host.task(task_id).status, host.task(task_id).error_code) == ("completed", None)
    assert host.contents(task_id) == [TEXT]
    delivery = next(row for row in host.deliveries(task_id) if row.event == "completed")
    assert delivery.reason == (note and f"Kept as it came: {note}.")


@pytest.mark.parametrize("way", ["inline", "batch", "worker"])
@pytest.mark.parametrize(
    ("envelope", "note"),
    [
        ({"status": "success"}, "`$.status` is text, not 'completed'"),
        ({"metadata": []}, None),
        ({"metadata": "none"}, "`$.metadata` is text, not an object"),
        ({"workflowType": 3}, "`$.workflowType` is a number, not text"),
        ({"timestamp": "2026-11-28 10:00:00 UTC"}, None),
        ({"timestamp": 1795860000000}, None),
    ],
    ids=str,
)
def test_a_finished_job_is_kept_whatever_its_envelope_looks_like(
    hosts: Build, sqlite_url: str, way: str, envelope: dict[str, Any], note: str | None
):
    host, task_id = deliver(hosts, sqlite_url, way, {"content": TEXT}, **envelope)

    (delivery,) = host.deliveries(task_id)
    assert (host.task(task_id).status, host.contents(task_id)) == ("completed", [TEXT])
    assert delivery.reason == (note and f"Kept as it came: {note}.")
    if "timestamp" in envelope:
        assert delivery.occurred_at == datetime(2026, 11, 28, 10, 0, 0, 0, UTC)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_read_or_kept_can_be_stored_on_every_database(hosts: Build, database_url: str, way: str):
    kept = {"content": TEXT, "images": ["a", 5], "metrics": {"stepsCompleted": 3}, "wordCount": -1}
    host, task_id = deliver(hosts, database_url, way, kept | {"qualityScore": "8.4"})

    assert host.task(task_id).result == kept | {"qualityScore": 8.4}
    delivery = next(row for row in host.deliveries(task_id) if row.event == "completed")
    assert all(name in delivery.reason for name in ("images[1]", "stepsCompleted", "wordCount"))


def test_the_answer_and_the_log_have_the_note(hosts: Build, sqlite_url: str, caplog: pytest.LogCaptureFixture):
    host = hosts(sqlite_url)
    task_id = host.add_task()
    with caplog.at_level("INFO", logger="flask_contenthub_webhook"):
        answer = host.post(task_id, completed(task_id, status="s3cret"))

    assert answer.json is not None
    assert answer.json["details"]["reason"] == "Kept as it came: `$.status` is text, not 'completed'."
    told = "Event completed: processed (Kept as it came: `$.status` is text, not 'completed'.)"
    assert any(line.startswith(told) for line in caplog.messages)
    assert "s3cret" not in caplog.text


def test_a_repeat_says_why_it_has_no_effect_and_what_could_not_be_read(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url)
    task_id = host.add_task()
    for _ in range(2):
        host.post(task_id, completed(task_id, status="success"))

    repeat = host.deliveries(task_id)[1]
    assert (repeat.verdict, host.contents(task_id)) == ("duplicate", host.contents(task_id)[:1])
    assert repeat.reason == "The task is already completed. Kept as it came: `$.status` is text, not 'completed'."


def test_a_failure_and_a_progress_are_read_as_well(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_MAX_RETRIES=0)
    task_id = host.add_task()
    report = {"percentage": "40", "totalSteps": "all"}
    assert host.post(task_id, progress(task_id, 1) | {"progress": report}).status_code == 200
    assert host.task(task_id).progress_percentage == 40
    assert host.post(task_id, failed(task_id) | {"error": "no luck", "metadata": []}).status_code == 200
    assert (host.task(task_id).status, host.task(task_id).error_message) == ("failed", "no luck")


def test_a_status_that_contradicts_the_event_is_refused(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url)
    task_id = host.add_task()

    answer = host.post(task_id, completed(task_id, status="failed"))

    assert (answer.status_code, host.task(task_id).status) == (400, "submitted")
