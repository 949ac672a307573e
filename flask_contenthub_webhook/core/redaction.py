"""Words of a creator that are shown to people: short, on one line, and without anything secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["Redactor", "shown", "shown_url"]

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
