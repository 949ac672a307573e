"""The features in which databases differ."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

__all__ = ["Capabilities"]


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
            insert_from_select=bool(dialect.insert_returning) and dialect.name in {"postgresql", "sqlite"},
            insert_many=bool(dialect.insert_executemany_returning_sort_by_parameter_order),
            notify=dialect.name == "postgresql",
        )
