"""The list of tasks: those that are open by what is due next, the others from the newest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ...core.redaction import redacted_task
from ...core.state_machine import OPEN_STATES, TaskState
from ...creators.registry import Registry
from ...storage.queries import Reading, Row, id_of
from ...storage.rows import is_row_id
from .search import PER_PAGE, Page, Search, read_page
from .windows import EVERYTHING, MOST_ROWS, Lane

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = [
    "SHOWN",
    "OpenPage",
    "TaskFilter",
    "actions_of",
    "count_overdue",
    "place_of",
    "read_open_tasks",
    "read_tasks",
    "service_names",
    "services_of",
]

SHOWN = {"open": "Open", "overdue": "Overdue", "failed": "Failed", "all": "All"}
_FAILED = (TaskState.FAILED, TaskState.TIMEOUT)
_PATIENCE = timedelta(minutes=1)
"""A step that was due longer ago is overdue: the jobs run more often than that."""
_MOST_COUNTED = 10_000
_BRIEF = 200
_KEYS = (
    "id",
    "task_id",
    "topic",
    "status",
    "attempt",
    "creator_name",
    "progress_percentage",
    "next_submit_at",
    "submitting_since",
    "next_poll_at",
    "deadline_at",
    "created_at",
    "finished_at",
    "error_code",
)


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Tasks to list.

    Args:
        shown: a key of :data:`SHOWN`.
        services: the names that the service has in the rows of its tasks; empty for all.
    """

    shown: str
    services: tuple[str, ...] = ()

    def conditions(self, task: Any, now: datetime) -> list[sa.ColumnElement[bool]]:
        """Return the parts of the WHERE clause."""
        conditions: list[sa.ColumnElement[bool]] = []
        if self.shown in {"open", "overdue"}:
            conditions.append(task.status.in_([state.value for state in OPEN_STATES]))
        if self.shown == "overdue":
            conditions.append(_is_overdue(task, now))
        if self.shown == "failed":
            conditions.append(task.status.in_([state.value for state in _FAILED]))
        if self.services:
            conditions.append(sa.func.coalesce(task.creator_name, "").in_(self.services))
        return conditions


@dataclass(frozen=True, slots=True)
class OpenPage:
    """Open tasks, the one whose next step is due first at the top.

    Args:
        rows: the tasks.
        further: the place of the next page, or None.
        is_cut: true if more tasks than a request may examine came before another one that matches.
    """

    rows: list[Row]
    further: str | None
    is_cut: bool = False


def service_names(registry: Registry) -> list[str]:
    """Return the names of the services to choose from; empty where there is one at most."""
    return [] if registry.is_lone else [entry.name for entry in registry.entries]


def services_of(registry: Registry, name: str) -> tuple[str, ...] | None:
    """Return the names that a service has in the rows of its tasks; None if there is no such service."""
    entry = registry.sender(name)
    return None if entry is None else tuple(registry.columns_of(entry))


def actions_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a person can do with a task in its state."""
    status = TaskState(row["status"])
    return ("cancel",) if status in OPEN_STATES else () if status is TaskState.COMPLETED else ("retry",)


def read_open_tasks(
    read: Reading, state: WebhookState, criteria: TaskFilter, now: datetime, after: tuple[datetime, int] | None
) -> OpenPage:
    """Read a page of open tasks, along the index of what is due next.

    Args:
        read: the transaction.
        state: the application's state.
        criteria: the filter, of open or overdue tasks.
        now: the time at which they are overdue.
        after: the place of the last task of the page before, or None.
    """
    task = state.task_model
    inside = [task.next_poll_at.is_not(None)]
    if after is not None:
        at, task_id = after
        inside += [task.next_poll_at >= at, sa.or_(task.next_poll_at > at, id_of(task) > task_id)]
    order = (task.next_poll_at, task.id)
    last = read.first(sa.select(*order).where(*inside).order_by(*order).limit(1).offset(MOST_ROWS - 1))
    if last is not None:
        inside.append(task.next_poll_at <= last[0])
    query = sa.select(*_columns(task)).where(*inside, *criteria.conditions(task, now)).order_by(*order)
    rows = [redacted_task(row) for row in read.rows(query.limit(PER_PAGE + 1))]
    if len(rows) > PER_PAGE:
        return OpenPage(rows[:PER_PAGE], _place(rows[PER_PAGE - 1]["next_poll_at"], rows[PER_PAGE - 1]["id"]))
    return OpenPage(rows, None if last is None else _place(*last), is_cut=last is not None)


def read_tasks(
    read: Reading,
    state: WebhookState,
    criteria: TaskFilter,
    now: datetime,
    *,
    before: int | None = None,
    after: int | None = None,
) -> Page:
    """Read the newest tasks of a filter, or those next to a cursor; see :func:`.search.read_page`."""
    task = state.task_model
    search = Search(read, task, Lane(read, task, down=after is None), criteria.conditions(task, now))
    page = read_page(read, search, EVERYTHING, _columns(task), time=task.created_at, before=before, after=after)
    page.rows[:] = [redacted_task(row) for row in page.rows]
    return page


def count_overdue(state: WebhookState, now: datetime) -> sa.ScalarSelect[int]:
    """Count the overdue tasks, up to a limit plus 1, which means "more"."""
    task = state.task_model
    is_open = task.status.in_([status.value for status in OPEN_STATES])
    rows: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
        task.next_poll_at.is_not(None), is_open, _is_overdue(task, now)
    )
    return sa.select(sa.func.count()).select_from(rows.limit(_MOST_COUNTED + 1).subquery()).scalar_subquery()


def place_of(text: str) -> tuple[datetime, int] | None:
    """Return the place in the list of open tasks that a parameter of the query names; None for any other text."""
    microseconds, _, task_id = text.partition("-")
    if not (text.isascii() and microseconds.isdigit() and task_id.isdigit() and len(text) < 40):  # noqa: PLR2004
        return None
    if not is_row_id(int(task_id)):
        return None
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds)), int(task_id)
    except OverflowError:
        return None


def _place(at: datetime, task_id: int) -> str:
    return f"{(at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)}-{task_id}"


def _is_overdue(task: Any, now: datetime) -> sa.ColumnElement[bool]:
    """Match an open task whose deadline has passed, or whose next step should have been taken long ago."""
    return sa.or_(
        task.deadline_at <= now,
        task.next_poll_at <= now - _PATIENCE,
        sa.and_(task.status == TaskState.PENDING.value, task.next_submit_at <= now - _PATIENCE),
    )


def _columns(task: Any) -> list[Any]:
    brief = sa.func.substr(task.error_message, 1, _BRIEF).label("error_message")
    return [*(getattr(task, key).label(key) for key in _KEYS), brief]
