"""The way of a callback, in process: the order of the checks, the state machine, batches, and the SQL of it all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_contenthub_webhook import WebhookHandler, task_failed, task_progress
from flask_contenthub_webhook.core.state_machine import Trigger
from tests.support.host import (
    BODY_SCHEMES,
    OTHER_SECRET,
    PREFIX,
    Capture,
    Host,
    at_once,
    captures,
    completed,
    custom,
    encode,
    failed,
    progress,
    signed,
)

Build = Callable[..., Host]
CAPTURES = captures()


def code(answer: Any) -> str:
    return str(answer.json["error"]["code"])


def outcome(answer: Any) -> str:
    assert answer.status_code == 200, answer.json
    return str(answer.json["outcome"])


def untouched(host: Host, task_id: str) -> bool:
    task = host.task(task_id)
    return (task.status, task.version, task.attempt) == ("submitted", 1, 1) and host.contents() == []


# --- the order of the checks -------------------------------------------------------------------------------------


def test_a_request_that_violates_much_is_answered_by_the_earliest_check(hosts: Build, sqlite_url: str):
    """One request that is wrong in every respect is mended step by step; the answer moves on by one check each time."""
    host = hosts(
        sqlite_url,
        WEBHOOK_ENABLED=False,
        WEBHOOK_MAX_BODY_BYTES=4096,
        WEBHOOK_ALLOWED_IPS="192.0.2.0/24",
        WEBHOOK_CLIENT_CERTS="any",
        WEBHOOK_TRUSTED_PROXIES="192.0.2.0/24",
        WEBHOOK_RATE_LIMIT="3/minute",
        WEBHOOK_EVENTS="known",
    )
    task_id = host.add_task()
    large, small = b"[" * 5000, b"["
    wanted: dict[str, Any] = {"body": large, "type": "text/plain", "path": f"{PREFIX}/callback/nobody", "headers": {}}
    wanted["address"] = "203.0.113.9"

    def ask(**changes: Any) -> tuple[int, str]:
        wanted.update(changes)
        answer = host.app.test_client().post(
            wanted["path"],
            data=wanted["body"],
            content_type=wanted["type"],
            headers=wanted["headers"],
            environ_base={"REMOTE_ADDR": wanted["address"]},
        )
        return answer.status_code, code(answer)

    def by_token(path_id: str, query: str = "") -> str:
        return f"{PREFIX}/callback/{path_id}?token={host.token(path_id)}{query}"

    assert ask() == (404, "webhook_disabled")
    host.state.settings = replace(host.state.settings, enabled=True)
    assert ask() == (413, "payload_too_large")
    assert ask(body=small) == (415, "unsupported_media_type")
    assert ask(type="application/json") == (403, "address_not_allowed")
    assert ask(address="192.0.2.1") == (403, "client_certificate_required")
    assert ask(headers={"Client-Cert": ":AAAA:"}) == (403, "signature_missing")
    assert ask(path=f"{PREFIX}/callback/nobody?token=wrong") == (401, "signature_invalid")
    assert ask(path=by_token("nobody")) == (400, "invalid_json")
    assert ask(address="192.0.2.1") == (429, "rate_limited")
    assert ask(address="192.0.2.2", body=b"{}") == (400, "invalid_payload")
    assert ask(body=encode(custom("t", "unheard"))) == (400, "unknown_event")
    assert ask(body=encode(custom("t", "known"))) == (404, "task_not_found")
    body = encode(custom("another", "known"))
    headers = {"Client-Cert": ":AAAA:", **signed(body, "contenthub", host.clock.now)}
    assert ask(address="192.0.2.3", path=f"{PREFIX}/callback/{task_id}", body=body, headers=headers) == (
        409,
        "task_mismatch",
    )
    assert untouched(host, task_id)


def test_the_rate_limit_says_when_to_come_again(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_RATE_LIMIT="1/minute")
    task_id = host.add_task()
    host.post(task_id, completed(task_id))

    answer = host.post(task_id, completed(task_id))

    assert (answer.status_code, code(answer)) == (429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 61


def test_a_disabled_host_takes_no_callbacks_and_no_batches(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_ENABLED=False)
    task_id = host.add_task()

    for answer in (host.post(task_id, completed(task_id)), host.post_batch([], scheme="contenthub")):
        assert (answer.status_code, code(answer)) == (404, "webhook_disabled")
    assert untouched(host, task_id)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/ld+json"]
)
def test_json_types_are_accepted(sqlite_host: Host, content_type: str):
    task_id = sqlite_host.add_task()

    assert outcome(sqlite_host.post(task_id, completed(task_id), content_type=content_type)) == "processed"


def test_every_type_that_ends_in_json_is_accepted(sqlite_host: Host):
    """DESIGN section 6, step 2: `*+json`."""
    task_id = sqlite_host.add_task()

    answer = sqlite_host.post(task_id, completed(task_id), content_type="model/vnd.creator+json")

    assert outcome(answer) == "processed"


@pytest.mark.parametrize("content_type", [None, "text/json", "text/plain", "application/jsonp", "json", "a/b;x=+json"])
def test_other_types_are_not(sqlite_host: Host, content_type: str | None):
    task_id = sqlite_host.add_task()

    assert sqlite_host.post(task_id, completed(task_id), content_type=content_type).status_code == 415
    assert untouched(sqlite_host, task_id)


def test_a_body_of_the_largest_size_is_taken_and_one_byte_more_is_not(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_MAX_BODY_BYTES=2048)
    first, second = host.add_task(), host.add_task()
    exact = encode(completed(first)).ljust(2048)

    assert outcome(host.post(first, exact)) == "processed"
    assert host.post(second, encode(completed(second)).ljust(2049)).status_code == 413


@pytest.mark.parametrize("attempt", ["0", "-1", "1.5", "abc", "01", "", "9999999999"])
def test_an_attempt_that_is_no_number_is_never_taken_for_another(sqlite_host: Host, attempt: str):
    task_id = sqlite_host.add_task()
    path = f"{PREFIX}/callback/{task_id}?attempt={attempt}&token={sqlite_host.token(task_id)}"

    answer = sqlite_host.post(task_id, completed(task_id), path=path)

    assert (answer.status_code, code(answer)) == (400, "invalid_payload")
    assert untouched(sqlite_host, task_id)


# --- the routes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_trailing_slash_makes_no_redirect(sqlite_host: Host, slash: str):
    task_id = sqlite_host.add_task()
    path = f"{PREFIX}/callback/{task_id}{slash}?token={sqlite_host.token(task_id)}"

    assert outcome(sqlite_host.post(task_id, completed(task_id), path=path)) == "processed"


@pytest.mark.parametrize(
    "path", ["/callbacks/", "//callbacks", "/callback//x", "/callback/", "/callback", "//callback/x", "/callback/x//"]
)
def test_no_spelling_of_a_path_is_redirected(sqlite_host: Host, path: str):
    answer = sqlite_host.post("x", completed("x"), path=PREFIX + path)

    assert answer.status_code not in range(300, 400)
    assert answer.status_code < 500


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("enabled", [True, False])
def test_health_says_whether_webhooks_are_on(hosts: Build, sqlite_url: str, enabled: bool, slash: str):
    host = hosts(sqlite_url, WEBHOOK_ENABLED=enabled)

    with host.statements() as statements:
        answer = host.app.test_client().get(f"{PREFIX}/health{slash}")

    assert answer.status_code == 200
    assert answer.json is not None
    assert (answer.json["status"], answer.json["webhook_enabled"]) == ("ok", enabled)
    assert statements == []


def test_the_prefix_can_be_chosen(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_URL_PREFIX="/hooks")
    task_id = host.add_task()

    assert host.path(task_id).startswith("/hooks/callback/")
    assert outcome(host.post(task_id, completed(task_id))) == "processed"


def test_a_host_that_reads_the_body_first_does_not_lose_it(hosts: Build, sqlite_url: str):
    def read_early(app: Flask) -> None:
        app.before_request(lambda: request.get_data() and None)

    host = hosts(sqlite_url, before=read_early)
    task_id = host.add_task()

    assert outcome(host.post(task_id, completed(task_id))) == "processed"


def test_a_client_address_of_any_length_is_stored(hosts: Build, database_url: str):
    """Behind ProxyFix the address is what the proxy says it is."""

    def behind_a_proxy(app: Flask) -> None:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)  # type: ignore[method-assign]

    host = hosts(database_url, after=behind_a_proxy)
    task_id = host.add_task()

    answer = host.post(task_id, completed(task_id), headers={"X-Forwarded-For": "a" * 100})

    assert outcome(answer) == "processed"


# --- who is believed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", BODY_SCHEMES)
def test_a_signed_body_is_believed(host: Host, scheme: str):
    task_id = host.add_task()

    assert outcome(host.post_signed(task_id, completed(task_id), scheme)) == "processed"
    assert [row.scheme for row in host.deliveries(task_id)] == [scheme]


@pytest.mark.parametrize("scheme", BODY_SCHEMES)
def test_a_body_signed_with_another_secret_is_not(sqlite_host: Host, scheme: str):
    task_id = sqlite_host.add_task()
    body = encode(completed(task_id))
    headers = signed(body, scheme, sqlite_host.clock.now, secret=OTHER_SECRET)

    answer = sqlite_host.post(task_id, body, path=f"{PREFIX}/callback/{task_id}", headers=headers)

    assert (answer.status_code, code(answer)) == (401, "signature_invalid")
    assert untouched(sqlite_host, task_id)


@pytest.mark.parametrize("offset", [-301, 301])
def test_an_old_or_early_signature_is_expired(sqlite_host: Host, offset: float):
    task_id = sqlite_host.add_task()
    body = encode(completed(task_id))
    headers = signed(body, "standard", sqlite_host.clock.now)
    sqlite_host.clock.advance(-offset)

    answer = sqlite_host.post(task_id, body, path=f"{PREFIX}/callback/{task_id}", headers=headers)

    assert (answer.status_code, code(answer)) == (401, "signature_expired")


def test_an_unsigned_request_is_refused_where_signatures_are_required(host: Host):
    task_id = host.add_task()

    answer = host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}")

    assert (answer.status_code, code(answer)) == (403, "signature_missing")
    assert untouched(host, task_id)


def test_an_unsigned_request_is_taken_where_they_are_not(hosts: Build, database_url: str):
    host = hosts(database_url, WEBHOOK_REQUIRE_SIGNATURE=False)
    task_id = host.add_task()

    assert outcome(host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}")) == "processed"
    assert host.deliveries(task_id)[0].scheme is None


def test_a_wrong_signature_is_refused_even_where_none_is_required(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_REQUIRE_SIGNATURE=False)
    task_id = host.add_task()

    answer = host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}?token=wrong")

    assert answer.status_code == 401


@pytest.mark.parametrize(("signed_for", "sent_with"), [(1, 2), (1, None), (None, 1)])
def test_a_token_holds_for_its_own_attempt_alone(sqlite_host: Host, signed_for: int | None, sent_with: int | None):
    task_id = sqlite_host.add_task()
    attempt = "" if sent_with is None else f"&attempt={sent_with}"
    path = f"{PREFIX}/callback/{task_id}?token={sqlite_host.token(task_id, signed_for)}{attempt}"

    assert code(sqlite_host.post(task_id, completed(task_id), path=path)) == "signature_invalid"


def test_a_token_of_one_task_opens_no_other(sqlite_host: Host):
    mine, other = sqlite_host.add_task(), sqlite_host.add_task()
    path = f"{PREFIX}/callback/{other}?token={sqlite_host.token(mine)}"

    assert code(sqlite_host.post(other, completed(other), path=path)) == "signature_invalid"
    assert untouched(sqlite_host, other)


def test_an_earlier_secret_still_opens_after_a_rotation(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url)
    task_id = host.add_task()
    path = host.path(task_id)
    host.state.settings = replace(host.state.settings, secrets=(OTHER_SECRET, *host.state.settings.secrets))

    assert outcome(host.post(task_id, completed(task_id), path=path)) == "processed"


@pytest.mark.parametrize("known", [True, False])
def test_a_stranger_learns_nothing_and_reaches_no_task(host: Host, known: bool):
    task_id = host.add_task()
    asked = task_id if known else "0b5f6a2e-7a0c-4b1e-9c65-2f6d4d6c7f10"

    with host.statements() as statements:
        answer = host.post(asked, completed(asked), path=f"{PREFIX}/callback/{asked}")

    assert answer.status_code == 403
    assert answer.json == {
        "success": False,
        "error": {
            "code": "signature_missing",
            "message": "The request carries no signature, and this application requires one.",
        },
    }
    assert not [statement for statement in statements if "content_generation_tasks" in statement]


# --- whose event it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [*BODY_SCHEMES, "unsigned"])
@pytest.mark.parametrize("make", [completed, failed, lambda task_id: progress(task_id, 50)])
def test_a_body_about_one_task_changes_no_other(hosts: Build, database_url: str, scheme: str, make: Any):
    host = hosts(database_url, WEBHOOK_REQUIRE_SIGNATURE=False)
    mine, other = host.add_task(), host.add_task(creator_task_id="creator-of-other")

    if scheme == "unsigned":
        answer = host.post(other, make(mine), path=f"{PREFIX}/callback/{other}")
    else:
        answer = host.post_signed(other, make(mine), scheme)

    assert (answer.status_code, code(answer)) == (409, "task_mismatch")
    assert untouched(host, other)
    assert untouched(host, mine)


def test_a_completion_for_another_task_is_refused_on_a_finished_task_too(host: Host):
    mine, other = host.add_task(), host.add_task()
    host.post(other, completed(other))

    assert host.post_signed(other, completed(mine), "contenthub").status_code == 409


@pytest.mark.parametrize("name", ["creator-1", "creator-2"])
def test_the_creators_names_of_the_task_are_its_own(host: Host, name: str):
    task_id = host.add_task(creator_task_id="creator-2", earlier_creator_task_ids=["creator-1"], attempt=2)

    assert outcome(host.post_signed(task_id, completed(name), "contenthub")) == "processed"


@pytest.mark.parametrize("scheme", BODY_SCHEMES)
@pytest.mark.parametrize("attempt", [None, 1, 2, 3])
def test_a_signed_body_speaks_for_the_attempt_whose_name_it_holds_whatever_the_url_says(
    host: Host, scheme: str, attempt: int | None
):
    """The query is not signed: an old failure, sent again to another attempt's URL, must not fail that one."""
    task_id = host.add_task(creator_task_id="creator-2", earlier_creator_task_ids=["creator-1"], attempt=2)

    answer = host.post_signed(task_id, failed("creator-1"), scheme, attempt=attempt)

    assert outcome(answer) == "stale"
    assert host.task(task_id).attempt == 2


