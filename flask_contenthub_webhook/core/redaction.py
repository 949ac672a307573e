"""Words of a creator that are shown to people: short, on one line, and without anything secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .strict_json import UNSTORABLE

__all__ = ["Redactor", "is_secret_name", "redacted_body", "redacted_headers", "shown", "shown_url", "storable"]

_SECRET_NAME = re.compile(
    r"auth|cookie|token|secret|signature|password|session|csrf|api-?key|client-cert", re.IGNORECASE
)
_TOKEN_FIELD = re.compile(rb'("token"\s*:\s*")[^"]*')
_TOKEN_PARAMETER = re.compile(r"([?&]token=)[^&#\s\"]*")
_REDACTED = "[redacted]"
_MAX_HEADERS = 64
_MAX_HEADER_LENGTH = 1000
_MAX_SHOWN = 500
_SHORTEST_SECRET = 4
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class Redactor:
    """Takes known secrets out of what a creator says.

    A creator that complains about a value often repeats it, and its words end up in logs, in the history, on screens.

    Args:
        secrets: what must not be shown; texts of less than four characters would ruin every sentence and are left.
    """

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        self._secrets = sorted({s for s in secrets if s and len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)

    def also(self, callback_url: str | None) -> Redactor:
        """The same, and what a callback URL lets its owner do: its token and its password."""
        if callback_url is None:
            return self
        try:
            parts = urlsplit(callback_url)
            more = [*parse_qs(parts.query).get("token", ()), parts.password]
        except ValueError:
            more = [callback_url]
        return Redactor([*self._secrets, *more])

    def text(self, text: str) -> str:
        """The text with every secret replaced."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def value(self, value: Any) -> Any:
        """The same for a parsed JSON value, names included."""
        if not self._secrets:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(name): self.value(item) for name, item in value.items()}
        return value


def shown(text: str) -> str:
    """The text for a message: one line, printable, at most 500 characters."""
    line = _UNPRINTABLE.sub(" ", text).strip()
    return line if len(line) <= _MAX_SHOWN else f"{line[: _MAX_SHOWN - 1]}…"


def shown_url(url: str) -> str:
    """Scheme, host and path of a URL: no user, no password, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def storable(text: str) -> str:
    """The text with a replacement character for each one that no database takes."""
    return UNSTORABLE.sub("\ufffd", text)


def redacted_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Request headers for the history: nothing that proves who somebody is, and bounded in number and length."""
    kept: dict[str, str] = {}
    for name, value in headers:
        if len(kept) == _MAX_HEADERS:
            break
        kept[storable(name)[:_MAX_HEADER_LENGTH]] = storable(_redacted(name, value))[:_MAX_HEADER_LENGTH]
    return kept


def redacted_body(body: bytes) -> bytes:
    """A body without the tokens that the items of a batch carry; for bodies that could not be taken apart."""
    return _TOKEN_FIELD.sub(rb"\1[redacted]", body)


def _redacted(name: str, value: str) -> str:
    if is_secret_name(name):
        return _REDACTED
    if "token=" in value:  # a proxy may repeat the URL, in Referer or X-Original-URI
        return _TOKEN_PARAMETER.sub(rf"\1{_REDACTED}", value)
    return value


@lru_cache(maxsize=256)
def is_secret_name(name: str) -> bool:
    """Whether what goes by this name proves who somebody is."""
    return _SECRET_NAME.search(name) is not None
