"""How a transaction waits for SQLite's write lock."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, OperationalError

from flask_contenthub_webhook.core.per_process import PerProcess
from flask_contenthub_webhook.storage.database_errors import Trouble, trouble_of
from flask_contenthub_webhook.storage.sqlite_lock import begin_writing

Connect = Callable[..., sa.Engine]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "test.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    connection.close()
    return path


@pytest.fixture
def engine_of(file: Path) -> Iterator[Connect]:
    """A function that makes an engine for the file, with a ``busy_timeout`` in milliseconds."""
    engines: list[sa.Engine] = []

    def make(busy_timeout: int = 5000, **options: Any) -> sa.Engine:
        engine = sa.create_engine(f"sqlite:///{file}", **options)
        engines.append(engine)

        @sa.event.listens_for(engine, "connect")
        def wait(driver: sqlite3.Connection, _: Any) -> None:
            driver.execute(f"PRAGMA busy_timeout = {busy_timeout}")

        return engine

    yield make
    for engine in engines:
        engine.dispose()


def write(connection: sa.Connection, text: str) -> None:
    connection.exec_driver_sql("INSERT INTO notes VALUES (?)", (text,))


def notes(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT text FROM notes ORDER BY text").scalars())


def busy_timeout_of(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one())


def is_locked(engine: sa.Engine) -> bool:
    """Whether somebody else may not write now."""
    with engine.connect() as connection:
        try:
            write(connection, "never kept")
        except OperationalError as error:
            return trouble_of(error) is Trouble.BUSY
        return False


def test_nobody_else_writes_from_the_beginning_to_the_commit(engine_of: Connect):
    ours, other = engine_of(), engine_of(busy_timeout=0)
    with ours.connect() as connection:
        assert not is_locked(other)
        begin_writing(connection, threading.Lock())
        assert is_locked(other)
        write(connection, "ours")
        connection.commit()
        assert not is_locked(other)
    assert notes(other) == ["ours"]


def test_what_is_not_committed_is_undone_also_where_the_driver_commits_by_itself(engine_of: Connect):
    engine = engine_of(connect_args={"isolation_level": None})
    with engine.connect() as connection:
        begin_writing(connection, threading.Lock())
        write(connection, "never kept")
    assert notes(engine) == []


def test_it_waits_until_the_other_one_is_done(engine_of: Connect):
    ours, other = engine_of(), engine_of()
    has_begun, order = threading.Event(), []

    def wait_for_the_other() -> None:
        with ours.connect() as connection:
            has_begun.set()
            begin_writing(connection, threading.Lock())
            order.append("ours")

    with other.connect() as connection:
        write(connection, "other")
        thread = threading.Thread(target=wait_for_the_other)
        thread.start()
        assert has_begun.wait(10)
        thread.join(0.2)  # longer than the time in which it asks in short intervals
        order.append("other")
        connection.commit()
        thread.join(10)
    assert order == ["other", "ours"]


@pytest.mark.parametrize("busy_timeout", [0, 150])
def test_it_waits_as_long_as_the_host_lets_sqlite_wait(engine_of: Connect, busy_timeout: int):
    ours, other = engine_of(busy_timeout), engine_of()
    with other.connect() as holder, ours.connect() as connection:
        write(holder, "other")
        with pytest.raises(OperationalError) as caught:
            begin_writing(connection, threading.Lock())
        connection.rollback()
        assert busy_timeout_of(connection) == busy_timeout
        holder.rollback()
        begin_writing(connection, threading.Lock())  # the next one finds all as it should be
        assert busy_timeout_of(connection) == busy_timeout
    assert trouble_of(caught.value) is Trouble.BUSY


def test_it_waits_no_longer_while_another_thread_of_the_process_asks(engine_of: Connect):
    turn = threading.Lock()
    with engine_of(busy_timeout=50).connect() as connection, turn, engine_of().connect() as holder:
        write(holder, "other")
        with pytest.raises(OperationalError, match="locked"):
            begin_writing(connection, turn)


def test_a_forked_child_inherits_no_turn_that_nobody_would_end(engine_of: Connect):
    turn, engine = PerProcess(threading.Lock), engine_of(busy_timeout=3_600_000)
    with turn.value:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # xdist has threads
            child = os.fork()
        if child == 0:  # pragma: no cover - another process
            signal.alarm(20)
            try:
                with engine.connect() as connection:
                    begin_writing(connection, turn.value)
                    os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_what_waiting_cannot_mend_is_said_at_once(file: Path):
    file.write_bytes(b"something else entirely " * 100)
    engine = sa.create_engine(f"sqlite:///{file}", connect_args={"timeout": 3600})
    with engine.connect() as connection, pytest.raises(DatabaseError, match="not a database"):
        begin_writing(connection, threading.Lock())
    engine.dispose()


def test_a_host_that_begins_in_its_own_way_is_left_alone(engine_of: Connect):
    engine, other = engine_of(connect_args={"isolation_level": None}), engine_of(busy_timeout=0)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    with engine.connect() as connection:
        begin_writing(connection, threading.Lock())
        assert not is_locked(other)
        write(connection, "ours")
        connection.commit()
    assert notes(engine) == ["ours"]


def test_many_writers_lose_nothing(engine_of: Connect):
    processes = [(engine_of(), threading.Lock()) for _ in range(2)]

    def write_some(engine: sa.Engine, turn: threading.Lock, name: int) -> None:
        for number in range(20):
            with engine.connect() as connection:
                begin_writing(connection, turn)
                write(connection, f"{name}-{number}")
                connection.commit()

    threads = [
        threading.Thread(target=write_some, args=(engine, turn, 10 * place + name))
        for place, (engine, turn) in enumerate(processes)
        for name in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    written = sorted(f"{10 * place + name}-{number}" for place in range(2) for name in range(4) for number in range(20))
    assert notes(processes[0][0]) == written
