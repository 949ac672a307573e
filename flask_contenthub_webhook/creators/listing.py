"""Walk through a creator's list of tasks, newest first: one request per hundred tasks.

A task that was not found counts as missing only if the walk is certain: it reached the end of the list, or tasks older
than all wanted ones, and the list neither shrank nor lost its order meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..core.logs import get_logger
from ..errors import CreatorError, CreatorUnclear
from .answers import read_row, read_time, row_id
from .protocol import Report

__all__ = ["PAGE_SIZE", "Walk", "walk_list"]

logger = get_logger(__name__)

PAGE_SIZE = 100
"""Tasks per page; the creator accepts no larger number."""
_SLACK = timedelta(minutes=15)
"""A task may be in the creator's list before its submission is recorded here, since the call waits for its answer."""


@dataclass(slots=True)
class Walk:
    """Outcome of a walk through the list.

    Args:
        reports: the reports, by id.
        unclear: ids that are in the list with an unknown state.
        is_certain: tasks that were not seen do not exist.
        gave_up: the list is longer than ``max_pages``.
        error: the error that ended the walk.
        was_reached: the creator itself was seen to answer right before.
    """

    reports: dict[str, Report] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    is_certain: bool = False
    gave_up: bool = False
    error: CreatorError | None = None
    was_reached: bool = False


def walk_list(
    read: Callable[[int], tuple[Mapping[str, Any], datetime | None]],
    wanted: Collection[str],
    *,
    max_pages: int,
    now: datetime,
    since: datetime | None = None,
) -> Walk:
    """Look for tasks in the list.

    ``read`` fetches a page (from 1) and the creator's time, if known, to correct for the difference from ``now``. None
    of the wanted tasks was submitted before ``since``.
    """
    walker = _Walker(wanted)
    for number in range(1, max_pages + 1):
        try:
            data, creators_now = read(number)
            page = _read_page(data)
        except CreatorError as error:
            walker.walk.error = error
            return walker.walk
        if number == 1 and since is not None:
            ahead = creators_now - now if creators_now is not None else timedelta(0)
            walker.cutoff = since - _SLACK + ahead
        if walker.is_done_after(page, number):
            return walker.walk
    walker.walk.gave_up = True
    return walker.walk


@dataclass(frozen=True, slots=True)
class _Page:
    rows: list[Any]
    total: int | None
    pages: int | None


class _Walker:
    def __init__(self, wanted: Collection[str]) -> None:
        self.walk = Walk()
        self.cutoff: datetime | None = None
        self._to_find = set(wanted)
        self._seen: set[str] = set()
        self._oldest: datetime | None = None
        self._newest_first = True
        self._first_total: int | None = None
        self._total: int | None = None

    def is_done_after(self, page: _Page, number: int) -> bool:
        if self._total is not None and page.total is not None and page.total < self._total:
            logger.info("The creator's list shrank while it was read; tasks not found are looked for later.")
            return True
        self._total = page.total
        if number == 1:
            self._first_total = page.total
        before = len(self._seen)
        for row in page.rows:
            self._look_at(row)
        if not self._to_find:
            return True
        if number >= page.pages if page.pages is not None else len(page.rows) < PAGE_SIZE:
            self.walk.is_certain = self._first_total is None or len(self._seen) >= self._first_total
            return True
        if len(self._seen) == before:
            logger.warning("The creator's list repeats its pages; it cannot be read completely.")
            return True
        self.walk.is_certain = self._is_past_cutoff()
        return self.walk.is_certain

    def _look_at(self, row: Any) -> None:
        name = row_id(row)
        if name is None or name in self._seen:  # a new task moves older ones to the next page
            return
        self._seen.add(name)
        created = read_time(row.get("createdAt"))
        if created is None or (self._oldest is not None and created > self._oldest):
            self._newest_first = False
        self._oldest = created
        if name not in self._to_find:
            return
        self._to_find.discard(name)
        try:
            self.walk.reports[name] = read_row(row)
        except CreatorUnclear as error:
            logger.warning("%s", error.message, extra={"creator_task_id": name})
            self.walk.unclear.add(name)

    def _is_past_cutoff(self) -> bool:
        return (
            self.cutoff is not None and self._newest_first and self._oldest is not None and self._oldest < self.cutoff
        )


def _read_page(data: Mapping[str, Any]) -> _Page:
    rows, pagination = data.get("tasks"), data.get("pagination")
    if not isinstance(rows, list):
        raise CreatorUnclear("The creator's list has no tasks under `data.tasks`.")
    numbers = pagination if isinstance(pagination, dict) else {}
    return _Page(rows, _count(numbers.get("total")), _count(numbers.get("totalPages")))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
