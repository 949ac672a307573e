"""The encoding of a database, in which every text of an event must fit.

PostgreSQL has one for a whole database; another than UTF8 is refused at its first use, since even a text that the
history shall keep may not fit. MySQL and MariaDB have one for each column: an event that does not fit into its column
fails alone, and the first use says which columns these are.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc

from .drivers import MYSQL

__all__ = ["NarrowTable", "UnfitEncoding", "check_encoding", "is_checked", "narrow_tables", "server_encoding"]

logger = logging.getLogger(__name__)

_CHECKED = "contenthub_webhook_encoding"
_WIDE = "utf8mb4"
_PLAIN = frozenset({"id", "task_id", "status", "previous_status", "event", "source", "scheme", "verdict", "url"})
"""Columns that hold nothing but ASCII, whatever a sender says; the others of these kinds have a character set."""


class UnfitEncoding(exc.InvalidRequestError):
    """The encoding of the database cannot hold the text of events."""


class NarrowTable(NamedTuple):
    """A table of ours with columns that cannot hold every text.

    Args:
        name: of the table.
        columns: their names, by character set.
    """

    name: str
    columns: Mapping[str, Sequence[str]]

    @property
    def words(self) -> str:
        """What is wrong, in a sentence."""
        sets = "; ".join(f"{', '.join(names)} in {charset}" for charset, names in self.columns.items())
        return (
            f"The table {self.name} has columns that cannot hold every text ({sets}): an event with other text fails, "
            "and is parked."
        )

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return f"ALTER TABLE {self.name} CONVERT TO CHARACTER SET {_WIDE}; it copies the table, and writers wait."


def is_checked(dialect: sa.Dialect) -> bool:
    """Return True if the database of an engine has been checked in this process."""
    return _CHECKED in vars(dialect)


def check_encoding(connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
    """Check the database of an engine once, at its first use in this process.

    Raises:
        UnfitEncoding: a PostgreSQL that is not in UTF8.
    """
    if is_checked(connection.dialect):
        return
    if connection.dialect.name == "postgresql" and (encoding := server_encoding(connection)) != "UTF8":
        raise UnfitEncoding(
            f"The database is encoded in {encoding}, which cannot hold the text of events. Move it into one that is "
            "made with ENCODING 'UTF8' (pg_dump, createdb, pg_restore)."
        )
    vars(connection.dialect)[_CHECKED] = True
    if connection.dialect.name in MYSQL:
        for table in narrow_tables(connection, tables):
            logger.error("%s %s", table.words, table.remedy)


def server_encoding(connection: sa.Connection) -> str:
    """Return the encoding of a PostgreSQL database."""
    found = connection.exec_driver_sql("SELECT current_setting('server_encoding')").scalar_one()
    return found.decode() if isinstance(found, bytes) else str(found)  # without an encoding psycopg gives bytes


def narrow_tables(connection: sa.Connection, tables: Iterable[sa.Table]) -> list[NarrowTable]:
    """Return the tables of MySQL or MariaDB with columns whose character set is not utf8mb4."""
    found: list[NarrowTable] = []
    for table in tables:
        rows = connection.execute(
            sa.text(
                "SELECT column_name, character_set_name FROM information_schema.columns WHERE table_name = :name"
                " AND table_schema = coalesce(:schema, database()) AND character_set_name <> :wide"
                " ORDER BY ordinal_position"
            ),
            {"name": table.name, "schema": table.schema, "wide": _WIDE},
        )
        ours = {column.name for column in table.columns} - _PLAIN
        columns: dict[str, list[str]] = defaultdict(list)
        for name, charset in rows:
            if name in ours:
                columns[charset].append(name)
        if columns:
            found.append(NarrowTable(table.name, columns))
    return found
