"""The rows of all tables, kept and put back: each case begins with the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

__all__ = ["Rows"]


class Rows:
    """The rows of a database at one moment.

    Args:
        engine: of the database.
        metadata: of its tables.
    """

    def __init__(self, engine: sa.Engine, metadata: sa.MetaData) -> None:
        self._engine, self._tables = engine, metadata.sorted_tables
        self._has_rows = sa.select(*(sa.exists().select_from(table).label(table.name) for table in self._tables))
        self._kept: Mapping[sa.Table, Sequence[Mapping[str, Any]]] = {}
        self.keep()

    def keep(self) -> None:
        """Keep the rows as they are now."""
        with self._engine.connect() as connection:
            self._kept = {
                table: [dict(row) for row in connection.execute(sa.select(table)).mappings()] for table in self._tables
            }

    def empty(self) -> None:
        """Make the database hold none at all."""
        with self._engine.begin() as connection:
            self._delete(connection)

    def put_back(self) -> None:
        """Make the database hold exactly these."""
        with self._engine.begin() as connection:
            self._delete(connection)
            for table, rows in self._kept.items():
                if rows:
                    connection.execute(sa.insert(table), rows)

    def _delete(self, connection: sa.Connection) -> None:
        has_rows = connection.execute(self._has_rows).mappings().one()
        for table in reversed(self._tables):
            if has_rows[table.name]:
                connection.execute(sa.delete(table))
