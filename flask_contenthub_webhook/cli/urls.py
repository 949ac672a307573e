"""Callback URLs as they may be shown: without what lets their reader settle a task."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

__all__ = ["without_secrets"]


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
