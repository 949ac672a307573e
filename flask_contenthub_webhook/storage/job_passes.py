"""Statements over the last pass of each periodic job, which is a row of the table of alerts: ``job:NAME``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

__all__ = ["insert_pass", "is_pass", "job_of", "read_passes", "update_passes"]

_PREFIX = "job:"


def is_pass(name: str) -> bool:
    """Tell whether a row of that name is a job's, not an alert's."""
    return name.startswith(_PREFIX)


def job_of(name: str) -> str:
    """Return the name of the job of a row."""
    return name.removeprefix(_PREFIX)


def read_passes(tx: Connection, model: type[Any]) -> Mapping[str, datetime]:
    """Return the time of the last pass by the name of the job."""
    rows = tx.execute(sa.select(model.name, model.checked_at).where(model.name.startswith(_PREFIX, autoescape=True)))
    return {job_of(name): at for name, at in rows if at is not None}


def update_passes(tx: Connection, model: type[Any], jobs: Collection[str], now: datetime) -> bool:
    """Move the time of the last pass of some jobs; False if one of them has no row yet."""
    names = sorted(_PREFIX + job for job in jobs)
    statement = sa.update(model.__table__).where(model.__table__.c.name.in_(names)).values(checked_at=now)
    return tx.execute(statement).rowcount == len(names)


def insert_pass(tx: Connection, model: type[Any], job: str, now: datetime) -> None:
    """Write the row of a job.

    Raises:
        IntegrityError: another process has just written it.
    """
    values = {"name": _PREFIX + job, "raised": False, "checked_at": now, "sample": 0, "version": 1}
    tx.execute(sa.insert(model.__table__).values(values))
