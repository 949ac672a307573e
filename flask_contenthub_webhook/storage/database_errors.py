"""The meaning of a database error: try again, wait, unavailable, or the statement's own fault."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import Enum

from sqlalchemy import exc

from ..errors import DatabaseUnavailable, EventNotStorable
from .drivers import error_code, error_message
from .encoding import UnfitEncoding
from .packet_limit import excess_of

__all__ = [
    "Trouble",
    "ends_transaction",
    "is_connection_useless",
    "is_contention",
    "is_lock_timeout",
    "lacks_schema",
    "not_stored",
    "row_refusal",
    "trouble_of",
    "unavailable",
]


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
    # MySQL and MariaDB: PyMySQL, mysqlclient, mysql-connector
    1213: Trouble.RETRY,  # deadlock
    1020: Trouble.RETRY,  # a row changed since it was read: innodb_snapshot_isolation
    1412: Trouble.RETRY,  # the definition of a table changed meanwhile
    1615: Trouble.RETRY,  # a prepared statement has to be prepared again
    1205: Trouble.BUSY,  # lock wait timeout
    1317: Trouble.BUSY,  # interrupted by KILL QUERY
    1969: Trouble.BUSY,  # MariaDB's max_statement_time
    3024: Trouble.BUSY,  # MySQL's max_execution_time
    3572: Trouble.BUSY,  # NOWAIT
    1053: Trouble.RETRY,  # the server shuts down, and may be back: a pooled connection learns of it late
    1927: Trouble.RETRY,  # the connection was killed
    2006: Trouble.RETRY,  # the server has gone away
    2013: Trouble.RETRY,  # the connection was lost during the query
    2055: Trouble.RETRY,  # the connection was lost, with an error of the system
    4031: Trouble.RETRY,  # MySQL closed a connection that was idle
    1153: Trouble.STATEMENT,  # a packet bigger than max_allowed_packet
    2020: Trouble.STATEMENT,  # the same, found by the client's library
    # SQLite
    "SQLITE_BUSY_SNAPSHOT": Trouble.RETRY,
    "SQLITE_BUSY": Trouble.BUSY,
    "SQLITE_LOCKED": Trouble.BUSY,
    "SQLITE_ERROR": Trouble.STATEMENT,  # no such table or column: SQLite calls it operational
}
_SERVER_CLASSES = {"08", "28", "3D", "53", "57", "58", "XX"}
"""Classes of SQLSTATEs that are about the server: connection, account, database, resources, operator, system, bugs."""
_SERVER_NUMBERS = {
    *(1021, 1026, 1030, 1037, 1038, 1114, 1135),  # disk full, files, engine, memory, table full, threads
    *(1040, 1041, 1042, 1043, 1129, 1130, 1158, 1159, 1160, 1161),  # connections and the network
    *(1203, 1226, 1461, 1637),  # limits of an account and of the server
    *(1044, 1045, 1049, 1698, 1820, 1862, 3118, 4151),  # an account or a database: not there, expired, locked
    *(1077, 1078, 1079, 1080),  # shutting down
    *(1036, 1290, 1792, 1836),  # read-only
    *(1047, 1105, 1180, 1194, 1195, 1206),  # Galera not ready, unknown, error at a commit, tables crashed, locks full
}
"""Errors of a MySQL or MariaDB server that are about the server."""
_FIRST_OF_STATEMENTS, _FIRST_OF_CLIENT, _END_OF_CLIENT = 1021, 2000, 3000
"""Numbers of MySQL's errors: of files and of the engine, of statements and of the server, of the client, and again."""
_USELESS = {"57P01", "57P02", "57P03", "25006", 1053, 1290, 1836, 1927, 2006, 2013, 2055, 4031}
_ROW_CLASSES = {"22", "23", "44", "54"}
"""Classes of SQLSTATEs by which a row is refused: data, constraints, the check of a view, limits of size."""
_FIRST_OF_ONES_OWN = "I"
"""Classes from this letter on are those of a database's own triggers, such as P0, which PostgreSQL's raise."""
_ROW_NUMBERS = {
    *(1022, 1048, 1062, 1138, 1216, 1217, 1364, 1369, 1451, 1452, 1557, 1569, 1586, 3819, 4025),  # constraints, checks
    *(1264, 1265, 1292, 1300, 1365, 1366, 1367, 1406, 1411, 1441, 1690, 3140, 3141, 3157, 3988, 4036, 4040),  # data
    *(1118, 1153, 1301, 2020),  # size
    *(1644, 1645, 1643),  # raised by a trigger
}
"""The same of MySQL and MariaDB."""
_ENDS_TRANSACTION = {1020, 1206, 1213}
"""InnoDB rolls back the whole transaction, savepoints included; what follows is a new one."""
_LOCK_TIMEOUT = 1205
_MISSING = {"42P01", "42703", 1146, 1054}
"""Undefined table and column: PostgreSQL, then MySQL and MariaDB."""
_MISSING_IN_SQLITE = ("no such table", "no such column", "has no column named")
_LOCK_NOT_AVAILABLE = "55P03"
_SQLSTATE_LENGTH = 5


