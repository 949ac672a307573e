"""An INSERT that is compiled once, for the row that every callback leaves.

SQLAlchemy looks a statement up in its cache each time, and sets up its parameters anew. For a short one that takes
longer than the driver and the database do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import BindTyping

__all__ = ["PreparedInsert"]


class PreparedInsert:
    """An INSERT of one row, executed as text where that is possible.

    Args:
        table: with a primary key of one column, which the database fills.
        dialect: of a connected engine.
        keys: the names of the columns that are given.
        fills_columns: True if SQLAlchemy must compute values of other columns.
    """

    def __init__(self, table: sa.Table, *, dialect: sa.Dialect, keys: Collection[str], fills_columns: bool) -> None:
        self._statement = sa.insert(table)
        compiled: Any = self._statement.compile(dialect=dialect, column_keys=list(keys))
        self._text = str(compiled)
        # pg8000 is told the types of parameters beside the text, and PostgreSQL returns the key as a row.
        self._is_text = (
            dialect.bind_typing is not BindTyping.SETINPUTSIZES
            and bool(getattr(dialect, "postfetch_lastrowid", False))
            and not (fills_columns or compiled.escaped_bind_names)
        )
        types = {name: bind.type.dialect_impl(dialect) for name, bind in compiled.binds.items()}
        self._names = list(compiled.positiontup if compiled.positional else compiled.binds)
        self._writers = [(name, types[name].bind_processor(dialect)) for name in self._names]
        self._is_positional = compiled.positional

    def execute(self, connection: sa.Connection, values: Mapping[str, Any]) -> int:
        """Insert the row; return its id."""
        if not self._is_text or "schema_translate_map" in connection.get_execution_options():
            (key,) = connection.execute(self._statement, values).inserted_primary_key or (0,)
            return int(key)
        written = [values[name] if write is None else write(values[name]) for name, write in self._writers]
        bound: Any = tuple(written) if self._is_positional else dict(zip(self._names, written, strict=True))
        return int(connection.exec_driver_sql(self._text, bound).lastrowid)
