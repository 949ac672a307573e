"""The configuration: every key with its default, its parser and its check, in one table.

A value comes from ``app.config``, else from the environment variable of the same name, else from the table's
default. Text is parsed, everything is checked, and the result is a frozen :class:`Settings`. Nothing else in the
package reads ``app.config`` or the environment.
"""

from __future__ import annotations

import ipaddress
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigurationError

__all__ = ["OPTIONS", "InsecureConfiguration", "Option", "Settings", "load_settings"]

SCHEMES = ("url", "contenthub", "standard", "github")
_SHORT_SECRET = 32
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}

Network = IPv4Network | IPv6Network


class InsecureConfiguration(UserWarning):
    """A setting works, but is weaker than a public endpoint should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The checked configuration of one app. Field order follows :data:`OPTIONS`."""

    enabled: bool
    callback_base_url: str | None
    secrets: tuple[str, ...]
    require_signature: bool
    timeout: float
    url_prefix: str
    signature_schemes: tuple[str, ...]
    signature_tolerance: int
    max_body_bytes: int
    allowed_ips: tuple[Network, ...]
    trusted_proxies: tuple[Network, ...]
    client_certs: tuple[str, ...]
    rate_limit: str | None
    processing: str
    events: tuple[str, ...]
    required_result_fields: tuple[str, ...]
    stored_result_fields: tuple[str, ...] | None
    poll_grace: timedelta
    task_timeout: timedelta
    max_retries: int
    retry_backoff: tuple[timedelta, ...]

    def __repr__(self) -> str:
        shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name != "secrets")
        return f"Settings({', '.join(shown)}, secrets=<{len(self.secrets)}>)"


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


# --- parsers -------------------------------------------------------------------------------------------------


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("must be true or false")


def _number(kind: type[int | float], low: float, high: float | None = None, unit: str = "") -> Callable[[Any], Any]:
    noun = ("a whole number" if kind is int else "a number") + (f" of {unit}" if unit else "")
    bounds = f"{noun}, at least {low:g}" + (f" and at most {high:g}" if high is not None else "")

    def parse(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"must be {bounds}")
        try:
            number = kind(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"must be {bounds}") from None
        if (isinstance(value, float) and number != value) or not low <= number <= (high if high is not None else 1e15):
            raise ValueError(f"must be {bounds}")
        return number

    return parse


def _seconds(low: float) -> Callable[[Any], timedelta]:
    number = _number(float, low, unit="seconds")

    def parse(value: Any) -> timedelta:
        return timedelta(seconds=number(value.total_seconds() if isinstance(value, timedelta) else value))

    return parse


def _optional_text(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value.strip() or None


def _items(value: Any) -> tuple[str, ...]:
    """Text separated by commas, or a list of text, without blanks and empty items."""
    if value is None:
        return ()
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple | set | frozenset) or not all(isinstance(p, str) for p in parts):
        raise ValueError("must be text separated by commas, or a list of text")
    return tuple(p.strip() for p in parts if p.strip())


def _secrets(value: Any) -> tuple[str, ...]:
    if isinstance(value, bytes):
        raise ValueError("must be text, not bytes (a string, or several separated by commas, or a list)")
    return _items(value)


def _names(pattern: str, what: str) -> Callable[[Any], tuple[str, ...]]:
    def parse(value: Any) -> tuple[str, ...]:
        names = _items(value)
        for name in names:
            if not re.fullmatch(pattern, name):
                raise ValueError(f"has {name!r}; {what}")
        return names

    return parse


def _optional_names(pattern: str, what: str) -> Callable[[Any], tuple[str, ...] | None]:
    parse = _names(pattern, what)
    return lambda value: None if value is None or value in {"", "*"} else parse(value)


def _choices(allowed: tuple[str, ...]) -> Callable[[Any], tuple[str, ...]]:
    def parse(value: Any) -> tuple[str, ...]:
        names = _items(value)
        unknown = [name for name in names if name not in allowed]
        if unknown or not names:
            problem = f"has {unknown[0]!r}" if unknown else "is empty"
            raise ValueError(f"{problem}; allowed: {', '.join(allowed)}")
        return tuple(dict.fromkeys(names))

    return parse


def _choice(allowed: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"is {value!r}; allowed in this version: {', '.join(allowed)}")
        return str(value)

    return parse


