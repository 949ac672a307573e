"""Statements that are larger than a server of MySQL or MariaDB takes (``max_allowed_packet``).

The server closes the connection on such a statement. The driver often notices that before it has read why, and then
says that the server has gone away, which would be tried again for ever. So the size of what failed is compared with
the limit, which each session is told when it begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from sqlalchemy import Connection, Engine, ExceptionContext
from sqlalchemy import event as sa_event

from .drivers import error_code

__all__ = ["PACKET", "excess_of", "watch_packets"]

PACKET = "contenthub_webhook_packet"
"""The limit of a session, in bytes, in the ``info`` of its connection."""

_EXCESS = "contenthub_webhook_excess"
_CUT = frozenset({2006, 2013, 2055, 1153})
"""A connection that went away, and the server's own words."""
_ESCAPED = (0, 10, 13, 26, 34, 39, 92)
"""Bytes before which the drivers write a backslash: NUL, both line ends, Ctrl-Z, both quotes, the backslash."""
_AROUND = len("_binary''")
_MARGIN = 1024
"""Bytes for what a driver adds, such as the quotes of numbers and times."""


def watch_packets(engine: Engine) -> None:
    """Mark the errors of statements that are too large; :func:`excess_of` reads the mark."""
    sa_event.listen(engine, "handle_error", _mark)


def excess_of(error: BaseException | None) -> str:
    """Return what is too large, for people; empty if the error of a driver is another one."""
    return str(getattr(error, _EXCESS, ""))


def _size_of(cursor: Any, statement: str, parameters: Any) -> int:
    """Return how many bytes a statement takes on its way to the server; of many, the largest one."""
    if isinstance(parameters, list):
        return max((_size_of(cursor, statement, one) for one in parameters), default=0)
    if cursor is not None:
        return len(cursor.mogrify(statement, parameters).encode(errors="replace"))
    values = parameters.values() if isinstance(parameters, Mapping) else parameters or ()
    return len(statement.encode()) + sum(_size_of_value(value) for value in values)


def _writer_of(connection: Connection) -> Any:
    """Return a cursor of PyMySQL, which writes bytes as hex, and whose cursors need no server; else None."""
    driver = cast("Any", connection.connection.dbapi_connection)
    return driver.cursor() if type(driver).__module__.partition(".")[0] == "pymysql" else None


def _size_of_value(value: Any) -> int:
    raw = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else str(value).encode(errors="replace")
    return len(raw) + sum(raw.count(byte) for byte in _ESCAPED) + _AROUND


def _mark(context: ExceptionContext) -> None:
    error, connection = context.original_exception, context.connection
    if error_code(error) not in _CUT or connection is None or connection.invalidated:
        return
    limit = connection.info.get(PACKET)
    if limit is None:
        return
    with suppress(Exception):  # or it would take the place of the error that it looks at
        size = _size_of(_writer_of(connection), context.statement or "", context.parameters)
        if size + _MARGIN <= limit:
            return
        context.is_disconnect = True  # the server has closed it, whatever it says,
        context.invalidate_pool_on_disconnect = False  # and no other connection
        words = f"The statement takes {size:,} bytes, and the database takes {limit:,} (max_allowed_packet)."
        setattr(error, _EXCESS, words)
