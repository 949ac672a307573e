"""The tape of a process: what its statements and calls returned so far, so that it can be brought back to where it was.

A process is the shipped code. It is stopped between two steps, a step being a transaction or a call of the service, and
is brought back by running it again from the beginning: what was taped is answered from the tape, and touches nothing;
then one more step is done for real, and taped. That a process died is only that it is not brought back.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from flask_contenthub_webhook.runtime import leases

__all__ = ["TAPE", "NotTheSame", "Parked", "Step", "TapedConnection"]


_CHANGES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM) (\w+)")
_WORDS = {"INSERT INTO": "a new row of", "UPDATE": "a change of", "DELETE FROM": "a deletion from"}


class Parked(KeyboardInterrupt):
    """The process has done its step; it stands before the next one."""


class NotTheSame(AssertionError):
    """A process that was run again did something else: the model is at fault, not the package."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a statement returned."""

    sql: str
    columns: Any
    rows: tuple[Any, ...]
    rowcount: int
    lastrowid: int | None
    is_in_transaction: bool
    error: sqlite3.Error | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Step:
    """A transaction, a call, or the renewal of the leases that the process holds.

    Args:
        at: when it was done.
        said: what it was, in words.
        entries: of the statements.
        answer: of a call: the value, or the class and the message of an error.
        is_renewal: of the leases.
    """

    at: datetime
    said: str
    entries: tuple[Entry, ...] = ()
    answer: Any = field(default=None, compare=False)
    is_renewal: bool = False
    answered: str = ""

    @property
    def changes(self) -> bool:
        """Whether it may have changed anything: it is no use to die after a step that did not."""
        return self.said != "reads"

    @classmethod
    def of_call(cls, at: datetime, said: str, answer: Any) -> Step:
        """Return the step of a call, equal to any with an equal answer."""
        return cls(at, said, answer=answer, answered=repr(answer))


