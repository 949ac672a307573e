"""The checks that a request goes through, in their order, and the routes."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.support.answers import code, outcome, untouched
from tests.support.host import PREFIX, Host, completed, custom, encode, signed

Build = Callable[..., Host]


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


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, gzip", "\xff"])
def test_a_compressed_body_is_refused_with_words(host: Host, encoding: str):
    task_id = host.add_task()
    body = gzip.compress(encode(completed(task_id)))

    answer = host.post(task_id, body, headers={"Content-Encoding": encoding})

    assert (answer.status_code, code(answer)) == (415, "unsupported_media_type")
    assert answer.json is not None
    assert f"is encoded as {encoding!a}; send it without" in answer.json["error"]["message"]
    assert untouched(host, task_id)
    assert [row.error for row in host.deliveries()] == ["unsupported_media_type"]


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_a_body_that_says_that_it_is_not_compressed_is_taken(sqlite_host: Host, encoding: str):
    task_id = sqlite_host.add_task()

    assert outcome(sqlite_host.post(task_id, completed(task_id), headers={"Content-Encoding": encoding})) == "processed"


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
    """As docs/http.md says of 415."""
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
