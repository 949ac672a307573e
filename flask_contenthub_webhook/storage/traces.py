"""The query for the span in which a task was submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from .rows import ModelTable

__all__ = ["traceparent_of"]


def traceparent_of(tx: sa.Connection, tasks: ModelTable, task_id: str) -> str | None:
    """Return the ``traceparent`` of a task, by our id."""
    t = tasks.columns
    found: str | None = tx.execute(sa.select(t["traceparent"]).where(t["task_id"] == task_id)).scalar()
    return found
