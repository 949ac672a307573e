"""The filter of deliveries, read from the query of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from werkzeug.datastructures import MultiDict

from ...core.received import Source
from ...core.state_machine import Verdict
from ...storage.delivery_queries import DeliveryFilter

__all__ = ["RANGES", "FilterForm", "cursor", "read_filter_form", "window_since"]

RANGES = {
    "hour": "Last hour",
    "today": "Today (UTC)",
    "day": "Last 24 hours",
    "week": "Last 7 days",
    "all": "All",
    "custom": "From … to",
}
_AGES = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}

_LONGEST = {"task": 255, "event": 64, "scheme": 16, "text": 200, "error": 200}
_MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class FilterForm:
    """A filter as it was filled in.

    Args:
        criteria: everything but the text.
        text: the text that the body must contain, or an empty string.
        range: a key of :data:`RANGES`.
        given: the parameters of the query that belong to the filter, unchanged.
        problems: for each wrong parameter, an explanation. No deliveries are shown then: without one of its parts, a
            filter would match more than was asked for.
    """

    criteria: DeliveryFilter
    text: str
    range: str
    given: Mapping[str, Any]
    problems: Mapping[str, str]

    @property
    def is_empty(self) -> bool:
        """True if it matches every delivery."""
        return self.criteria.is_empty and not self.text


def read_filter_form(args: MultiDict[str, str], now: datetime, *, default_range: str = "all") -> FilterForm:
    """Read a filter from the query of a request.

    Args:
        args: the query.
        now: the end of the ranges.
        default_range: for a query that names none.
    """
    problems: dict[str, str] = {}
    texts = {name: args.get(name, "").strip() for name in _LONGEST}
    for name, text in texts.items():
        if len(text) > _LONGEST[name] or "\0" in text:
            problems[name] = f"At most {_LONGEST[name]} characters, and no NUL."
    verdicts = tuple(dict.fromkeys(args.getlist("verdict")))
    sources = tuple(dict.fromkeys(filter(None, args.getlist("source"))))
    for name, values, known in (("verdict", verdicts, list(Verdict)), ("source", sources, list(Source))):
        if not set(values) <= {str(value) for value in known}:
            problems[name] = "There is no such choice."
    range_ = args.get("range") or ("custom" if args.get("from") or args.get("to") else default_range)
    if range_ not in RANGES:
        problems["range"] = "There is no such choice."
    since, until = window_since(range_, now), None
    if range_ == "custom":
        since, until = (_moment(args.get(name, ""), name, problems) for name in ("from", "to"))
        if since is not None and until is not None and since >= until:
            problems["to"] = "The end is not after the beginning."
    given: dict[str, Any] = {**texts, "verdict": verdicts, "source": sources}
    if range_ != default_range:
        given["range"] = range_
    if range_ == "custom":
        given |= {name: args.get(name) for name in ("from", "to")}
    criteria = DeliveryFilter(
        task_id=texts["task"] or None,
        events=(texts["event"],) if texts["event"] else (),
        verdicts=verdicts,
        sources=sources,
        schemes=(texts["scheme"],) if texts["scheme"] else (),
        since=since,
        until=until,
        error=texts["error"] or None,
    )
    given = {name: value for name, value in given.items() if value}
    return FilterForm(criteria, texts["text"], range_, given, problems)


def window_since(range_: str, now: datetime) -> datetime | None:
    """Return the beginning of a range that ends now; None if it has none."""
    if range_ == "today":
        return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return now - _AGES[range_] if range_ in _AGES else None


def cursor(args: Mapping[str, str], name: str) -> int | None:
    """Return the id in a parameter of the query; None if there is no valid one."""
    text = args.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _MAX_ID else None  # noqa: PLR2004


def _moment(text: str, name: str, problems: dict[str, str]) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        problems[name] = "Write a date and a time, such as 2026-11-24T08:15, in UTC."
        return None
