"""One small matcher for filters over JSON payloads: equality, membership and existence.

A filter is a mapping from dotted paths to what must stand there::

    {"result.metrics.cost": 0}                 # equal
    {"metadata.topic": ["news", "sport"]}      # one of (a list, tuple or set)
    {"result.images": EXISTS}                  # there, and not null
    {"result.error": MISSING}                  # not there, or null

All conditions must hold. A path goes through objects only; there is no way to look into lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

__all__ = ["EXISTS", "MISSING", "Where", "matches"]


class _Existence(Enum):
    EXISTS = "exists"
    MISSING = "missing"


EXISTS: Final = _Existence.EXISTS
MISSING: Final = _Existence.MISSING

Where = Mapping[str, Any]


def matches(payload: Mapping[str, Any], where: Where | None) -> bool:
    """Whether every condition of the filter holds for the payload; no filter matches everything."""
    return where is None or all(_holds(_look_up(payload, path), wanted) for path, wanted in where.items())


def _look_up(payload: Mapping[str, Any], path: str) -> Any:
    value: Any = payload
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _holds(value: Any, wanted: Any) -> bool:
    if wanted is EXISTS:
        return value is not None
    if wanted is MISSING:
        return value is None
    if isinstance(wanted, list | tuple | set | frozenset):
        return any(_equal(value, one) for one in wanted)
    return _equal(value, wanted)


def _equal(value: Any, wanted: Any) -> bool:
    """JSON equality: unlike in Python, true is not 1."""
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)
