"""The holds of creators, shared by all processes: rows of the table of alerts, ``away:CREATOR:WHAT``.

A hold says for how long a creator, or a kind of call to it, is left alone, and after how many failures in a row.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from .failure_log import log_failure

if TYPE_CHECKING:
    from .transactions import Database

__all__ = ["HOLDS", "Hold", "SharedHolds", "name_of_hold"]

logger = logging.getLogger(__name__)

HOLDS = "away:"
"""The beginning of the names of these rows."""
_LONGEST_CREATOR = 20
_LONGEST_NAME = 36
_FORGOTTEN_AFTER = timedelta(days=3)
"""Time after the end of a hold after which it no longer matters; the longest one lasts a day."""


class Hold(NamedTuple):
    """The failures in a row of one name.

    Args:
        failures: their number.
        until: the time until which it is left alone, in seconds of the clock of the holds.
        version: counts the changes.
    """

    failures: int
    until: float
    version: int = 0


class SharedHolds:
    """The holds of one creator in the database. While that is away, nothing is kept, and the log says so.

    Args:
        database: the application's database.
        model: the model of alerts.
        creator: tells the creators of an application apart.
    """

    def __init__(self, database: Database, model: type[Any], creator: str) -> None:
        self._database, self._table = database, model.__table__
        self._prefix = f"{HOLDS}{_short(creator, _LONGEST_CREATOR)}:"

    def now(self) -> float:
        """Return the time by which processes agree, in seconds."""
        store = self._database.store
        try:
            now = store.clock.recent_now() or self._database.ask(store.now)
        except SQLAlchemyError as error:
            log_failure(self._database, logger, "The time of the database could not be read.", error)
            now = store.clock.read()
        return now.timestamp()

    def waited(self) -> float:
        """Return the seconds of a clock that only grows."""
        return self._database.store.clock.waited().total_seconds()

    def load(self) -> dict[str, Hold] | None:
        """Return all holds by name; None if they cannot be read now."""
        table = self._table.c
        columns = (table.name, table.sample, table.checked_at, table.version)
        select = sa.select(*columns).where(table.name.startswith(self._prefix, autoescape=True))
        try:
            rows = self._database.ask(lambda tx: tx.execute(select).all())
        except SQLAlchemyError as error:
            log_failure(self._database, logger, "The pauses of a creator could not be read.", error)
            return None
        start = len(self._prefix)
        return {name[start:]: Hold(failures, until.timestamp(), version) for name, failures, until, version in rows}

    def save(self, name: str, seen: Hold | None, hold: Hold) -> bool:
        """Write a hold unless another process has changed it since it was seen; return True if it was written."""
        table, key = self._table, self._prefix + name
        until = datetime.fromtimestamp(hold.until, UTC)
        values = {"sample": hold.failures, "checked_at": until, "version": hold.version}
        change: sa.Update | sa.Insert
        if seen is None:
            change = sa.insert(table).values(name=key, raised=False, **values)
        else:
            change = sa.update(table).where(table.c.name == key, table.c.version == seen.version).values(**values)
        return self._write(change) and (seen is not None or self._drop_old(until))

    def delete(self, name: str) -> None:
        """Forget a hold."""
        self._write(sa.delete(self._table).where(self._table.c.name == self._prefix + name))

    def _drop_old(self, now: datetime) -> bool:
        """Delete holds of calls that nobody has made for days."""
        table = self._table.c
        is_ours = table.name.startswith(self._prefix, autoescape=True)
        self._write(sa.delete(self._table).where(is_ours, table.checked_at < now - _FORGOTTEN_AFTER))
        return True

    def _write(self, change: sa.Update | sa.Insert | sa.Delete) -> bool:
        try:
            return self._database.write_one(lambda tx: tx.execute(change).rowcount) != 0  # which is -1 for an INSERT
        except IntegrityError:
            return False  # another process has just written it
        except SQLAlchemyError as error:
            log_failure(self._database, logger, "A pause of a creator was not kept.", error)
            return False


def name_of_hold(name: str) -> str:
    """Return the name of a hold as it can be kept."""
    return _short(name, _LONGEST_NAME)


def _short(name: str, most: int) -> str:
    if len(name) <= most and name.isascii() and name.isprintable():
        return name
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=most // 2).hexdigest()
