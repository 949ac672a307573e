"""The filter of deliveries, read from the query of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from werkzeug.datastructures import MultiDict

from ...core.received import Source
from ...core.state_machine import Verdict
from ...runtime.state import get_state
from ...storage.delivery_queries import DeliveryFilter
from .tasks import services_of

__all__ = ["RANGES", "FilterForm", "PageFilter", "cursor", "is_wordy", "read_filter_form", "window_since"]

RANGES = {
    "hour": "Last hour",
    "today": "Today (UTC)",
    "day": "Last 24 hours",
    "week": "Last 7 days",
    "all": "All",
    "custom": "From … to",
}
_AGES = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}

_LONGEST = {"task": 255, "event": 64, "scheme": 16, "text": 200, "error": 200, "topic": 200, "service": 64, "answer": 3}
_MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFilter(DeliveryFilter):
    """Filter for deliveries, also by what their tasks say; of rows in an application's context.

    Args:
        answer: the HTTP status that the sender got.
        topic: a part of the task's topic; case does not matter.
        services: the names that the service has in the rows of its tasks.
    """

    answer: int | None = None
    topic: str | None = None
    services: tuple[str, ...] = ()

    @property
    def reads_tasks(self) -> bool:
        """True if every row costs a look at its task."""
        return bool(self.topic or self.services)

    def conditions(self, model: Any) -> list[sa.ColumnElement[bool]]:
        """Return the parts of the WHERE clause."""
        conditions = super(PageFilter, self).conditions(model)  # slots=True makes another class of this one
        if self.answer is not None:
            conditions.append(model.answer_status == self.answer)
        task = get_state().task_model
        # A scalar subquery is looked up for each row; databases would turn EXISTS into a join with the whole table.
        if self.topic:
            topic = sa.select(task.topic).where(task.task_id == model.task_id).scalar_subquery()
            conditions.append(topic.icontains(self.topic, autoescape=True))
        if self.services:
            name = sa.select(sa.func.coalesce(task.creator_name, "")).where(task.task_id == model.task_id)
            conditions.append(name.scalar_subquery().in_(self.services))
        return conditions


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

    criteria: PageFilter
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
    if texts["answer"] and not (texts["answer"].isascii() and texts["answer"].isdigit()):
        problems["answer"] = "Write an HTTP status, such as 401."
    verdicts = tuple(dict.fromkeys(args.getlist("verdict")))
    sources = tuple(dict.fromkeys(filter(None, args.getlist("source"))))
    services = services_of(get_state().registry, texts["service"]) if texts["service"] else ()
    known: dict[str, tuple[tuple[str, ...], list[Any]]] = {
        "verdict": (verdicts, list(Verdict)),
        "source": (sources, list(Source)),
    }
    unknown = {name for name, (values, every) in known.items() if not set(values) <= {str(value) for value in every}}
    if services is None:
        unknown.add("service")
    range_ = args.get("range") or ("custom" if args.get("from") or args.get("to") else default_range)
    if range_ not in RANGES:
        unknown.add("range")
    problems |= dict.fromkeys(unknown, "There is no such choice.")
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
    criteria = PageFilter(
        task_id=texts["task"] or None,
        events=(texts["event"],) if texts["event"] else (),
        verdicts=verdicts,
        sources=sources,
        schemes=(texts["scheme"],) if texts["scheme"] else (),
        since=since,
        until=until,
        error=texts["error"] or None,
        answer=int(texts["answer"]) if texts["answer"] and "answer" not in problems else None,
        topic=texts["topic"] or None,
        services=services or (),
    )
    given = {name: value for name, value in given.items() if value}
    return FilterForm(criteria, texts["text"], range_, given, problems)


def is_wordy(args: MultiDict[str, str], form: FilterForm) -> bool:
    """Return True for the address that a browser makes of a form, with fields that are empty."""
    return not form.problems and not args.keys() & {"before", "after"} and any(not text for text in args.values())


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
