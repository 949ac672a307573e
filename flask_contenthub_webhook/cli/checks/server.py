"""The database server: which it is, through which driver, and what it cannot hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

import sqlalchemy as sa

from ...storage.drivers import MYSQL
from ...storage.encoding import narrow_tables, server_encoding
from .findings import DoctorContext, Finding, check, fail, ok, warn

__all__ = ["check_server", "described_driver"]

_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_WRITTEN_TWICE = 2
"""Bytes of a statement for a byte of a body: the least with which the largest body fits for certain."""


@check("server")
def check_server(context: DoctorContext) -> Iterator[Finding]:
    """Name the server and the driver; find an encoding, a mode, and a limit that events would run into."""
    state = context.state
    with state.database.session() as session:
        engine = state.store.bind_of(session).engine
    with engine.connect() as connection:  # as the host's own sessions are
        yield ok(f"{_described_server(connection)}, through {described_driver(connection.dialect)}.")
        if connection.dialect.name == "postgresql":
            yield from _check_postgresql(connection)
        elif connection.dialect.name in MYSQL:
            yield from _check_mysql(context, connection)


def described_driver(dialect: sa.Dialect) -> str:
    """Return the name and the version of a driver."""
    module = getattr(dialect, "dbapi", None)
    if not isinstance(module, ModuleType):
        return dialect.driver
    found = getattr(module, "__version__", None) or getattr(module, "sqlite_version", "")
    version = re.match(r"[\w.]+", str(found))
    return f"{module.__name__.partition('.')[0]} {version[0] if version else ''}".rstrip()


def _described_server(connection: sa.Connection) -> str:
    dialect = connection.dialect
    version = ".".join(map(str, getattr(dialect, "server_version_info", None) or ()))
    if dialect.name in MYSQL:
        return f"{'MariaDB' if getattr(dialect, 'is_mariadb', False) else 'MySQL'} {version}".rstrip()
    return f"{_NAMES.get(dialect.name, dialect.name)} {version}".rstrip()


def _check_postgresql(connection: sa.Connection) -> Iterator[Finding]:
    if (encoding := server_encoding(connection)) != "UTF8":
        yield fail(
            f"The database is encoded in {encoding}, which cannot hold the text of events; nothing is accepted.",
            "Move it into a database that is made with ENCODING 'UTF8' (pg_dump, createdb, pg_restore).",
        )


def _check_mysql(context: DoctorContext, connection: sa.Connection) -> Iterator[Finding]:
    if context.has_schema:
        for narrow in narrow_tables(connection, [sa.inspect(model).local_table for model in context.state.models]):
            yield fail(narrow.words, narrow.remedy)
    charset, mode, limit = connection.exec_driver_sql(
        "SELECT @@SESSION.character_set_client, @@SESSION.sql_mode, @@SESSION.max_allowed_packet"
    ).one()
    if charset != "utf8mb4":
        yield warn(
            f"Your own sessions talk {charset} to the database: text outside it is lost or refused there. Those of the "
            "extension, and so of your handlers, talk utf8mb4.",
            "Add ?charset=utf8mb4 to SQLALCHEMY_DATABASE_URI.",
        )
    if not {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"} & set(mode.split(",")):
        yield warn(
            "sql_mode is not strict: what does not fit into a column is cut off in your own transactions. Those of the "
            "extension are strict, and so are your handlers'.",
            "Add STRICT_TRANS_TABLES to sql_mode.",
        )
    most = context.state.settings.max_body_bytes
    if limit < _WRITTEN_TWICE * most:
        yield warn(
            f"The database takes statements of {limit:,} bytes (max_allowed_packet), WEBHOOK_MAX_BODY_BYTES allows "
            f"bodies of {most:,}, and a driver may write each byte as two. What does not fit is refused with 422.",
            f"Raise max_allowed_packet above {_WRITTEN_TWICE * most:,}, or lower WEBHOOK_MAX_BODY_BYTES to what your "
            "service sends.",
        )
