"""The checks of the creator's API, and the messages of its refusals: those of zod 4, as captured."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from .article import js_length
from .ledger import TaskState

__all__ = ["STATES", "Invalid", "ListQuery", "MalformedJSON", "Submission", "check_list_query", "check_submission"]

STATES: tuple[str, ...] = get_args(TaskState)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.")
_IMAGE_SIZE = re.compile(r"[1-9][0-9]{2,3}x[1-9][0-9]{2,3}|[1-4][kK]")
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}")
_MISSING = object()
_T = TypeVar("_T")
_KINDS = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


class Invalid(Exception):
    """Some fields are wrong: ``[{"path": ..., "message": ...}]``."""

    def __init__(self, fields: list[dict[str, str]]) -> None:
        super().__init__(fields)
        self.fields = fields


class MalformedJSON(Exception):
    """The body is not JSON: the creator answers with 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A valid body of ``POST /api/tasks``.

    Args:
        topic: the subject of the article.
        requirements: for the article.
        target_audience: of the article.
        priority: 1 to 4.
        mode: ``sync`` or ``async``.
        task_id: the ``idempotencyKey``; with None an id is generated.
        callback_url: where to call back; None for no callbacks.
        workable: the parameters suit the workflow; otherwise the task is accepted and fails at once.
    """

    topic: str
    requirements: str
    target_audience: str
    priority: int = 2
    mode: str = "sync"
    task_id: str | None = None
    callback_url: str | None = None
    workable: bool = True

    @property
    def metadata(self) -> dict[str, str]:
        """The fields that the callbacks repeat."""
        return {"topic": self.topic, "requirements": self.requirements, "targetAudience": self.target_audience}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A valid query of ``GET /api/tasks``."""

    page: int
    limit: int
    status: str | None


def check_submission(body: bytes, content_type: str) -> Submission:
    """Check the body of ``POST /api/tasks``.

    Raises:
        Invalid: fields are missing or wrong.
        MalformedJSON: it is not JSON.
    """
    fields = _parse(body, content_type)
    check = _Check(fields)
    check.text("topic", 1, 500, required=True)
    check.text("requirements", 1, 2000, required=True)
    check.text("targetAudience", 1, 500, required=True)
    check.texts("keywords")
    check.text("tone", 0, 100)
    check.text("imageSize")
    check.number("priority", 1, 4)
    check.option("mode", ("sync", "async"))
    check.option("type", ())  # no value of it works
    check.constraints("hardConstraints")
    check.text("userId")
    check.text("idempotencyKey")
    check.url("callbackUrl")
    check.typed("callbackEnabled", bool)
    check.texts("callbackEvents")
    if check.problems:
        raise Invalid(check.problems)
    return Submission(
        topic=fields["topic"],
        requirements=fields["requirements"],
        target_audience=fields["targetAudience"],
        priority=int(fields.get("priority", 2)),
        mode=fields.get("mode", "sync"),
        task_id=fields.get("idempotencyKey") or None,
        callback_url=(fields.get("callbackUrl") or None) if fields.get("callbackEnabled", True) else None,
        workable=_IMAGE_SIZE.fullmatch(fields.get("imageSize", "1k")) is not None,
    )


def check_list_query(query: Mapping[str, str]) -> ListQuery:
    """Check the query of ``GET /api/tasks``.

    Raises:
        Invalid: a value is wrong.
    """
    fields = {name: int(text) if _WHOLE.fullmatch(text) else text for name, text in query.items()}
    check = _Check(fields)
    check.option("status", STATES)
    check.number("page", 1, None, bad="NaN")
    check.number("limit", 1, 100, bad="NaN")
    if check.problems:
        raise Invalid(check.problems)
    return ListQuery(int(fields.get("page", 1)), int(fields.get("limit", 20)), query.get("status"))


def _parse(body: bytes, content_type: str) -> dict[str, Any]:
    if "json" not in content_type.lower() or not body:
        return {}  # Express parses nothing else
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise MalformedJSON from None
    if not isinstance(value, dict):
        raise Invalid([{"path": "", "message": f"Invalid input: expected object, received {_kind(value)}"}])
    return value


def _refuse_constant(literal: str) -> float:
    raise ValueError(literal)


class _Check:
    """Collect the problems of one object's fields, in the order in which they are checked."""

    def __init__(self, fields: Mapping[str, Any], prefix: str = "") -> None:
        self._fields = fields
        self._prefix = prefix
        self.problems: list[dict[str, str]] = []

    def text(self, name: str, shortest: int = 0, longest: int | None = None, *, required: bool = False) -> None:
        value = self.typed(name, str, required=required)
        if value is None:
            return
        length = js_length(value)
        if length < shortest:
            self._wrong(name, f"Too small: expected string to have >={shortest} characters")
        elif longest is not None and length > longest:
            self._wrong(name, f"Too big: expected string to have <={longest} characters")

    def number(self, name: str, least: int, most: int | None, *, bad: str | None = None) -> None:
        value = self._fields.get(name, _MISSING)
        if value is _MISSING:
            return
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong(name, f"Invalid input: expected number, received {bad or _kind(value)}")
        elif not math.isfinite(value):
            self._wrong(name, "Invalid input: expected number, received Infinity")
        elif value != int(value):
            self._wrong(name, "Invalid input: expected int, received number")
        elif value < least:
            self._wrong(name, f"Too small: expected number to be >={least}")
        elif most is not None and value > most:
            self._wrong(name, f"Too big: expected number to be <={most}")

    def texts(self, name: str) -> None:
        for index, item in enumerate(self.typed(name, list) or ()):
            if not isinstance(item, str):
                self._wrong(f"{name}.{index}", f"Invalid input: expected string, received {_kind(item)}")

    def option(self, name: str, allowed: Iterable[str]) -> None:
        value = self._fields.get(name, _MISSING)
        if value is not _MISSING and value not in tuple(allowed):
            choices = "|".join(f'"{option}"' for option in allowed)
            self._wrong(name, f"Invalid option: expected one of {choices}" if choices else "Invalid input")

    def url(self, name: str) -> None:
        value = self.typed(name, str)
        if value is not None and not _is_url(value):
            self._wrong(name, "Invalid URL")

    def constraints(self, name: str) -> None:
        inner = _Check(self.typed(name, dict) or {}, f"{name}.")
        inner.number("minWords", 0, None)
        inner.number("maxWords", 0, None)
        inner.texts("keywords")
        self.problems += inner.problems

    def typed(self, name: str, type_: type[_T], *, required: bool = False) -> _T | None:
        """Return the value, or None if it is missing or of another type."""
        value = self._fields.get(name, _MISSING)
        if isinstance(value, type_):
            return value
        if value is not _MISSING or required:
            self._wrong(name, f"Invalid input: expected {_KINDS[type_]}, received {_kind(value)}")
        return None

    def _wrong(self, name: str, message: str) -> None:
        self.problems.append({"path": f"{self._prefix}{name}", "message": message})


def _is_url(text: str) -> bool:
    """Return True for what JavaScript's ``new URL`` accepts, nearly."""
    if not _SCHEME.match(text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme not in {"http", "https"} or (bool(parts.hostname) and (parts.port or 0) >= 0)
    except ValueError:
        return False


def _kind(value: Any) -> str:
    return "undefined" if value is _MISSING else _KINDS.get(type(value), "null")