class _Tape:
    """The tape that runs; there is one process at a time."""

    def __init__(self) -> None:
        self.start((), datetime.max)
        self.is_on = False

    def start(self, steps: Sequence[Step], now: datetime, *, choice: int = 0, renew: bool = False) -> None:
        """Bring back a process with these steps, and let it do one more: by a choice, or the renewal of its leases."""
        self.is_on = True
        self.steps, self.now, self.choice, self.renew = list(steps), now, choice, renew
        self.position = 0
        self.played: list[Entry] = []
        self.live: Step | None = None
        self.alternatives = 1
        self.is_call = self.is_parked = self.is_in_call = self.has_lease = False
        self.is_renewing = False

    def stop(self) -> None:
        self.is_on = False

    @property
    def clock(self) -> datetime:
        """The time as the process sees it."""
        if self.live is not None:
            return self.live.at
        return self.steps[self.position].at if self.position < len(self.steps) else self.now

    @property
    def is_playing(self) -> bool:
        return self.position < len(self.steps)

    # --- statements ------------------------------------------------------------------------------------------

    def statement(self, cursor: TapedCursor, sql: str, run: Callable[[], Entry]) -> Entry:
        """Return what a statement returned, or returns."""
        self.enter()
        if not self.is_playing:
            entry = run()
            self.played.append(entry)
        else:
            entries = self.steps[self.position].entries
            if len(self.played) >= len(entries) or entries[len(self.played)].sql != sql:
                raise NotTheSame(f"{sql}\nis not what was done before: {self.steps[self.position]}")
            entry = entries[len(self.played)]
            self.played.append(entry)
        if entry.error is not None:
            raise entry.error
        return entry

    def end_of_transaction(self, end: Callable[[], None], *, keeps: bool) -> None:
        """End a transaction, and with it the step."""
        if not self.is_playing or not self.is_on:
            end()
        if not self.is_on or not self.played or self.is_renewing:
            return
        if not self.is_playing:
            step = Step(self.clock, _words_of(self.played, keeps=keeps), tuple(self.played))
            if not all(_is_quiet(entry.sql) for entry in self.played):
                self.live = step
            else:
                self.steps.append(step)  # and on with what follows
        if self.live is None:
            self.position += 1
        self.played = []

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction that is played is open."""
        return bool(self.played) and self.played[-1].is_in_transaction

    # --- calls -----------------------------------------------------------------------------------------------

    def call(self, alternatives: Callable[[], Sequence[tuple[str, Callable[[], Any]]]]) -> Any:
        """Return what a call returned, or returns as was chosen of the alternatives."""
        self.enter(call=True)
        if self.is_playing:
            answer = self.steps[self.position].answer
            self.position += 1
        else:
            possible = alternatives()
            self.alternatives = len(possible)
            said, happen = possible[self.choice]
            answer = happen()
            self.is_call = True
            self.live = Step.of_call(self.clock, said, answer)
        if isinstance(answer, tuple):
            raise answer[0](answer[1])
        return answer

    # --- leases ----------------------------------------------------------------------------------------------

    def enter(self, *, call: bool = False) -> None:
        """Renew leases where that is taped or wanted; park the process once it has done its step."""
        if self.is_renewing:
            return
        while self.is_playing and self.steps[self.position].is_renewal and not self.played:
            self._renew_all()
            self.position += 1
            self.played = []
        if self.renew and self.live is None and not self.is_playing and not self.played:
            self._renew_all()
            self.live = Step(self.clock, "renews its lease", tuple(self.played), is_renewal=True)
            self.played = []
        if self.live is not None:
            if not self.is_parked:
                self.is_parked, self.is_in_call = True, call
                self.has_lease = bool(leases._memory.value.leases)
            raise Parked

    def _renew_all(self) -> None:
        self.is_renewing = True
        try:
            for lease in list(leases._memory.value.leases):
                leases._renew(lease)
        finally:
            self.is_renewing = False


TAPE = _Tape()


def _is_quiet(sql: str) -> bool:
    """Whether a statement only looks whether the service is to be left alone: no step of its own."""
    return sql.startswith("SELECT webhook_alerts.")


def _words_of(entries: Sequence[Entry], *, keeps: bool) -> str:
    written = [_change(entry.sql) for entry in entries if _change(entry.sql)]
    if not written:
        return "reads"
    return ("commits " if keeps else "rolls back ") + ", ".join(dict.fromkeys(written))


def _change(sql: str) -> str:
    """Return what a statement changes, in words; it may begin with what it reads for that."""
    if (found := _CHANGES.search(sql)) is None:
        return ""
    return f"{_WORDS[found[1]]} {found[2]}"


class TapedCursor(sqlite3.Cursor):
    """A cursor whose statements are taped."""

    _entry: Entry | None = None
    _next = 0

    def execute(self, sql: str, parameters: Any = (), /) -> TapedCursor:
        return self._run(sql, lambda: super(TapedCursor, self).execute(sql, parameters))

    def executemany(self, sql: str, parameters: Any, /) -> TapedCursor:
        return self._run(sql, lambda: super(TapedCursor, self).executemany(sql, parameters))

    def _run(self, sql: str, execute: Callable[[], Any]) -> TapedCursor:
        self._next = 0
        if not TAPE.is_on or sql.startswith("PRAGMA"):  # which changes nothing
            if TAPE.is_on:
                TAPE.enter()
            self._entry = None
            execute()
        else:
            self._entry = TAPE.statement(self, sql, lambda: self._really(sql, execute))
        return self

    def _really(self, sql: str, execute: Callable[[], Any]) -> Entry:
        try:
            execute()
        except sqlite3.Error as error:
            return Entry(sql, None, (), -1, None, self.connection.in_transaction, error)
        rows = tuple(super().fetchall()) if super().description else ()
        return Entry(
            sql, super().description, rows, super().rowcount, super().lastrowid, self.connection.in_transaction
        )

    @property
    def description(self) -> Any:
        return super().description if self._entry is None else self._entry.columns

    @property
    def rowcount(self) -> int:
        return super().rowcount if self._entry is None else self._entry.rowcount

    @property
    def lastrowid(self) -> int | None:
        return super().lastrowid if self._entry is None else self._entry.lastrowid

    def fetchone(self) -> Any:
        return super().fetchone() if self._entry is None else next(iter(self._take(1)), None)

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        return super().fetchmany(size) if self._entry is None else self._take(size or 1)

    def fetchall(self) -> list[Any]:
        return super().fetchall() if self._entry is None else self._take(None)

    def __next__(self) -> Any:
        if self._entry is None:
            return super().__next__()
        if found := self._take(1):
            return found[0]
        raise StopIteration

    def __iter__(self) -> Self:
        return self

    def _take(self, size: int | None) -> list[Any]:
        assert self._entry is not None
        end = len(self._entry.rows) if size is None else self._next + size
        taken = list(self._entry.rows[self._next : end])
        self._next = end
        return taken


class TapedConnection(sqlite3.Connection):
    """A connection whose transactions are taped; it stays open, since what it holds is in memory."""

    def cursor(self, factory: Any = TapedCursor) -> Any:
        return super().cursor(factory)

    def commit(self) -> None:
        TAPE.end_of_transaction(super().commit, keeps=True)

    def rollback(self) -> None:
        TAPE.end_of_transaction(super().rollback, keeps=False)

    def close(self) -> None:
        super().rollback()

    @property
    def in_transaction(self) -> bool:
        if TAPE.is_on and TAPE.is_playing:
            return TAPE.is_in_transaction
        return super().in_transaction
