"""Column types, constraint names and indexes that the tables share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = [
    "BigId",
    "Blob",
    "HostDateTime",
    "Json",
    "LongText",
    "Name",
    "OneOf",
    "PartialIndex",
    "TimeOfDatabase",
    "UTCDateTime",
    "database_now",
    "is_name",
    "named",
    "quoted",
    "utc_now",
    "waiting_index",
]

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite only counts up an INTEGER primary key."""
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
Blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
"""MySQL's plain BLOB ends at 64 KiB."""


def Name(length: int) -> sa.String:  # noqa: N802 - a type
    """Return the type of a name or a digest: compared byte for byte, though MySQL's texts ignore case and accents."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


class PlainJson(sa.types.TypeDecorator[Any]):
    """JSON with text as it is; SQLAlchemy's own writes all but ASCII as escapes, Chinese in twice the bytes.

    None is NULL. Alembic sees a ``sa.JSON``.
    """

    __module__ = "sqlalchemy.types"

    impl = sa.JSON
    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], str | None]:
        """Return the function that writes a value, for every driver; PostgreSQL casts it. A host's own goes first."""
        own = getattr(dialect, "_json_serializer", None)
        return _write_json if own is None else lambda value: None if value is None else own(value)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """Leave paths and values in a host's own queries to JSON."""
        return self.impl_instance.coerce_compared_value(op, value)

    def __repr__(self) -> str:
        return "JSON(none_as_null=True)"


_encode = json.JSONEncoder(ensure_ascii=False).encode


_SURROGATE = re.compile("[\ud800-\udfff]")


def _write_json(value: Any) -> str | None:
    if value is None:
        return None
    text = _encode(value)
    if not text.isascii() and _SURROGATE.search(text):  # it cannot be encoded: a host's, since a sender's is refused
        return json.dumps(value)
    return text


Json = PlainJson(none_as_null=True)


def is_name(column: sa.Column[Any], dialect: sa.Dialect) -> bool:
    """Tell whether a column has the type of a name."""
    type_ = column.type.dialect_impl(dialect)
    return str(getattr(type_, "collation", None) or "").endswith("_bin")


def utc_now() -> datetime:
    """Return the time of the machine, aware, in UTC."""
    return datetime.now(UTC)


class UTCDateTime(sa.types.TypeDecorator[datetime]):
    """A point in time that is aware and in UTC on every database, SQLite and MySQL included.

    Alembic writes a type of SQLAlchemy as ``sa.`` and its repr. Under SQLAlchemy's name, a generated migration contains
    a plain ``sa.DateTime(timezone=True)`` and needs no import of ours.
    """

    __module__ = "sqlalchemy.types"

    impl = sa.DateTime
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(timezone=True)

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Ask MySQL for microseconds; its default is whole seconds."""
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Convert to UTC; refuse a naive time, which could mean anything."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; use an aware time such as datetime.now(UTC).")
        if value.tzinfo is not UTC:
            value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Convert to an aware time, also where the database has no time zones; MySQL's ``0000-00-00`` is none."""
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def __repr__(self) -> str:
        return "DateTime(timezone=True)"


