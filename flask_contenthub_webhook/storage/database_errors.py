"""The meaning of a database error: try again, wait, unavailable, or the statement's own fault."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from sqlalchemy import exc

from .drivers import error_code, error_message

__all__ = ["Trouble", "is_connection_useless", "is_contention", "trouble_of"]


class Trouble(Enum):
    """The meaning of a database error for the work that it interrupted."""

    RETRY = "another try right away may succeed"
    BUSY = "another transaction holds a lock that it needs"
    UNAVAILABLE = "the database is down"
    STATEMENT = "the statement itself is at fault"


_MEANINGS: Mapping[str | int, Trouble] = {
    # PostgreSQL: psycopg, psycopg2, pg8000
    "40001": Trouble.RETRY,  # serialization failure
    "40P01": Trouble.RETRY,  # deadlock
    "55P03": Trouble.BUSY,  # lock not available
    "57014": Trouble.BUSY,  # statement timeout
    "57P01": Trouble.RETRY,  # the server was shut down, and may be back: a pooled connection learns of it late
    "57P02": Trouble.RETRY,  # the server crashed
    "57P03": Trouble.RETRY,  # it is starting up
    "26000": Trouble.RETRY,  # a prepared statement does not exist: a pooler gave us another server connection
    "42P05": Trouble.RETRY,  # a prepared statement exists already, of another client of the pooler
    "25006": Trouble.UNAVAILABLE,  # read-only: a standby, or the primary before a failover
    # MySQL and MariaDB: PyMySQL, mysqlclient
    1213: Trouble.RETRY,  # deadlock
    1205: Trouble.BUSY,  # lock wait timeout
    1969: Trouble.BUSY,  # MariaDB's max_statement_time
    3024: Trouble.BUSY,  # MySQL's max_execution_time
    1290: Trouble.UNAVAILABLE,  # --read-only
    1836: Trouble.UNAVAILABLE,  # read-only mode
    # SQLite
    "SQLITE_BUSY_SNAPSHOT": Trouble.RETRY,
    "SQLITE_BUSY": Trouble.BUSY,
    "SQLITE_LOCKED": Trouble.BUSY,
    "SQLITE_ERROR": Trouble.STATEMENT,  # no such table or column: SQLite calls it operational
}
_SERVER_CLASSES = {"08", "53", "57", "58", "XX"}
"""Classes of SQLSTATEs that are about the server: connection, resources, operator, system, bugs."""
_USELESS = {"57P01", "57P02", "57P03", "25006", 1290, 1836}
_UNDEFINED_CLASS = "42"
_LOCK_NOT_AVAILABLE = "55P03"
_SQLSTATE_LENGTH = 5


class RowRefused(RuntimeError):
    """A constraint or a trigger refuses what is written, or the database cannot hold it."""


def trouble_of(error: exc.SQLAlchemyError) -> Trouble:
    """Return the meaning of a database error; what is not clearly the statement's fault counts as unavailable."""
    if isinstance(error, exc.TimeoutError):  # the pool is exhausted
        return Trouble.BUSY
    if not isinstance(error, exc.DBAPIError):
        return Trouble.STATEMENT
    if error.connection_invalidated:
        return Trouble.RETRY
    code = error_code(error.orig)
    if code is not None and code in _MEANINGS:
        return _MEANINGS[code]
    if isinstance(code, str) and len(code) == _SQLSTATE_LENGTH:
        return Trouble.UNAVAILABLE if code[:2] in _SERVER_CLASSES else Trouble.STATEMENT
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError):
        return Trouble.UNAVAILABLE
    return Trouble.STATEMENT


def row_refusal(error: exc.SQLAlchemyError) -> RowRefused | None:
    """Return what the database says if it refuses a row; a missing table or column is not one event's trouble."""
    if not isinstance(error, exc.DBAPIError) or trouble_of(error) is not Trouble.STATEMENT:
        return None
    code = error_code(error.orig)
    if isinstance(code, str) and len(code) == _SQLSTATE_LENGTH:
        is_refusal = code[:2] != _UNDEFINED_CLASS
    else:
        is_refusal = isinstance(error, exc.IntegrityError | exc.DataError)
    return RowRefused(error_message(error.orig)) if is_refusal else None


def is_commit_refused(error: exc.SQLAlchemyError) -> bool:
    """Tell whether a COMMIT failed by what the transaction wrote: a constraint, or a deferred trigger.

    On PostgreSQL nothing else waits for a lock in a COMMIT; on SQLite it waits for readers.
    """
    if isinstance(error, exc.DBAPIError) and error_code(error.orig) == _LOCK_NOT_AVAILABLE:
        return True
    return trouble_of(error) is Trouble.STATEMENT


def is_contention(error: exc.SQLAlchemyError) -> bool:
    """Tell whether another transaction, and not the state of the server or the schema, is at fault."""
    trouble = trouble_of(error)
    if trouble is not Trouble.RETRY:
        return trouble is Trouble.BUSY
    code = error_code(error.orig) if isinstance(error, exc.DBAPIError) and not error.connection_invalidated else "08"
    return not (isinstance(code, str) and code[:2] in _SERVER_CLASSES)


def is_connection_useless(error: exc.SQLAlchemyError) -> bool:
    """Tell whether a pooled connection leads to a server that is gone or no longer accepts writes.

    SQLAlchemy itself detects most lost connections, but not a read-only server, nor, with pg8000, a shutdown.
    """
    return isinstance(error, exc.DBAPIError) and error_code(error.orig) in _USELESS
