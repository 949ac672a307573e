"""Every key of the configuration with its default, its parser and its line for people, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..core.events import EVENT_NAME, EVENT_NAME_RULE
from ..core.forward_targets import configured_targets
from . import parsers as values

__all__ = ["OPTIONS", "SCHEMES", "Option"]

SCHEMES = ("url", "contenthub", "standard", "github")


@dataclass(frozen=True, slots=True)
class Option:
    """One key of the configuration.

    Args:
        key: the name in ``app.config`` and in the environment.
        field: the attribute of :class:`Settings`.
        default: what holds where the key is set nowhere.
        parse: turns a configured value into the attribute's value, or raises ValueError with what is allowed.
        doc: one line for people.
        secret: never show the value in an error.
    """

    key: str
    field: str
    default: Any
    parse: Callable[[Any], Any]
    doc: str
    secret: bool = False


_FIELD = r"(?=.{1,100}$)[^\s,.]+(\.[^\s,.]+)*"
_FIELD_RULE = (
    "a field is a name, or a path of names with dots between them, without blanks and of at most 100 characters"
)

OPTIONS: tuple[Option, ...] = (
    Option("WEBHOOK_ENABLED", "enabled", False, values.boolean, "Accept callbacks at all."),
    Option(
        "WEBHOOK_CALLBACK_BASE_URL",
        "callback_base_url",
        None,
        values.base_url,
        "Scheme, host and optional path under which the creator reaches this app.",
    ),
    Option(
        "WEBHOOK_SECRET_KEY",
        "secrets",
        (),
        values.secrets,
        "One secret, or several (commas or a list): the first signs, all verify.",
        secret=True,
    ),
    Option("WEBHOOK_REQUIRE_SIGNATURE", "require_signature", False, values.boolean, "Refuse what is not signed."),
    Option(
        "WEBHOOK_TIMEOUT",
        "timeout",
        10.0,
        values.number(float, 0.1, 3600, "seconds"),
        "Seconds after which processing one callback is logged as slow; also the lock timeout on PostgreSQL.",
    ),
    Option("WEBHOOK_URL_PREFIX", "url_prefix", "/api/v1/content", values.prefix, "Where the routes are mounted."),
    Option(
        "WEBHOOK_SIGNATURE_SCHEMES",
        "signature_schemes",
        SCHEMES,
        values.choices(SCHEMES),
        "Signature schemes that are accepted, in the order in which they are tried.",
    ),
    Option(
        "WEBHOOK_SIGNATURE_TOLERANCE",
        "signature_tolerance",
        300,
        values.number(int, 1, 86_400, "seconds"),
        "Seconds that a Standard Webhooks timestamp may be off, both ways.",
    ),
    Option(
        "WEBHOOK_MAX_BODY_BYTES",
        "max_body_bytes",
        16 * 1024 * 1024,
        values.number(int, 1024, 1024**3, "bytes"),
        "Largest body that is read.",
    ),
    Option("WEBHOOK_ALLOWED_IPS", "allowed_ips", (), values.networks, "Addresses or CIDR networks; empty: all."),
    Option(
        "WEBHOOK_TRUSTED_PROXIES",
        "trusted_proxies",
        (),
        values.networks,
        "Peers whose Client-Cert header (RFC 9440) is believed.",
    ),
    Option(
        "WEBHOOK_CLIENT_CERTS",
        "client_certs",
        (),
        values.certificates,
        "Client certificates that are let in: any, sha256:FINGERPRINT, dns:NAME, cn:NAME; empty: none needed.",
    ),
    Option(
        "WEBHOOK_RATE_LIMIT",
        "rate_limit",
        None,
        values.optional_text,
        "Requests per client address, such as 100/minute (extra: ratelimit); None: no limit.",
    ),
    Option(
        "WEBHOOK_PROCESSING",
        "processing",
        "inline",
        values.choice(("inline", "worker", "celery")),
        "Where events are applied: within the request, by `flask webhook worker`, or by Celery (extra: celery).",
    ),
    Option(
        "WEBHOOK_INBOX_LIMIT",
        "inbox_limit",
        50_000,
        values.number(int, 0),
        "Waiting events from which on more are turned away with 503, where events are not applied inline; 0: no limit.",
    ),
    Option(
        "WEBHOOK_WORKER_THREADS", "worker_threads", 4, values.number(int, 1, 256), "Threads of `flask webhook worker`."
    ),
    Option(
        "WEBHOOK_WORKER_BATCH",
        "worker_batch",
        20,
        values.number(int, 1, 1000),
        "Events that a worker's thread claims in one statement.",
    ),
    Option(
        "WEBHOOK_CELERY_GRACE",
        "celery_grace",
        timedelta(seconds=15),
        values.seconds(0),
        "Seconds that Celery has for a new event before the scheduler's sweep takes it.",
    ),
    Option(
        "WEBHOOK_EVENTS",
        "events",
        (),
        values.names(EVENT_NAME, EVENT_NAME_RULE),
        "Custom event types beyond completed, failed and progress.",
    ),
    Option(
        "WEBHOOK_REQUIRED_RESULT_FIELDS",
        "required_result_fields",
        ("content",),
        values.names(_FIELD, _FIELD_RULE),
        "Fields without which a completed result counts as thin.",
    ),
    Option(
        "WEBHOOK_STORED_RESULT_FIELDS",
        "stored_result_fields",
        None,
        values.optional_names(_FIELD, _FIELD_RULE),
        "Result fields that the task row keeps; None: all.",
    ),
    Option(
        "WEBHOOK_POLL_INTERVAL",
        "poll_interval",
        timedelta(seconds=30),
        values.seconds(1),
        "Seconds between questions about a task without callbacks; what the doubling starts from with them.",
    ),
    Option(
        "WEBHOOK_POLL_GRACE",
        "poll_grace",
        timedelta(seconds=120),
        values.seconds(1),
        "Seconds without a sign of life before a task is due for polling.",
    ),
    Option(
        "WEBHOOK_POLL_MAX_INTERVAL",
        "poll_max_interval",
        timedelta(seconds=600),
        values.seconds(1),
        "Seconds between questions about a task at the most.",
    ),
    Option("WEBHOOK_POLL_BATCH", "poll_batch", 500, values.number(int, 1, 10_000), "Tasks claimed in one statement."),
    Option(
        "WEBHOOK_POLL_CONCURRENCY",
        "poll_concurrency",
        8,
        values.number(int, 1, 256),
        "Calls to the creator at the same time.",
    ),
    Option(
        "WEBHOOK_TASK_TIMEOUT",
        "task_timeout",
        timedelta(seconds=1800),
        values.seconds(1),
        "Seconds that one attempt may take.",
    ),
    Option("WEBHOOK_MAX_RETRIES", "max_retries", 3, values.number(int, 0, 1000), "Attempts after the first one."),
    Option(
        "WEBHOOK_RETRY_BACKOFF",
        "retry_backoff",
        tuple(timedelta(seconds=s) for s in (30, 60, 120)),
        values.backoff,
        "Seconds before each retry, of failed deliveries and failed attempts; the last one repeats for attempts.",
    ),
    Option(
        "WEBHOOK_SUBMIT_THREADS",
        "submit_threads",
        4,
        values.number(int, 0, 64),
        "Threads that hand tasks to the creator right after the commit; 0 leaves that and forwarding to the scheduler.",
    ),
    Option(
        "WEBHOOK_FORWARD_URLS",
        "forward_to",
        (),
        configured_targets,
        "Where the events of every task are sent on to: URLs (commas or a list), or a list of targets, in JSON too.",
        secret=True,
    ),
    Option(
        "WEBHOOK_FORWARD_SECRET",
        "forward_secrets",
        (),
        values.standard_secrets,
        "What forwarded events are signed with, by Standard Webhooks; several sign side by side. Needed to forward.",
        secret=True,
    ),
    Option(
        "WEBHOOK_FORWARD_TIMEOUT",
        "forward_timeout",
        10.0,
        values.number(float, 0.1, 300, "seconds"),
        "Seconds that one forwarded event may take in all, from the look-up of the name to the end of the answer.",
    ),
    Option(
        "WEBHOOK_FORWARD_CONCURRENCY",
        "forward_concurrency",
        8,
        values.number(int, 1, 256),
        "Forwarded events that are under way at the same time, in each process.",
    ),
    Option(
        "WEBHOOK_FORWARD_ALLOWED_NETWORKS",
        "forward_allowed_networks",
        (),
        values.networks,
        "Addresses or CIDR networks that may be forwarded to although they are not public.",
    ),
    Option(
        "WEBHOOK_HISTORY_RETENTION_DAYS",
        "history_retention",
        timedelta(days=90),
        values.days,
        "Days that deliveries are kept; 0 keeps them for ever.",
    ),
    Option(
        "WEBHOOK_HISTORY_RETENTION_BY_VERDICT",
        "history_retention_by_verdict",
        {},
        values.days_by_verdict,
        "Days for single verdicts instead, such as rejected=7,dead=365 or a mapping; 0 keeps them for ever.",
    ),
    Option(
        "WEBHOOK_FAILURE_RATE_ALERT",
        "failure_rate_alert",
        0.10,
        values.limit(float, 1),
        "Share of recent events that may fail in the host's handlers before an alert is raised; 0: no such alert.",
    ),
    Option(
        "WEBHOOK_SILENCE_ALERT",
        "silence_alert_minutes",
        30.0,
        values.limit(float, 10_080),
        "Minutes without any callback, while tasks wait for one, before an alert is raised; 0: no such alert.",
    ),
    Option(
        "WEBHOOK_SIGNATURE_FAILURE_ALERT",
        "signature_failure_alert",
        20,
        values.limit(int, 1_000_000),
        "Recent requests that may fail the signature check before an alert is raised, where it is also three times "
        "more than before; 0: no such alert.",
    ),
    Option(
        "WEBHOOK_ALERT_WINDOW",
        "alert_window",
        timedelta(seconds=300),
        values.seconds(10),
        "Seconds that count as recent for the alerts; they are checked ten times as often.",
    ),
    Option(
        "WEBHOOK_ALERT_MIN_SAMPLE",
        "alert_min_sample",
        20,
        values.number(int, 1, 1_000_000),
        "Recent events without which the failure rate raises no alert.",
    ),
    Option(
        "WEBHOOK_SCHEDULER_ENABLED",
        "scheduler_enabled",
        False,
        values.boolean,
        "Run the scheduler inside the serving process, from its first request on.",
    ),
    Option("CREATOR_API_BASE_URL", "creator_base_url", None, values.base_url, "Where the creator's HTTP API is."),
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
        values.number(float, 0.1, 3600, "seconds"),
        "Seconds that one call to the creator may take.",
    ),
    Option(
        "CREATOR_SUBMIT_WAIT",
        "creator_submit_wait",
        3.0,
        values.number(float, 0.05, 3600, "seconds"),
        "Seconds to wait for an early answer to a submission before hanging up.",
    ),
    Option(
        "CREATOR_API_MODE",
        "creator_mode",
        "sync",
        values.choice(("sync", "async")),
        "How the creator is asked to work; today's async mode kills the real one.",
    ),
    Option(
        "CREATOR_API_LIST",
        "creator_list",
        True,
        values.boolean,
        "Ask about many tasks through the creator's list; the real creator on PostgreSQL dies of that call.",
    ),
    Option("CREATOR_CLI_PATH", "creator_cli_path", None, values.optional_text, "The creator's command line program."),
)
