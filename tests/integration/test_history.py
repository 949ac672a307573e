"""The history: a row for every event that was believed, and a bounded record of what was refused."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from flask import Flask

from flask_contenthub_webhook import task_completed
from tests.support.host import (
    BODY_SCHEMES,
    OTHER_SECRET,
    PREFIX,
    SECRET,
    Host,
    completed,
    encode,
    failed,
    progress,
    signed,
)


def everything(row: Any) -> str:
    """All that a row holds, as text."""
    values = {column.key: getattr(row, column.key) for column in row.__table__.columns}
    values["body"] = (values["body"] or b"").decode(errors="replace")
    return json.dumps(values, default=str, ensure_ascii=False)


def test_a_believed_event_has_a_row_that_says_all(host: Host):
    task_id = host.add_task()
    body = encode(completed(task_id))
    started = host.clock.now

    answer = host.post(task_id, body, attempt=1, headers={"User-Agent": "content-creator/1.0"})
    (row,) = host.deliveries(task_id)

    assert answer.json is not None
    assert answer.json["delivery_id"] == row.id
    assert (row.event, row.attempt, row.source, row.scheme, row.verdict) == (
        "completed",
        1,
        "webhook",
        "url",
        "processed",
    )
    assert (row.status_before, row.status_after, row.late) == ("submitted", "completed", False)
    assert (row.body, row.tries, row.occurrences, row.error) == (body, 1, 1, None)
    assert (row.received_at, row.processed_at, row.latency_ms) == (started, started, 0)
    assert row.remote_addr == "127.0.0.1"
    assert row.headers["User-Agent"] == "content-creator/1.0"
    assert row.occurred_at.isoformat() == "2026-11-23T15:27:35.632000+00:00"


def test_every_event_has_a_row_with_its_verdict(host: Host):
    task_id = host.add_task()
    events = [
        (progress(task_id, 10), 1),
        (progress(task_id, 5), 1),
        (failed(task_id), 1),
        (failed(task_id), 1),
        (completed(task_id), 2),
        (completed(task_id), 2),
        (failed(task_id), 2),
    ]

    for event, attempt in events:
        host.post(task_id, event, attempt=attempt)
    rows = host.deliveries(task_id)

    assert [(row.event, row.verdict) for row in rows] == [
        ("progress", "processed"),
        ("progress", "ignored"),
        ("failed", "processed"),
        ("failed", "stale"),
        ("completed", "processed"),
        ("completed", "duplicate"),
        ("failed", "ignored"),
    ]
    assert all(row.reason for row in rows if row.verdict != "processed")


def test_the_latency_is_the_time_from_acceptance_to_the_change(host: Host):
    task_id = host.add_task()
    instants = iter([0.0, 0.25])

    def ticking() -> Any:
        host.clock.advance(next(instants, 0.0))
        return host.clock.now

    host.state.clock = ticking
    host.post(task_id, completed(task_id))

    assert host.deliveries(task_id)[0].latency_ms == pytest.approx(250)


def test_the_row_survives_the_rollback_of_the_handlers(host: Host):
    task_id = host.add_task()
    host.publisher.broken = True
    body = encode(completed(task_id))

    answer = host.post(task_id, body, attempt=1)
    (row,) = host.deliveries(task_id)

    assert answer.status_code == 500
    assert answer.json is not None
    assert answer.json["error"]["delivery_id"] == row.id
    assert (row.verdict, row.body, row.attempt, row.scheme) == ("failed", body, 1, "url")
    assert "the publisher is broken" in row.error
    assert "BrokenHandler" in row.error


def test_an_error_of_any_kind_can_be_kept(host: Host, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.CRITICAL, "flask_contenthub_webhook")  # what it says cannot leave a test process
    task_id = host.add_task()

    def bad(app: Flask, **extra: Any) -> None:
        raise ValueError("nul \0 and \ud800 and " + "x" * 50_000)

    host.connect(task_completed, bad)

    assert host.post(task_id, completed(task_id)).status_code == 500
    assert 0 < len(host.deliveries(task_id)[0].error) <= 10_000


# --- nothing secret ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", BODY_SCHEMES)
@pytest.mark.parametrize("spoiled", [False, True])
def test_no_signature_is_kept(host: Host, scheme: str, spoiled: bool):
    task_id = host.add_task()
    body = encode(completed(task_id))
    headers = signed(body, scheme, host.clock.now, secret=OTHER_SECRET if spoiled else SECRET)

    host.post(task_id, body, path=f"{PREFIX}/callback/{task_id}", headers=headers)

    (text,) = [everything(row) for row in host.deliveries()]
    proof = next(value for name, value in headers.items() if "signature" in name.lower())
    assert proof.removeprefix("v1,").removeprefix("sha256=") not in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "Cookie2",
        "X-Api-Key",
        "X-Auth-Token",
        "X-CSRFToken",
        "Client-Cert",
        "X-Session-Id",
        "X-Shared-Secret",
    ],
)
def test_headers_that_prove_who_somebody_is_are_redacted(sqlite_host: Host, name: str):
    task_id = sqlite_host.add_task()

    sqlite_host.post(task_id, completed(task_id), headers={name: "s3cr3t-s3cr3t"})
    (row,) = sqlite_host.deliveries(task_id)

    assert "s3cr3t" not in everything(row)
    assert "[redacted]" in row.headers.values()


@pytest.mark.parametrize("good", [True, False])
def test_the_token_of_the_url_is_kept_nowhere(host: Host, good: bool):
    task_id = host.add_task()
    path = host.path(task_id, 1)

    host.post(task_id, completed(task_id) if good else b"{}", path=path)

    (text,) = [everything(row) for row in host.deliveries()]
    assert host.token(task_id, 1) not in text


@pytest.mark.parametrize("name", ["Referer", "X-Original-URI", "X-Forwarded-Uri", "X-Original-URL", "X-Rewrite-Url"])
def test_the_token_is_not_kept_where_a_proxy_repeats_the_url_in_a_header(sqlite_host: Host, name: str):
    """nginx, Traefik and IIS tell the application the original URL, query included."""
    host, task_id = sqlite_host, sqlite_host.add_task()
    path = host.path(task_id, 1)

    assert host.post(task_id, completed(task_id), path=path, headers={name: path}).status_code == 200

    assert host.token(task_id, 1) not in everything(host.deliveries()[0])


def test_nothing_secret_is_logged(sqlite_host: Host, caplog: pytest.LogCaptureFixture):
    host, task_id = sqlite_host, sqlite_host.add_task()
    caplog.set_level("DEBUG", logger="flask_contenthub_webhook")

    host.post(task_id, completed(task_id, "the-body-text"), attempt=1)
    host.post(task_id, completed(task_id, "the-body-text"), path=f"{PREFIX}/callback/{task_id}?token=t0ken-t0ken")

    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert caplog.records
    for secret in (SECRET, host.token(task_id, 1), "t0ken-t0ken", "the-body-text"):
        assert secret not in logged


def test_headers_are_bounded_in_number_and_length(sqlite_host: Host):
    task_id = sqlite_host.add_task()
    headers = {f"X-Many-{index}": "v" * 5000 for index in range(200)}

    sqlite_host.post(task_id, completed(task_id), headers=headers)
    (row,) = sqlite_host.deliveries(task_id)

    assert len(row.headers) <= 64
    assert max(len(value) for value in row.headers.values()) <= 1000


# --- refused requests --------------------------------------------------------------------------------------------


def test_a_flood_of_forged_requests_leaves_a_few_rows_that_add_up(host: Host):
    """10,000 requests within 100 s of the moved clock."""
    task_id, client = host.add_task(), host.app.test_client()
    path, body = f"{PREFIX}/callback/{task_id}?token=forged", encode(completed(task_id))

    def forge() -> int:
        return client.post(path, data=body, content_type="application/json").status_code

    for _ in range(10_000):
        host.clock.advance(0.01)
        assert forge() == 401
    host.clock.advance(10)
    forge()
    rows = host.deliveries()

    assert len(rows) <= 2
    assert sum(row.occurrences for row in rows) == 10_001
    assert {(row.verdict, row.error, row.scheme) for row in rows} == {("rejected", "signature_invalid", None)}
    assert host.task(task_id).version == 1


def test_every_reason_has_a_row_of_its_own(sqlite_host: Host):
    host, task_id = sqlite_host, sqlite_host.add_task()
    bare = f"{PREFIX}/callback/{task_id}"

    for _ in range(3):
        host.post(task_id, completed(task_id), path=bare)
        host.post(task_id, completed(task_id), path=bare, content_type="text/plain")
        host.post(task_id, completed(task_id), path=f"{bare}?token=forged")

    assert sorted(row.error for row in host.deliveries()) == [
        "signature_invalid",
        "signature_missing",
        "unsupported_media_type",
    ]


def test_a_new_window_has_a_new_row(sqlite_host: Host):
    host, task_id = sqlite_host, sqlite_host.add_task()

    for _ in range(3):
        host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}")
        host.clock.advance(301)

    assert [row.occurrences for row in host.deliveries()] == [1, 1, 1]


def test_what_a_stranger_sent_is_kept_only_at_its_beginning(sqlite_host: Host):
    host, task_id = sqlite_host, sqlite_host.add_task()

    host.post(task_id, completed(task_id, "x" * 100_000), path=f"{PREFIX}/callback/{task_id}?token=forged")
    (row,) = host.deliveries()

    assert 0 < len(row.body) <= 4096


@pytest.mark.parametrize("task_id", ["x" * 3000, "键" * 300, "a%00b", "a%2Fb", "..%2F..", "%ff%fe", "%ed%a0%80"])
def test_a_refusal_for_a_strange_task_id_is_recorded(host: Host, task_id: str):
    answer = host.post("x", completed("x"), path=f"{PREFIX}/callback/{task_id}")

    assert answer.status_code == 403
    assert len(host.deliveries()) == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"a":NaN}', "invalid_json"),
        (b"{}", "invalid_payload"),
        (encode(failed("t") | {"error": 1}), "invalid_payload"),
    ],
)
def test_a_signed_request_that_is_invalid_has_a_row_of_its_own_with_its_body(host: Host, body: bytes, error: str):
    task_id = host.add_task()

    for _ in range(2):
        host.post_signed(task_id, body, "contenthub", attempt=1)
    rows = host.deliveries()

    assert [(row.verdict, row.error, row.scheme, row.body) for row in rows] == [
        ("rejected", error, "contenthub", body)
    ] * 2
    assert all(row.reason for row in rows)
    assert [row.task_id for row in rows] == [task_id] * 2


def test_a_believed_event_for_an_unknown_task_is_kept_whole(host: Host):
    unknown = "0b5f6a2e-7a0c-4b1e-9c65-2f6d4d6c7f10"
    body = encode(completed(unknown))

    assert host.post(unknown, body).status_code == 404
    assert [(row.error, row.body) for row in host.deliveries()] == [("task_not_found", body)]
