"""The table of deliveries: the history, and the inbox of events that wait."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ..core.state_machine import UNSETTLED
from .columns import BigId, Blob, Json, LongText, Name, PartialIndex, UTCDateTime, named, quoted, utc_now, waiting_index
from .mixin import Columns, TableMixin

__all__ = ["WAITED_MS", "DeliveryMixin"]

WAITED_MS = 60_000
"""Milliseconds after which an event counts as one that waited before it was decided."""


class DeliveryMixin(TableMixin):
    """An event that arrived, from any source, and its verdict; or a number of refused requests."""

    id: Mapped[int] = mapped_column(BigId, primary_key=True, sort_order=-10)
    task_id: Mapped[str | None] = mapped_column(Name(255), sort_order=-9)
    """``task_id`` of the task; no foreign key, since the history outlives tasks."""
    event: Mapped[str | None] = mapped_column(sa.String(64))
    attempt: Mapped[int | None] = mapped_column(sa.Integer)
    """The attempt that the event belongs to, if known."""
    source: Mapped[str] = mapped_column(sa.String(16))
    """``webhook``, ``poll``, ``response``, ``replay`` or ``host``."""
    scheme: Mapped[str | None] = mapped_column(sa.String(16))
    """The signature scheme that authenticated it, or None if it was not signed."""
    message_id: Mapped[str | None] = mapped_column(Name(255))
    """The ``webhook-id`` of a Standard Webhooks sender."""

    verdict: Mapped[str] = mapped_column(sa.String(16))
    reason: Mapped[str | None] = mapped_column(sa.Text)
    """The reason for the verdict."""
    error: Mapped[str | None] = mapped_column(LongText)
    """The exception of a handler, or the code of a refusal."""
    failed_tries: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    """The runs of the handlers that failed, in order, the newest 20: ``number``, ``at``, ``ms``, ``handler``, ``error``
    and ``traceback``. It stays when a later try succeeds."""
    status_before: Mapped[str | None] = mapped_column(sa.String(16))
    status_after: Mapped[str | None] = mapped_column(sa.String(16))
    late: Mapped[bool] = mapped_column(sa.Boolean(create_constraint=False), default=False)
    tries: Mapped[int] = mapped_column(sa.Integer, default=1)
    """The number of runs of the handlers."""
    next_retry_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """The time of the next try; null once the event is settled or parked."""
    claimed_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """The end of the lease of the worker that is applying the event."""
    occurrences: Mapped[int] = mapped_column(sa.Integer, default=1)
    """The number of refused requests that this row stands for."""
    replay_of: Mapped[int | None] = mapped_column(BigId)
    replayed_by: Mapped[str | None] = mapped_column(sa.String(255))
    """Who replayed it, of a replay: a person or a program, in the words of the caller."""

    occurred_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """The time of the event, according to the sender."""
    received_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now)
    processed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    latency_ms: Mapped[float | None] = mapped_column(sa.Double)
    """Milliseconds from acceptance to the change of state (the handlers' own time is not in it)."""
    answer_status: Mapped[int | None] = mapped_column(sa.Integer)
    """The HTTP status that the sender of a callback got, for an item of a batch its own; null for other sources."""

    remote_addr: Mapped[str | None] = mapped_column(sa.String(64))
    headers: Mapped[dict[str, str] | None] = mapped_column(Json)
    """Request headers, secrets redacted."""
    traceparent: Mapped[str | None] = mapped_column(sa.String(55))
    """The span in which it arrived; None unless the host traces, see :class:`.WebhookTracing`."""
    body: Mapped[bytes | None] = mapped_column(Blob)
    """The raw body; of an unauthenticated request that was refused, only the beginning."""
    body_digest: Mapped[str | None] = mapped_column(Name(64))
    """SHA-256 of the event's content, in hex, the same however the body was spelled."""

    @classmethod
    def _constrain(cls, table: sa.Table, columns: Columns) -> None:
        task_id, row_id, verdict = (columns[key] for key in ("task_id", "id", "verdict"))
        sa.Index(named("ix", table.name, "task_id"), task_id, row_id)
        waiting_index(table.name, "next_retry_at", columns)
        # The index that finds the first delivery that waits, for each task.
        waits = sa.text(f"{columns['next_retry_at'].name} IS NOT NULL")
        PartialIndex(named("ix", table.name, "waiting"), task_id, row_id, where=waits)
        # The deliveries that have had no effect yet; people look for these few among all the others.
        unsettled = sa.text(f"{verdict.name} IN ({quoted(*UNSETTLED)})")
        PartialIndex(named("ix", table.name, "unsettled"), verdict, row_id, where=unsettled)
        # The deliveries that were decided long after they had come; ids say when the others were.
        waited = sa.text(f"{columns['latency_ms'].name} >= {WAITED_MS}")
        decided_at = columns["processed_at"]
        PartialIndex(named("ix", table.name, "waited"), decided_at, where=waited)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.event} {self.verdict}>"
