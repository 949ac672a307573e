"""The meaning of a database error: try again, wait, unavailable, or the statement's own fault."""

from __future__ import annotations

from enum import Enum

from sqlalchemy import exc

__all__ = ["Trouble", "trouble_of"]

_RETRY_SQLSTATES = {"40001", "40P01"}  # serialization failure, deadlock
_RETRY_MYSQL = {1213}  # deadlock
_BUSY_SQLSTATES = {"55P03", "57014"}  # lock not available, statement timeout
_BUSY_MYSQL = {1205, 3024}  # lock wait timeout, statement timeout


class Trouble(Enum):
    """What a database error means for the work that met it."""

    RETRY = "another try right away may succeed"
    BUSY = "somebody else holds what it waits for"
    UNAVAILABLE = "the database is away"
    STATEMENT = "the statement itself is at fault"


def trouble_of(error: exc.SQLAlchemyError) -> Trouble:
    """What a database error means; anything that is not clearly the statement's fault counts as unavailable."""
    if isinstance(error, exc.TimeoutError):  # the pool is exhausted
        return Trouble.BUSY
    if not isinstance(error, exc.DBAPIError):
        return Trouble.STATEMENT
    if error.connection_invalidated:
        return Trouble.RETRY
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    number = next(iter(getattr(error.orig, "args", ())), None)
    if state in _RETRY_SQLSTATES or number in _RETRY_MYSQL:
        return Trouble.RETRY
    if state in _BUSY_SQLSTATES or number in _BUSY_MYSQL:
        return Trouble.BUSY
    match getattr(error.orig, "sqlite_errorname", ""):
        case "SQLITE_BUSY_SNAPSHOT":
            return Trouble.RETRY
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            return Trouble.BUSY
        case "SQLITE_ERROR":  # no such table or column: SQLite calls it operational
            return Trouble.STATEMENT
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError):
        return Trouble.UNAVAILABLE
    return Trouble.STATEMENT
