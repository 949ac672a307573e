"""The clock by which processes agree: the database's, since the clocks of servers differ, drift and are set.

Statements that claim work read it themselves: :func:`moved` makes them move the times that are bound, which are the
application's, by the difference of the two clocks. Times that are only written come from :meth:`AgreedClock.now`.
SQLite has no server; there the clock of the machine is the database's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = ["NOW", "AgreedClock", "Clock", "elapsed", "moved"]

Clock = Callable[[], datetime]

_TIME_OF: dict[str, Any] = {
    "postgresql": sa.func.statement_timestamp(type_=sa.DateTime(timezone=True)),
    "mysql": sa.func.utc_timestamp(6, type_=sa.DateTime()),
    "mariadb": sa.func.utc_timestamp(6, type_=sa.DateTime()),
}
"""The time of a server, by its dialect."""
_LONGEST_TRUST = 30.0
"""Seconds after which the database is asked for its time again."""
_JUMP = 0.5
"""Seconds by which the machine's clock must have been set for the database to be asked at once."""
NOW = timedelta()
"""No distance from now."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def _machine_time() -> datetime:
    return datetime.now(UTC)


def elapsed() -> float:
    """Return the seconds of a clock that is never set, and that runs on where the machine is suspended, if it can."""
    return time.monotonic() if _SINCE_BOOT is None else time.clock_gettime(_SINCE_BOOT)


class _Comparison(NamedTuple):
    """The database's time compared with the machine's."""

    ahead: timedelta
    wall: datetime
    elapsed: float

    def holds(self, wall: datetime, now: float) -> bool:
        """Tell whether it is recent, and the machine's clock was not set since."""
        waited = now - self.elapsed
        was_set = abs((wall - self.wall).total_seconds() - waited) > _JUMP
        return waited < _LONGEST_TRUST and not was_set


def _compared(at: datetime, before: datetime, began: float) -> _Comparison:
    """Compare the time that the database returned with the machine's, half-way between question and answer."""
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return _Comparison(at - before - timedelta(seconds=elapsed() - began) / 2, before, began)


class AgreedClock:
    """The time of the application and that of its database; safe for threads.

    Attributes:
        wall: the machine's clock.
        replacement: stands for both, in tests that move the time.
    """

    def __init__(self) -> None:
        self.wall: Clock = _machine_time
        self.replacement: Clock | None = None
        self._compared: _Comparison | None = None
        self._has_no_server = False

    @property
    def read(self) -> Clock:
        """The application's clock, for times that only people look at."""
        return self.replacement or self.wall

    @read.setter
    def read(self, clock: Clock) -> None:
        self.replacement = None if clock is self.wall else clock

    def waited(self) -> timedelta:
        """Return a time that only grows, to measure waits with inside this process."""
        return timedelta(seconds=elapsed()) if self.replacement is None else self.replacement() - _EPOCH

    def now(self, connection: sa.Connection) -> datetime:
        """Return the database's time, for values that other processes compare with theirs."""
        return self.now_and_ahead(connection)[0]

    def now_and_ahead(self, connection: sa.Connection) -> tuple[datetime, timedelta]:
        """Return the database's time, and how far that is ahead of the application's."""
        ahead = self.ahead(connection)
        return self.read() + ahead, ahead

    def recent_now(self) -> datetime | None:
        """Return the database's time, without a connection, if it was compared recently or is the machine's."""
        if self.replacement is not None:
            return self.replacement()
        if self._has_no_server and self.wall is _machine_time:
            return self.wall()
        compared, now = self._compared, self.wall()
        return now + compared.ahead if compared is not None and compared.holds(now, elapsed()) else None

    def ahead(self, connection: sa.Connection) -> timedelta:
        """Return how far the database's clock is ahead; ask it if that was compared long ago, or ours was set."""
        self._has_no_server = connection.dialect.name not in _TIME_OF
        if self.replacement is not None or (self._has_no_server and self.wall is _machine_time):
            return NOW
        compared = self._compared
        if compared is None or not compared.holds(self.wall(), elapsed()):
            compared = self._compared = self._compare(connection)
        return compared.ahead

    def server_ahead(self, connection: sa.Connection) -> timedelta | None:
        """Return how far the clock of a database server is ahead of the machine's, now; None if there is no server."""
        return self._compare(connection).ahead if connection.dialect.name in _TIME_OF else None

    def bound(self, connection: sa.Connection, **from_now: timedelta) -> dict[str, Any]:
        """Return the parameters of a statement with :func:`moved` times, each given by its distance from now."""
        now = self.read()
        if connection.dialect.name in _TIME_OF:
            times: dict[str, Any] = {"at_clock": now if self.replacement is None else None}
        else:
            times, now = {}, now + self.ahead(connection)
        return times | {name: now + distance for name, distance in from_now.items()}

    def _compare(self, connection: sa.Connection) -> _Comparison:
        time_of = _TIME_OF.get(connection.dialect.name)
        before, began = self.wall(), elapsed()
        if time_of is None:
            return _Comparison(timedelta() if self.wall is _machine_time else _machine_time() - before, before, began)
        return _compared(connection.execute(sa.select(time_of)).scalar_one(), before, began)

    def read_with(self, connection: sa.Connection, columns: Sequence[sa.ColumnElement[Any]]) -> Sequence[Any]:
        """Return the first row of a SELECT, and compare the clocks by it, so that nobody has to ask for that."""
        time_of = None if self.replacement is not None else _TIME_OF.get(connection.dialect.name)
        before, began = self.wall(), elapsed()
        if time_of is None:
            return tuple(connection.execute(sa.select(*columns)).one())
        *values, at = connection.execute(sa.select(*columns, time_of)).one()
        self._compared = _compared(at, before, began)
        return values


class _Moved(FunctionElement[datetime]):
    """A bound time of the application, moved by the difference of the clocks; not moved if ``at_clock`` is NULL."""

    name = "moved"
    inherit_cache = True

    def __init__(self, at: sa.BindParameter[datetime], clock: sa.BindParameter[datetime]) -> None:
        super().__init__(at, clock)
        self.type = at.type


def moved(name: str, type_: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    """Return a bound parameter for a time of the application that becomes the database's in the statement itself."""
    return _Moved(sa.bindparam(name, type_=type_), sa.bindparam("at_clock", type_=type_))


@compiles(_Moved)
def _bound_alone(element: _Moved, compiler: Any, **options: Any) -> str:
    """Leave the time as it is bound: :meth:`AgreedClock.bound` has moved it."""
    return str(compiler.process(next(iter(element.clauses)), **options))


@compiles(_Moved, "postgresql")
def _moved_by_postgresql(element: _Moved, compiler: Any, **options: Any) -> str:
    at, clock = (f"CAST({compiler.process(part, **options)} AS TIMESTAMPTZ)" for part in element.clauses)
    return f"({at} + coalesce(statement_timestamp() - {clock}, INTERVAL '0'))"


@compiles(_Moved, "mysql", "mariadb")
def _moved_by_mysql(element: _Moved, compiler: Any, **options: Any) -> str:
    at, clock = (compiler.process(part, **options) for part in element.clauses)
    ahead = f"coalesce(timestampdiff(MICROSECOND, {clock}, utc_timestamp(6)), 0)"
    return f"timestampadd(MICROSECOND, {ahead}, CAST({at} AS DATETIME(6)))"
