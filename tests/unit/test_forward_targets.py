"""Where events are sent on to, as hosts and environments write it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flask_contenthub_webhook import EXISTS, MISSING, ForwardTarget
from flask_contenthub_webhook.config.settings import Settings, load_settings
from flask_contenthub_webhook.core.forward_targets import configured_targets, read_targets
from flask_contenthub_webhook.errors import ConfigurationError, InsecureConfiguration

SECRET = "whsec_" + "c2VjcmV0" * 6
FULL = {
    "url": "https://two.example/hook?a=1,2",
    "events": ["completed", "illustrated"],
    "where": {"metadata.topic": ["news", "sport"], "result.images": {"$exists": True}},
    "include": ["result.content"],
    "exclude": ["metadata"],
}


def settings(**config: Any) -> Settings:
    return load_settings(config, {}, debug=True)


def test_a_url_a_mapping_and_a_target_mean_the_same():
    url = "https://one.example/"

    assert read_targets([url]) == read_targets([{"url": url}]) == read_targets([ForwardTarget(url)])
    (target,) = read_targets([f" {url} "])
    assert (target.url, target.events) == (url, ("completed", "failed"))
    assert (target.where, target.include, target.exclude) == (None, (), ())


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://One.Example/Hook?a=1#b", "https://one.example"),
        ("HTTP://one.example:80", "http://one.example"),
        ("http://one.example:443/", "http://one.example:443"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
        ("https://127.0.0.1/", "https://127.0.0.1"),
        ("https://faß.example/", "https://xn--fa-hia.example"),
        ("https://例え.example:8443/", "https://xn--r8jz45g.example:8443"),
        ("https://a b.example/", "https://a%20b.example"),
    ],
)
def test_the_origin_is_where_the_client_connects_to(url: str, origin: str):
    assert ForwardTarget(url).origin == origin


def test_everything_can_be_said_and_survives_json():
    (target,) = read_targets([FULL])

    assert target.where == {"metadata.topic": ["news", "sport"], "result.images": EXISTS}
    assert target.as_json() == FULL
    assert read_targets(json.loads(json.dumps([target.as_json()]))) == (target,)


def test_what_is_as_usual_is_not_kept():
    assert ForwardTarget("https://one.example/").as_json() == {"url": "https://one.example/"}


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("https://one.example/", ["https://one.example/"]),
        ("https://one.example/, http://two.example:8080/x ,", ["https://one.example/", "http://two.example:8080/x"]),
        (json.dumps(["https://one.example/", FULL]), ["https://one.example/", FULL["url"]]),
        ("", []),
        ("[]", []),
        (None, []),
        ([], []),
        (("https://one.example/",), ["https://one.example/"]),
    ],
    ids=str,
)
def test_the_environment_may_hold_urls_with_commas_or_json(text: Any, urls: list[str]):
    assert [target.url for target in configured_targets(text)] == urls


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("ftp://one.example/", "target 1, the URL must be an absolute http or https URL"),
        ("one.example/hook", "target 1, the URL must be an absolute http or https URL"),
        ("https:///hook", "target 1, the URL must be an absolute http or https URL"),
        ("https://one.example/,javascript:alert(1)", "target 2, the URL must be an absolute"),
        ("https://user@one.example/", "must not contain a user or a password"),
        ("https://user:word@one.example/", "must not contain a user or a password"),
        ("https://one.example:99999/", "the URL must be an absolute http or https URL"),
        ("https://one.example:port/", "the URL is not valid"),
        ("https://one.example/\x00", "the URL is not valid"),
        ("https://one.example/\ud800", "the URL is not valid"),
        ("https://256.1.1.1/", "the URL is not valid"),
        ("https://[one.example]/", "the URL is not valid"),
        ("https://-ü.example/", "the URL is not valid"),
        ("https://xn--a/", "the URL is not valid"),
        ("https://one.example:0/", "the URL must be an absolute http or https URL"),
        ("https://one.example/" + "a" * 2048, "has 2068 characters; at most 2048"),
        ("https://one.example/,https://one.example/", "target 2 repeats the URL of an earlier one"),
        ('["https://one.example/"', "begins like JSON, but is not valid"),
        ('{"url": "https://one.example/"}', "must be a list of URLs"),
        (7, "must be a list of URLs"),
        ([7], "target 1, a target must be a URL"),
        ([{}], "target 1, a target must be a URL"),
        ([{"url": None}], "the URL must be text"),
        ([{"url": "https://one.example/", "events": "completed"}], "events must be a list of names"),
        ([{"url": "https://one.example/", "events": [1]}], "events must be a list of names"),
        ([{"url": "https://one.example/", "events": ["cancelled"]}], "'cancelled' is not a valid event type"),
        ([{"url": "https://one.example/", "events": ["Completed"]}], "'Completed' is not a valid event type"),
        ([{"url": "https://one.example/", "where": {"a..b": 1}}], "'a..b' is not a valid path"),
        ([{"url": "https://one.example/", "where": {"a": {"$gt": 1}}}], "the filter for a must be"),
        ([{"url": "https://one.example/", "where": {"a": object()}}], "a value that JSON cannot express"),
        ([{"url": "https://one.example/", "where": {"a": float("nan")}}], "a value that JSON cannot express"),
        ([{"url": "https://one.example/", "include": "result"}], "include must be a list of names"),
        ([{"url": "https://one.example/", "exclude": ["a."]}], "'a.' is not a valid path"),
        ([{"url": "https://one.example/", "filter": {}}], "'filter' is not a known name; known: url, events, where"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_bad_value_stops_the_app_with_what_is_wrong_and_no_url(value: Any, words: str):
    with pytest.raises(ConfigurationError) as caught:
        settings(WEBHOOK_FORWARD_URLS=value, WEBHOOK_FORWARD_SECRET=SECRET)

    assert caught.value.message.startswith("WEBHOOK_FORWARD_URLS from app.config ")
    assert words in caught.value.message
    assert "one.example" not in caught.value.message


def test_urls_without_a_secret_do_not_start():
    with pytest.raises(ConfigurationError, match="WEBHOOK_FORWARD_SECRET is not"):
        settings(WEBHOOK_FORWARD_URLS="https://one.example/")


def test_the_secret_must_be_another_one_than_that_of_the_callbacks():
    with pytest.raises(ConfigurationError, match="could forge callbacks"):
        settings(WEBHOOK_SECRET_KEY=f"{'xy' * 20},{SECRET}", WEBHOOK_FORWARD_SECRET=SECRET)


def test_a_whsec_secret_that_is_no_base64_does_not_start():
    with pytest.raises(ConfigurationError, match="secret 2 must be base64 after whsec_") as caught:
        settings(WEBHOOK_FORWARD_SECRET=f"{SECRET},whsec_!!!")
    assert "!!!" not in caught.value.message


def test_settings_show_neither_secrets_nor_whole_urls():
    shown = repr(settings(WEBHOOK_FORWARD_URLS="https://one.example/T0/capability", WEBHOOK_FORWARD_SECRET=SECRET))

    assert "<ForwardTarget https://one.example>" in shown
    assert "capability" not in shown
    assert SECRET not in shown


def test_plain_http_is_warned_about():
    with pytest.warns(InsecureConfiguration, match="plain http"):
        load_settings(
            {"WEBHOOK_FORWARD_URLS": "http://one.example/", "WEBHOOK_FORWARD_SECRET": SECRET}, {}, debug=False
        )


def test_a_filter_may_be_given_in_pythons_form():
    target = ForwardTarget("https://one.example/", where={"a": MISSING, "b": {"x"}})

    assert target.as_json()["where"] == {"a": {"$exists": False}, "b": ["x"]}
