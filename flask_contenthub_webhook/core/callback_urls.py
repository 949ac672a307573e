"""The callback URL of a task: what the creator is given, and what the ``url`` scheme checks when it comes back."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from ..config.settings import Settings
from ..errors import ConfigurationError
from .signatures import sign_url

__all__ = ["address_callback_url", "build_callback_url", "without_secrets"]


def build_callback_url(
    settings: Settings, task_id: str, attempt: int | None = 1, *, base_url: str | None = None
) -> str:
    """The URL under which the creator reports on one attempt of a task.

    Args:
        settings: the app's configuration; with a secret, the URL carries a token.
        task_id: our id of the task.
        attempt: the attempt that the URL speaks for, from 1; None makes a URL that speaks for whichever is current.
        base_url: scheme, host and optional path; by default WEBHOOK_CALLBACK_BASE_URL.

    Raises:
        ConfigurationError: there is no base URL.
    """
    base = base_url if base_url is not None else settings.callback_base_url
    if base is None:
        raise ConfigurationError(
            "WEBHOOK_CALLBACK_BASE_URL is not set: the creator must be told where to call back, "
            "for example https://hub.example.com."
        )
    path = f"{settings.url_prefix}/callback/{quote(task_id, safe='')}"
    return address_callback_url(settings, f"{base.rstrip('/')}{path}", task_id, attempt)


def address_callback_url(settings: Settings, url: str, task_id: str, attempt: int | None) -> str:
    """Any URL that leads to this app, made to speak for one attempt of a task: its ``attempt`` and ``token`` are set.

    Args:
        settings: the app's configuration; with a secret, the URL carries a token.
        url: an absolute URL, such as one of an earlier attempt; the rest of its query stays.
        task_id: our id of the task.
        attempt: the attempt, from 1; None for whichever is current.
    """
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query, True) if name not in {"attempt", "token"}]
    if attempt is not None:
        query.append(("attempt", str(attempt)))
    if settings.secrets and "url" in settings.signature_schemes:
        query.append(("token", sign_url(settings.secrets[0], task_id, attempt)))
    return urlunsplit(parts._replace(query=urlencode(query)))


def without_secrets(url: str) -> str:
    """The URL with its token and its password replaced by ``***``."""
    parts = urlsplit(url)
    query = "&".join(
        f"{name}=***" if name == "token" else part
        for part in parts.query.split("&")
        for name in [part.partition("=")[0]]
    )
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}:***{at}{host}" if ":" in user else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, query=query))
