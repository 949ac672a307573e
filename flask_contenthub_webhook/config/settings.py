"""The configuration: read by the table in :mod:`.keys`, checked as a whole, and frozen.

A value comes from ``app.config``, else from the environment variable of the same name, else from the table's
default. Text is parsed, everything is checked, and the result is a frozen :class:`Settings`. Nothing else in the
package reads ``app.config`` or the environment.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from ..core.callback_urls import CallbackURLs
from ..core.forward_targets import ForwardTarget
from ..core.redaction import redacted_text, redacted_url
from ..core.signature_schemes import is_repetitive
from ..core.signatures import SCHEMES
from ..core.state_machine import Verdict
from ..errors import ConfigurationError, InsecureConfiguration
from .keys import OPTIONS, Option
from .parsers import Network

__all__ = ["Settings", "load_settings"]

_SHORT_SECRET = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The checked configuration of one app, in the order of the table of keys."""

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
    inbox_limit: int
    worker_threads: int
    worker_batch: int
    celery_grace: timedelta
    events: tuple[str, ...]
    required_result_fields: tuple[str, ...]
    stored_result_fields: tuple[str, ...] | None
    poll_interval: timedelta
    poll_grace: timedelta
    poll_max_interval: timedelta
    poll_batch: int
    poll_concurrency: int
    task_timeout: timedelta
    max_retries: int
    retry_backoff: tuple[timedelta, ...]
    submit_threads: int
    forward_to: tuple[ForwardTarget, ...]
    forward_secrets: tuple[str, ...]
    forward_timeout: float
    forward_concurrency: int
    forward_allowed_networks: tuple[Network, ...]
    history_retention: timedelta
    history_retention_by_verdict: Mapping[Verdict, timedelta]
    failure_rate_alert: float
    silence_alert_minutes: float
    signature_failure_alert: int
    alert_window: timedelta
    alert_min_sample: int
    scheduler_enabled: bool
    creator_base_url: str | None
    creator_previous_url: str | None
    creator_api_key: str | None
    creator_timeout: float
    creator_submit_wait: float
    creator_mode: str
    creator_list: bool
    creator_cli_path: str | None

    @property
    def poll_intervals(self) -> tuple[timedelta, ...]:
        """Times between two polls of a task: the first without callbacks, the others doubling up to the longest."""
        steps = [self.poll_interval]
        while steps[-1] < self.poll_max_interval:
            steps.append(min(steps[-1] * 2, self.poll_max_interval))
        return (self.poll_interval, *(steps[1:] or steps))

    @property
    def poll_lookahead(self) -> timedelta:
        """Time by which a task may be polled early, in a pass that polls others anyway.

        Always less than the shortest time between two polls, so that one pass never polls a task twice.
        """
        return min(self.poll_grace / 2, min(self.poll_intervals[1:]) * 0.9)

    @property
    def callback_urls(self) -> CallbackURLs:
        """The builder of callback URLs; the first secret signs them, if the ``url`` scheme is in use."""
        secret = self.secrets[0] if self.secrets and "url" in self.signature_schemes else None
        return CallbackURLs(self.callback_base_url, self.url_prefix, secret)

    def __repr__(self) -> str:
        hidden = {option.field for option in OPTIONS if option.secret} - {"forward_to"}  # whose repr names hosts only
        values = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name not in hidden)
        shown = (f"{name}={redacted_url(value) if isinstance(value, str) else value!r}" for name, value in values)
        return f"Settings({', '.join(shown)}, secrets=<{len(self.secrets)}>)"


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
        is_secret = option.secret or "@" in str(value)  # a URL that is not valid may have its password anywhere
        shown = "" if is_secret else f" (it is {value!r})"
        raise ConfigurationError(redacted_text(f"{option.key} from {origin} {error}{shown}.")) from None


def _check_together(settings: Settings, *, debug: bool) -> None:
    if settings.require_signature and not settings.secrets:
        raise ConfigurationError(
            "WEBHOOK_REQUIRE_SIGNATURE is true, but WEBHOOK_SECRET_KEY is empty: no callback could be verified. "
            "Set a secret of at least 32 random characters, or switch the requirement off."
        )
    if settings.creator_previous_url is not None and settings.creator_base_url is None:
        raise ConfigurationError(
            "CREATOR_API_PREVIOUS_URL is set, but CREATOR_API_BASE_URL is not: a move needs both addresses."
        )
    _check_secrets(settings)
    if any(len(secret) < _SHORT_SECRET for secret in settings.secrets):
        _warn(f"A secret in WEBHOOK_SECRET_KEY is shorter than {_SHORT_SECRET} characters; use a longer random one.")
    if any(" " in secret for secret in settings.secrets):
        _warn("A secret in WEBHOOK_SECRET_KEY has a blank in it; a comma separates secrets, so give a list instead.")
    _check_forwarding(settings, debug=debug)
    if settings.enabled and not settings.secrets and not debug:
        _warn("WEBHOOK_SECRET_KEY is not set: anyone who can reach the callback URL can settle tasks.")
    if settings.callback_base_url and not debug:
        parts = urlsplit(settings.callback_base_url)
        if parts.hostname in {"localhost", "127.0.0.1", "::1"}:
            _warn("WEBHOOK_CALLBACK_BASE_URL points at localhost: a creator on another machine cannot reach it.")
        elif parts.scheme == "http":
            _warn("WEBHOOK_CALLBACK_BASE_URL is plain http: the token in the callback URL travels unprotected.")


def _check_secrets(settings: Settings) -> None:
    in_use = {"WEBHOOK_SECRET_KEY": settings.secrets, "WEBHOOK_FORWARD_SECRET": settings.forward_secrets}
    for key, secrets in in_use.items():
        if any(is_repetitive(secret) for secret in secrets):
            raise ConfigurationError(
                f"{key} has a secret that is one character or byte over and over: anyone could guess it. "
                "`flask webhook secret` makes a random one."
            )
    schemes = {name: SCHEMES[name] for name in settings.signature_schemes}
    for number, secret in enumerate(settings.secrets, 1):
        if not secret.removeprefix("whsec_") or not any(scheme.accepts(secret) for scheme in schemes.values()):
            allowed = "; ".join(f"{name}: {scheme.key_form}" for name, scheme in schemes.items())
            raise ConfigurationError(
                f"WEBHOOK_SECRET_KEY cannot be used: secret {number} is whsec_ without a key, or suits none of "
                f"WEBHOOK_SIGNATURE_SCHEMES ({allowed}). `flask webhook secret` generates one that suits all."
            )


def _check_forwarding(settings: Settings, *, debug: bool) -> None:
    if settings.forward_to and not settings.forward_secrets:
        raise ConfigurationError(
            "WEBHOOK_FORWARD_URLS is set, but WEBHOOK_FORWARD_SECRET is not: nothing is forwarded unsigned. "
            "`flask webhook secret` makes one; give it to the receivers."
        )
    if set(settings.forward_secrets) & set(settings.secrets):
        raise ConfigurationError(
            "WEBHOOK_FORWARD_SECRET is also in WEBHOOK_SECRET_KEY: every receiver of forwarded events could forge "
            "callbacks with it. Use a secret of its own."
        )
    if any(target.url.startswith("http:") for target in settings.forward_to) and not debug:
        _warn("WEBHOOK_FORWARD_URLS has a plain http URL: whoever is on the way can read the events.")


def _warn(message: str) -> None:
    warnings.warn(message, InsecureConfiguration, stacklevel=5)
