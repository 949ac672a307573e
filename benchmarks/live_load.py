"""The application of before while its table is upgraded: one that writes, one that reads, callbacks and polls."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.support.live_hub import old_application as old

from .live_table import OPEN_EVERY, task_id_of

__all__ = ["Load", "Wait"]

_EVERY = {"write": 0.02, "read": 0.02, "callback": 0.1, "poll": 0.1}
_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Wait:
    """One statement or request, in seconds of the clock."""

    kind: str
    name: str
    started: float
    ended: float
    error: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.started


class Load:
    """Four threads, each with its own connection; a context manager.

    Args:
        url: the database.
        rows: of the old table.
        port: where the callbacks and polls go.
    """

    def __init__(self, url: str, rows: int, port: int) -> None:
        arguments = {"timeout": _PATIENCE} if url.startswith("sqlite") else {}
        self._engine = sa.create_engine(url, connect_args=arguments)
        self._rows = rows
        self.port = port
        self.waits: list[Wait] = []
        self.completed: list[str] = []
        """The tasks whose callback was answered with 200."""
        self._over = threading.Event()
        self._random = random.Random(3)
        loops = {"write": self._write, "read": self._read, "callback": self._call_back, "poll": self._poll}
        self._threads = [threading.Thread(target=self._pace, args=each, daemon=True) for each in loops.items()]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._engine.dispose()

    @property
    def errors(self) -> dict[str, int]:
        """What failed, and how often."""
        return dict(Counter(f"{wait.name}: {wait.error}" for wait in self.waits if wait.error))

    def move(self, port: int) -> None:
        """Send callbacks and polls there, and return when nothing is under way at the old port."""
        self.port, since = port, time.time()
        missing = {"callback", "poll"}
        while missing and time.time() < since + _PATIENCE:
            time.sleep(0.05)
            missing -= {wait.kind for wait in self.waits[-1000:] if wait.started > since}

    def longest(self, *kinds: str) -> Wait:
        """Return the longest wait of these kinds."""
        return max((wait for wait in self.waits if wait.kind in kinds), key=lambda wait: wait.seconds)

    def _pace(self, kind: str, loop: Callable[[], Iterator[tuple[str, Callable[[], object]]]]) -> None:
        due = time.monotonic()
        for name, work in loop():
            started, error = time.time(), ""
            try:
                work()
            except Exception as raised:  # noqa: BLE001 - whatever it is, it goes into the report
                error = " ".join(str(raised).split("DETAIL")[0].split())[:200]
            self.waits.append(Wait(kind, name, started, time.time(), error))
            due = max(due + _EVERY[kind], time.monotonic())
            if self._over.wait(max(0.0, due - time.monotonic())):
                return

    def _write(self) -> Iterator[tuple[str, Callable[[], object]]]:
        with Session(self._engine) as session:
            while True:
                for name, insert in old.INSERTS.items():
                    yield f"INSERT {name}", _in(session, insert)
                    yield "UPDATE of a row of before", _in(session, self._touch)
                made: list[old.Task] = []
                yield "INSERT", _in(session, partial(_insert, made))
                for name, change in old.CHANGES if made else ():
                    yield name, _in(session, partial(_apply, change, made))

    def _touch(self, session: Session) -> None:
        task = session.get(old.Task, self._random.randint(1, self._rows))
        if task is not None:
            old.change(session, task, tone="wet")

    def _read(self) -> Iterator[tuple[str, Callable[[], object]]]:
        with Session(self._engine) as session:
            while True:
                for name, statement in old.READS.items():
                    yield f"SELECT {name}", _in(session, partial(_look, statement))

    def _call_back(self) -> Iterator[tuple[str, Callable[[], object]]]:
        for number in itertools.cycle(range(OPEN_EVERY, self._rows, OPEN_EVERY)):
            yield "POST callback", partial(self._complete, task_id_of(number))

    def _complete(self, task_id: str) -> None:
        event = {"event": "completed", "taskId": task_id, "result": {"content": "C" * 100}}
        self._request("POST", f"/api/v1/content/callback/{task_id}", json.dumps(event))
        self.completed.append(task_id)

    def _poll(self) -> Iterator[tuple[str, Callable[[], object]]]:
        while True:
            yield "GET task", partial(self._request, "GET", f"/tasks/{self._random.randint(1, self._rows)}")

    def _request(self, method: str, path: str, body: str | None = None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]!r}")


def _in(session: Session, work: Callable[[Session], object]) -> Callable[[], object]:
    """Return the work in a transaction that is over afterwards."""

    def do() -> None:
        try:
            work(session)
        finally:
            session.rollback()

    return do


def _insert(made: list[old.Task], session: Session) -> None:
    made.append(old.insert_whole(session))


def _apply(change: Callable[[Session, old.Task], object], made: list[old.Task], session: Session) -> None:
    change(session, made[0])


def _look(statement: sa.Executable, session: Session) -> None:
    session.execute(statement).all()
