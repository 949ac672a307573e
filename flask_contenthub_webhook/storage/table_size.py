"""The size of a table, as the database estimates it without reading it."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from .drivers import MYSQL

__all__ = ["TableSize", "table_size"]

_BYTES_A_ROW = 1000
"""A guess, for SQLite and for a table that PostgreSQL has not analyzed yet."""


class TableSize(NamedTuple):
    """The size of a table.

    Attributes:
        rows: their number.
        bytes: of the rows, without indexes.
    """

    rows: int
    bytes: int


def table_size(connection: sa.Connection, table: sa.Table) -> TableSize | None:
    """Return the size of a table as its statistics say; None if there is no such table. SQLite counts the rows."""
    if not sa.inspect(connection).has_table(table.name, schema=table.schema):
        return None
    if connection.dialect.name == "postgresql":
        name = connection.dialect.identifier_preparer.format_table(table)
        statistics = sa.text(
            "SELECT CASE WHEN reltuples < 0 THEN pg_relation_size(oid) / :guess ELSE CAST(reltuples AS bigint) END,"
            " pg_table_size(oid) FROM pg_class WHERE oid = to_regclass(:name)"
        ).bindparams(name=name, guess=_BYTES_A_ROW)
    elif connection.dialect.name in MYSQL:
        statistics = sa.text(
            "SELECT table_rows, data_length FROM information_schema.tables"
            " WHERE table_name = :table AND table_schema = coalesce(:schema, database())"
        ).bindparams(table=table.name, schema=table.schema)
    else:
        rows = connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
        return TableSize(rows, rows * _BYTES_A_ROW)
    rows, size = connection.execute(statistics).one()
    return TableSize(int(rows or 0), int(size or 0))
