"""The rules of the one door: names, URLs, texts, bodies, and the characters that nobody can see."""

from __future__ import annotations

import json
import time

import pytest

from flask_contenthub_webhook.core.redaction import (
    Redactor,
    clean,
    escaped,
    redacted,
    redacted_body,
    redacted_headers,
    redacted_sample,
    redacted_task,
    redacted_text,
    redacted_url,
    visible,
)

SECRET_NAMES = [
    *("api_key", "apikey", "apiKey", "X-Api-Key", "key", "Key", "subscriptionKey", "subscription-key", "access_key"),
    *("sig", "signature", "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "access_token", "token"),
    *("password", "PASSWORD", "passwd", "pwd", "db_password", "client_secret", "Authorization", "Cookie", "session_id"),
    *("X-CSRF-Token", "Client-Cert", "private_key", "refreshToken"),
]
HARMLESS_NAMES = ["author", "authorName", "keywords", "monkey", "attempt", "design", "passage", "topic", "Content-Type"]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_name_hides_its_value_everywhere(name: str):
    assert redacted({"a": [{name: ["planted"]}]}) == {"a": [{name: "[redacted]"}]}
    assert redacted_headers([(name, "planted")]) == {name: "[redacted]"}
    assert redacted_url(f"https://x.example/?a=b&{name}=planted") == f"https://x.example/?a=b&{name}=***"
    assert redacted_text(f"to https://x.example/?{name}=planted now") == f"to https://x.example/?{name}=*** now"
    assert redacted_sample(json.dumps({name: "planted"}).encode()) == json.dumps({name: "[redacted]"}).encode()


@pytest.mark.parametrize("name", HARMLESS_NAMES)
def test_a_harmless_name_hides_nothing(name: str):
    url, document = f"https://x.example/?{name}=shown", {name: ["shown"]}

    assert redacted(document) == document
    assert redacted_headers([(name, "shown")]) == {name: "shown"}
    assert redacted_url(url) == redacted_text(url) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:planted@h/p?a=%20b&c", "https://u:***@h/p?a=%20b&c"),
        ("https://u:pla@nted@h/p", "https://u:***@h/p"),
        ("https://planted@h/p", "https://***@h/p"),
        ("https://h/p#access_token=planted", "https://h/p"),
        ("https://h/?a=1;token=planted", "https://h/?a=1;token=***"),
        ("https://h/?%74oken=planted", "https://h/?%74oken=***"),
        ("https://h/?to=https%3A%2F%2Fi%2F%3Fsig%3Dplanted&a=1", "https://h/?to=***&a=1"),
        ("/callback/t?attempt=1&token=planted", "/callback/t?attempt=1&token=***"),
        ("https://h/@name?email=a@b.example", "https://h/@name?email=a@b.example"),
    ],
)
def test_urls(url: str, shown: str):
    assert redacted_url(url) == shown
    assert "planted" not in redacted_text(f"(see <{url}>)")


def test_the_creators_figures_are_not_secrets_but_its_urls_may_hold_some():
    row = {
        "result": {"metrics": {"tokensUsed": 7}, "token": "word", "at": "https://h/?sig=planted"},
        "creator_options": {"maxTokens": "planted"},
        "deadline_at": None,
    }

    assert redacted_task(row) == {
        "result": {"metrics": {"tokensUsed": 7}, "token": "word", "at": "https://h/?sig=***"},
        "creator_options": {"maxTokens": "[redacted]"},
        "deadline_at": None,
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 0.1000000000000000055, "a": "\\u952e \\/ \\ud800", "token": "word"}',
        "键 <b> a=b&c=d".encode(),
        b"\xff\xfe\x00GIF",
        b'["unclosed \\',
    ],
)
def test_a_body_without_secrets_stays_to_the_last_byte(body: bytes):
    assert redacted_body(body) == body


def test_the_urls_of_a_body_are_found_behind_every_way_to_write_them():
    body = b'{"a":"http:\\/\\/u:planted@h\\/?x=1\\u0026token=planted","b":"https://h/?key=planted","c":"\\n"}'

    assert json.loads(redacted_body(body)) == {
        "a": "http://u:***@h/?x=1&token=***",
        "b": "https://h/?key=***",
        "c": "\n",
    }


@pytest.mark.parametrize(
    "sample",
    [
        b'{"events": [{"token": "planted',
        b'{"events": [{"token"\n:\t"\\"planted"}]}',
        b'{"\\u0074\\u006fken": "planted\\',
        b'garbage "token":"planted" garbage',
        '{"token": "planted"}'.encode("utf-16"),
    ],
)
def test_a_sample_that_nobody_signed_holds_no_token_however_broken_it_is(sample: bytes):
    assert b"planted" not in redacted_sample(sample).replace(b"\0", b"")


@pytest.mark.parametrize("unit", ['"', '\\"', '":', "//a@", "&a=", '"a":"b",', "?" * 50, "[" * 50], ids=ascii)
def test_time_grows_with_the_length_alone(unit: str):
    body = unit.encode() * (1_000_000 // len(unit))
    began = time.process_time()

    redacted_body(body, by_name=True)

    assert time.process_time() - began < 20  # about one second; what grew with the square would take hours


def test_a_redactor_knows_the_secrets_of_documents():
    redactor = Redactor(["the-key"]).also(
        "https://u:pass%20word@h/?api_key=from%2Burl", {"deep": [{"password": ["nested"], "pin_token": 12345}]}, None
    )

    assert redactor.text("the-key pass word pass%20word from+url from%2Burl nested 12345 h") == " ".join(
        ["***"] * 7 + ["h"]
    )


def test_a_message_is_short_on_one_line_and_without_the_secrets_of_urls():
    assert clean("a\r\n\tb\x1b[31m\u202e\u200b c https://u:p4ss@h/?sig=1") == "a b [31m  c https://u:***@h/?sig=***"
    assert clean("x" * 1000) == "x" * 499 + "…"


def test_pages_and_terminals_show_the_same_characters_as_signs():
    for code in [*range(0x3000), *range(0xD800, 0xE000), *range(0xFFF0, 0x10010), *range(0xE0000, 0xE0080)]:
        assert (visible(chr(code)) == chr(code)) == (escaped(chr(code)) == chr(code)), hex(code)
    assert escaped("\u200b\U000e0041\xad") == r"\u200b\U000e0041\xad"
