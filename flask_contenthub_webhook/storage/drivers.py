"""The two questions that every driver answers in its own way: the code of an error, and the state of a transaction."""

from __future__ import annotations

from enum import Enum
from typing import Any

from sqlalchemy import Connection

__all__ = ["TransactionState", "commits_by_itself", "error_code", "error_message", "transaction_state"]


class TransactionState(Enum):
    """The state of a transaction as the driver knows it, without asking the server."""

    NONE = "none has begun, or it has ended"
    OPEN = "it is open"
    FAILED = "a statement failed, and the server will keep nothing"
    UNKNOWN = "the driver does not say"


_LIBPQ = (TransactionState.NONE, TransactionState.OPEN, TransactionState.OPEN, TransactionState.FAILED)
"""In the order of libpq's PQTRANS_IDLE, _ACTIVE, _INTRANS and _INERROR: psycopg and psycopg2."""
_PROTOCOL = {b"I": TransactionState.NONE, b"T": TransactionState.OPEN, b"E": TransactionState.FAILED}
"""The letters of the server's ReadyForQuery, which pg8000 keeps."""


def error_code(error: BaseException | None) -> str | int | None:
    """Return an SQLSTATE (PostgreSQL), an error number (MySQL, MariaDB), the name of an error (SQLite), or None.

    Args:
        error: what the driver raised.
    """
    for attribute in ("sqlstate", "pgcode", "sqlite_errorname"):  # psycopg, psycopg2, sqlite3
        if code := getattr(error, attribute, None):
            return str(code)
    first = next(iter(getattr(error, "args", ())), None)
    if isinstance(first, dict):  # pg8000: the fields of the server's ErrorResponse, by their letters
        code = first.get("C")
        return code if isinstance(code, str) else None
    return first if isinstance(first, int) else None  # PyMySQL, mysqlclient


def error_message(error: BaseException | None) -> str:
    """Return the message of an error without its details, in which PostgreSQL repeats the values of a row."""
    first = next(iter(getattr(error, "args", ())), None)
    message = first.get("M") if isinstance(first, dict) else error  # pg8000, as above
    return str(message).partition("\n")[0]


def transaction_state(dialect: str, driver: Any) -> TransactionState:
    """Return the state of the transaction of a driver's connection."""
    if dialect == "sqlite":
        return TransactionState.OPEN if getattr(driver, "in_transaction", True) else TransactionState.NONE
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    if isinstance(status, int):
        return _LIBPQ[status] if status < len(_LIBPQ) else TransactionState.UNKNOWN
    return _PROTOCOL.get(getattr(driver, "_transaction_status", b""), TransactionState.UNKNOWN)


def commits_by_itself(connection: Connection) -> bool:
    """Tell whether PostgreSQL commits each statement on this connection (AUTOCOMMIT).

    SQLite's transactions begin with a BEGIN of our own, whatever the driver does.
    """
    if connection.dialect.name != "postgresql":
        return False
    return getattr(connection.connection.dbapi_connection, "autocommit", False) is True