def _networks(value: Any) -> tuple[Network, ...]:
    networks = []
    for item in _items(value):
        try:
            networks.append(ipaddress.ip_network(item))
        except ValueError as error:
            raise ValueError(f"has {item!r}: {error}; each item is an address or a CIDR network") from None
    return tuple(networks)


def _certificates(value: Any) -> tuple[str, ...]:
    """``any``, ``sha256:FINGERPRINT``, ``dns:NAME`` or ``cn:NAME``, in lower case, fingerprints without colons."""
    checked = []
    for item in _items(value):
        kind, _, name = item.partition(":")
        kind, name = kind.lower(), name.strip().lower()
        if kind == "sha256":
            name = name.replace(":", "")
            if not re.fullmatch(r"[0-9a-f]{64}", name):
                raise ValueError(f"has {item!r}; a sha256 fingerprint is 64 hexadecimal digits")
        elif kind == "any" and not name:
            checked.append("any")
            continue
        elif kind not in {"dns", "cn"} or not name:
            raise ValueError(f"has {item!r}; each item is any, sha256:FINGERPRINT, dns:NAME or cn:NAME")
        checked.append(f"{kind}:{name}")
    return tuple(checked)


def _prefix(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", value.strip()):
        raise ValueError("must be a path such as /api/v1/content")
    return value.strip().rstrip("/")


def _base_url(value: Any) -> str | None:
    text = _optional_text(value)
    if text is None:
        return None
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an absolute http or https URL without query and fragment")
    return text.rstrip("/")


def _backoff(value: Any) -> tuple[timedelta, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, int | float | timedelta):
        parts = [parts]
    if not isinstance(parts, list | tuple) or not parts:
        raise ValueError("must be seconds separated by commas, or a list of seconds, such as 30,60,120")
    return tuple(_seconds(0)(part) for part in parts)


_EVENT_NAME = r"[a-z][a-z0-9_.-]{0,63}"
_FIELD_NAME = r"[^\s,]{1,100}"

OPTIONS: tuple[Option, ...] = (
    Option("WEBHOOK_ENABLED", "enabled", False, _boolean, "Accept callbacks at all."),
    Option(
        "WEBHOOK_CALLBACK_BASE_URL",
        "callback_base_url",
        None,
        _base_url,
        "Scheme, host and optional path under which the creator reaches this app.",
    ),
    Option(
        "WEBHOOK_SECRET_KEY",
        "secrets",
        (),
        _secrets,
        "One secret, or several (commas or a list): the first signs, all verify.",
        secret=True,
    ),
    Option("WEBHOOK_REQUIRE_SIGNATURE", "require_signature", False, _boolean, "Refuse what is not signed."),
    Option(
        "WEBHOOK_TIMEOUT",
        "timeout",
        10.0,
        _number(float, 0.1, 3600, "seconds"),
        "Seconds after which processing one callback is logged as slow; also the lock timeout on PostgreSQL.",
    ),
    Option("WEBHOOK_URL_PREFIX", "url_prefix", "/api/v1/content", _prefix, "Where the routes are mounted."),
    Option(
        "WEBHOOK_SIGNATURE_SCHEMES",
        "signature_schemes",
        SCHEMES,
        _choices(SCHEMES),
        "Signature schemes that are accepted, in the order in which they are tried.",
    ),
    Option(
        "WEBHOOK_SIGNATURE_TOLERANCE",
        "signature_tolerance",
        300,
        _number(int, 1, 86_400, "seconds"),
        "Seconds that a Standard Webhooks timestamp may be off, both ways.",
    ),
    Option(
        "WEBHOOK_MAX_BODY_BYTES",
        "max_body_bytes",
        16 * 1024 * 1024,
        _number(int, 1024, 1024**3, "bytes"),
        "Largest body that is read.",
    ),
    Option("WEBHOOK_ALLOWED_IPS", "allowed_ips", (), _networks, "Addresses or CIDR networks; empty: every address."),
    Option(
        "WEBHOOK_TRUSTED_PROXIES",
        "trusted_proxies",
        (),
        _networks,
        "Peers whose Client-Cert header (RFC 9440) is believed.",
    ),
    Option(
        "WEBHOOK_CLIENT_CERTS",
        "client_certs",
        (),
        _certificates,
        "Client certificates that are let in: any, sha256:FINGERPRINT, dns:NAME, cn:NAME; empty: none needed.",
    ),
    Option(
        "WEBHOOK_RATE_LIMIT",
        "rate_limit",
        None,
        _optional_text,
        "Requests per client address, such as 100/minute (extra: ratelimit); None: no limit.",
    ),
    Option("WEBHOOK_PROCESSING", "processing", "inline", _choice(("inline",)), "Where events are applied."),
    Option(
        "WEBHOOK_EVENTS",
        "events",
        (),
        _names(_EVENT_NAME, "an event type is lower case letters, digits, dot, dash and underscore, at most 64"),
        "Custom event types beyond completed, failed and progress.",
    ),
    Option(
        "WEBHOOK_REQUIRED_RESULT_FIELDS",
        "required_result_fields",
        ("content",),
        _names(_FIELD_NAME, "a field name has no blanks and at most 100 characters"),
        "Fields without which a completed result counts as thin.",
    ),
    Option(
        "WEBHOOK_STORED_RESULT_FIELDS",
        "stored_result_fields",
        None,
        _optional_names(_FIELD_NAME, "a field name has no blanks and at most 100 characters"),
        "Result fields that the task row keeps; None: all.",
    ),
    Option(
        "WEBHOOK_POLL_GRACE",
        "poll_grace",
        timedelta(seconds=120),
        _seconds(1),
        "Seconds without a sign of life before a task is due for polling.",
    ),
    Option(
        "WEBHOOK_TASK_TIMEOUT",
        "task_timeout",
        timedelta(seconds=1800),
        _seconds(1),
        "Seconds that one attempt may take.",
    ),
    Option("WEBHOOK_MAX_RETRIES", "max_retries", 3, _number(int, 0, 1000), "Attempts after the first one."),
    Option(
        "WEBHOOK_RETRY_BACKOFF",
        "retry_backoff",
        tuple(timedelta(seconds=s) for s in (30, 60, 120)),
        _backoff,
        "Seconds before each retry, of failed deliveries and failed attempts; the last one repeats for attempts.",
    ),
)


def load_settings(
    config: Mapping[str, Any], environ: Mapping[str, str] | None = None, *, debug: bool = False
) -> Settings:
    """Read, parse and check the configuration.

    Args:
        config: usually ``app.config``.
        environ: usually ``os.environ``, which is the default.
        debug: do not warn about what is only weak on a public host.

    Raises:
        ConfigurationError: names the key, what is wrong and what is allowed; never the value of a secret.
    """
    environ = os.environ if environ is None else environ
    settings = Settings(**{option.field: _read(option, config, environ) for option in OPTIONS})
    _check_together(settings, debug=debug)
    return settings


def _read(option: Option, config: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    if option.key in config:
        value, origin = config[option.key], "app.config"
    elif option.key in environ:
        value, origin = environ[option.key], "the environment"
    else:
        return option.default
    if value is None and option.default is None:
        return None
    try:
        return option.parse(value)
    except ValueError as error:
        shown = "" if option.secret else f" (it is {value!r})"
        raise ConfigurationError(f"{option.key} from {origin} {error}{shown}.") from None


def _check_together(settings: Settings, *, debug: bool) -> None:
    if settings.require_signature and not settings.secrets:
        raise ConfigurationError(
            "WEBHOOK_REQUIRE_SIGNATURE is true, but WEBHOOK_SECRET_KEY is empty: no callback could be verified. "
            "Set a secret of at least 32 random characters, or switch the requirement off."
        )
    if any(len(secret) < _SHORT_SECRET for secret in settings.secrets):
        _warn(f"A secret in WEBHOOK_SECRET_KEY is shorter than {_SHORT_SECRET} characters; use a longer random one.")
    if settings.enabled and not settings.secrets and not debug:
        _warn("WEBHOOK_SECRET_KEY is not set: anyone who can reach the callback URL can settle tasks.")
    if settings.callback_base_url and not debug:
        parts = urlsplit(settings.callback_base_url)
        if parts.hostname in {"localhost", "127.0.0.1", "::1"}:
            _warn("WEBHOOK_CALLBACK_BASE_URL points at localhost: a creator on another machine cannot reach it.")
        elif parts.scheme == "http":
            _warn("WEBHOOK_CALLBACK_BASE_URL is plain http: the token in the callback URL travels unprotected.")


def _warn(message: str) -> None:
    warnings.warn(message, InsecureConfiguration, stacklevel=5)
