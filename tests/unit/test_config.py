"""The configuration: where a value comes from, how it is read, and what is said when it is wrong."""

from __future__ import annotations

import base64
import re
import warnings
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from flask_contenthub_webhook.config.keys import OPTIONS, Option
from flask_contenthub_webhook.config.settings import load_settings
from flask_contenthub_webhook.errors import ConfigurationError, InsecureConfiguration

SECRET = "a-secret-that-is-long-enough-for-a-test"
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)

# As docs/configuration.md promises. None and () both mean "off".
DEFAULTS: dict[str, Any] = {
    "WEBHOOK_ENABLED": False,
    "WEBHOOK_CALLBACK_BASE_URL": None,
    "WEBHOOK_SECRET_KEY": (),
    "WEBHOOK_REQUIRE_SIGNATURE": False,
    "WEBHOOK_TIMEOUT": 10,
    "WEBHOOK_URL_PREFIX": "/api/v1/content",
    "WEBHOOK_SIGNATURE_SCHEMES": ("url", "contenthub", "standard", "github"),
    "WEBHOOK_SIGNATURE_TOLERANCE": 300,
    "WEBHOOK_MAX_BODY_BYTES": 16 * 1024 * 1024,
    "WEBHOOK_ALLOWED_IPS": (),
    "WEBHOOK_RATE_LIMIT": None,
    "WEBHOOK_CLIENT_CERTS": (),
    "WEBHOOK_PROCESSING": "inline",
    "WEBHOOK_EVENTS": (),
    "WEBHOOK_REQUIRED_RESULT_FIELDS": ("content",),
    "WEBHOOK_STORED_RESULT_FIELDS": None,
    "WEBHOOK_POLL_GRACE": 120 * SECOND,
    "WEBHOOK_TASK_TIMEOUT": 1800 * SECOND,
    "WEBHOOK_MAX_RETRIES": 3,
    "WEBHOOK_RETRY_BACKOFF": (30 * SECOND, 60 * SECOND, 120 * SECOND),
}
# Of later issues: checked as soon as they are there.
LATER: dict[str, Any] = {
    "WEBHOOK_POLL_INTERVAL": 30 * SECOND,
    "WEBHOOK_POLL_MAX_INTERVAL": 600 * SECOND,
    "WEBHOOK_POLL_BATCH": 500,
    "WEBHOOK_POLL_CONCURRENCY": 8,
    "WEBHOOK_HISTORY_RETENTION_DAYS": timedelta(days=90),
    "WEBHOOK_HISTORY_RETENTION_BY_VERDICT": {},
    "WEBHOOK_FAILURE_RATE_ALERT": 0.10,
    "WEBHOOK_SILENCE_ALERT": 30,
    "WEBHOOK_SIGNATURE_FAILURE_ALERT": 20,
    "WEBHOOK_ALERT_WINDOW": 300 * SECOND,
    "WEBHOOK_ALERT_MIN_SAMPLE": 20,
    "WEBHOOK_SCHEDULER_ENABLED": False,
    "CREATOR_API_BASE_URL": None,
    "CREATOR_API_KEY": None,
    "CREATOR_API_TIMEOUT": 30,
    "CREATOR_SUBMIT_WAIT": 3,
    "CREATOR_API_MODE": "sync",
    "CREATOR_CLI_PATH": None,
}
KEYS = {option.key: option for option in OPTIONS}


def typed(*values: Any) -> tuple[Any, ...]:
    return values


