"""Read-only queries for the CLI and the pages, answered as plain rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from .transactions import Database

__all__ = [
    "FilteredRows",
    "Reading",
    "Row",
    "RowFilter",
    "count_where",
    "equal_to",
    "id_of",
    "read_by_id",
    "reading",
    "select_all",
]

Row = dict[str, Any]

_BATCH = 500


class Reading:
    """Several queries in one transaction, to the database that the extension's tables live in."""

    def __init__(self, database: Database, session: Session) -> None:
        self._session = session
        self._bind = {"mapper": sa.inspect(database.task_model)}

    @property
    def dialect(self) -> str:
        """The kind of database, such as ``postgresql``."""
        return self._session.connection(bind_arguments=self._bind).dialect.name

    def rows(self, query: Any) -> list[Row]:
        """Return every row, by the names of its columns."""
        return [dict(row) for row in self._session.execute(query, bind_arguments=self._bind).mappings()]

    def row(self, query: Any) -> Row | None:
        """Return the first row, if there is one."""
        return next(iter(self.rows(query)), None)

    def first(self, query: Any) -> tuple[Any, ...] | None:
        """Return the first row's values, in order."""
        row = self._session.execute(query, bind_arguments=self._bind).first()
        return None if row is None else tuple(row)


@contextmanager
def reading(database: Database) -> Iterator[Reading]:
    """Begin a transaction to read in; it is rolled back at the end."""
    with database.session() as session:
        yield Reading(database, session)


def select_all(model: Any, *, without: Collection[str] = ()) -> sa.Select[Any]:
    """Select the attributes of a model, under their own names."""
    keys = [attribute.key for attribute in sa.inspect(model).column_attrs if attribute.key not in without]
    return sa.select(*(getattr(model, key).label(key) for key in keys))


def count_where(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Count those of the selected rows for which a condition holds."""
    return sa.func.count(sa.case((condition, 1)))


def id_of(model: Any) -> sa.ColumnElement[int]:
    """Return the id of a model, to compare with any number: a host's column may be a 32-bit INTEGER."""
    return sa.type_coerce(model.id, sa.BigInteger())


def read_by_id(database: Database, model: Any, row_id: int) -> Row | None:
    """Return every attribute of a row."""
    with reading(database) as read:
        return read.row(select_all(model).where(id_of(model) == row_id))


def equal_to(*wanted: tuple[Any, Any]) -> list[sa.ColumnElement[bool]]:
    """Return a condition for each column and its value, or tuple of values; empty ones match everything."""
    return [column.in_(value) if isinstance(value, tuple) else column == value for column, value in wanted if value]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """A filter of rows; empty fields match everything."""

    @property
    def is_empty(self) -> bool:
        """True if every row matches."""
        return not any(astuple(self))

    def conditions(self, model: Any) -> list[sa.ColumnElement[bool]]:
        """Return the parts of the WHERE clause."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class FilteredRows:
    """The rows of a table that match a filter: read page by page, counted, and walked for a replay.

    Args:
        database: the application's database.
        model: the model of the table.
        criteria: the filter.
        replayable: the condition for rows that can be replayed.
        without: attributes that a page leaves out.
    """

    database: Database
    model: Any
    criteria: RowFilter
    replayable: sa.ColumnElement[bool]
    without: frozenset[str]

    def page(self, *, before: int | None = None, after: int | None = None, limit: int) -> list[Row]:
        """Return the newest rows, with an id smaller than ``before`` and greater than ``after``."""
        query = self._where(select_all(self.model, without=self.without)).order_by(self.model.id.desc()).limit(limit)
        if before is not None:
            query = query.where(id_of(self.model) < before)
        return self._rows(query if after is None else query.where(id_of(self.model) > after))

    def newest_id(self) -> int:
        """Return the newest id of the table, whether its row matches or not; 0 if it is empty."""
        return int(self._rows(sa.select(sa.func.max(self.model.id).label("newest")))[0]["newest"] or 0)

    def counts(self) -> Row:
        """Count the rows (``matching``) and those that can be replayed (``replayable``); find the ``newest`` id."""
        replayable = count_where(self.replayable).label("replayable")
        newest = sa.func.max(self.model.id).label("newest")
        return self._rows(self._where(sa.select(sa.func.count().label("matching"), replayable, newest)))[0]

    def replayable_ids(self, *, up_to: int) -> Iterator[int]:
        """Read the ids of rows that can be replayed, oldest first and a batch at a time.

        Args:
            up_to: the greatest id; replays of deliveries are rows themselves, and must not be replayed in turn.
        """
        column, after = self.model.id, 0
        query = self._where(sa.select(column.label("id"))).where(self.replayable, column <= up_to).order_by(column)
        while batch := [row["id"] for row in self._rows(query.where(column > after).limit(_BATCH))]:
            yield from batch
            after = batch[-1]

    def _where(self, query: sa.Select[Any]) -> sa.Select[Any]:
        return query.where(*self.criteria.conditions(self.model))

    def _rows(self, query: sa.Select[Any]) -> list[Row]:
        with reading(self.database) as read:
            return read.rows(query)
