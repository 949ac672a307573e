"""The table of alerts, which all processes share.

It also keeps the last pass of each periodic job, as ``job:NAME``, which failures of handlers a person has acknowledged,
as ``failure:DIGEST``, and when a purge last deleted anything, as ``purged``.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from .columns import UTCDateTime
from .mixin import TableMixin

__all__ = ["AlertMixin"]


class AlertMixin(TableMixin):
    """An alert, and its last measure."""

    name: Mapped[str] = mapped_column(sa.String(64), primary_key=True, sort_order=-10)
    raised: Mapped[bool] = mapped_column(sa.Boolean(create_constraint=False), default=False)
    changed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """When it was last raised or cleared."""
    checked_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """When a check last confirmed its state: any check while it is clear; one above its limit while it is raised. For
    a job, when its last pass ended."""
    value: Mapped[float | None] = mapped_column(sa.Double)
    """The measure, in the unit of the alert."""
    sample: Mapped[int] = mapped_column(sa.Integer, default=0)
    """The number of events, tasks or requests that were measured."""
    version: Mapped[int] = mapped_column(sa.Integer, default=1)
    """Counts the changes; the process whose compare-and-set wins sends the signal."""
    acknowledged_by: Mapped[str | None] = mapped_column(sa.String(255))
    """Of ``failure:...``: who acknowledged these failures, and in ``changed_at`` when."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {'raised' if self.raised else 'clear'}>"