# key -> configured value -> what it becomes
GOOD: list[tuple[str, Any, Any]] = [
    *[("WEBHOOK_ENABLED", value, True) for value in (True, 1, "1", "true", "True", " YES ", "on")],
    *[("WEBHOOK_ENABLED", value, False) for value in (False, 0, "0", "false", "No", "off", "")],
    ("WEBHOOK_CALLBACK_BASE_URL", "https://hub.example/", "https://hub.example"),
    ("WEBHOOK_CALLBACK_BASE_URL", " https://hub.example/app ", "https://hub.example/app"),
    ("WEBHOOK_CALLBACK_BASE_URL", "", None),
    ("WEBHOOK_SECRET_KEY", SECRET, (SECRET,)),
    ("WEBHOOK_SECRET_KEY", f"{SECRET}, {SECRET[::-1]} ,", (SECRET, SECRET[::-1])),
    ("WEBHOOK_SECRET_KEY", [SECRET, SECRET[::-1]], (SECRET, SECRET[::-1])),
    ("WEBHOOK_SECRET_KEY", (SECRET,), (SECRET,)),
    ("WEBHOOK_SECRET_KEY", "  ", ()),
    ("WEBHOOK_SECRET_KEY", None, ()),
    ("WEBHOOK_REQUIRE_SIGNATURE", "no", False),
    ("WEBHOOK_TIMEOUT", "2.5", 2.5),
    ("WEBHOOK_TIMEOUT", 30, 30.0),
    ("WEBHOOK_URL_PREFIX", "/hooks/", "/hooks"),
    ("WEBHOOK_URL_PREFIX", "", ""),
    ("WEBHOOK_URL_PREFIX", "/", ""),
    ("WEBHOOK_SIGNATURE_SCHEMES", "github, url", ("github", "url")),
    ("WEBHOOK_SIGNATURE_SCHEMES", ["standard", "standard"], ("standard",)),
    ("WEBHOOK_SIGNATURE_TOLERANCE", "60", 60),
    ("WEBHOOK_MAX_BODY_BYTES", "2048", 2048),
    ("WEBHOOK_ALLOWED_IPS", "10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
    ("WEBHOOK_ALLOWED_IPS", ["192.0.2.7"], (ip_network("192.0.2.7"),)),
    ("WEBHOOK_TRUSTED_PROXIES", "127.0.0.1", (ip_network("127.0.0.1"),)),
    ("WEBHOOK_CLIENT_CERTS", "any", ("any",)),
    (
        "WEBHOOK_CLIENT_CERTS",
        f"sha256:{'AB:' * 31}AB, DNS:Creator.Example",
        (f"sha256:{'ab' * 32}", "dns:creator.example"),
    ),
    ("WEBHOOK_RATE_LIMIT", "100/minute", "100/minute"),
    ("WEBHOOK_RATE_LIMIT", " ", None),
    ("WEBHOOK_PROCESSING", "inline", "inline"),
    ("WEBHOOK_EVENTS", "illustrated, seo.scored", ("illustrated", "seo.scored")),
    ("WEBHOOK_REQUIRED_RESULT_FIELDS", "content,htmlContent", ("content", "htmlContent")),
    ("WEBHOOK_REQUIRED_RESULT_FIELDS", [], ()),
    ("WEBHOOK_STORED_RESULT_FIELDS", "content", ("content",)),
    ("WEBHOOK_STORED_RESULT_FIELDS", ["content", "images"], ("content", "images")),
    ("WEBHOOK_STORED_RESULT_FIELDS", "*", None),
    ("WEBHOOK_STORED_RESULT_FIELDS", "", None),
    ("WEBHOOK_POLL_GRACE", "90", 90 * SECOND),
    ("WEBHOOK_TASK_TIMEOUT", timedelta(minutes=5), 300 * SECOND),
    ("WEBHOOK_MAX_RETRIES", "0", 0),
    ("WEBHOOK_RETRY_BACKOFF", "1,2.5", (SECOND, 2.5 * SECOND)),
    ("WEBHOOK_RETRY_BACKOFF", [5, timedelta(seconds=6)], (5 * SECOND, 6 * SECOND)),
    ("WEBHOOK_RETRY_BACKOFF", 7, (7 * SECOND,)),
    ("WEBHOOK_HISTORY_RETENTION_BY_VERDICT", "rejected=7, dead=0.5", {"rejected": 7 * DAY, "dead": DAY / 2}),
    ("WEBHOOK_HISTORY_RETENTION_BY_VERDICT", {"stale": 0}, {"stale": 0 * DAY}),
    ("WEBHOOK_HISTORY_RETENTION_BY_VERDICT", "", {}),
    ("WEBHOOK_FAILURE_RATE_ALERT", "0.25", 0.25),
    *[("WEBHOOK_FAILURE_RATE_ALERT", value, 0) for value in (None, 0, "0", "")],
    ("WEBHOOK_SILENCE_ALERT", "2.5", 2.5),
    ("WEBHOOK_SIGNATURE_FAILURE_ALERT", "5", 5),
    ("WEBHOOK_ALERT_WINDOW", "60", 60 * SECOND),
    ("WEBHOOK_ALERT_MIN_SAMPLE", 1, 1),
]
BAD: list[tuple[str, Any]] = [
    *[("WEBHOOK_ENABLED", value) for value in ("maybe", 2, None)],
    *[
        ("WEBHOOK_CALLBACK_BASE_URL", value)
        for value in ("hub.example", "ftp://x", "https://", "https://x?y=1", "https://x#y", "http://[::1", 5)
    ],
    *[("WEBHOOK_SECRET_KEY", value) for value in typed(b"bytes", 5, [SECRET, b"x"], {"a": "b"})],
    ("WEBHOOK_REQUIRE_SIGNATURE", "perhaps"),
    *[("WEBHOOK_TIMEOUT", value) for value in typed(0, -1, "soon", "nan", "inf", True, None, float("nan"), "")],
    *[("WEBHOOK_URL_PREFIX", value) for value in ("hooks", "/a b", "/a?b", "/<x>", 5, "//")],
    *[("WEBHOOK_SIGNATURE_SCHEMES", value) for value in typed("", "rsa", "url,rsa", [], 5)],
    *[("WEBHOOK_SIGNATURE_TOLERANCE", value) for value in (0, -300, 1.5, "1.5", "x", True)],
    *[("WEBHOOK_MAX_BODY_BYTES", value) for value in (0, 10, "16 MiB", 2**40)],
    *[("WEBHOOK_ALLOWED_IPS", value) for value in ("10.0.0.1/8", "hub.example", "10.0.0", 5)],
    ("WEBHOOK_TRUSTED_PROXIES", "proxy"),
    *[("WEBHOOK_CLIENT_CERTS", value) for value in ("sha256:abc", "dns:", "creator.example", "any:x", "sha1:ab")],
    *[("WEBHOOK_RATE_LIMIT", value) for value in (100, ["1/second"])],
    *[("WEBHOOK_PROCESSING", value) for value in ("threads", "", None)],
    *[("WEBHOOK_EVENTS", value) for value in ("Illustrated", "a b", "x" * 65, "-x", 5)],
    *[("WEBHOOK_REQUIRED_RESULT_FIELDS", value) for value in ("a b", "x" * 101, 5)],
    *[("WEBHOOK_STORED_RESULT_FIELDS", value) for value in ("a b", 5)],
    *[("WEBHOOK_POLL_GRACE", value) for value in (0, -1, "x", "inf")],
    *[("WEBHOOK_TASK_TIMEOUT", value) for value in (0, "x", None)],
    *[("WEBHOOK_MAX_RETRIES", value) for value in (-1, 1.5, "x", None, True)],
    *[("WEBHOOK_RETRY_BACKOFF", value) for value in typed("", "x", "-1", [], None, {})],
    *[
        ("WEBHOOK_HISTORY_RETENTION_BY_VERDICT", v)
        for v in typed("odd=1", "dead", "dead=x", "dead=-1", 7, {"dead": []})
    ],
    *[("WEBHOOK_FAILURE_RATE_ALERT", value) for value in ("10%", 10, -0.1, True)],
    *[("WEBHOOK_SILENCE_ALERT", value) for value in ("never", -1)],
    *[("WEBHOOK_SIGNATURE_FAILURE_ALERT", value) for value in (1.5, -1)],
    *[("WEBHOOK_ALERT_WINDOW", value) for value in (0, None, "5m")],
    *[("WEBHOOK_ALERT_MIN_SAMPLE", value) for value in (0, None, 2.5)],
]


def shown(value: Any) -> str:
    return str(value)[:40]


def load(config: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureConfiguration)
        return load_settings(config or {}, environ or {})


def value_of(key: str, config: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> Any:
    return getattr(load(config, environ), KEYS[key].field)


@pytest.mark.parametrize("key", DEFAULTS)
def test_the_design_has_this_default(key: str):
    assert value_of(key) == DEFAULTS[key]


@pytest.mark.parametrize("key", sorted(LATER.keys() & KEYS))
def test_the_design_has_this_default_for_a_key_of_a_later_issue(key: str):
    assert value_of(key) == LATER[key]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_every_option_has_a_line_for_people(option: Option):
    assert option.doc.endswith(".")
    assert re.fullmatch(r"(WEBHOOK|CREATOR)_[A-Z_]+", option.key)


@pytest.mark.parametrize(("key", "value", "expected"), GOOD, ids=shown)
def test_a_value_is_read(key: str, value: Any, expected: Any):
    assert value_of(key, {key: value}) == expected


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [case for case in GOOD if isinstance(case[1], str)],
    ids=shown,
)
def test_the_environment_is_read_in_the_same_way(key: str, value: str, expected: Any):
    assert value_of(key, {}, {key: value}) == expected


@pytest.mark.parametrize(("key", "value"), BAD, ids=shown)
def test_a_bad_value_is_refused_by_an_error_that_names_the_key(key: str, value: Any):
    with pytest.raises(ConfigurationError, match=key):
        load({key: value})


@pytest.mark.parametrize(("key", "value"), [case for case in BAD if isinstance(case[1], str)], ids=shown)
def test_a_bad_value_in_the_environment_is_refused_by_an_error_that_says_so(key: str, value: str):
    with pytest.raises(ConfigurationError, match=f"{key} from the environment"):
        load({}, {key: value})


@pytest.mark.parametrize("key", sorted(DEFAULTS))
def test_app_config_wins_over_the_environment(key: str):
    samples = [case for case in GOOD if case[0] == key]
    configured = samples[-1]

    assert value_of(key, {key: configured[1]}, {key: "no such value is ever read"}) == configured[2]


def test_the_error_shows_the_value_and_what_is_allowed():
    with pytest.raises(ConfigurationError, match=r"WEBHOOK_MAX_RETRIES .*whole number.*at least 0.*'many'"):
        load({"WEBHOOK_MAX_RETRIES": "many"})


NUMERIC = [
    option
    for option in OPTIONS
    if isinstance(option.default, int | float | timedelta) and not isinstance(option.default, bool)
]


@pytest.mark.parametrize("option", [*NUMERIC, KEYS["WEBHOOK_RETRY_BACKOFF"]], ids=lambda option: option.key)
def test_every_number_and_duration_has_an_upper_bound_that_the_error_tells(option: Option):
    most = re.findall(r"[\d.]+", option.parse.bounds)[-1]  # type: ignore[attr-defined]

    load({option.key: most})
    for value in ("999999999999", 10**12, 1e12, float("inf"), 10**400):
        with pytest.raises(ConfigurationError, match=rf"{option.key} .*at most {most}"):
            load({option.key: value})


@pytest.mark.parametrize("value", ["30,999999999999", [timedelta(days=366)], timedelta.max], ids=str)
def test_each_step_of_a_backoff_has_an_upper_bound(value: Any):
    with pytest.raises(ConfigurationError, match=r"WEBHOOK_RETRY_BACKOFF .*at most 31536000"):
        load({"WEBHOOK_RETRY_BACKOFF": value})


@pytest.mark.parametrize("value", [b"hunter2-hunter2", {"hunter2": 1}, [b"hunter2"], 2.5])
def test_the_error_never_shows_a_secret(value: Any):
    with pytest.raises(ConfigurationError) as caught:
        load({"WEBHOOK_SECRET_KEY": value})

    assert "hunter2" not in str(caught.value)
    assert "2.5" not in str(caught.value)


def test_the_settings_do_not_show_a_secret():
    assert SECRET not in repr(load({"WEBHOOK_SECRET_KEY": SECRET}))


@pytest.mark.parametrize("secret", [None, "", "  ", [], ","])
def test_signatures_required_without_a_secret_do_not_start(secret: Any):
    with pytest.raises(ConfigurationError, match=r"WEBHOOK_REQUIRE_SIGNATURE.*WEBHOOK_SECRET_KEY"):
        load({"WEBHOOK_REQUIRE_SIGNATURE": True, "WEBHOOK_SECRET_KEY": secret})


@pytest.mark.parametrize(
    ("secret", "schemes"),
    [("whsec_", "standard"), ("whsec_", "contenthub,url"), ("whsec_no base64, not at all" + "x" * 32, "standard")],
)
def test_a_secret_without_a_usable_key_does_not_start(secret: str, schemes: str):
    with pytest.raises(ConfigurationError, match=r"WEBHOOK_SECRET_KEY.*secret 2 .*flask webhook secret") as caught:
        load({"WEBHOOK_SECRET_KEY": [SECRET, secret], "WEBHOOK_SIGNATURE_SCHEMES": schemes})

    assert "x" * 32 not in str(caught.value)


def test_a_secret_need_suit_one_scheme_only():
    secret = "whsec_no base64" + "x" * 32

    assert value_of("WEBHOOK_SECRET_KEY", {"WEBHOOK_SECRET_KEY": [secret]}) == (secret,)


def test_a_short_secret_is_warned_about_without_showing_it():
    with pytest.warns(InsecureConfiguration, match="shorter than 32") as caught:
        load_settings({"WEBHOOK_SECRET_KEY": [SECRET, "hunter2"]}, {})

    assert "hunter2" not in str(caught[0].message)


def test_a_secret_of_32_characters_is_long_enough():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_settings({"WEBHOOK_SECRET_KEY": "xy" * 16}, {})


GUESSABLE = {
    "zero bytes": "whsec_" + base64.b64encode(bytes(32)).decode(),
    "the same byte": "whsec_" + base64.b64encode(b"\xff" * 32).decode(),
    "the same byte, without padding": base64.b64encode(b"\x01" * 32).decode().rstrip("="),
    "the same character": "x" * 40,
    "a prefix and the same character": "whsec_" + "A" * 43,
}


@pytest.mark.parametrize("key", ["WEBHOOK_SECRET_KEY", "WEBHOOK_FORWARD_SECRET"])
@pytest.mark.parametrize("secret", GUESSABLE.values(), ids=GUESSABLE)
@pytest.mark.parametrize("debug", [True, False])
def test_a_secret_that_anyone_could_guess_does_not_start(key: str, secret: str, debug: bool):
    for value in (secret, [SECRET, secret]):
        with pytest.raises(ConfigurationError, match=rf"{key} .*over and over.*webhook secret") as caught:
            load_settings({key: value, "WEBHOOK_SIGNATURE_SCHEMES": "url,contenthub"}, {}, debug=debug)
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://hub.example", "plain http"),
        ("https://localhost", "localhost"),
        ("http://127.0.0.1:5000", "localhost"),
        ("http://[::1]:5000", "localhost"),
    ],
)
def test_a_weak_base_url_is_warned_about(url: str, problem: str):
    with pytest.warns(InsecureConfiguration, match=problem):
        load_settings({"WEBHOOK_CALLBACK_BASE_URL": url}, {})


def test_a_weak_base_url_is_fine_in_debug():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_settings({"WEBHOOK_CALLBACK_BASE_URL": "http://localhost:5000"}, {}, debug=True)


def test_running_without_a_secret_is_warned_about():
    with pytest.warns(InsecureConfiguration, match="WEBHOOK_SECRET_KEY is not set"):
        load_settings({"WEBHOOK_ENABLED": True}, {})


def test_the_defaults_warn_about_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_settings({}, {})


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WEBHOOK_MAX_RETRIES", "7")

    assert load_settings({}).max_retries == 7


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        load().max_retries = 5