def test_the_token_vouches_for_the_path_whatever_the_body_calls_the_task(host: Host):
    task_id = host.add_task()

    assert outcome(host.post(task_id, completed("order-42"), attempt=1)) == "processed"


# --- the real requests -------------------------------------------------------------------------------------------


def deliver(host: Host, task_id: str, capture: Capture, attempt: int | None = 1) -> Any:
    return host.app.test_client().post(host.path(task_id, attempt), data=capture.body, headers=capture.headers)


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=lambda capture: capture.name)
def test_every_real_request_ends_in_the_state_of_the_design(host: Host, capture: Capture):
    task_id = host.add_task()

    answer = deliver(host, task_id, capture)
    task = host.task(task_id)

    assert outcome(answer) == "processed"
    if capture.event["event"] == "failed":
        assert (task.status, task.attempt) == ("pending", 2)
        assert task.error_message == capture.event["error"]["message"]
    elif "content" in capture.event["result"]:
        assert (task.status, task.result) == ("completed", capture.event["result"])
        assert host.contents() == [capture.event["result"]["content"]]
    else:
        assert (task.status, task.error_code) == ("failed", "INVALID_RESULT")
    assert [row.body for row in host.deliveries()] == [capture.body]


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=lambda capture: capture.name)
def test_every_real_request_is_refused_without_its_token(sqlite_host: Host, capture: Capture):
    task_id = sqlite_host.add_task()

    answer = sqlite_host.app.test_client().post(
        f"{PREFIX}/callback/{task_id}", data=capture.body, headers=capture.headers
    )

    assert (answer.status_code, code(answer)) == (403, "signature_missing")
    assert untouched(sqlite_host, task_id)


