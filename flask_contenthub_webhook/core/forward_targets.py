"""Forward targets: a URL, the events that it gets, and the fields of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from .events import EVENT_NAME, EVENT_NAME_RULE
from .filters import Where, check_path, parse_where, to_json

__all__ = ["ForwardTarget", "configured_targets", "read_targets"]

ENDINGS = ("completed", "failed")
_MAX_URL_LENGTH = 2048
_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"(https?)://(?:([^/?#]*)@)?(\[[^/?#]*\]|[^:@/?#]*):?([^/?#]*)", re.IGNORECASE)
"""Scheme, user, host and port of an absolute URL, split as the HTTP client that posts to it does."""
_IPV4 = re.compile(r"(?:[0-9]+\.){3}[0-9]+")


@dataclass(frozen=True, slots=True)
class ForwardTarget:
    """A URL that events are forwarded to. A plain URL, or a mapping with these names, means the same.

    Args:
        url: http or https, without user and password, at most 2048 characters.
        events: the event types that it gets; by default ``completed`` and ``failed``.
        where: a filter on the complete event.
        include: paths of the fields to send; empty for all. ``event``, ``taskId`` and ``timestamp`` are always sent.
        exclude: paths of the fields not to send.

    Raises:
        ValueError: an argument is invalid; the message never repeats the URL, which may contain a secret.
    """

    url: str
    events: Collection[str] = ENDINGS
    where: Where | None = None
    include: Collection[str] = ()
    exclude: Collection[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _checked_url(self.url))
        object.__setattr__(self, "events", tuple(map(_checked_event, _texts("events", self.events))))
        object.__setattr__(self, "where", _checked_where(self.where))
        for name in ("include", "exclude"):
            object.__setattr__(self, name, tuple(map(check_path, _texts(name, getattr(self, name)))))

    def __repr__(self) -> str:
        return f"<ForwardTarget {self.origin}>"

    @property
    def origin(self) -> str:
        """Scheme, host and port: the part of the URL that may be shown."""
        scheme, _, host, port = cast("_Parts", _parse(self.url))
        return f"{scheme}://{host}" if port == _DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{port}"

    def as_json(self) -> dict[str, Any]:
        """Return what the task's row stores: the URL, and the fields that differ from their defaults."""
        kept: dict[str, Any] = {"url": self.url}
        if self.events != ENDINGS:
            kept["events"] = list(self.events)
        if self.where:
            kept["where"] = to_json(self.where)
        return kept | {name: list(paths) for name in ("include", "exclude") if (paths := getattr(self, name))}


def read_targets(value: Iterable[str | Mapping[str, Any] | ForwardTarget]) -> tuple[ForwardTarget, ...]:
    """Read targets from URLs, mappings and :class:`ForwardTarget` objects.

    Raises:
        ValueError: one of them is invalid; the message says which and why.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ValueError("must be a list of URLs, or of objects with a url")
    targets: dict[str, ForwardTarget] = {}
    for number, item in enumerate(value, 1):
        try:
            target = _read_target(item)
        except ValueError as error:
            raise ValueError(f"is not valid: in target {number}, {error}") from None
        if target.url in targets:
            raise ValueError(f"is not valid: target {number} repeats the URL of an earlier one")
        targets[target.url] = target
    return tuple(targets.values())


def configured_targets(value: Any) -> tuple[ForwardTarget, ...]:
    """Read targets from a configured value, which may also be URLs separated by commas, or a JSON list.

    Raises:
        ValueError: as :func:`read_targets`, or the text is not JSON.
    """
    if value is None:
        return ()
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"begins like JSON, but is not valid: {error}") from None
    elif isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return read_targets(value)


def _read_target(item: Any) -> ForwardTarget:
    if isinstance(item, ForwardTarget):
        return item
    if isinstance(item, str):
        return ForwardTarget(item)
    if not isinstance(item, Mapping) or "url" not in item:
        raise ValueError("a target must be a URL, or an object with a url")
    known = ForwardTarget.__slots__
    if unknown := [name for name in item if name not in known]:
        raise ValueError(f"{str(unknown[0])[:40]!r} is not a known name; known: {', '.join(known)}")
    return ForwardTarget(**item)


def _checked_url(url: object) -> str:
    if not isinstance(url, str):
        raise ValueError("the URL must be text")
    text = url.strip()
    try:
        parts = _parse(text)
    except ValueError:
        raise ValueError("the URL is not valid") from None
    if parts is None:
        raise ValueError("the URL must be an absolute http or https URL")
    if parts.user:
        raise ValueError("the URL must not contain a user or a password; receivers check the signature instead")
    if len(text) > _MAX_URL_LENGTH:
        raise ValueError(f"the URL has {len(text)} characters; at most {_MAX_URL_LENGTH} are allowed")
    return text


class _Parts(NamedTuple):
    scheme: str
    user: str
    host: str
    port: int


def _parse(url: str) -> _Parts | None:
    """Split an absolute http or https URL; return None if it is none.

    Raises:
        ValueError: it is not a URL at all.
    """
    url.encode()  # a lone surrogate cannot be sent
    if any(char.isascii() and not char.isprintable() for char in url):
        raise ValueError("a control character")
    match = _URL.match(url)
    if match is None:
        return None
    scheme, user, name, digits = match.groups(default="")
    scheme, host = scheme.lower(), _ascii_host(name)
    port = int(digits) if digits else _DEFAULT_PORTS[scheme]
    return _Parts(scheme, user, host, port) if host and 0 < port < 2**16 else None


def _ascii_host(name: str) -> str:
    """Return a host's name as it is looked up, or an address as it is connected to."""
    if name.startswith("[") and name.endswith("]"):
        IPv6Address(name[1:-1].encode("ascii").decode())
        return name
    if _IPV4.fullmatch(name):
        return str(IPv4Address(name))
    host = quote(name.lower(), safe="!$&'()*+,;=\"`{}%|\\") if name.isascii() else None
    if host is not None and not host.startswith("xn--"):
        return host
    import idna

    host = host or idna.encode(name.lower()).decode()
    idna.decode(host)
    return host


def _checked_event(event: str) -> str:
    if not re.fullmatch(EVENT_NAME, event):
        raise ValueError(f"{event[:70]!r} is not a valid event type; {EVENT_NAME_RULE}")
    return event


def _checked_where(where: Any) -> Where | None:
    parsed = parse_where(where)
    try:
        json.dumps(to_json(parsed or {}), allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("the filter contains a value that JSON cannot express") from None
    return parsed


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list of names")
    texts = tuple(value)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} must be a list of names")
    return texts
