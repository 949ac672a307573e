"""Rows of the table of alerts that are no alerts: notes that all processes share, each with the time of its change."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from .transactions import Database

__all__ = ["PURGED", "keep_note"]

PURGED = "purged"
"""The name of the note that a purge has deleted deliveries, the job's or one that somebody started."""


def keep_note(database: Database, model: type[Any], name: str, **values: Any) -> None:
    """Write a note, or bring it up to date, with the time in ``changed_at``.

    Args:
        database: the application's database.
        model: the model of alerts.
        name: of the note.
        **values: of further columns.

    Raises:
        SQLAlchemyError: the database is down.
    """
    table = model.__table__

    def write(tx: Connection) -> None:
        changes = {**values, "changed_at": database.store.now(tx)}
        if tx.execute(sa.update(table).where(table.c.name == name).values(changes)).rowcount == 0:
            new = {"name": name, "raised": False, "sample": 0, "version": 1}
            tx.execute(sa.insert(table).values(changes | new))

    try:
        database.write(write)
    except IntegrityError:  # somebody else did so at the same moment
        database.write(write)