class _AsTheColumnIs(sa.types.TypeEngine[str]):
    """PostgreSQL's TIMESTAMP WITH TIME ZONE, of which values are sent as text, and without naming their type."""

    __visit_name__ = "TIMESTAMP"
    timezone = True
    precision = None

    def literal_processor(self, dialect: sa.Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """Return the function that quotes a value."""
        return "'{}'".format


class HostDateTime(UTCDateTime):
    """A point in time of a column that a host may have had before, with a time zone or without one.

    PostgreSQL takes a value without a type for one of the column's type, and ignores the offset of UTC where the column
    has no time zone. As a TIMESTAMPTZ it would be moved into the zone of the session.
    """

    __module__ = "sqlalchemy.types"

    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Send PostgreSQL text."""
        return _AsTheColumnIs() if dialect.name == "postgresql" else super().load_dialect_impl(dialect)

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        """Convert to UTC; refuse a naive time, which could mean anything."""
        value = super().process_bind_param(value, dialect)
        return value.isoformat(sep=" ") if value is not None and dialect.name == "postgresql" else value


class TimeOfDatabase(FunctionElement[datetime]):
    """The default of a time that processes compare: the database's time, or some seconds after it.

    Rows that a host makes by hand are due by the same clock as all others.
    """

    name = "time_of_database"
    inherit_cache = True
    type = UTCDateTime()

    def __init__(self, after: int = 0) -> None:
        super().__init__(sa.literal_column(str(after)))


@compiles(TimeOfDatabase)
def _of_machine(element: TimeOfDatabase, compiler: Any, **options: Any) -> str:
    """Write it as SQLite keeps times, to the millisecond."""
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '+{seconds} seconds')"


@compiles(TimeOfDatabase, "postgresql")
def _of_postgresql(element: TimeOfDatabase, compiler: Any, **options: Any) -> str:
    return f"(statement_timestamp() + INTERVAL '{compiler.process(element.clauses, **options)} seconds')"


@compiles(TimeOfDatabase, "mysql", "mariadb")
def _of_mysql(element: TimeOfDatabase, compiler: Any, **options: Any) -> str:
    return f"timestampadd(SECOND, {compiler.process(element.clauses, **options)}, utc_timestamp(6))"


class OneOf(FunctionElement[bool]):
    """The condition that a word is exactly one of several, or that another column has a value.

    MySQL's usual collations would ignore the case, and spaces at the end.
    """

    name = "one_of"
    inherit_cache = False
    type = sa.Boolean()

    def __init__(self, word: sa.Column[Any], *words: StrEnum, unless: sa.Column[Any] | None = None) -> None:
        self.words = quoted(*words)
        super().__init__(word, *(() if unless is None else (unless,)))


@compiles(OneOf)
def _one_of(element: OneOf, compiler: Any, **options: Any) -> str:
    word, *unless = (compiler.process(column, **options) for column in element.clauses)
    exact = f"CAST({word} AS BINARY)" if compiler.dialect.name in {"mysql", "mariadb"} else word
    return " OR ".join([f"{exact} IN ({element.words})", *(f"{column} IS NOT NULL" for column in unless)])


def database_now(context: Any = None) -> datetime:
    """Return the time of the database as the default of a :class:`HostDateTime`; once for each INSERT.

    It is read as a value, since the type of an expression would have to be the column's.
    """
    if context is None or context.dialect.name == "sqlite":
        return utc_now()
    if not hasattr(context, "time_of_database"):
        context.time_of_database = context.root_connection.scalar(sa.select(TimeOfDatabase()))
    at: datetime = context.time_of_database
    return at


def named(kind: str, table: str, column: str = "") -> str:
    """Return a constraint name that the naming convention of the host's metadata does not change."""
    return sa.schema.conv("_".join(part for part in (kind, table, column) if part))


class PartialIndex(sa.Index):
    """An index of the rows that a condition holds for, where the database has partial indexes.

    SQLAlchemy imports a dialect with all its drivers to check an option of it. These are checked when they are read,
    which a process that only serves never does.
    """

    inherit_cache = True

    def __init__(self, name: str, *columns: sa.Column[Any], where: sa.TextClause) -> None:
        self._where = where
        super().__init__(name, *columns)

    @cached_property
    def dialect_options(self) -> Any:
        """The options by dialect."""
        return sa.Index(None, sa.text("1"), postgresql_where=self._where, sqlite_where=self._where).dialect_options


def waiting_index(table: str, key: str, columns: Mapping[str, sa.Column[Any]]) -> None:
    """Index the rows that wait for a time; settled rows, nearly all of them, are not in it."""
    PartialIndex(named("ix", table, key), columns[key], where=sa.text(f"{columns[key].name} IS NOT NULL"))


def quoted(*values: StrEnum) -> str:
    """Return values as a list of SQL literals."""
    return ", ".join(f"'{value.value}'" for value in values)
