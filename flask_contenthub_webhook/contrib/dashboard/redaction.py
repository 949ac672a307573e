"""What the host keeps for the creator and for receivers, as it may be shown: without what proves who somebody is."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ...core.redaction import is_secret_name

__all__ = ["redacted", "redacted_url"]

_HIDDEN = "[redacted]"
_DEEPEST = 20


def redacted(value: Any, *, depth: int = 0) -> Any:
    """A JSON value without the values of names such as ``api_key``, and with the secrets of its URLs removed."""
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {
            name: _HIDDEN if _proves_something(str(name)) else redacted(item, depth=depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [redacted(item, depth=depth + 1) for item in value]
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        return redacted_url(value)
    return value


def redacted_url(url: str) -> str:
    """A URL without a password, and without the values of parameters that go by a secret's name."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return _HIDDEN
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}:***@{host}" if at and ":" in user else parts.netloc
    shown = [(name, "***" if _proves_something(name) else value) for name, value in query]
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(shown, safe="*"), fragment=""))


def _proves_something(name: str) -> bool:
    """Whether a secret goes by this name; JSON and queries write ``api_key`` where headers write ``Api-Key``."""
    return name.lower() == "key" or is_secret_name(name.replace("_", "-"))
