"""Where events are sent on to: a URL, which events it gets, and what of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from .events import EVENT_NAME, EVENT_NAME_RULE
from .filters import Where, check_path, parse_where, to_json

__all__ = ["ForwardTarget", "configured_targets", "read_targets"]

ENDINGS = ("completed", "failed")
_MAX_URL_LENGTH = 2048


@dataclass(frozen=True, slots=True)
class ForwardTarget:
    """One URL that events are sent on to. A plain URL, or a mapping with these names, means the same.

    Args:
        url: http or https, without a user or a password, at most 2048 characters.
        events: the event types that it gets; by default the two endings, ``completed`` and ``failed``.
        where: a filter over the event as it would be sent whole; see :mod:`.filters`.
        include: paths of the fields that are sent; empty for all. ``event``, ``taskId`` and ``timestamp`` always are.
        exclude: paths of fields that are not sent.

    Raises:
        ValueError: a value cannot be used; says which, without repeating the URL, which may hold a secret.
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
        """Scheme, host and port: the part of the URL that is never secret."""
        url = httpx.URL(self.url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    def as_json(self) -> dict[str, Any]:
        """What the task's row keeps: the URL, and what is not as usual."""
        kept: dict[str, Any] = {"url": self.url}
        if self.events != ENDINGS:
            kept["events"] = list(self.events)
        if self.where:
            kept["where"] = to_json(self.where)
        return kept | {name: list(paths) for name in ("include", "exclude") if (paths := getattr(self, name))}


def read_targets(value: Iterable[str | Mapping[str, Any] | ForwardTarget]) -> tuple[ForwardTarget, ...]:
    """Targets from what a host writes: URLs, mappings, ready ones.

    Raises:
        ValueError: one of them cannot be used; says which and why.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ValueError("must be a list of URLs, or of objects with a url")
    targets: dict[str, ForwardTarget] = {}
    for number, item in enumerate(value, 1):
        try:
            target = _read_target(item)
        except ValueError as error:
            raise ValueError(f"cannot be used: in target {number}, {error}") from None
        if target.url in targets:
            raise ValueError(f"cannot be used: the URL of target {number} stands there twice")
        targets[target.url] = target
    return tuple(targets.values())


def configured_targets(value: Any) -> tuple[ForwardTarget, ...]:
    """The same from the configuration, where text may also be URLs with commas between them, or a JSON list.

    Raises:
        ValueError: as above, or the text is no JSON.
    """
    if value is None:
        return ()
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"begins like JSON, but is none: {error}") from None
    elif isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return read_targets(value)


def _read_target(item: Any) -> ForwardTarget:
    if isinstance(item, ForwardTarget):
        return item
    if isinstance(item, str):
        return ForwardTarget(item)
    if not isinstance(item, Mapping) or "url" not in item:
        raise ValueError("there must be a URL, or an object with a url")
    known = ForwardTarget.__slots__
    if unknown := [name for name in item if name not in known]:
        raise ValueError(f"{str(unknown[0])[:40]!r} is not known; known: {', '.join(known)}")
    return ForwardTarget(**item)


def _checked_url(url: object) -> str:
    if not isinstance(url, str):
        raise ValueError("the URL must be text")
    text = url.strip()
    try:
        parts = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError):
        raise ValueError("the URL is not valid") from None
    if parts.scheme not in {"http", "https"} or not parts.host or not _is_port(parts.port):
        raise ValueError("the URL must be an absolute http or https URL")
    if parts.userinfo:
        raise ValueError("the URL must not hold a user or a password; the signature says who sends")
    if len(text) > _MAX_URL_LENGTH:
        raise ValueError(f"the URL has {len(text)} characters; at most {_MAX_URL_LENGTH} are kept")
    return text


def _is_port(port: int | None) -> bool:
    return port is None or 0 < port < 2**16


def _checked_event(event: str) -> str:
    if not re.fullmatch(EVENT_NAME, event):
        raise ValueError(f"{event[:70]!r} is no event type; {EVENT_NAME_RULE}")
    return event


def _checked_where(where: Any) -> Where | None:
    parsed = parse_where(where)
    try:
        json.dumps(to_json(parsed or {}), allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("the filter holds a value that JSON has not got") from None
    return parsed


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"{name} must be a list of names")
    texts = tuple(value)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} must be a list of names")
    return texts
