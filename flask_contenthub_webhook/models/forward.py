"""The tables of forwards: events for other URLs, and each try to send one."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from .columns import BigId, Blob, Json, LongText, Name, PartialIndex, UTCDateTime, named, utc_now, waiting_index
from .mixin import Columns, TableMixin

__all__ = ["ForwardAttemptMixin", "ForwardMixin"]


class ForwardMixin(TableMixin):
    """An event on its way to a URL."""

    id: Mapped[int] = mapped_column(BigId, primary_key=True, sort_order=-10)
    delivery_id: Mapped[int] = mapped_column(BigId)
    """The delivery that is forwarded; no foreign key, since either may be purged first."""
    task_id: Mapped[str] = mapped_column(Name(255))
    event: Mapped[str] = mapped_column(sa.String(64))
    url: Mapped[str] = mapped_column(sa.String(2048))
    message_id: Mapped[str] = mapped_column(Name(255))
    """The ``webhook-id``: the same on every try, so that the receiver can tell a copy."""

    status: Mapped[str] = mapped_column(sa.String(16))
    """``waiting``, ``delivered`` or ``dead``."""
    tries: Mapped[int] = mapped_column(sa.Integer, default=0)
    next_try_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """The time of the next try; null once it is delivered or dead."""
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    resent_by: Mapped[str | None] = mapped_column(sa.String(255))
    """Who had it sent again last: a person or a program, in the words of the caller."""
    resent_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    traceparent: Mapped[str | None] = mapped_column(sa.String(55))
    """The span of the event; None unless the host traces, see :class:`.WebhookTracing`."""
    body: Mapped[bytes] = mapped_column(Blob)
    """The filtered body for this URL; the last column, because SQLite reads through it to later ones."""

    @classmethod
    def _constrain(cls, table: sa.Table, columns: Columns) -> None:
        sa.Index(named("ix", table.name, "delivery_id"), columns["delivery_id"])
        waiting_index(table.name, "next_try_at", columns)
        # There are few of these, and people look for them among all that was delivered.
        dead = sa.text("status = 'dead'")
        PartialIndex(named("ix", table.name, "dead"), columns["status"], where=dead)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.event} {self.status}>"


class ForwardAttemptMixin(TableMixin):
    """A try to forward an event."""

    id: Mapped[int] = mapped_column(BigId, primary_key=True, sort_order=-10)
    forward_id: Mapped[int] = mapped_column(BigId)
    number: Mapped[int] = mapped_column(sa.Integer)
    """From 1, over all replays."""
    started_at: Mapped[datetime] = mapped_column(UTCDateTime)
    duration_ms: Mapped[float | None] = mapped_column(sa.Double)
    address: Mapped[str | None] = mapped_column(sa.String(64))
    """The address that the name resolved to, and that was connected to or refused."""
    status_code: Mapped[int | None] = mapped_column(sa.Integer)
    error: Mapped[str | None] = mapped_column(LongText)
    """The reason of a failure."""
    request_headers: Mapped[dict[str, str] | None] = mapped_column(Json)
    """The headers that were sent, without the signatures."""
    response_headers: Mapped[dict[str, str] | None] = mapped_column(Json)
    """The headers of the answer, secrets redacted."""
    response_body: Mapped[str | None] = mapped_column(sa.Text)
    """The beginning of the answer's body, at most 2,048 characters."""

    @classmethod
    def _constrain(cls, table: sa.Table, columns: Columns) -> None:
        sa.Index(named("ix", table.name, "forward_id"), columns["forward_id"], columns["id"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} of {self.forward_id}>"
