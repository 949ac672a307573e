"""Parsers of configured values.

Each takes text or a value of the right type, and raises ValueError with a message that says what is allowed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal
from urllib.parse import urlsplit

from ..core.signatures import SCHEMES
from ..core.state_machine import Verdict

__all__ = ["LONGEST_SECONDS", "Network"]

Network = IPv4Network | IPv6Network

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


def boolean(value: Any) -> bool:
    """Parse a boolean in any of the usual spellings."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("must be true or false")


@dataclass(frozen=True, slots=True)
class Number:
    """A parser of numbers within bounds.

    Args:
        kind: int or float.
        low: the least value.
        high: the greatest value.
        unit: for messages.
    """

    kind: type[int | float]
    low: float
    high: float
    unit: str = ""

    @property
    def bounds(self) -> str:
        """The allowed values, for messages and the documentation."""
        return f"{self.low:.15g} to {self.high:.15g}"

    def __call__(self, value: Any) -> Any:
        noun = ("a whole number" if self.kind is int else "a number") + (f" of {self.unit}" if self.unit else "")
        rule = f"must be {noun}, at least {self.low:.15g} and at most {self.high:.15g}"
        if isinstance(value, bool):
            raise ValueError(rule)
        try:
            parsed = self.kind(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(rule) from None
        if (isinstance(value, float) and parsed != value) or not self.low <= parsed <= self.high:
            raise ValueError(rule)
        return parsed


@dataclass(frozen=True, slots=True)
class Limit(Number):
    """A parser of limits; 0, None and empty text disable the limit."""

    def __call__(self, value: Any) -> Any:
        return self.kind(0) if value is None or value == "" else Number.__call__(self, value)


LONGEST_SECONDS = 365 * 24 * 3600
"""A year: longer than anything here waits, and short enough for every calendar, driver and lock to add up."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A parser of durations: a number of seconds or days, which may have a fraction, or a timedelta."""

    low: float
    high: float = LONGEST_SECONDS
    unit: Literal["seconds", "days"] = "seconds"

    @property
    def bounds(self) -> str:
        """The allowed values, for the documentation."""
        return Number(float, self.low, self.high).bounds

    def __call__(self, value: Any) -> timedelta:
        one = timedelta(**{self.unit: 1})
        read = Number(float, self.low, self.high, self.unit)
        count: float = read(value / one if isinstance(value, timedelta) else value)
        return one * count


days = Duration(0, 36_500, "days")


def days_by_verdict(value: Any) -> Mapping[Verdict, timedelta]:
    """Parse days per verdict, as a mapping or as text."""
    if not isinstance(value, Mapping):
        pairs = [item.partition("=") for item in items(value)]
        value = {name.strip(): number.strip() for name, _, number in pairs}
    found: dict[Verdict, timedelta] = {}
    for name, number_of_days in value.items():
        if name not in {*Verdict}:
            raise ValueError(
                f"has {name!r}; allowed: {', '.join(Verdict)}, each with days, such as rejected=7,dead=365"
            )
        try:
            found[Verdict(name)] = days(number_of_days)
        except ValueError as error:
            raise ValueError(f"has {name}={number_of_days!s}, which {error}") from None
    return found


def optional_text(value: Any) -> str | None:
    """Parse text; None if it is blank."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value.strip() or None


def items(value: Any) -> tuple[str, ...]:
    """Parse text separated by commas, or a list of text; blanks around items and empty items are dropped."""
    if value is None:
        return ()
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple | set | frozenset) or not all(isinstance(p, str) for p in parts):
        raise ValueError("must be text separated by commas, or a list of strings")
    return tuple(p.strip() for p in parts if p.strip())


def secrets(value: Any) -> tuple[str, ...]:
    """Parse one or more secrets."""
    if isinstance(value, bytes):
        raise ValueError("must be text, not bytes (a string, several separated by commas, or a list of strings)")
    return items(value)


def standard_secrets(value: Any) -> tuple[str, ...]:
    """Parse one or more secrets that Standard Webhooks can sign with."""
    scheme, found = SCHEMES["standard"], secrets(value)
    for number, secret in enumerate(found, 1):
        if not scheme.accepts(secret):
            raise ValueError(f"cannot be used: secret {number} must be {scheme.key_form}")
    return found


def names(pattern: str, rule: str) -> Callable[[Any], tuple[str, ...]]:
    """Return a parser of names that match a pattern; ``rule`` describes it in the error message."""

    def parse(value: Any) -> tuple[str, ...]:
        found = items(value)
        for name in found:
            if not re.fullmatch(pattern, name):
                raise ValueError(f"has {name!r}; {rule}")
        return found

    return parse


def optional_names(pattern: str, rule: str) -> Callable[[Any], tuple[str, ...] | None]:
    """Return the same parser, for which empty text, ``*`` and None mean all names."""
    parse = names(pattern, rule)
    return lambda value: None if value is None or (isinstance(value, str) and value in {"", "*"}) else parse(value)


def choices(allowed: tuple[str, ...]) -> Callable[[Any], tuple[str, ...]]:
    """Return a parser of one or more of the allowed values; their order is kept."""

    def parse(value: Any) -> tuple[str, ...]:
        found = items(value)
        unknown = [name for name in found if name not in allowed]
        if unknown or not found:
            problem = f"has {unknown[0]!r}" if unknown else "is empty"
            raise ValueError(f"{problem}; allowed: {', '.join(allowed)}")
        return tuple(dict.fromkeys(found))

    return parse


def choice(allowed: tuple[str, ...]) -> Callable[[Any], str]:
    """Return a parser of one of the allowed values."""

    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"is {value!r}; allowed in this version: {', '.join(allowed)}")
        return str(value)

    return parse


def networks(value: Any) -> tuple[Network, ...]:
    """Parse addresses and CIDR networks."""
    networks = []
    for item in items(value):
        try:
            networks.append(ipaddress.ip_network(item))
        except ValueError as error:
            raise ValueError(f"has {item!r}: {error}; each item is an address or a CIDR network") from None
    return tuple(networks)


def certificates(value: Any) -> tuple[str, ...]:
    """Parse certificates: ``any``, ``sha256:FINGERPRINT``, ``dns:NAME`` or ``cn:NAME``.

    The result is in lower case, with fingerprints without colons.
    """
    checked = []
    for item in items(value):
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


def prefix(value: Any) -> str:
    """Parse the path under which routes are mounted."""
    if not isinstance(value, str) or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", value.strip()):
        raise ValueError("must be a path such as /api/v1/content")
    return value.strip().rstrip("/")


def base_url(value: Any) -> str | None:
    """Parse an absolute URL to which paths are appended."""
    text = optional_text(value)
    if text is None:
        return None
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an absolute http or https URL without a query and fragment")
    return text.rstrip("/")


class Backoff:
    """A parser of the seconds before each retry."""

    _each = Duration(0)
    bounds = f"each {_each.bounds}"

    def __call__(self, value: Any) -> tuple[timedelta, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, int | float | timedelta):
            parts = [parts]
        if not isinstance(parts, list | tuple) or not parts:
            raise ValueError("must be seconds separated by commas, or a list of seconds, such as 30,60,120")
        return tuple(self._each(part) for part in parts)
