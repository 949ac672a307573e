"""Read-only queries for the CLI and the pages, answered as plain rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .transactions import Database

__all__ = ["Reading", "Row", "count_where", "reading", "select_all"]

Row = dict[str, Any]


class Reading:
    """Several questions in one transaction, to the database that the extension's tables live in."""

    def __init__(self, database: Database, session: Session) -> None:
        self._session = session
        self._bind = {"mapper": sa.inspect(database.task_model)}

    @property
    def dialect(self) -> str:
        """The kind of database, such as ``postgresql``."""
        return self._session.connection(bind_arguments=self._bind).dialect.name

    def rows(self, query: Any) -> list[Row]:
        """Every row, by the names of its columns."""
        return [dict(row) for row in self._session.execute(query, bind_arguments=self._bind).mappings()]

    def row(self, query: Any) -> Row | None:
        """The first row, if there is one."""
        return next(iter(self.rows(query)), None)

    def first(self, query: Any) -> tuple[Any, ...] | None:
        """The first row's values, in order."""
        found = self._session.execute(query, bind_arguments=self._bind).first()
        return None if found is None else tuple(found)


@contextmanager
def reading(database: Database) -> Iterator[Reading]:
    """A transaction of its own to read in; it is rolled back at the end."""
    with database.session() as session:
        yield Reading(database, session)


def select_all(model: Any, *, without: Collection[str] = ()) -> sa.Select[Any]:
    """Every attribute of a model, under its own name, but for some."""
    keys = [attribute.key for attribute in sa.inspect(model).column_attrs if attribute.key not in without]
    return sa.select(*(getattr(model, key).label(key) for key in keys))


def count_where(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """How many of the selected rows a condition holds for."""
    return sa.func.count(sa.case((condition, 1)))