class RowRefused(RuntimeError):
    """A constraint or a trigger refuses what is written, or the database cannot hold it."""


def trouble_of(error: exc.SQLAlchemyError) -> Trouble:
    """Return the meaning of a database error; what is not clearly the statement's fault counts as unavailable."""
    if isinstance(error, exc.TimeoutError):  # the pool is exhausted
        return Trouble.BUSY
    if not isinstance(error, exc.DBAPIError) or excess_of(error.orig):
        return Trouble.STATEMENT
    if error.connection_invalidated:
        return Trouble.RETRY
    code = error_code(error.orig)
    if code is not None and code in _MEANINGS:
        return _MEANINGS[code]
    if isinstance(code, str) and len(code) == _SQLSTATE_LENGTH:
        return Trouble.UNAVAILABLE if code[:2] in _SERVER_CLASSES else Trouble.STATEMENT
    if isinstance(code, int):
        return Trouble.UNAVAILABLE if _is_about_server(code) else Trouble.STATEMENT
    if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError):
        return Trouble.UNAVAILABLE
    return Trouble.STATEMENT


def row_refusal(error: exc.SQLAlchemyError) -> RowRefused | None:
    """Return what the database says if it is known to refuse a row; any other error is not one event's trouble."""
    if not isinstance(error, exc.DBAPIError) or trouble_of(error) is not Trouble.STATEMENT:
        return None
    code, excess = error_code(error.orig), excess_of(error.orig)
    if isinstance(code, str) and len(code) == _SQLSTATE_LENGTH:
        is_refusal = code[:2] in _ROW_CLASSES or code[0] >= _FIRST_OF_ONES_OWN
    elif isinstance(code, int):
        is_refusal = code in _ROW_NUMBERS
    else:
        is_refusal = isinstance(error, exc.IntegrityError | exc.DataError)
    return RowRefused(excess or error_message(error.orig)) if excess or is_refusal else None


def lacks_schema(error: BaseException) -> bool:
    """Tell whether the database lacks a table or a column, as it does before `flask db upgrade`."""
    if not isinstance(error, exc.DBAPIError):
        return False
    message = error_message(error.orig)
    return error_code(error.orig) in _MISSING or any(words in message for words in _MISSING_IN_SQLITE)


def not_stored(error: exc.SQLAlchemyError) -> DatabaseUnavailable | EventNotStorable:
    """Return the refusal of an event whose row was not written: for good if the database refuses the row itself."""
    if row_refusal(error) is None:
        return unavailable(error)
    excess = excess_of(error.orig) if isinstance(error, exc.DBAPIError) else ""
    return EventNotStorable(f"{inspect.cleandoc(EventNotStorable.__doc__ or '')} {excess}".rstrip())


def unavailable(error: exc.SQLAlchemyError) -> DatabaseUnavailable:
    """Return the refusal of what could not be stored; the sender sends it again."""
    if isinstance(error, UnfitEncoding):
        return DatabaseUnavailable(str(error))
    if not lacks_schema(error):
        return DatabaseUnavailable()
    return DatabaseUnavailable("The database is behind this version of the application: run `flask db upgrade`.")


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
    return code not in _USELESS and not (isinstance(code, str) and code[:2] in _SERVER_CLASSES)


def is_connection_useless(error: exc.SQLAlchemyError) -> bool:
    """Tell whether a pooled connection leads to a server that is gone or no longer accepts writes.

    SQLAlchemy itself detects most lost connections, but not a read-only server, nor, with pg8000, a shutdown.
    """
    return isinstance(error, exc.DBAPIError) and error_code(error.orig) in _USELESS and not excess_of(error.orig)


def ends_transaction(error: BaseException) -> bool:
    """Tell whether a server has rolled back the whole transaction because of an error, though it lets it go on."""
    return error_code(error) in _ENDS_TRANSACTION


def is_lock_timeout(error: BaseException) -> bool:
    """Tell whether InnoDB gave up waiting for a lock; its setting decides whether that ended the transaction."""
    return error_code(error) == _LOCK_TIMEOUT


def _is_about_server(number: int) -> bool:
    is_client = _FIRST_OF_CLIENT <= number < _END_OF_CLIENT
    return number < _FIRST_OF_STATEMENTS or is_client or number in _SERVER_NUMBERS
