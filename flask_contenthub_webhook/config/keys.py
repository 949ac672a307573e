"""The table of configuration keys: default, parser and help line of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..core.events import BUILT_IN_EVENTS, EVENT_NAME, EVENT_NAME_RULE
from ..core.forward_targets import configured_targets
from ..core.signatures import SCHEMES
from . import parsers as values

__all__ = ["MODES", "OPTIONS", "Option"]


@dataclass(frozen=True, slots=True)
class Option:
    """A configuration key.

    Args:
        key: the name in ``app.config`` and in the environment.
        field: the attribute of :class:`Settings`.
        default: value if the key is set nowhere.
        parse: converts a configured value; raises ValueError, saying what is allowed.
        doc: help line.
        secret: True keeps the value out of error messages.
    """

    key: str
    field: str
    default: Any
    parse: Callable[[Any], Any]
    doc: str
    secret: bool = False


_FIELD = r"(?=.{1,100}$)[^\s,.]+(\.[^\s,.]+)*"
_FIELD_RULE = "a field is a name, or names separated by dots, without blanks, of at most 100 characters"

MODES = ("inline", "worker", "celery")
"""The values of WEBHOOK_PROCESSING."""

OPTIONS: tuple[Option, ...] = (
    Option("WEBHOOK_ENABLED", "enabled", False, values.boolean, "Accept callbacks."),
    Option(
        "WEBHOOK_CALLBACK_BASE_URL",
        "callback_base_url",
        None,
        values.base_url,
        "Scheme, host and optional path at which the creator reaches this app.",
    ),
    Option(
        "WEBHOOK_SECRET_KEY",
        "secrets",
        (),
        values.secrets,
        "One or more secrets (commas or a list): the first signs, all verify.",
        secret=True,
    ),
    Option("WEBHOOK_REQUIRE_SIGNATURE", "require_signature", False, values.boolean, "Refuse unsigned callbacks."),
    Option(
        "WEBHOOK_TIMEOUT",
        "timeout",
        10.0,
        values.Number(float, 0.1, 3600, "seconds"),
        "Seconds after which a callback is logged as slow; also the lock timeout on PostgreSQL.",
    ),
    Option(
        "WEBHOOK_URL_PREFIX", "url_prefix", "/api/v1/content", values.prefix, "Path under which the routes are mounted."
    ),
    Option(
        "WEBHOOK_SIGNATURE_SCHEMES",
        "signature_schemes",
        tuple(SCHEMES),
        values.choices(tuple(SCHEMES)),
        "Accepted signature schemes, in the order in which they are tried.",
    ),
    Option(
        "WEBHOOK_SIGNATURE_TOLERANCE",
        "signature_tolerance",
        300,
        values.Number(int, 1, 86_400, "seconds"),
        "Seconds by which a Standard Webhooks timestamp may differ from now, either way.",
    ),
    Option(
        "WEBHOOK_MAX_BODY_BYTES",
        "max_body_bytes",
        16 * 1024 * 1024,
        values.Number(int, 1024, 256 * 1024**2, "bytes"),  # PostgreSQL keeps no longer text in a JSONB
        "Largest accepted request body, in bytes.",
    ),
    Option(
        "WEBHOOK_ALLOWED_IPS",
        "allowed_ips",
        (),
        values.networks,
        "Addresses or CIDR networks that may send callbacks; empty: all.",
    ),
    Option(
        "WEBHOOK_TRUSTED_PROXIES",
        "trusted_proxies",
        (),
        values.networks,
        "Proxies whose Client-Cert header (RFC 9440) is trusted.",
    ),
    Option(
        "WEBHOOK_CLIENT_CERTS",
        "client_certs",
        (),
        values.certificates,
        "Accepted client certificates: any, sha256:FINGERPRINT, dns:NAME, cn:NAME; empty: none required.",
    ),
    Option(
        "WEBHOOK_RATE_LIMIT",
        "rate_limit",
        None,
        values.optional_text,
        "Requests allowed per client address, such as 100/minute (extra: ratelimit); None: no limit.",
    ),
    Option(
        "WEBHOOK_PROCESSING",
        "processing",
        "inline",
        values.choice(MODES),
        "Where events are applied: in the request, by `flask webhook worker`, or by Celery (extra: celery).",
    ),
    Option(
        "WEBHOOK_INBOX_LIMIT",
        "inbox_limit",
        50_000,
        values.Number(int, 0, 1_000_000_000),
        "In worker and Celery mode, refuse new events with 503 once this many wait; 0 disables the limit.",
    ),
    Option(
        "WEBHOOK_WORKER_THREADS", "worker_threads", 4, values.Number(int, 1, 256), "Threads of `flask webhook worker`."
    ),
    Option(
        "WEBHOOK_WORKER_BATCH",
        "worker_batch",
        20,
        values.Number(int, 1, 1000),
        "Events that a worker thread claims at once.",
    ),
    Option(
        "WEBHOOK_CELERY_GRACE",
        "celery_grace",
        timedelta(seconds=15),
        values.Duration(0),
        "Seconds before the scheduler applies an event that Celery has not.",
    ),
    Option(
        "WEBHOOK_EVENTS",
        "events",
        (),
        values.names(EVENT_NAME, EVENT_NAME_RULE),
        f"Custom event types, in addition to {', '.join(BUILT_IN_EVENTS)}.",
    ),
    Option(
        "WEBHOOK_REQUIRED_RESULT_FIELDS",
        "required_result_fields",
        ("content",),
        values.names(_FIELD, _FIELD_RULE),
        "Fields that a completed result must have; if the callback lacks one, the result is fetched from the creator.",
    ),
    Option(
        "WEBHOOK_STORED_RESULT_FIELDS",
        "stored_result_fields",
        None,
        values.optional_names(_FIELD, _FIELD_RULE),
        "Result fields to store in the task row; None: all.",
    ),
    Option(
        "WEBHOOK_POLL_INTERVAL",
        "poll_interval",
        timedelta(seconds=30),
        values.Duration(1),
        "Seconds between polls of a task without callbacks. For tasks with callbacks, polling starts at twice this "
        "value and doubles.",
    ),
    Option(
        "WEBHOOK_POLL_GRACE",
        "poll_grace",
        timedelta(seconds=120),
        values.Duration(1),
        "Seconds without an event before a task is polled.",
    ),
    Option(
        "WEBHOOK_POLL_MAX_INTERVAL",
        "poll_max_interval",
        timedelta(seconds=600),
        values.Duration(1),
        "Longest time between two polls of a task, in seconds.",
    ),
    Option("WEBHOOK_POLL_BATCH", "poll_batch", 500, values.Number(int, 1, 10_000), "Tasks that a poll claims at once."),
    Option(
        "WEBHOOK_POLL_CONCURRENCY",
        "poll_concurrency",
        8,
        values.Number(int, 1, 256),
        "Concurrent calls to the creator while polling.",
    ),
    Option(
        "WEBHOOK_TASK_TIMEOUT",
        "task_timeout",
        timedelta(seconds=1800),
        values.Duration(1),
        "Seconds that an attempt may take.",
    ),
    Option(
        "WEBHOOK_MAX_RETRIES",
        "max_retries",
        3,
        values.Number(int, 0, 1000),
        "Further attempts after the first one failed.",
    ),
    Option(
        "WEBHOOK_RETRY_BACKOFF",
        "retry_backoff",
        tuple(timedelta(seconds=s) for s in (30, 60, 120)),
        values.Backoff(),
        "Seconds before each further try of a failed delivery, and before each retry of a failed attempt. "
        "Retries beyond the list reuse the last value.",
    ),
    Option(
        "WEBHOOK_SUBMIT_THREADS",
        "submit_threads",
        4,
        values.Number(int, 0, 64),
        "Threads that submit tasks right after the commit; 0 leaves submitting and forwarding to the scheduler.",
    ),
    Option(
        "WEBHOOK_FORWARD_URLS",
        "forward_to",
        (),
        configured_targets,
        "Where to forward the events of every task: URLs (commas or a list), or a list of targets, also as JSON.",
        secret=True,
    ),
    Option(
        "WEBHOOK_FORWARD_SECRET",
        "forward_secrets",
        (),
        values.standard_secrets,
        "Secret that signs forwarded events (Standard Webhooks). With several, each event carries one signature per "
        "secret. Required for forwarding.",
        secret=True,
    ),
    Option(
        "WEBHOOK_FORWARD_TIMEOUT",
        "forward_timeout",
        10.0,
        values.Number(float, 0.1, 300, "seconds"),
        "Seconds that sending one forwarded event may take, from the DNS lookup to the end of the response.",
    ),
    Option(
        "WEBHOOK_FORWARD_CONCURRENCY",
        "forward_concurrency",
        8,
        values.Number(int, 1, 256),
        "Concurrent forwarding requests in each process.",
    ),
    Option(
        "WEBHOOK_FORWARD_ALLOWED_NETWORKS",
        "forward_allowed_networks",
        (),
        values.networks,
        "Non-public addresses or CIDR networks that events may be forwarded to.",
    ),
    Option(
        "WEBHOOK_HISTORY_RETENTION_DAYS",
        "history_retention",
        timedelta(days=90),
        values.days,
        "Days to keep deliveries; 0 keeps them forever.",
    ),
    Option(
        "WEBHOOK_HISTORY_RETENTION_BY_VERDICT",
        "history_retention_by_verdict",
        {},
        values.days_by_verdict,
        "Days to keep deliveries by verdict, such as rejected=7,dead=365 or a mapping; 0 keeps them forever.",
    ),
    Option(
        "WEBHOOK_FAILURE_RATE_ALERT",
        "failure_rate_alert",
        0.10,
        values.Limit(float, 0, 1),
        "Raise an alert when more than this share of recent events failed in handlers. 0 disables it.",
    ),
    Option(
        "WEBHOOK_SILENCE_ALERT",
        "silence_alert_minutes",
        30.0,
        values.Limit(float, 0, 10_080),
        "Raise an alert after this many minutes without a callback while tasks wait for one. 0 disables it.",
    ),
    Option(
        "WEBHOOK_SIGNATURE_FAILURE_ALERT",
        "signature_failure_alert",
        20,
        values.Limit(int, 0, 1_000_000),
        "Raise an alert when more than this many recent requests failed the signature check and that is over three "
        "times the usual number. 0 disables it.",
    ),
    Option(
        "WEBHOOK_ALERT_WINDOW",
        "alert_window",
        timedelta(seconds=300),
        values.Duration(10),
        "Length of the alert window in seconds. Alerts are checked ten times per window.",
    ),
    Option(
        "WEBHOOK_ALERT_MIN_SAMPLE",
        "alert_min_sample",
        20,
        values.Number(int, 1, 1_000_000),
        "Minimum number of recent events for the failure-rate alert to be raised.",
    ),
    Option(
        "WEBHOOK_SCHEDULER_ENABLED",
        "scheduler_enabled",
        False,
        values.boolean,
        "Run the scheduler in the web process, starting with its first request.",
    ),
    Option("CREATOR_API_BASE_URL", "creator_base_url", None, values.base_url, "Base URL of the creator's HTTP API."),
    Option(
        "CREATOR_API_PREVIOUS_URL",
        "creator_previous_url",
        None,
        values.base_url,
        "The address before a move: its open jobs are still asked about there, and nothing new is submitted to it.",
    ),
    Option(
        "CREATOR_API_KEY",
        "creator_api_key",
        None,
        values.optional_text,
        "The creator's bearer token.",
        secret=True,
    ),
    Option(
        "CREATOR_API_TIMEOUT",
        "creator_timeout",
        30.0,
        values.Number(float, 0.1, 3600, "seconds"),
        "Seconds that a call to the creator may take.",
    ),
    Option(
        "CREATOR_SUBMIT_WAIT",
        "creator_submit_wait",
        3.0,
        values.Number(float, 0.05, 3600, "seconds"),
        "Seconds to wait for the answer to a submission; after that, the result comes by callback or polling.",
    ),
    Option(
        "CREATOR_API_MODE",
        "creator_mode",
        "sync",
        values.choice(("sync", "async")),
        "`sync` or `async` submission. The current content-creator crashes on `async`.",
    ),
    Option(
        "CREATOR_API_LIST",
        "creator_list",
        True,
        values.boolean,
        "Poll through the creator's list call. Switch off for content-creator on PostgreSQL, which crashes on it.",
    ),
    Option(
        "CREATOR_CLI_PATH",
        "creator_cli_path",
        None,
        values.optional_text,
        "Path of the creator's command line program.",
    ),
)
