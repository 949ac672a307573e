"""The one door for secrets: what of a URL, a header, a JSON document and a text may be shown, logged or kept.

Secrets are found by the names that they go by, and by their place in a URL. What is shown to people passes
:func:`visible` or :func:`escaped` as well, so that a text from a stranger shows what it holds and does nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit, urlunsplit

from .strict_json import UNSTORABLE

__all__ = [
    "HIDDEN",
    "Redactor",
    "clean",
    "escaped",
    "redacted",
    "redacted_body",
    "redacted_code",
    "redacted_content",
    "redacted_headers",
    "redacted_sample",
    "redacted_task",
    "redacted_text",
    "redacted_url",
    "storable",
    "visible",
]

_SECRET_NAME = re.compile(
    r"auth(?!or(?!i))|cookie|token|secret|signature|passw|passphrase|session|csrf|xsrf|credential"
    r"|(?:api|access|private|signing)[-_ ]?key|client[-_ ]?cert"
    r"|^(?:sig|pass|pwd|jwt)$|(?:^|[-_ ]|(?-i:(?<=[a-z])(?=K)))key$",
    re.IGNORECASE,
)
"""Names of parameters, headers and JSON fields; ``author`` is not one of them."""

_INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but not tab and newline
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"  # invisible, or turning the direction
    "\u2028\u2029\ufeff\ufff9-\ufffb"  # line ends that are not newlines, marks
    "\ud800-\udfff\U000e0000-\U000e007f"  # halves of characters, tags
)
HIDDEN = re.compile(f"[{_INVISIBLE}]+")
"""Characters that cannot be seen, or that steer a screen; not the joiners, which scripts and emoji need."""
_HIDDEN_IN_A_LINE = re.compile(f"[\t\n{_INVISIBLE}]+")

_STARS = "***"
_REDACTED = "[redacted]"
_DEEPEST = 200
_MAX_HEADERS = 64
_SHORT_VALUE = 256
_MAX_HEADER_LENGTH = 1000
_MAX_MESSAGE = 500
_SHORTEST_SECRET = 4

_USERINFO = re.compile(r'(?<=//)(?:([^\s/?#"<>:@]*):)?[^\s/?#"<>]*@')
_PARAMETER = re.compile(r'([?&;#])([^\s=&;?#"<>/]{1,100})=([^\s&;#"<>\\]*)')
_JSON_STRINGS = re.compile(r'("(?:[^"\\]|\\.)*(?:"|\\?\Z))(?:(\s*:\s*)("(?:[^"\\]|\\.)*(?:"|\\?\Z)))?', re.DOTALL)
"""A string, and the one behind its colon; every string is consumed, so that the time is linear in the text."""
_LITERAL = re.compile(
    r"""([A-Za-z_][\w-]{0,63})(["']?\]?(?:=| = |: )[rbuf]{0,2})("[^"\n]*"|'[^'\n]*'|(?<==)[\w./+~-]+)"""
)
"""A name and its value, in code or in the repr of a value: ``key="..."``, ``'key': '...'``, ``key=...``."""
_BEARER = re.compile(r"\b(bearer|basic) [\w.~+/=-]{4,}", re.IGNORECASE)
_OF_THE_CREATOR = {"progress", "result"}


# --- documents, headers and bodies --------------------------------------------------------------------------------


def redacted(value: Any, *, by_name: bool = True, depth: int = 0) -> Any:
    """Return a JSON value without the secrets in it.

    Args:
        value: of the host, such as the options for the creator, or a row of ours.
        by_name: hide the values of secret names; False for the creator's content, whose ``tokensUsed`` is a figure.
        depth: levels above it.
    """
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {
            name: _REDACTED
            if by_name and _is_secret_name(str(name))
            else redacted(item, by_name=by_name, depth=depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(item, by_name=by_name, depth=depth + 1) for item in value]
    if isinstance(value, str):
        return redacted_url(value) if _is_url(value) else redacted_text(value)
    return value


def redacted_task(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's row as it may be shown."""
    return {name: redacted(value, by_name=name not in _OF_THE_CREATOR) for name, value in row.items()}


def redacted_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return request headers for the history: without secrets, and bounded in number and length."""
    kept: dict[str, str] = {}
    for name, value in headers:
        if len(kept) == _MAX_HEADERS:
            break
        key, is_secret = _header_name(name)
        if is_secret:
            kept[key] = _REDACTED
        else:
            kept[key] = _short_value(value) if len(value) <= _SHORT_VALUE else _shown_value(value)
    return kept


@lru_cache(maxsize=256)
def _header_name(name: str) -> tuple[str, bool]:
    return storable(name)[:_MAX_HEADER_LENGTH], _is_secret_name(name)


def _shown_value(value: str) -> str:
    return storable(redacted_text(value))[:_MAX_HEADER_LENGTH]  # a proxy may repeat the URL


_short_value = lru_cache(maxsize=256)(_shown_value)
"""A sender repeats nearly all of its headers in every request."""


def redacted_content(text: str, *, by_name: bool = False) -> str:
    """Return JSON, or the beginning of it, or any other text, with all but its secrets as it was sent.

    Args:
        text: escapes in the strings of JSON are understood.
        by_name: hide the texts of secret names, and not only what is secret in URLs.
    """
    if not (by_name or "=" in text or "@" in text or "\\u00" in text):
        return text

    def without(found: re.Match[str]) -> str:
        name, colon, value = found.groups()
        if not colon:
            return _redacted_literal(name)
        if by_name and _is_secret_name(_decoded(name)):
            return f'{name}{colon}"{_REDACTED}"'
        return name + colon + _redacted_literal(value)

    return redacted_text(_JSON_STRINGS.sub(without, text))


def redacted_body(body: bytes, *, by_name: bool = False) -> bytes:
    """Return the same of bytes; those that are not UTF-8 stay."""
    return redacted_content(body.decode("utf-8", "surrogateescape"), by_name=by_name).encode("utf-8", "surrogateescape")


def redacted_sample(body: bytes) -> bytes:
    """Return the beginning of a body that nobody signed: whatever it is, it may hold the tokens of a batch's items."""
    sample = redacted_body(body, by_name=True)
    narrow = body.replace(b"\0", b"")  # UTF-16, or a NUL within a name
    return sample if sample != body or redacted_body(narrow, by_name=True) == narrow else redacted_sample(narrow)


def _redacted_literal(literal: str) -> str:
    """Redact a JSON string; one without a backslash needs no more than any text does."""
    if "\\" not in literal:
        return redacted_text(literal)
    text = _decoded(literal)
    return literal if (shown := redacted_text(text)) == text else json.dumps(shown)


def _decoded(literal: str) -> str:
    """Return the text of a JSON string, or as much of it as can be decoded."""
    try:
        return str(json.loads(literal, strict=False))
    except ValueError:
        return literal.strip('"')


@lru_cache(maxsize=256)
def _is_secret_name(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


# --- by place -----------------------------------------------------------------------------------------------------


def redacted_url(url: str) -> str:
    """Return a URL without its password, the values of secret parameters, and its fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _REDACTED
    userinfo, at, host = parts.netloc.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    netloc = f"{user}:{_STARS}@{host}" if colon else f"{_STARS if userinfo else ''}{at}{host}"
    query = "".join(map(_redacted_parameter, re.split("([&;])", parts.query)))
    return urlunsplit(parts._replace(netloc=netloc, query=query, fragment=""))


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) and not any(map(str.isspace, text))


def redacted_text(text: str) -> str:
    """Return a text without the secrets of the URLs in it."""
    if "//" in text:
        text = _USERINFO.sub(lambda found: f"{'' if found[1] is None else found[1] + ':'}{_STARS}@", text)
    if "=" in text:
        text = _PARAMETER.sub(lambda found: found[1] + _redacted_parameter(f"{found[2]}={found[3]}"), text)
    return text


def redacted_code(text: str) -> str:
    """Return a message or a traceback without the literals beside secret names, and without bearers' tokens."""
    text = _LITERAL.sub(lambda found: f"{found[1]}{found[2]}{_STARS}" if _is_secret_name(found[1]) else found[0], text)
    return redacted_text(_BEARER.sub(rf"\1 {_STARS}", text))


def _redacted_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    inner = unquote(value) if "%" in value else ""
    is_secret = _is_secret_name(unquote_plus(name)) or inner != redacted_text(inner)
    return f"{name}={_STARS}" if equals and is_secret else parameter


class Redactor:
    """Takes known secrets out of what others say.

    A creator that complains about a value often repeats it, and its words end up in logs, in the history, on screens.

    Args:
        secrets: what must not be shown; texts of less than four characters would ruin every sentence and are left.
    """

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        self._secrets = sorted({s for s in secrets if s and len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)

    def also(self, *documents: Any) -> Redactor:
        """Return a redactor that knows the secrets of these URLs and JSON values as well."""
        return Redactor([*self._secrets, *(secret for document in documents for secret in _secrets_in(document))])

    def text(self, text: str) -> str:
        """Return the text with every secret replaced."""
        for secret in self._secrets:
            text = text.replace(secret, _STARS)
        return text

    def value(self, value: Any) -> Any:
        """Return a parsed JSON value with every secret replaced, in names as well."""
        if not self._secrets:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(name): self.value(item) for name, item in value.items()}
        return value


def _secrets_in(value: Any, *, is_secret: bool = False, depth: int = 0) -> Iterator[str]:
    if depth > _DEEPEST or value is None or isinstance(value, bool):
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _secrets_in(item, is_secret=is_secret or _is_secret_name(str(name)), depth=depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets_in(item, is_secret=is_secret, depth=depth + 1)
    elif is_secret:
        yield str(value)
    elif isinstance(value, str) and _is_url(value):
        yield from _secrets_of_url(value)


def _secrets_of_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        yield url
        return
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    found = [password if colon else user]
    for parameter in re.split("[&;]", parts.query):
        name, _, value = parameter.partition("=")
        found += [value] if _is_secret_name(unquote_plus(name)) else []
    for secret in found:
        yield from (secret, unquote_plus(secret))


# --- texts of strangers -------------------------------------------------------------------------------------------


def storable(text: str) -> str:
    """Return the text with a replacement for each character that no database takes."""
    return text if text.isascii() and "\0" not in text else UNSTORABLE.sub("\ufffd", text)


def clean(text: str) -> str:
    """Return a stranger's text for a message: without secrets of URLs, on one line, at most 500 characters."""
    line = _HIDDEN_IN_A_LINE.sub(" ", redacted_text(text)).strip()
    return line if len(line) <= _MAX_MESSAGE else f"{line[: _MAX_MESSAGE - 1]}…"


def visible(text: str, *, lines: bool = False) -> str:
    """Return the text with a sign for everything that could not be seen, such as ``␀`` and ``⟨U+202E⟩``.

    Args:
        text: from a stranger.
        lines: leave newlines and tabs as they are.
    """
    return (HIDDEN if lines else _HIDDEN_IN_A_LINE).sub(lambda found: "".join(map(_sign, found[0])), text)


def escaped(text: object, *, lines: bool = False) -> str:
    r"""Return the same for a terminal, in ASCII: ``\x1b`` and the like.

    Args:
        text: from a stranger.
        lines: leave newlines and tabs as they are.
    """
    return (HIDDEN if lines else _HIDDEN_IN_A_LINE).sub(lambda found: "".join(map(_code, found[0])), str(text))


def _sign(character: str) -> str:
    code = ord(character)
    if code < 0x20:  # noqa: PLR2004
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"  # noqa: PLR2004


def _code(character: str) -> str:
    if character in "\t\n":
        return "\\t" if character == "\t" else "\\n"
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004
