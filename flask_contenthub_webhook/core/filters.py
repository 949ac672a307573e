"""Filters and selections for JSON payloads.

A *path* names a field: ``result.metrics.cost``. It leads through objects only, not into lists, and cannot name a field
whose own name contains a dot.

A *filter* (``where``) maps paths to the values that they must have; all conditions must hold::

    {"result.metrics.cost": 0}                 # equal; JSON's true is not 1
    {"metadata.topic": ["news", "sport"]}      # any of them (a list, tuple or set)
    {"result.images": EXISTS}                  # present and not null; in JSON {"$exists": true}
    {"result.error": MISSING}                  # absent or null; in JSON {"$exists": false}

A *selection* is a list of paths: ``["result.content", "metadata"]``. The fields that it names are included or excluded
with everything below them; paths that lead nowhere are ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, Final

__all__ = [
    "EXISTS",
    "MISSING",
    "Where",
    "check_path",
    "leave_out",
    "look_up",
    "matches",
    "parse_where",
    "pick",
    "to_json",
]


class _Existence(Enum):
    EXISTS = "exists"
    MISSING = "missing"


EXISTS: Final = _Existence.EXISTS
MISSING: Final = _Existence.MISSING

Where = Mapping[str, Any]

_OPERATOR = "$exists"
_MAX_PATH_LENGTH = 255


# --- filters -------------------------------------------------------------------------------------------------


def matches(payload: Mapping[str, Any], where: Where | None) -> bool:
    """Return True if the payload satisfies a parsed filter; None matches everything."""
    return where is None or all(_holds(look_up(payload, path), wanted) for path, wanted in where.items())


def parse_where(where: Any) -> Where | None:
    """Check a filter, and convert the JSON forms of ``EXISTS`` and ``MISSING``.

    Args:
        where: a filter, in Python's form or in JSON's; None and an empty one match everything.

    Raises:
        ValueError: the filter is not valid; the message says which part, and what is allowed.
    """
    if where is None:
        return None
    if not isinstance(where, Mapping):
        raise ValueError("a filter must be a mapping from paths to values")
    return {check_path(path): _parse_wanted(path, wanted) for path, wanted in where.items()}


def to_json(where: Where) -> dict[str, Any]:
    """Return a parsed filter as JSON values, which :func:`parse_where` accepts."""
    return {path: _wanted_to_json(wanted) for path, wanted in where.items()}


def _parse_wanted(path: str, wanted: Any) -> Any:
    if not isinstance(wanted, Mapping) or not any(str(name).startswith("$") for name in wanted):
        return wanted
    if wanted.keys() != {_OPERATOR} or not isinstance(wanted[_OPERATOR], bool):
        raise ValueError(
            f'the filter for {path} must be a value, a list of values, or {{"{_OPERATOR}": true or false}}'
        )
    return EXISTS if wanted[_OPERATOR] else MISSING


def _wanted_to_json(wanted: Any) -> Any:
    if isinstance(wanted, _Existence):
        return {_OPERATOR: wanted is EXISTS}
    return list(wanted) if isinstance(wanted, tuple | set | frozenset) else wanted


def _holds(value: Any, wanted: Any) -> bool:
    if wanted is EXISTS:
        return value is not None
    if wanted is MISSING:
        return value is None
    if isinstance(wanted, list | tuple | set | frozenset):
        return any(_equal(value, item) for item in wanted)
    return _equal(value, wanted)


def _equal(value: Any, wanted: Any) -> bool:
    """Compare as JSON: unlike in Python, true is not 1, at any depth."""
    if isinstance(value, Mapping) and isinstance(wanted, Mapping):
        return value.keys() == wanted.keys() and all(_equal(value[name], wanted[name]) for name in value)
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_equal, value, wanted))
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


# --- selections ----------------------------------------------------------------------------------------------


def pick(payload: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    """Return only the fields that the paths name, within the objects that contain them."""
    whole, parts = _split(paths)
    picked: dict[str, Any] = {}
    for name, value in payload.items():
        if name in whole:
            picked[name] = value
        elif name in parts and isinstance(value, Mapping) and (inner := pick(value, parts[name])):
            picked[name] = inner
    return picked


def leave_out(payload: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    """Return everything but the fields that the paths name."""
    whole, parts = _split(paths)
    return {
        name: leave_out(value, parts[name]) if name in parts and isinstance(value, Mapping) else value
        for name, value in payload.items()
        if name not in whole
    }


def _split(paths: Collection[str]) -> tuple[set[str], dict[str, list[str]]]:
    """Split paths into names selected as a whole, and for other names the paths below them."""
    whole: set[str] = set()
    parts: dict[str, list[str]] = {}
    for path in paths:
        name, dot, rest = path.partition(".")
        if dot:
            parts.setdefault(name, []).append(rest)
        else:
            whole.add(name)
    return whole, parts


# --- paths ---------------------------------------------------------------------------------------------------


def look_up(payload: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path, or None if there is none."""
    value: Any = payload
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def check_path(path: Any) -> str:
    """Return the path if it is valid.

    Raises:
        ValueError: it is not; the message says what a path is.
    """
    if not isinstance(path, str) or not all(path.split(".")) or len(path) > _MAX_PATH_LENGTH:
        raise ValueError(
            f"{str(path)[:40]!r} is not a valid path; a path is a name, or several names separated by dots, such as "
            f"result.metrics.cost, of at most {_MAX_PATH_LENGTH} characters"
        )
    return path
