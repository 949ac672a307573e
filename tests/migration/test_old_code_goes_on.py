"""`flask db upgrade` under the old application: held at each statement, it lets every statement of that pass."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_contenthub_webhook.core.state_machine import TERMINAL_STATES, TaskState
from tests.migration import old_contenthub
from tests.migration.hosts import MigratingHost
from tests.support.live_hub import old_application

TASKS = "content_generation_tasks"
PATIENCE = 10
"""Seconds that the old code waits for a lock, many times what the upgrade does."""
_READING = re.compile(r"\s*(SELECT|SHOW|EXPLAIN|SET|ROLLBACK)\b", re.IGNORECASE)
_SLOW = re.compile(
    rf"\s*(UPDATE|INSERT INTO|DELETE FROM|CREATE (UNIQUE )?INDEX .*|ALTER TABLE .*VALIDATE).*{TASKS}",
    re.IGNORECASE | re.DOTALL,
)
"""Statements whose time grows with the table."""


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def live_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database whose tables many use at once."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def host(tmp_path: Path, live_url: str) -> MigratingHost:
    host = MigratingHost(tmp_path, live_url, models=old_contenthub.models)
    host.write_revision("0001", None, old_contenthub.CREATE, old_contenthub.DROP)
    host.upgrade()
    old_contenthub.fill(host, 200)
    host.install()
    return host


class OldCode:
    """A process of the application of before, with the connections of its pool."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        sa.event.listen(self._engine, "connect", self._bound)
        self.errors: list[str] = []

    def run(self) -> None:
        """Issue each statement that it has once."""
        with Session(self._engine) as session:
            for name, read in old_application.READS.items():
                self._try(session, f"SELECT {name}", partial(_read, session, read))
            for name, insert in old_application.INSERTS.items():
                self._try(session, f"INSERT {name}", partial(insert, session))
            made = self._try(session, "INSERT", lambda: old_application.insert_whole(session))
            for name, change in old_application.CHANGES if made else ():
                self._try(session, f"UPDATE or DELETE: {name}", partial(change, session, made))

    def use_the_table(self) -> None:
        """Add a row and read it, as one can while somebody else changes other rows."""
        with Session(self._engine) as session:
            made = self._try(session, "INSERT", lambda: old_application.insert_whole(session))
            self._try(session, "SELECT", lambda: session.get(old_application.Task, made.id if made else 1))

    def _try(self, session: Session, name: str, statement: Callable[[], Any]) -> Any:
        try:
            return statement()
        except sa.exc.SQLAlchemyError as error:
            session.rollback()
            self.errors.append(f"{name}: {str(error).splitlines()[0]}")
            return None

    def _bound(self, connection: Any, _record: Any) -> None:
        if self._engine.dialect.name == "postgresql":
            connection.execute(f"SET lock_timeout = '{PATIENCE}s'")
            connection.commit()
        else:
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_wait_timeout = {PATIENCE}, innodb_lock_wait_timeout = {PATIENCE}")


def _read(session: Session, statement: sa.Executable) -> None:
    session.execute(statement).all()


def is_in_transaction(connection: sa.Connection) -> bool:
    """True if the database still holds locks for the statements before."""
    real: Any = connection.connection.dbapi_connection
    if connection.dialect.name == "postgresql":
        return bool(real.info.transaction_status)  # idle is 0
    return bool(real.server_status & 1) if hasattr(real, "server_status") else False


@contextmanager
def after_each_statement(engine: sa.Engine, then: Callable[[sa.Connection, str], None]) -> Iterator[None]:
    def after(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not _READING.match(statement):
            then(connection, statement)

    sa.event.listen(engine, "after_cursor_execute", after)
    try:
        yield
    finally:
        sa.event.remove(engine, "after_cursor_execute", after)


def test_no_statement_of_old_code_fails_or_waits_at_any_step(host: MigratingHost, live_url: str):
    old, held = OldCode(live_url), []

    def hold(connection: sa.Connection, statement: str) -> None:
        if not is_in_transaction(connection):
            old.run()
        elif _SLOW.match(statement):
            old.use_the_table()
        held.append(statement)
        assert old.errors == [], f"after {statement!r}"

    old.run()
    assert old.errors == []
    with after_each_statement(host.engine, hold):
        host.upgrade()

    assert len(held) > 10
    old.run()
    assert old.errors == []
    host.check()
    host.check_without_a_migration()
    assert_that_the_new_code_can_go_on(host)


def assert_that_the_new_code_can_go_on(host: MigratingHost) -> None:
    """Whatever old code has written, at every step, the model reads, and no open task is forgotten."""
    with host.app.app_context():
        tasks = host.db.session.scalars(sa.select(host.webhook.task_model)).all()
    assert len(tasks) > 200
    for task in tasks:
        facts = f"{task.id}: {task.status}, {task.next_poll_at}, {task.finished_at}"
        assert task.status in {state.value for state in TaskState}, facts
        assert (task.status in TERMINAL_STATES) is (task.finished_at is not None), facts
        assert task.status in TERMINAL_STATES or task.next_poll_at is not None, facts
        assert task.task_id, facts


def test_nobody_waits_behind_an_upgrade_that_waits_for_a_forgotten_transaction(host: MigratingHost, live_url: str):
    old, asked, asked_again = OldCode(live_url), Counter[str](), threading.Semaphore(0)

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("ALTER TABLE"):
            asked[statement] += 1
            if asked[statement] > 1:
                asked_again.release()

    old.run()
    sa.event.listen(host.engine, "before_cursor_execute", count)
    upgrade = threading.Thread(target=host.upgrade, daemon=True)
    forgetful = sa.create_engine(live_url)
    with forgetful.connect() as forgotten:
        forgotten.execute(sa.text(f"SELECT id FROM {TASKS} WHERE id = 1"))
        upgrade.start()
        for _ in range(2):
            old.run()
            assert old.errors == []
            assert asked_again.acquire(timeout=60), "the upgrade does not give up its place in the queue"
        assert upgrade.is_alive()
    upgrade.join(timeout=120)
    assert not upgrade.is_alive(), "the upgrade does not go on by itself"
    old.run()
    assert old.errors == []
    forgetful.dispose()
    host.check()
    host.check_without_a_migration()
