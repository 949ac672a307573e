"""The record of all tasks, calls and callbacks, which survives the simulated process.

The real creator keeps its tasks in a database and its callbacks in memory. So does the simulator, and this is its
database: in memory, or in an SQLite file that is written at every change and so survives the real process as well.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

__all__ = ["CallbackRecord", "Ledger", "TaskRecord", "TaskState", "read_ledger"]

TaskState = Literal["pending", "running", "waiting", "completed", "failed", "cancelled"]

_SCHEMA = """
create table if not exists tasks (id text primary key, number integer not null, record blob not null);
create table if not exists callbacks (number integer primary key, record blob not null);
create table if not exists counts (kind text, name text, n integer not null, primary key (kind, name));
create table if not exists deaths (number integer primary key, reason text not null);
create table if not exists refused (id text primary key);
"""
_UNSAVED_COUNTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task in the creator's database.

    Args:
        number: the number of its submission, from 1.
        id: the creator's id: the ``idempotencyKey`` of the submission, or a generated one.
        state: as the API shows it.
        mode: ``sync`` or ``async``.
        topic: as submitted.
        requirements: as submitted.
        target_audience: as submitted.
        priority: 1 to 4.
        callback_url: as submitted; None for no callbacks.
        created_at: when it was accepted.
        updated_at: when its state last changed.
        finished_at: when it was completed or failed.
        result: the result that the API serves, once completed.
        other_result: the result of the other ``completed`` of a task that was completed twice with different content.
        error: the message with which it failed.
        orphaned: the process died while it was being worked on, so it never finishes and never calls back.
        faults: the names of its faults.
    """

    number: int
    id: str
    state: TaskState
    mode: str
    topic: str
    requirements: str
    target_audience: str
    priority: int
    callback_url: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    result: dict[str, Any] | None = field(default=None, repr=False)
    other_result: dict[str, Any] | None = field(default=None, repr=False)
    error: str | None = None
    orphaned: bool = False
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRecord:
    """A request of a callback, or a callback that was never sent.

    Args:
        number: its place in the log, from 1, in the order in which the exchanges ended; 0 until it is logged.
        task_id: the ``taskId`` of the body.
        event: ``completed`` or ``failed``.
        faults: the faults that applied: ``lose``, ``delay``, ``duplicate``, ``reorder``, ``contradict:...``,
            ``forge:...``; ``crash`` or ``stop`` if it was lost when the process died or was stopped.
        attempt: the number of the try, from 1 to 4; 0 if it was never sent.
        method: ``POST``, or ``GET`` after a redirect.
        url: the URL of this request, after redirects.
        sent_at: when it was sent.
        elapsed: seconds until the answer.
        status: of the answer; None without one.
        error: the reason for having none: ``timeout``, ``refused``, ``reset``, ...
        body: the bytes; empty for GET, or if the simulator does not keep bodies.
    """

    number: int = 0
    task_id: str
    event: str
    faults: tuple[str, ...] = ()
    attempt: int = 0
    method: str = ""
    url: str
    sent_at: datetime
    elapsed: float = 0.0
    status: int | None = None
    error: str | None = None
    body: bytes = field(default=b"", repr=False)

    @property
    def delivered(self) -> bool:
        """True if the creator counts it as delivered."""
        return self.status in {200, 202}

    @property
    def forged(self) -> bool:
        """True if it was forged."""
        return any(fault.startswith("forge") for fault in self.faults)