def test_the_real_failed_then_completed_ends_completed(host: Host):
    task_id = host.add_task(max_retries=0)

    assert outcome(deliver(host, task_id, CAPTURES["failed-then-completed-1-failed"])) == "processed"
    answer = deliver(host, task_id, CAPTURES["failed-then-completed-2-completed"])

    assert outcome(answer) == "processed"
    assert answer.json is not None
    assert answer.json["details"]["late"] is True
    assert (host.task(task_id).status, host.task(task_id).error_code) == ("completed", None)
    assert len(host.contents()) == 1


def test_the_real_completed_then_failed_stays_completed(host: Host):
    task_id = host.add_task()

    deliver(host, task_id, CAPTURES["completed-before-duplicate"])
    answer = deliver(host, task_id, CAPTURES["failed-duplicate-idempotency-key"])

    assert outcome(answer) == "ignored"
    assert (host.task(task_id).status, len(host.contents())) == ("completed", 1)


def test_the_real_retry_of_a_delivery_is_a_duplicate(host: Host):
    task_id = host.add_task()

    first = deliver(host, task_id, CAPTURES["retry-503-attempt-1"])
    second = deliver(host, task_id, CAPTURES["retry-503-attempt-2"])

    assert (outcome(first), outcome(second)) == ("processed", "duplicate")


