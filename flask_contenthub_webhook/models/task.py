"""The table of tasks.

``task.status`` and the columns that go with it belong to the extension: only :mod:`..engine.apply` writes them.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ..core.state_machine import OPEN_STATES, TERMINAL_STATES, TaskState
from .columns import (
    BigId,
    HostDateTime,
    Json,
    LongText,
    Name,
    OneOf,
    TimeOfDatabase,
    UTCDateTime,
    database_now,
    named,
    waiting_index,
)
from .mixin import Columns, TableMixin

__all__ = ["GenerationTaskMixin"]

_FIRST_POLL = 120


class GenerationTaskMixin(TableMixin):
    """A job for the creator. The host fills in the job itself, such as ``topic``; the rest belongs to the extension."""

    id: Mapped[int] = mapped_column(BigId, primary_key=True, sort_order=-10)
    task_id: Mapped[str] = mapped_column(
        Name(36), default=lambda: str(uuid.uuid4()), insert_sentinel=True, sort_order=-9
    )
    """Our name of the task, a UUID4; it stands in the callback URL."""
    creator_task_id: Mapped[str | None] = mapped_column(Name(255))
    """The creator's name of the current attempt."""
    earlier_creator_task_ids: Mapped[list[str]] = mapped_column(Json, default=list)
    """The creator's names of the attempts before, the last ones of them."""
    creator_name: Mapped[str | None] = mapped_column(sa.String(16))
    """The creator that the task is for, by its name in ``Creators``; None if there is only one."""
    creator_address: Mapped[str | None] = mapped_column(sa.String(255))
    """The address of the creator that has the current attempt, if it has one; after a move it differs from today's."""

    topic: Mapped[str | None] = mapped_column(sa.String(500))
    requirements: Mapped[str | None] = mapped_column(sa.Text)
    target_audience: Mapped[str | None] = mapped_column(sa.String(500))
    keywords: Mapped[list[str] | None] = mapped_column(Json)
    tone: Mapped[str | None] = mapped_column(sa.String(100))
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=2)
    """1 (low) to 4 (urgent)."""
    auto_approve: Mapped[bool] = mapped_column(sa.Boolean(create_constraint=False), default=False)

    previous_status: Mapped[str | None] = mapped_column(sa.String(16))
    """The state before the last change; before ``status``, because MySQL assigns from left to right."""
    status: Mapped[str] = mapped_column(Name(16), default=TaskState.PENDING.value)
    attempt: Mapped[int] = mapped_column(sa.Integer, default=1)
    """The current submission to the creator, from 1."""
    max_retries: Mapped[int | None] = mapped_column(sa.Integer)
    """Attempts after the first; None takes WEBHOOK_MAX_RETRIES."""
    timeout_seconds: Mapped[int | None] = mapped_column(sa.Integer)
    """Seconds for one attempt; None takes WEBHOOK_TASK_TIMEOUT."""
    version: Mapped[int] = mapped_column(sa.Integer, default=1)
    """Counts the changes of this row; every compare-and-set compares it."""

    callback_url: Mapped[str | None] = mapped_column(sa.String(2048))
    callback_events: Mapped[list[str] | None] = mapped_column(Json)
    creator_options: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Further parameters, under the creator's own names."""
    forward_to: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    """Further URLs for this task's events, in addition to WEBHOOK_FORWARD_URLS."""
    traceparent: Mapped[str | None] = mapped_column(sa.String(55))
    """The span of its submission, in the words of W3C; None unless the host traces, see :class:`.WebhookTracing`."""

    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error_code: Mapped[str | None] = mapped_column(sa.String(64))
    error_message: Mapped[str | None] = mapped_column(LongText)
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)
    progress_percentage: Mapped[float | None] = mapped_column(sa.Double)
    progress_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    next_submit_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """The time at which a pending task is due for submission."""
    submitting_since: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """Set from the beginning of a hand-over until the creator has confirmed that it has the job; still set after a
    crash, or if its answer was lost, so that nothing is submitted twice."""
    submit_tries: Mapped[int] = mapped_column(sa.Integer, default=0)
    """The number of times that the creator was not reached with this attempt."""
    submitted_at: Mapped[datetime | None] = mapped_column(HostDateTime)
    """The time at which the creator accepted the current attempt."""
    next_poll_at: Mapped[datetime | None] = mapped_column(UTCDateTime, default=TimeOfDatabase(after=_FIRST_POLL))
    """The time of the next query of an open task; never null while the task is open. Of a task that has ended: the
    time at which the creator must be told again that its job is no longer wanted."""
    polls: Mapped[int] = mapped_column(sa.Integer, default=0)
    """Queries since the last sign of life."""
    times_missing: Mapped[int] = mapped_column(sa.Integer, default=0)
    """Consecutive answers of the creator that lacked the task."""
    deadline_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    created_at: Mapped[datetime] = mapped_column(HostDateTime, default=database_now)
    updated_at: Mapped[datetime] = mapped_column(HostDateTime, default=database_now)
    finished_at: Mapped[datetime | None] = mapped_column(HostDateTime)
    """The time at which the task reached its terminal state."""

    @classmethod
    def _constrain(cls, table: sa.Table, columns: Columns) -> None:
        status = columns["status"]
        sa.UniqueConstraint(columns["task_id"], name=named("uq", table.name, "task_id"))
        for name, condition in (
            ("status", OneOf(status, *OPEN_STATES, *TERMINAL_STATES)),
            ("open_is_polled", OneOf(status, *TERMINAL_STATES, unless=columns["next_poll_at"])),
        ):
            table.append_constraint(sa.CheckConstraint(condition, name=named("ck", table.name, name)))
        sa.Index(named("ix", table.name, "creator_task_id"), columns["creator_task_id"])
        waiting_index(table.name, "next_submit_at", columns)
        waiting_index(table.name, "next_poll_at", columns)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id} {self.status}>"
