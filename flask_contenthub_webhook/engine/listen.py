"""Wait for work: PostgreSQL announces it (LISTEN and NOTIFY); on other databases the worker polls."""

from __future__ import annotations

import contextlib
import logging
import select
import threading
import time
import uuid
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy.exc import SQLAlchemyError

from ..storage.failure_log import log_failure
from ..storage.inbox_statements import CHANNEL

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from ..runtime.state import WebhookState

__all__ = ["NotifyListener"]

logger = logging.getLogger(__name__)

_SLICE = 0.5
"""Seconds within which a stop is noticed while listening."""
_RECONNECT = 5.0
_LONGEST_PROBE = 3.0
"""Seconds in which a notification must be heard; on a direct connection it takes milliseconds."""


class NotifyListener:
    """A connection that listens for notifications, if the database and its driver support them.

    Losing it costs time, never an event: the worker polls as well, and the connection is opened again.

    Args:
        state: the application's state.
    """

    def __init__(self, state: WebhookState) -> None:
        self._state = state
        self._connection: Connection | None = None
        self._tried_at = float("-inf")
        self._is_in_vain = False  # something between us and the database keeps notifications from us

    @property
    def is_listening(self) -> bool:
        """True while the database would wake us."""
        return self._connection is not None

    @property
    def is_possible(self) -> bool:
        """False once it is known that this database, its driver or what is between never wakes us."""
        return not self._is_in_vain

    def wait(self, seconds: float, stopped: threading.Event) -> bool:
        """Wait for some seconds, or less if there is work or we are stopped.

        Returns:
            True if the database announced work, or may have done so before we listened.
        """
        if self._connection is None and time.monotonic() - self._tried_at > _RECONNECT and self._listen():
            return True
        if (connection := self._connection) is None:
            stopped.wait(seconds)
            return False
        end = time.monotonic() + seconds
        try:
            while not stopped.is_set() and (left := end - time.monotonic()) > 0:
                if _was_notified(connection.connection.dbapi_connection, min(left, _SLICE)):
                    return True
        except Exception as error:  # noqa: BLE001 - each driver has errors of its own
            message = "The connection that listens was lost; it will be opened again."
            log_failure(self._state.database, logger, message, error)
            self._close()
        return False

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _listen(self) -> bool:
        """Take a connection out of the pool for good; return True if it listens."""
        self._tried_at = time.monotonic()
        if self._is_in_vain:
            return False
        try:
            with self._state.database.session() as session:
                engine = self._state.store.bind_of(session).engine
            if engine.dialect.name != "postgresql" or engine.dialect.driver not in {"psycopg", "psycopg2"}:
                self._is_in_vain = True
            else:
                self._connection = _connect(engine)
                self._connection.detach()
                if _hears(self._connection, engine):
                    self._connection.exec_driver_sql(f"LISTEN {CHANNEL}")
                else:
                    self._is_in_vain = True
                    logger.warning(
                        "Notifications of the database do not arrive, as behind PgBouncer in transaction mode: this "
                        "process looks for work every few seconds instead. A direct connection would wake it at once."
                    )
                    self._close()
        except (SQLAlchemyError, OSError) as error:
            message = "The database cannot wake this process now; it polls instead."
            log_failure(self._state.database, logger, message, error)
            self._close()
        return self.is_listening

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be broken already
                connection.close()


def _connect(engine: Engine) -> Connection:
    connection = engine.connect()
    connection.rollback()  # what a listener of the host's has begun
    return connection.execution_options(isolation_level="AUTOCOMMIT")


def _hears(connection: Connection, engine: Engine) -> bool:
    """Tell whether a notification arrives on a connection.

    Behind a pooler that gives each transaction another server connection, LISTEN succeeds on a connection that others
    use afterwards. So the probe has its own channel, on which nothing else is ever sent.
    """
    channel = f"{CHANNEL}_probe_{uuid.uuid4().hex}"
    connection.exec_driver_sql(f"LISTEN {channel}")
    with _connect(engine) as other:
        other.exec_driver_sql(f"NOTIFY {channel}")
    is_heard = _was_notified(connection.connection.dbapi_connection, _LONGEST_PROBE)
    connection.exec_driver_sql(f"UNLISTEN {channel}")
    return is_heard


def _was_notified(connection: Any, seconds: float) -> bool:
    """Wait for a notification on the driver's connection; False after so many seconds without one."""
    if callable(connection.notifies):  # psycopg 3
        return any(True for _ in connection.notifies(timeout=seconds, stop_after=1))
    ready, _, _ = select.select([connection], [], [], seconds)
    if not ready:
        return False
    connection.poll()
    was_notified = bool(connection.notifies)
    connection.notifies.clear()
    return was_notified