# --- completed ---------------------------------------------------------------------------------------------------


def test_a_completed_callback_costs_an_update_two_inserts_and_a_commit(host: Host):
    first, second = host.add_task(), host.add_task()
    host.post(first, completed(first))  # SQLAlchemy looks at a new connection once

    with host.statements() as statements:
        answer = host.post(second, completed(second), attempt=1)

    assert outcome(answer) == "processed"
    ours, theirs, commit = " ".join(statements[:-2]), *statements[-2:]
    assert len(statements) <= 4  # PostgreSQL can do the first two in one
    assert ours.count("UPDATE content_generation_tasks SET") == ours.count("INSERT INTO webhook_deliveries") == 1
    assert ours.count("SELECT content_generation_tasks") == 0
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
def test_completions_at_the_same_moment_have_one_effect(postgres_host: Host, copies: int):
    host, task_id = postgres_host, postgres_host.add_task()

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


def test_a_failure_racing_a_completion_leaves_one_truth(postgres_host: Host):
    host = postgres_host
    for _ in range(5):
        task_id = host.add_task(max_retries=0)

        answers = at_once(
            *[lambda task_id=task_id: host.post(task_id, completed(task_id), attempt=1)] * 3,
            *[lambda task_id=task_id: host.post(task_id, failed(task_id), attempt=1)] * 3,
        )

        assert [answer.status_code for answer in answers] == [200] * 6
        assert host.task(task_id).status == "completed"
        assert len(host.contents(task_id)) == 1


