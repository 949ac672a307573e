"""The two questions that every driver answers in its own way: the code of an error, and the state of a transaction."""

from __future__ import annotations

from enum import Enum
from typing import Any

from sqlalchemy import Connection, Dialect

__all__ = [
    "MYSQL",
    "TransactionState",
    "character_set",
    "commits_by_itself",
    "error_code",
    "error_message",
    "knows_autocommit",
    "set_autocommit",
    "set_character_set",
    "transaction_state",
]

MYSQL = frozenset({"mysql", "mariadb"})
"""The names under which SQLAlchemy knows MySQL and MariaDB."""


class TransactionState(Enum):
    """The state of a transaction as the driver knows it, without asking the server."""

    NONE = "none has begun, or it has ended"
    OPEN = "it is open"
    FAILED = "a statement failed, and the server will keep nothing"
    UNKNOWN = "the driver does not say"


_LIBPQ = (TransactionState.NONE, TransactionState.OPEN, TransactionState.OPEN, TransactionState.FAILED)
"""In the order of libpq's PQTRANS_IDLE, _ACTIVE, _INTRANS and _INERROR: psycopg and psycopg2."""
_IN_TRANSACTION = 1
"""The bit of MySQL's status flags, which PyMySQL keeps."""
_KNOW_AUTOCOMMIT = frozenset({"pymysql", "mysqldb"})
"""Drivers of MySQL that keep it as the server last said."""
_PROTOCOL = {b"I": TransactionState.NONE, b"T": TransactionState.OPEN, b"E": TransactionState.FAILED}
"""The letters of the server's ReadyForQuery, which pg8000 keeps."""


def error_code(error: BaseException | None) -> str | int | None:
    """Return an SQLSTATE (PostgreSQL), an error number (MySQL, MariaDB), the name of an error (SQLite), or None.

    Args:
        error: what the driver raised.
    """
    first = next(iter(getattr(error, "args", ())), None)
    if isinstance(
        first, int
    ):  # PyMySQL, mysqlclient, mysql-connector; most of their SQLSTATEs are HY000, which is none
        return first
    for attribute in ("sqlstate", "pgcode", "sqlite_errorname"):  # psycopg, psycopg2, sqlite3
        if code := getattr(error, attribute, None):
            return str(code)
    code = first.get("C") if isinstance(first, dict) else None  # pg8000: the fields of the server's ErrorResponse
    return code if isinstance(code, str) else None


def error_message(error: BaseException | None) -> str:
    """Return the message of an error without its details, in which PostgreSQL repeats the values of a row."""
    match getattr(error, "args", ()):
        case (dict() as fields, *_):  # pg8000, as above
            message = fields.get("M")
        case (int(), str() as text):  # the drivers of MySQL and MariaDB
            message = text
        case _:
            message = error
    return str(message).partition("\n")[0]


def transaction_state(dialect: str, driver: Any) -> TransactionState:
    """Return the state of the transaction of a driver's connection."""
    if dialect == "sqlite":
        return TransactionState.OPEN if getattr(driver, "in_transaction", True) else TransactionState.NONE
    if dialect in MYSQL:
        flags = getattr(driver, "server_status", None)  # mysqlclient keeps them for itself
        is_open = bool(flags & _IN_TRANSACTION) if isinstance(flags, int) else getattr(driver, "in_transaction", None)
        if is_open is None:
            return TransactionState.UNKNOWN
        return TransactionState.OPEN if is_open else TransactionState.NONE
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    if isinstance(status, int):
        return _LIBPQ[status] if status < len(_LIBPQ) else TransactionState.UNKNOWN
    return _PROTOCOL.get(getattr(driver, "_transaction_status", b""), TransactionState.UNKNOWN)


def knows_autocommit(dialect: Dialect) -> bool:
    """Tell whether the drivers of a server know, without asking it, if it commits each statement."""
    return dialect.name == "postgresql" or (dialect.name in MYSQL and dialect.driver in _KNOW_AUTOCOMMIT)


def commits_by_itself(connection: Connection) -> bool:
    """Tell whether a server commits each statement on this connection (AUTOCOMMIT).

    SQLite's transactions begin with a BEGIN of our own, whatever the driver does.
    """
    driver: Any = connection.connection.dbapi_connection
    if connection.dialect.name == "postgresql":
        return getattr(driver, "autocommit", False) is True
    if connection.dialect.name not in MYSQL:
        return False
    if hasattr(driver, "get_autocommit"):
        return bool(driver.get_autocommit())
    of_engine = getattr(connection.dialect, "_on_connect_isolation_level", None)
    level = connection.get_execution_options().get("isolation_level", of_engine)
    return level == "AUTOCOMMIT"  # mysql-connector would ask the server


def set_autocommit(driver: Any, on: bool) -> None:
    """Let a driver's connection commit each statement, or no longer."""
    if callable(driver.autocommit):  # PyMySQL, mysqlclient
        driver.autocommit(on)
    else:
        driver.autocommit = on


def character_set(driver: Any) -> str:
    """Return the character set in which a connection of MySQL or MariaDB sends and gets text."""
    if hasattr(driver, "character_set_name"):  # PyMySQL, mysqlclient
        return str(driver.character_set_name())
    return str(driver.charset)  # mysql-connector


def set_character_set(driver: Any, name: str) -> None:
    """Let a connection of MySQL or MariaDB send and get text in another character set."""
    if hasattr(driver, "set_character_set"):  # PyMySQL, mysqlclient
        driver.set_character_set(name)
    else:
        driver.set_charset_collation(name)
