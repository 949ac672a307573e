"""Queries for the task of an event that names a job as its service does, and no URL names the task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from .rows import ModelTable, Row

__all__ = ["find_by_job", "is_in_call"]


def find_by_job(tx: sa.Connection, tasks: ModelTable, job: str, *, creators: Sequence[str]) -> Row | None:
    """Return the task that a job was submitted for: as its current attempt, or as an earlier one of an open task.

    Args:
        tx: the transaction.
        tasks: the host's task model.
        job: the service's name of it.
        creators: the names of the creator in the tasks' rows; empty text stands for none.
    """
    t = tasks.columns
    select = sa.select(*t.values()).where(_is_of(t, creators))
    current = tx.execute(select.where(t["creator_task_id"] == job).order_by(t["id"].desc()).limit(1)).one_or_none()
    if current is not None:
        return dict(zip(t, current, strict=True))
    written = sa.cast(t["earlier_creator_task_ids"], sa.Text)
    spellings = {json.dumps(job, ensure_ascii=escaped) for escaped in (False, True)}  # older rows have escapes
    names_it = sa.or_(*(written.contains(spelling, autoescape=True) for spelling in sorted(spellings)))
    earlier = select.where(t["next_poll_at"].is_not(None), t["attempt"] > 1, names_it)
    for row in tx.execute(earlier):
        task = dict(zip(t, row, strict=True))
        if job in (task["earlier_creator_task_ids"] or ()):
            return task
    return None


def is_in_call(tx: sa.Connection, tasks: ModelTable, *, creators: Sequence[str], since: datetime) -> bool:
    """Tell whether a submission to a creator that began after ``since`` has not been answered yet."""
    t = tasks.columns
    waits = sa.select(t["id"]).where(
        t["next_submit_at"].is_not(None), t["submitting_since"] >= since, _is_of(t, creators)
    )
    return tx.execute(waits.limit(1)).first() is not None


def _is_of(t: dict[str, sa.Column[Any]], creators: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.func.coalesce(t["creator_name"], "").in_(creators)