# --- failed ------------------------------------------------------------------------------------------------------


def test_a_failure_with_retries_left_makes_the_next_attempt_due_after_the_backoff(host: Host):
    task_id = host.add_task(creator_task_id="creator-1")

    answer = host.post(task_id, failed(task_id), attempt=1)
    task = host.task(task_id)
    wait = (task.next_submit_at - host.clock.now).total_seconds()

    assert outcome(answer) == "processed"
    assert answer.json is not None
    assert answer.json["details"]["will_retry"] is True
    assert (task.status, task.attempt) == ("pending", 2)
    assert task.creator_task_id != "creator-1"  # none, or a fresh one
    assert task.earlier_creator_task_ids == ["creator-1"]
    assert 27 <= wait <= 33
    assert task.next_poll_at > task.next_submit_at


@pytest.mark.parametrize(("attempt", "low", "high"), [(1, 27, 33), (2, 54, 66), (3, 108, 132), (4, 108, 132)])
def test_every_attempt_waits_longer_than_the_one_before(host: Host, attempt: int, low: float, high: float):
    task_id = host.add_task(attempt=attempt, max_retries=9)

    host.post(task_id, failed(task_id), attempt=attempt)

    assert low <= (host.task(task_id).next_submit_at - host.clock.now).total_seconds() <= high


def test_a_failure_without_retries_left_is_final(host: Host):
    task_id = host.add_task(attempt=4)

    host.post(task_id, failed(task_id, "no more"), attempt=4)
    task = host.task(task_id)

    assert (task.status, task.error_code, task.error_message) == ("failed", "execution_error", "no more")


def test_a_failure_that_cannot_be_retried_is_final(host: Host):
    task_id = host.add_task()

    host.post(task_id, failed(task_id, retryable=False), attempt=1)

    assert host.task(task_id).status == "failed"


def test_four_identical_failures_without_an_attempt_are_one(host: Host):
    task_id = host.add_task()

    answers = [host.post(task_id, failed(task_id)) for _ in range(4)]

    assert [outcome(answer) for answer in answers] == ["processed", "duplicate", "duplicate", "duplicate"]
    assert host.task(task_id).attempt == 2


def test_four_identical_failures_at_the_same_moment_are_one(postgres_host: Host):
    host = postgres_host
    for _ in range(5):
        task_id = host.add_task()

        answers = at_once(*[lambda task_id=task_id: host.post(task_id, failed(task_id))] * 4)

        assert sorted(outcome(answer) for answer in answers) == ["duplicate"] * 3 + ["processed"]
        assert host.task(task_id).attempt == 2


def test_four_identical_failures_of_one_attempt_are_one(host: Host):
    task_id = host.add_task()

    answers = [host.post(task_id, failed(task_id), attempt=1) for _ in range(4)]

    assert [outcome(answer) for answer in answers] == ["processed", "stale", "stale", "stale"]
    assert host.task(task_id).attempt == 2


def test_two_different_failures_without_an_attempt_are_two(host: Host):
    task_id = host.add_task()

    assert [outcome(host.post(task_id, failed(task_id, text))) for text in "ab"] == ["processed", "processed"]
    assert host.task(task_id).attempt == 3


def test_identical_failures_of_two_attempts_are_two_under_message_ids_too(host: Host):
    """The attempt tells them apart, and so do the message ids."""
    task_id, event = host.add_task(), failed("t")
    event["taskId"] = task_id

    first = host.post_signed(task_id, event, "standard", attempt=1, message_id="msg-1")
    second = host.post_signed(task_id, event, "standard", attempt=2, message_id="msg-2")

    assert (outcome(first), outcome(second)) == ("processed", "processed")
    assert host.task(task_id).attempt == 3