class Ledger:
    """Tasks, callbacks and counters, in memory and, between ``open`` and ``close``, in a file as well.

    Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tasks: dict[str, TaskRecord] = {}
        self._by_state: Counter[str] = Counter()
        self._callbacks: list[CallbackRecord] = []
        self._counts: dict[str, Counter[str]] = {"requests": Counter(), "asked": Counter(), "submissions": Counter()}
        self._unsaved: set[tuple[str, str]] = set()
        self._unsaved_count = 0
        self._deaths: list[str] = []
        self._refused: dict[str, None] = {}
        self._file: sqlite3.Connection | None = None

    def open(self, path: Path) -> None:
        """Load an SQLite file in place of what is in memory, and write every change to it from now on.

        Raises:
            sqlite3.Error: it cannot be written, or is not a ledger.
        """
        file = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        try:
            file.execute("pragma journal_mode = wal")
            # Survives the death of this process, but not that of the machine.
            file.execute("pragma synchronous = off")
            file.executescript(_SCHEMA)
            self.load(file)
        except BaseException:
            file.close()
            raise
        self._file = file

    def load(self, file: sqlite3.Connection) -> None:
        """Load a file in place of what is in memory."""
        with self._lock:
            self._tasks.clear()
            self._by_state.clear()
            for (blob,) in file.execute("select record from tasks order by number, rowid"):
                record = msgspec.json.decode(blob, type=TaskRecord)
                self._tasks[record.id] = record
                self._by_state[record.state] += 1
            callbacks = file.execute("select record from callbacks order by number")
            self._callbacks = [msgspec.json.decode(blob, type=CallbackRecord) for (blob,) in callbacks]
            for kind, name, n in file.execute("select kind, name, n from counts"):
                self._counts[kind][name] = n
            self._deaths = [reason for (reason,) in file.execute("select reason from deaths order by number")]
            self._refused.update(dict.fromkeys(id_ for (id_,) in file.execute("select id from refused order by rowid")))

    def task(self, task_id: str) -> TaskRecord | None:
        """Return a task, or None."""
        return self._tasks.get(task_id)

    def tasks(self) -> dict[str, TaskRecord]:
        """Return a copy of all tasks by id, oldest first."""
        with self._lock:
            return dict(self._tasks)

    def callbacks(self) -> tuple[CallbackRecord, ...]:
        """Return the log of callbacks."""
        with self._lock:
            return tuple(self._callbacks)

    def counts(self, kind: Literal["requests", "asked"]) -> Counter[str]:
        """Count the calls of each route (``requests``), or the single questions about each task (``asked``)."""
        with self._lock:
            return self._counts[kind].copy()

    def deaths(self) -> tuple[str, ...]:
        """Return the reason of each death of the process."""
        with self._lock:
            return tuple(self._deaths)

    def refused(self) -> tuple[str, ...]:
        """Return the ids of submissions that ``Faults.refuse`` refused."""
        with self._lock:
            return tuple(self._refused)

    def by_state(self) -> Counter[str]:
        """Count the tasks in each state."""
        with self._lock:
            return +self._by_state

    def page(self, page: int, limit: int, state: str | None) -> tuple[list[TaskRecord], int]:
        """Return a page of the tasks, newest first, and the number of all."""
        with self._lock:
            newest_first: Iterator[TaskRecord] = reversed(self._tasks.values())
            if state is not None:
                newest_first = (record for record in newest_first if record.state == state)
            total = len(self._tasks) if state is None else self._by_state[state]
            start = (page - 1) * limit
            return ([] if start >= total else list(islice(newest_first, start, start + limit))), total

    def put(self, record: TaskRecord) -> None:
        """Store a task, new or changed."""
        with self._lock:
            before = self._tasks.get(record.id)
            if before is not None:
                self._by_state[before.state] -= 1
            self._tasks[record.id] = record
            self._by_state[record.state] += 1
            self._save(
                "insert into tasks values (?, ?, ?) on conflict (id) do update set record = excluded.record",
                (record.id, record.number, msgspec.json.encode(record)),
            )

    def log(self, callback: CallbackRecord) -> None:
        """Append to the log of callbacks, and number the entry."""
        with self._lock:
            numbered = replace(callback, number=len(self._callbacks) + 1)
            self._callbacks.append(numbered)
            self._save("insert into callbacks values (?, ?)", (numbered.number, msgspec.json.encode(numbered)))

    def next_number(self) -> int:
        """Return the number of the next submission."""
        with self._lock:
            self.count("submissions", "")
            return self._counts["submissions"][""]

    def count(self, kind: Literal["requests", "asked", "submissions"], name: str) -> None:
        """Count one more; saved with the next change of a task, after 64 counts, or at the end."""
        with self._lock:
            self._counts[kind][name] += 1
            if self._file is not None:
                self._unsaved.add((kind, name))
                self._unsaved_count += 1
                if self._unsaved_count >= _UNSAVED_COUNTS:
                    self._save()

    def die(self, reason: str) -> None:
        """Record a death of the process."""
        with self._lock:
            self._deaths.append(reason)
            self._save("insert into deaths values (?, ?)", (len(self._deaths), reason))

    def refuse(self, task_id: str) -> None:
        """Record a submission that ``Faults.refuse`` refused."""
        with self._lock:
            self._refused[task_id] = None
            self._save("insert or ignore into refused values (?)", (task_id,))

    def orphan(self, *, fail_at: datetime | None, message: str) -> None:
        """Mark the tasks that an earlier process left unfinished, and fail them if a time is given."""
        with self._lock:
            for record in list(self._tasks.values()):
                if record.state not in {"pending", "running"} or record.orphaned:
                    continue
                orphan = replace(record, orphaned=True)
                if fail_at is not None:
                    orphan = replace(orphan, state="failed", updated_at=fail_at, finished_at=fail_at, error=message)
                self.put(orphan)

    def close(self) -> None:
        """Save the rest and close the file; the ledger stays readable."""
        with self._lock:
            if self._file is not None:
                self._save()
                self._file.close()
                self._file = None

    def _save(self, statement: str | None = None, values: tuple[Any, ...] = ()) -> None:
        if self._file is None:
            return
        self._file.execute("begin")
        if statement is not None:
            self._file.execute(statement, values)
        self._file.executemany(
            "insert into counts values (?, ?, ?) on conflict (kind, name) do update set n = excluded.n",
            [(kind, name, self._counts[kind][name]) for kind, name in self._unsaved],
        )
        self._file.execute("commit")
        self._unsaved.clear()
        self._unsaved_count = 0


def read_ledger(path: Path | str) -> Ledger:
    """Read the ledger that a simulator in another process keeps at its ``state_path``, running or not.

    Raises:
        sqlite3.OperationalError: there is no such file, or it is not a ledger.
    """
    ledger = Ledger()
    with contextlib.closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as file:
        ledger.load(file)
    return ledger
