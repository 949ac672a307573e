"""An application that does not know of the extension goes on beside the upgrade, and after it."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.util import CommandError

from flask_contenthub_webhook.core.state_machine import TaskState
from tests.migration import old_contenthub
from tests.migration.hosts import MigratingHost

TASKS = "content_generation_tasks"
COLUMNS = "account_id, topic, auto_approve, status, retry_count, task_id"


@pytest.fixture(params=["postgresql", "mariadb"])
def server_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("postgres_url" if request.param == "postgresql" else "mariadb_url")
    return url


@pytest.fixture
def make_host(tmp_path: Path, server_url: str) -> Callable[[], MigratingHost]:
    def make() -> MigratingHost:
        host = MigratingHost(tmp_path, server_url, models=old_contenthub.models)
        host.write_revision("0001", None, old_contenthub.CREATE, old_contenthub.DROP)
        host.upgrade()
        old_contenthub.fill(host, 100)
        host.install()
        return host

    return make


@pytest.fixture
def host(make_host: Callable[[], MigratingHost]) -> MigratingHost:
    return make_host()


def insert(host: MigratingHost, task_id: str | None, status: str) -> None:
    host.execute(
        f"INSERT INTO {TASKS} ({COLUMNS}) VALUES (1, 't', false, :status, 0, :id)", {"id": task_id, "status": status}
    )


def row(host: MigratingHost, task_id: str) -> dict[str, Any]:
    (found,) = host.rows(sa.text(f"SELECT * FROM {TASKS} WHERE task_id = :id").bindparams(id=task_id))
    return found


def change(host: MigratingHost, task_id: str, status: str) -> dict[str, Any]:
    host.execute(f"UPDATE {TASKS} SET status = :status WHERE task_id = :id", {"id": task_id, "status": status})
    return row(host, task_id)


# --- the old application -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "state"),
    [("running", "processing"), ("COMPLETED", "completed"), (" Done ", "completed"), ("pending", "pending")],
)
def test_its_words_are_translated(host: MigratingHost, word: str, state: str):
    host.upgrade()

    insert(host, "one", word)
    insert(host, "two", "pending")
    for found in (row(host, "one"), change(host, "two", word)):
        assert (found["status"], found["error_code"]) == (state, None)
        is_open = state in {"pending", "processing"}
        assert (found["next_poll_at"] is not None) is (found["finished_at"] is None) is is_open
        assert found["deadline_at"] is not None or not is_open
        assert (found["attempt"], found["polls"]) == (1, 0)


def test_an_unknown_word_fails_the_task_and_says_so(host: MigratingHost):
    host.upgrade()
    insert(host, "one", "archived")

    assert {key: row(host, "one")[key] for key in ("status", "previous_status", "error_code")} == {
        "status": "failed",
        "previous_status": "archived",
        "error_code": "UNKNOWN_STATUS",
    }


def test_what_it_leaves_empty_is_filled(host: MigratingHost):
    host.upgrade()
    host.execute(f"INSERT INTO {TASKS} (account_id, topic, auto_approve, retry_count) VALUES (1, 'empty', false, 0)")
    host.execute(f"UPDATE {TASKS} SET priority = NULL, created_at = NULL WHERE topic = 'empty'")

    (found,) = host.rows(f"SELECT * FROM {TASKS} WHERE topic = 'empty'")
    assert uuid.UUID(found["task_id"]).version is not None
    assert (found["status"], found["priority"]) == ("pending", 2)
    assert None not in {found["created_at"], found["updated_at"], found["next_poll_at"]}


def test_the_models_and_its_changes_understand_each_other(host: MigratingHost):
    host.upgrade()
    with host.app.app_context():
        task = host.webhook.task_model
        host.db.session.add(task(task_id="one", topic="t", account_id=1, status="processing", version=7))
        host.db.session.commit()

    ended = change(host, "one", "completed")
    assert (ended["next_poll_at"], ended["previous_status"], ended["version"]) == (None, "processing", 8)
    assert ended["finished_at"] is not None
    again = change(host, "one", "pending")
    assert (again["finished_at"], again["version"]) == (None, 9)
    assert None not in {again["next_poll_at"], again["deadline_at"]}


def test_what_the_extension_writes_is_left_as_it_is(host: MigratingHost):
    host.upgrade()
    insert(host, "one", "processing")
    later = "next_poll_at = '2030-01-01', finished_at = NULL, deadline_at = NULL"

    host.execute(f"UPDATE {TASKS} SET status = 'cancelled', version = version + 1, {later} WHERE task_id = 'one'")

    found = row(host, "one")
    assert (found["version"], found["finished_at"], found["deadline_at"], found["next_poll_at"].year) == (
        2,
        None,
        None,
        2030,
    )


def test_every_state_can_be_read_by_the_models(host: MigratingHost):
    host.upgrade()
    insert(host, "one", "CANCELED")

    with host.app.app_context():
        states = host.db.session.scalars(sa.select(host.webhook.task_model.status).distinct())
        assert {TaskState(state) for state in states} >= {TaskState.CANCELLED}


# --- ids and checks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task_id", ["order-1", "0d6c5bd5c4a84b1c9b3c3d7b3f3f6a11", "0D6C5BD5-C4A8-4B1C-9B3C-3D7B3F3F6A11"]
)
def test_ids_of_any_form_stay(host: MigratingHost, task_id: str):
    host.execute(f"UPDATE {TASKS} SET task_id = :id WHERE id = 10", {"id": task_id})

    host.upgrade()

    assert host.scalar(f"SELECT task_id FROM {TASKS} WHERE id = 10") == task_id
    assert host.scalar(f"SELECT count(*) FROM {TASKS} WHERE task_id IS NULL") == 0


@pytest.mark.parametrize("made", ["by the upgrade", "completed by the upgrade"])
def test_the_check_of_the_status_minds_the_case(
    tmp_path: Path, server_url: str, make_host: Callable[[], MigratingHost], made: str
):
    if made == "by the upgrade":
        host = MigratingHost(tmp_path, server_url)
        host.install()
        host.upgrade()
        values = "'x', 'completed', '[]', 2, false, 1, 1, 0, 0, 0, '2026-01-01', '2026-01-01'"
        columns = "task_id, status, earlier_creator_task_ids, priority, auto_approve, attempt, version, submit_tries"
        host.execute(f"INSERT INTO {TASKS} ({columns}, polls, times_missing, created_at, updated_at) VALUES ({values})")
    else:
        host = make_host()
        host.upgrade()
        for event in ("insert", "update"):
            on = f" ON {TASKS}" if host.engine.dialect.name == "postgresql" else ""
            host.execute(f"DROP TRIGGER {TASKS}_contenthub0001_{event}{on}")

    for word in ("COMPLETED", "completed ", "archived"):
        with pytest.raises(sa.exc.DBAPIError):
            host.execute(f"UPDATE {TASKS} SET status = '{word}' WHERE status = 'completed'")


def test_json_is_still_checked_after_a_cut(host: MigratingHost):
    cut(host, "UPDATE")
    host.upgrade()

    with pytest.raises(sa.exc.DBAPIError):
        host.execute(f"UPDATE {TASKS} SET earlier_creator_task_ids = 'not json'")


# --- cuts --------------------------------------------------------------------------------------------------------


class Killed(RuntimeError):
    """Stands for the end of the process."""


def cut(host: MigratingHost, before: str) -> None:
    """Break the upgrade off before the first statement that begins so, as the end of the process would."""

    def stop(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith(before):
            raise Killed

    sa.event.listen(host.engine, "before_cursor_execute", stop)
    try:
        with pytest.raises(Killed):
            host.upgrade()
    finally:
        sa.event.remove(host.engine, "before_cursor_execute", stop)
    host.engine.dispose()


@pytest.mark.parametrize("before", ["UPDATE", "CREATE TRIGGER", "CREATE INDEX", "CREATE TABLE webhook_deliveries"])
def test_an_upgrade_that_was_cut_off_goes_on(host: MigratingHost, before: str):
    old = host.schema()
    cut(host, before)
    insert(host, "between", "pending")

    host.upgrade()

    host.check()
    assert row(host, "between")["next_poll_at"] is not None
    host.downgrade("0001")
    if host.engine.dialect.name == "postgresql":
        old["tables"][TASKS]["unique"] = [("ix_content_generation_tasks_task_id", ("task_id",))]
    assert host.schema() == old


def test_a_later_revision_that_fails_takes_nothing_back(host: MigratingHost):
    host.write_revision("later", "contenthub0003", 'raise RuntimeError("the host has a bug")')

    with pytest.raises(RuntimeError, match="the host has a bug"):
        host.upgrade()

    assert "callback_url" in {column["name"] for column in host.inspect().get_columns(TASKS)}
    assert host.scalar(f"SELECT count(*) FROM {TASKS} WHERE status = 'running'") == 0
    host.write_revision("later", "contenthub0003", "pass")
    host.upgrade()
    host.check()


# --- locks -------------------------------------------------------------------------------------------------------


@contextmanager
def forgotten_transaction(host: MigratingHost) -> Iterator[sa.Connection]:
    with host.engine.connect() as connection:
        connection.execute(sa.text(f"SELECT count(*) FROM {TASKS}"))
        yield connection


def test_it_waits_for_a_forgotten_transaction_without_stopping_others(
    host: MigratingHost, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "alembic.contenthub")
    upgrade = threading.Thread(target=host.upgrade, daemon=True)
    with forgotten_transaction(host):
        upgrade.start()
        while "is locked by session" not in caplog.text:
            assert upgrade.is_alive()
            insert(host, None, "pending")
        upgrade.join(0.5)
        assert upgrade.is_alive()
    upgrade.join(60)

    assert not upgrade.is_alive()
    host.check()


def test_its_patience_has_an_end_and_nothing_is_lost(
    host: MigratingHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("CONTENTHUB_PATIENCE", "1")
    with (
        forgotten_transaction(host),
        pytest.raises(CommandError, match=r"was locked for .* by session \d+.*run the same command again"),
    ):
        host.upgrade()

    monkeypatch.undo()
    host.upgrade()
    host.check()