def test_an_error_code_that_is_null_gives_way_to_the_type(host: Host):
    task_id, event = host.add_task(), failed("t")
    event["error"]["code"] = None

    host.post(task_id, event, attempt=1)

    assert host.task(task_id).error_code == "execution_error"


# --- progress ----------------------------------------------------------------------------------------------------


def test_progress_is_stored_every_time_and_only_forwards(host: Host):
    task_id = host.add_task()
    seen = []
    host.connect(task_progress, lambda app, *, progress, **extra: seen.append(progress["percentage"]))

    answers = [host.post(task_id, progress(task_id, value), attempt=1) for value in (10, 40, 20, 40, 90)]
    task = host.task(task_id)

    assert [outcome(answer) for answer in answers] == ["processed", "processed", "ignored", "ignored", "processed"]
    assert (task.status, task.progress_percentage, task.progress["percentage"]) == ("processing", 90, 90)
    assert seen == [10, 40, 90]


def test_progress_puts_off_the_poll(host: Host):
    task_id = host.add_task()
    host.clock.advance(100)

    host.post(task_id, progress(task_id, 10), attempt=1)

    assert (host.task(task_id).next_poll_at - host.clock.now).total_seconds() == 120


def test_progress_begins_anew_with_the_next_attempt(host: Host):
    task_id = host.add_task()
    host.post(task_id, progress(task_id, 90), attempt=1)
    host.post(task_id, failed(task_id), attempt=1)

    assert host.task(task_id).progress_percentage is None
    assert outcome(host.post(task_id, progress(task_id, 5), attempt=2)) == "processed"
    assert outcome(host.post(task_id, progress(task_id, 95), attempt=1)) == "stale"


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai", "America/New_York"])
def test_a_time_at_the_end_of_the_calendar_does_not_block_the_task(
    hosts: Build, postgres_url: str, timestamp: str, zone: str
):
    host = hosts(
        postgres_url, engine_options={"connect_args": {"options": f"-c timezone={zone}"}}
    )  # what the server's administrator may have set
    task_id = host.add_task()

    assert host.post(task_id, progress(task_id, 10, timestamp=timestamp), attempt=1).status_code in {200, 400}
    assert outcome(host.post(task_id, completed(task_id), attempt=1)) == "processed"


# --- custom events -----------------------------------------------------------------------------------------------


def test_a_custom_event_reaches_its_handlers_once_and_changes_no_state(host: Host):
    task_id, seen = host.add_task(), []

    @host.webhook.on("illustrated")
    def on_illustrated(app: Flask, *, task: Any, event: Any, delivery: Any, **extra: Any) -> None:
        seen.append((task.task_id, event.payload["images"], delivery.event))
        host.db.session.add(host.Content(task_id=task.task_id, body="image"))

    event = custom(task_id, "illustrated", images=3)
    answers = [host.post(task_id, event, attempt=1) for _ in range(3)]

    assert [outcome(answer) for answer in answers] == ["processed", "duplicate", "duplicate"]
    assert seen == [(task_id, 3, "illustrated")]
    assert host.contents() == ["image"]
    assert host.task(task_id).status == "submitted"


def test_a_custom_event_at_the_same_moment_has_one_effect(postgres_host: Host):
    host, task_id = postgres_host, postgres_host.add_task()

    @host.webhook.on("illustrated")
    def on_illustrated(app: Flask, *, task: Any, **extra: Any) -> None:
        host.db.session.add(host.Content(task_id=task.task_id, body="image"))

    answers = at_once(*[lambda: host.post(task_id, custom(task_id, "illustrated"))] * 6)

    assert [answer.status_code for answer in answers] == [200] * 6
    assert host.contents() == ["image"]


