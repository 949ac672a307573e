"""The features in which databases differ."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from .drivers import MYSQL

__all__ = ["Capabilities", "by_primary_key", "rechecked", "reuses_ids"]


class Capabilities(NamedTuple):
    """The features of one database."""

    returning: bool
    """UPDATE ... RETURNING"""
    skip_locked: bool
    """SELECT ... FOR UPDATE SKIP LOCKED"""
    modifying_cte: bool = False
    """WITH x AS (UPDATE ... RETURNING ...) INSERT ... SELECT ... FROM x"""
    insert_from_select: bool = False
    """INSERT ... SELECT ... RETURNING"""
    insert_many: bool = False
    """INSERT ... VALUES (...), (...) RETURNING, in the order of the values"""
    notify: bool = False
    """LISTEN and NOTIFY"""

    @classmethod
    def of(cls, dialect: sa.Dialect) -> Capabilities:
        """Return the capabilities of a connected database."""
        version = getattr(dialect, "server_version_info", None) or ()
        match dialect.name:
            case "postgresql":
                skip_locked = True
            case "mysql":
                skip_locked = version >= ((10, 6) if getattr(dialect, "is_mariadb", False) else (8, 0, 1))
            case "mariadb":
                skip_locked = version >= (10, 6)
            case _:
                skip_locked = False
        return cls(
            returning=bool(dialect.update_returning),
            skip_locked=skip_locked,
            modifying_cte=dialect.name == "postgresql",
            insert_from_select=bool(dialect.insert_returning) and dialect.name in {"postgresql", "sqlite", *MYSQL},
            insert_many=bool(dialect.insert_executemany_returning_sort_by_parameter_order),
            notify=dialect.name == "postgresql",
        )

    @property
    def locks_first(self) -> bool:
        """Lock rows in a statement of its own, and change them in the next: MySQL and MariaDB.

        They cannot return what an UPDATE changed, and read the whole table for a change whose rows a subquery finds.
        """
        return self.skip_locked and not self.returning

    def with_plain_statements(self) -> Capabilities:
        """Return these without INSERT ... SELECT, and changes as a part of another statement."""
        return self._replace(modifying_cte=False, insert_from_select=False)


def by_primary_key(change: Any, dialect: sa.Dialect) -> Any:
    """Let MySQL and MariaDB find the rows of a change by their ids.

    Of a small table they would read every row, and wait for those that others hold.
    """
    if dialect.name not in MYSQL:
        return change
    if isinstance(change, sa.Delete):  # only a DELETE of several tables takes hints
        change = change.prefix_with(dialect.identifier_preparer.format_table(change.table))
    return change.with_hint("FORCE INDEX (PRIMARY)")


def rechecked(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return a condition that rows found by their ids must still meet, in a form that no index can answer.

    While its statistics say that hardly any row meets it, PostgreSQL would look for the ids among all rows that do.
    """
    return sa.func.coalesce(condition, sa.false())


def reuses_ids(connection: sa.Connection, table: sa.Table) -> bool:
    """Tell whether a new row may get the id of a deleted one; so it is in SQLite without AUTOINCREMENT.

    Alembic loses that word when it copies a table, unless it is given ``sqlite_autoincrement``.
    """
    if connection.dialect.name != "sqlite":
        return False
    master = sa.table("sqlite_master", sa.column("name"), sa.column("sql", sa.String()), schema=table.schema)
    made = connection.execute(sa.select(master.c.sql).where(master.c.name == table.name)).scalar_one_or_none()
    return made is not None and "AUTOINCREMENT" not in made.upper()
