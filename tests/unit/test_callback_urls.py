"""The URL that the creator is given."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from flask_contenthub_webhook.config.settings import Settings, load_settings
from flask_contenthub_webhook.core.signatures import verify_url
from flask_contenthub_webhook.errors import ConfigurationError

SECRET = "a-secret-that-is-long-enough-for-a-test"
TASK = "0b5f6a2e-7a0c-4b1e-9c65-2f6d4d6c7f10"


def settings(**config: Any) -> Settings:
    base = {"WEBHOOK_CALLBACK_BASE_URL": "https://hub.example", "WEBHOOK_SECRET_KEY": SECRET}
    return load_settings({**base, **config}, {})


def test_it_has_the_prefix_the_task_the_attempt_and_a_token():
    url = urlsplit(settings().callback_urls.build(TASK, 3))
    query = parse_qs(url.query)

    assert f"{url.scheme}://{url.netloc}{url.path}" == f"https://hub.example/api/v1/content/callback/{TASK}"
    assert query["attempt"] == ["3"]
    assert verify_url(SECRET, TASK, 3, query["token"][0])


def test_without_an_attempt_the_url_speaks_for_whichever_is_current():
    query = parse_qs(urlsplit(settings().callback_urls.build(TASK, None)).query)

    assert "attempt" not in query
    assert verify_url(SECRET, TASK, None, query["token"][0])


def test_the_token_holds_for_no_other_attempt_and_no_other_task():
    token = parse_qs(urlsplit(settings().callback_urls.build(TASK, 1)).query)["token"][0]

    assert not verify_url(SECRET, TASK, 2, token)
    assert not verify_url(SECRET, TASK, None, token)
    assert not verify_url(SECRET, TASK[::-1], 1, token)


def test_the_first_secret_makes_the_token():
    url = settings(WEBHOOK_SECRET_KEY=[SECRET, SECRET[::-1]]).callback_urls.build(TASK, 1)
    token = parse_qs(urlsplit(url).query)["token"][0]

    assert verify_url(SECRET, TASK, 1, token)
    assert not verify_url(SECRET[::-1], TASK, 1, token)


def test_without_a_secret_there_is_no_token():
    assert "token" not in settings(WEBHOOK_SECRET_KEY=None).callback_urls.build(TASK, 1)


def test_without_the_url_scheme_there_is_no_token():
    assert "token" not in settings(WEBHOOK_SIGNATURE_SCHEMES="standard,github").callback_urls.build(TASK, 1)


@pytest.mark.parametrize("base", ["https://hub.example/app/", "https://hub.example/app"])
def test_the_base_may_have_a_path_and_a_trailing_slash(base: str):
    url = settings(WEBHOOK_CALLBACK_BASE_URL=base, WEBHOOK_URL_PREFIX="/hooks/").callback_urls.build(TASK, 1)

    assert urlsplit(url).path == f"/app/hooks/callback/{TASK}"


def test_a_base_of_ones_own_takes_the_place_of_the_configured_one():
    assert (
        settings()
        .callback_urls.build(TASK, 1, base_url="https://other.example/")
        .startswith("https://other.example/api/v1/content/callback/")
    )


def test_an_odd_task_id_is_quoted():
    url = urlsplit(settings().callback_urls.build("a/b ?#键", 1))

    assert unquote(url.path).endswith("/callback/a/b ?#键")
    assert "/a%2Fb%20%3F%23" in url.path


def test_without_a_base_the_error_names_the_key():
    with pytest.raises(ConfigurationError, match="WEBHOOK_CALLBACK_BASE_URL"):
        settings(WEBHOOK_CALLBACK_BASE_URL=None).callback_urls.build(TASK, 1)