def test_a_filter_chooses_among_the_events_of_a_type(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []
    host.webhook.on("scored", where={"score": [9, 10]})(lambda app, *, event, **extra: seen.append("top"))
    host.webhook.on("scored")(lambda app, *, event, **extra: seen.append("all"))

    for score in (3, 10):
        assert outcome(host.post(task_id, custom(task_id, "scored", score=score))) == "processed"

    assert seen == ["all", "top", "all"]


def test_a_subscription_to_a_built_in_event_works_with_a_filter(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []
    host.webhook.on("completed", where={"result.wordCount": 3})(lambda app, *, task, **extra: seen.append(task.status))

    host.post(task_id, completed(task_id))

    assert seen == ["completed"]


def test_a_configured_custom_event_is_recorded_without_a_handler(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_EVENTS="illustrated")
    task_id = host.add_task(status="completed")

    assert outcome(host.post(task_id, custom(task_id, "illustrated"))) == "processed"
    assert host.task(task_id).status == "completed"


def test_an_event_type_that_no_history_could_hold_is_refused_when_it_is_subscribed_to(sqlite_host: Host):
    """A longer one would make PostgreSQL refuse the history row: a 503 for every such callback, for ever."""
    with pytest.raises(ValueError, match="64"):
        sqlite_host.webhook.on("x" * 65)


# --- message ids -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [failed, lambda task_id: progress(task_id, 50), lambda task_id: custom(task_id, "known")]
)
def test_a_message_id_that_came_before_is_a_duplicate_even_with_another_body(
    hosts: Build, database_url: str, make: Any
):
    host = hosts(database_url, WEBHOOK_EVENTS="known")
    task_id = host.add_task()
    first, second = make(task_id), make(task_id)
    second["metadata"] = {"sent": "again"}

    answers = [host.post_signed(task_id, event, "standard", message_id="msg-1") for event in (first, second)]

    assert [outcome(answer) for answer in answers] == ["processed", "duplicate"]


def test_the_same_message_id_about_another_task_is_no_duplicate(host: Host):
    first, second = host.add_task(), host.add_task()

    answers = [host.post_signed(task, failed(task), "standard", message_id="msg-1") for task in (first, second)]

    assert [outcome(answer) for answer in answers] == ["processed", "processed"]


# --- from Python -------------------------------------------------------------------------------------------------


def test_the_handler_of_the_original_takes_all_three_events(host: Host):
    task_id, handler = host.add_task(), WebhookHandler(host.app)

    assert handler.handle_task_progress(task_id, {"progress": {"percentage": 5}}).verdict == "processed"
    assert handler.handle_task_failed(task_id, {"error": {"message": "x"}}).will_retry
    assert handler.handle_task_completed(task_id, {"result": {"content": "text"}}).status == "completed"
    assert host.contents() == ["text"]
    assert [row.source for row in host.deliveries(task_id)] == ["host"] * 3


def test_a_failure_that_the_host_hands_over_twice_is_one(host: Host):
    task_id, handler = host.add_task(), WebhookHandler(host.app)

    verdicts = [handler.handle_task_failed(task_id, failed(task_id)).verdict for _ in range(2)]

    assert verdicts == ["processed", "duplicate"]
    assert host.task(task_id).attempt == 2


# --- batches -----------------------------------------------------------------------------------------------------


def test_a_signed_batch_has_a_verdict_for_each_event_in_order(host: Host):
    done, fresh, bad = host.add_task(status="completed"), host.add_task(), host.add_task()
    events = [
        completed(done),
        completed(fresh),
        failed(bad),
        "no object",
        completed("unknown"),
        {"taskId": fresh},
        custom(fresh, "unheard"),
        completed(fresh),
    ]

    answer = host.post_batch(events, scheme="contenthub")

    assert answer.status_code == 200
    assert answer.json is not None
    results = answer.json["results"]
    assert [item.get("outcome") or item["error"]["code"] for item in results] == [
        "duplicate",
        "processed",
        "processed",
        "invalid_payload",
        "task_not_found",
        "invalid_payload",
        "unknown_event",
        "duplicate",
    ]
    assert answer.json["success"] is False
    assert (host.task(fresh).status, host.task(bad).status, len(host.contents())) == ("completed", "pending", 1)


@pytest.mark.parametrize("scheme", BODY_SCHEMES)
def test_a_batch_is_believed_by_any_signature_over_its_body(sqlite_host: Host, scheme: str):
    task_id = sqlite_host.add_task()

    answer = sqlite_host.post_batch([completed(task_id)], scheme=scheme)

    assert answer.json is not None
    assert answer.json["results"][0]["outcome"] == "processed"


def test_an_event_that_fails_in_its_handler_spoils_no_other(host: Host):
    first, second = host.add_task(), host.add_task()

    def picky(app: Flask, *, task: Any, **extra: Any) -> None:
        if task.task_id == first:
            raise RuntimeError("not this one")

    host.connect(task_failed, picky)
    answer = host.post_batch([failed(first), failed(second)], scheme="contenthub")

    assert answer.status_code == 200
    assert answer.json is not None
    assert [item["success"] for item in answer.json["results"]] == [False, True]
    assert answer.json["results"][0]["error"]["code"] == "handler_failed"
    assert (host.task(first).status, host.task(second).status) == ("submitted", "pending")


def test_each_event_of_a_batch_is_committed_by_itself(sqlite_host: Host):
    tasks = [sqlite_host.add_task() for _ in range(3)]

    with sqlite_host.statements() as statements:
        sqlite_host.post_batch([completed(task_id) for task_id in tasks], scheme="contenthub")

    assert statements.count("COMMIT") == 3


def test_an_unsigned_batch_is_believed_item_by_item(host: Host):
    mine, other, none = host.add_task(), host.add_task(), host.add_task()
    events = [
        {**completed(mine), "attempt": 1, "token": host.token(mine, 1)},
        {**completed(other), "attempt": 2, "token": host.token(other, 1)},
        completed(none),
    ]

    answer = host.post_batch(events)

    assert answer.status_code == 200
    assert answer.json is not None
    assert [item.get("outcome") or item["error"]["code"] for item in answer.json["results"]] == [
        "processed",
        "signature_invalid",
        "signature_missing",
    ]
    assert (host.task(mine).status, untouched_status(host, other), untouched_status(host, none)) == (
        "completed",
        "submitted",
        "submitted",
    )


def untouched_status(host: Host, task_id: str) -> str:
    return str(host.task(task_id).status)


def test_a_batch_with_a_wrong_signature_is_refused_whole(sqlite_host: Host):
    task_id = sqlite_host.add_task()
    body = encode({"events": [completed(task_id)]})
    headers = signed(body, "contenthub", sqlite_host.clock.now, secret=OTHER_SECRET)

    answer = sqlite_host.app.test_client().post(
        f"{PREFIX}/callbacks", data=body, headers=headers, content_type="application/json"
    )

    assert answer.status_code == 401
    assert untouched(sqlite_host, task_id)


def test_a_stranger_with_a_batch_reaches_no_task(host: Host):
    task_id = host.add_task()

    with host.statements() as statements:
        host.post_batch([completed(task_id), completed("unknown")])

    assert not [statement for statement in statements if "content_generation_tasks" in statement]


@pytest.mark.parametrize("attempt", [0, -1, "x", 1.5, True, [], {}])
def test_an_item_with_an_attempt_that_is_no_number_is_refused(sqlite_host: Host, attempt: Any):
    task_id = sqlite_host.add_task()

    answer = sqlite_host.post_batch([{**completed(task_id), "attempt": attempt}], scheme="contenthub")

    assert answer.json is not None
    assert answer.json["results"][0]["error"]["code"] == "invalid_payload"
    assert untouched(sqlite_host, task_id)


def test_an_item_speaks_for_its_attempt(host: Host):
    task_id = host.add_task(attempt=2)

    answer = host.post_batch([{**failed(task_id), "attempt": 1}, {**failed(task_id), "attempt": 2}], scheme="github")

    assert answer.json is not None
    assert [item["outcome"] for item in answer.json["results"]] == ["stale", "processed"]
    assert host.task(task_id).attempt == 3


def test_an_item_may_name_the_task_as_the_creator_does(host: Host):
    task_id = host.add_task(creator_task_id="creator-2", earlier_creator_task_ids=["creator-1"], attempt=2)

    answer = host.post_batch([completed("creator-2")], scheme="contenthub")

    assert answer.json is not None
    assert answer.json["results"][0].get("outcome") == "processed"
    assert host.task(task_id).status == "completed"


def test_an_empty_batch_is_taken(sqlite_host: Host):
    answer = sqlite_host.post_batch([], scheme="contenthub")

    assert (answer.status_code, answer.json["results"] if answer.json else None) == (200, [])


@pytest.mark.parametrize("payload", [{}, {"events": {}}, {"events": [{}] * 1001}], ids=["none", "object", "too many"])
def test_a_batch_that_is_none_is_refused(sqlite_host: Host, payload: dict[str, Any]):
    answer = sqlite_host.post_batch(None, raw=encode(payload), scheme=None)

    assert (answer.status_code, code(answer)) == (400, "invalid_payload")


@pytest.mark.parametrize("spoil", ["nothing", "json", "item", "signature"])
def test_no_token_of_a_batch_reaches_the_history(host: Host, spoil: str):
    task_id = host.add_task()
    token = host.token(task_id)
    event: dict[str, Any] = {**completed(task_id, "x"), "token": token}
    if spoil == "item":
        event["result"] = None
    raw = encode({"events": [event]})
    if spoil == "json":
        raw = raw[:-1] + b',"n":NaN}'
    headers = {"X-Webhook-Signature": "A" * 43 + "="} if spoil == "signature" else {}

    host.app.test_client().post(f"{PREFIX}/callbacks", data=raw, headers=headers, content_type="application/json")

    rows = host.deliveries()
    assert len(rows) == 1
    assert token.encode() not in (rows[0].body or b"")
    assert token not in json.dumps(rows[0].headers)
