"""The dispatch rule: who is called, when, and what happens when a receiver misbehaves."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import (
    ContentHubWebhook,
    delivery_processed,
    task_cancelled,
    task_completed,
    task_failed,
    task_progress,
    task_timed_out,
)
from flask_contenthub_webhook.core.state_machine import Trigger
from flask_contenthub_webhook.errors import ConfigurationError
from flask_contenthub_webhook.signals import callback_rejected
from tests.support.host import PREFIX, SECRET, Host, completed, failed, make_host, progress

Build = Callable[..., Host]


def kept_open(host: Host, task_id: str) -> bool:
    """Nothing happened, but the event is kept for another try."""
    task = host.task(task_id)
    (row,) = host.deliveries(task_id)
    return (
        (task.status, task.version) == ("submitted", 1)
        and host.contents() == []
        and row.verdict == "failed"
        and row.next_retry_at is not None
    )


# --- what a receiver gets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signal", "names"),
    [
        (task_completed, {"task", "result", "delivery", "late"}),
        (task_failed, {"task", "error", "delivery", "will_retry"}),
        (task_progress, {"task", "progress", "delivery"}),
        (task_timed_out, {"task", "delivery"}),
        (task_cancelled, {"task", "delivery"}),
        (delivery_processed, {"delivery", "task", "outcome"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_sender_is_the_real_app_and_the_arguments_are_those_of_the_design(
    sqlite_host: Host, signal: Any, names: set[str]
):
    host, calls = sqlite_host, []
    host.connect(signal, lambda *args, **arguments: calls.append((args, set(arguments))))

    def send(event: Callable[[str], Any]) -> None:
        task_id = host.add_task()
        host.post(task_id, event(task_id))

    send(completed)
    send(failed)
    send(lambda task_id: progress(task_id, 10))
    host.trigger(host.add_task(), Trigger.TIMED_OUT)
    host.trigger(host.add_task(), Trigger.CANCELLED)

    assert calls
    for args, arguments in calls:
        assert len(args) == 1
        assert args[0] is host.app
        assert names <= arguments


def test_a_receiver_gets_the_row_as_it_will_be_committed(host: Host):
    task_id, seen = host.add_task(creator_task_id="creator-1", topic="键"), []

    def look(app: Flask, *, task: Any, delivery: Any, result: Any, **extra: Any) -> None:
        seen.append((task.status, task.previous_status, task.topic, task.creator_task_id, task.result == result))
        seen.append((delivery.event, delivery.verdict, delivery.attempt, bytes(delivery.body)[:1], delivery.id > 0))
        seen.append((delivery.error, delivery.next_retry_at))  # not written by us: loaded when asked for

    host.connect(task_completed, look)

    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    assert seen == [
        ("completed", "submitted", "键", "creator-1", True),
        ("completed", "processed", 1, b"{", True),
        (None, None),
    ]


def attributes_of(row: Any) -> dict[str, Any]:
    return {column.key: getattr(row, column.key) for column in sa.inspect(type(row)).column_attrs}


def test_what_a_receiver_gets_are_the_rows_as_a_session_would_have_loaded_them(host: Host):
    task_id = host.add_task(creator_task_id="creator-1", requirements="long", keywords=["a"])
    seen: list[Any] = []

    def look(app: Flask, **arguments: Any) -> None:
        for name in ("task", "delivery"):
            state = sa.inspect(arguments[name])
            seen.append((state.persistent, state.modified, state.session is host.db.session()))
        with host.statements() as statements:
            seen.extend(attributes_of(arguments[name]) for name in ("task", "delivery"))
        seen.append(sum(statement.startswith("SELECT") for statement in statements))

    host.connect(task_completed, look)

    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200
    of_task, of_delivery, task, delivery, selects = seen
    assert of_task == of_delivery == (True, False, True)
    assert task == attributes_of(host.task(task_id))
    assert delivery == attributes_of(host.deliveries()[0])
    # For what a receiver hardly ever asks for, of each row; where an UPDATE returns nothing, the task was read before.
    assert selects == (1 if host.engine.dialect.name == "mysql" else 2)


def test_a_change_of_the_task_by_a_receiver_commits_with_it(host: Host):
    task_id = host.add_task()

    def rename(app: Flask, *, task: Any, **extra: Any) -> None:
        task.topic = "changed by the host"

    host.connect(task_completed, rename)
    host.post(task_id, completed(task_id))

    assert (host.task(task_id).topic, host.task(task_id).status) == ("changed by the host", "completed")


def test_a_receiver_runs_in_the_context_of_the_app(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []
    host.connect(task_completed, lambda app, **extra: seen.append(current_app._get_current_object() is app))  # type: ignore[attr-defined]

    host.post(task_id, completed(task_id))

    assert seen == [True]


def test_receivers_are_held_weakly(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []

    def factory() -> None:
        def nested(app: Flask, **extra: Any) -> None:
            seen.append("nested")

        task_completed.connect(nested, sender=host.app)

    factory()
    gc.collect()
    host.post(task_id, completed(task_id))

    assert seen == []
    assert len(host.contents()) == 1


def test_a_receiver_of_every_app_is_called_too(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []

    def anywhere(app: Flask, **extra: Any) -> None:
        seen.append(app)

    with task_completed.connected_to(anywhere):
        host.post(task_id, completed(task_id))

    assert seen == [host.app]


@pytest.mark.skipif(importlib.util.find_spec("asgiref") is None, reason="needs flask[async]")
def test_a_receiver_may_be_a_coroutine_function(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []

    async def receiver(app: Flask, *, task: Any, **extra: Any) -> None:
        seen.append(task.task_id)

    host.connect(task_completed, receiver)
    host.post(task_id, completed(task_id))

    assert seen == [task_id]


# --- inside the transaction --------------------------------------------------------------------------------------


def test_a_receiver_that_raises_rolls_back_what_the_others_wrote(host: Host):
    task_id = host.add_task()

    def bad(app: Flask, **extra: Any) -> None:
        raise ValueError("not today")

    host.connect(task_completed, bad)
    answer = host.post(task_id, completed(task_id))

    assert answer.status_code == 500
    assert answer.json is not None
    assert answer.json["error"]["code"] == "handler_failed"
    assert kept_open(host, task_id)
    assert "not today" in host.deliveries()[0].error
    assert "not today" not in answer.text


def _commits(db: SQLAlchemy) -> None:
    db.session.commit()


def _rolls_back(db: SQLAlchemy) -> None:
    db.session.rollback()


def _removes(db: SQLAlchemy) -> None:
    db.session.remove()


def _closes(db: SQLAlchemy) -> None:
    db.session.close()


def _rolls_back_and_goes_on(db: SQLAlchemy) -> None:
    db.session.rollback()
    db.session.execute(sa.text("SELECT 1"))


def _commits_from_within_a_savepoint(db: SQLAlchemy) -> None:
    db.session.begin_nested()
    db.session.commit()


def _rolls_back_the_connection(db: SQLAlchemy) -> None:
    transaction = db.session.connection().get_transaction()
    assert transaction is not None
    transaction.rollback()


def _hides_its_commit(db: SQLAlchemy) -> None:
    with contextlib.suppress(Exception):
        db.session.commit()


@pytest.mark.parametrize(
    "misbehave",
    [
        _commits,
        _rolls_back,
        _removes,
        _closes,
        _rolls_back_and_goes_on,
        _commits_from_within_a_savepoint,
        _rolls_back_the_connection,
        _hides_its_commit,
    ],
    ids=lambda function: function.__name__.strip("_"),
)
def test_a_receiver_that_ends_the_transaction_is_found_out(host: Host, misbehave: Callable[[SQLAlchemy], None]):
    task_id = host.add_task()

    def bad(app: Flask, **extra: Any) -> None:
        misbehave(host.db)

    host.connect(task_completed, bad)

    assert host.post(task_id, completed(task_id)).status_code == 500
    assert kept_open(host, task_id)
    assert "bad" in host.deliveries()[0].error


def test_a_receiver_that_starts_a_session_of_its_own_commits_nothing_with_it(host: Host):
    task_id = host.add_task()

    def bad(app: Flask, **extra: Any) -> None:
        host.db.session.remove()
        host.db.session.add(host.Content(task_id="stray", body="stray"))
        host.db.session.commit()

    host.connect(task_completed, bad)

    assert host.post(task_id, completed(task_id)).status_code == 500
    assert kept_open(host, task_id)


def test_a_failed_statement_that_a_receiver_hides_is_never_acknowledged(host: Host):
    """PostgreSQL turns the COMMIT of such a transaction into a ROLLBACK, without an error."""
    task_id = host.add_task()

    def careless(app: Flask, **extra: Any) -> None:
        with contextlib.suppress(Exception):
            host.db.session.execute(sa.text("SELECT * FROM no_such_table"))

    host.connect(task_failed, careless)
    answer = host.post(task_id, failed(task_id), attempt=1)

    acknowledged = answer.status_code == 200
    assert acknowledged is (host.task(task_id).attempt == 2)
    assert host.deliveries(task_id)


def test_a_failed_flush_that_a_receiver_hides_is_never_acknowledged(host: Host):
    task_id = host.add_task()

    def careless(app: Flask, **extra: Any) -> None:
        host.db.session.add(host.Content(task_id=None))
        with contextlib.suppress(Exception):
            host.db.session.flush()

    host.connect(task_completed, careless)

    assert host.post(task_id, completed(task_id)).status_code == 500
    assert kept_open(host, task_id)


def test_a_row_that_cannot_be_written_is_the_receivers_error(host: Host):
    task_id = host.add_task()

    def bad(app: Flask, **extra: Any) -> None:
        host.db.session.add(host.Content(task_id=None))

    host.connect(task_completed, bad)

    assert host.post(task_id, completed(task_id)).status_code == 500
    assert kept_open(host, task_id)
    assert "IntegrityError" in host.deliveries()[0].error


def test_a_receiver_may_flush(host: Host):
    task_id, keys = host.add_task(), []

    def flush(app: Flask, *, task: Any, **extra: Any) -> None:
        row = host.Content(task_id=task.task_id, body="flushed")
        host.db.session.add(row)
        host.db.session.flush()
        keys.append(row.id)

    host.connect(task_completed, flush)

    assert host.post(task_id, completed(task_id)).status_code == 200
    assert "flushed" in host.contents()
    assert keys[0] > 0


def test_a_receiver_may_use_savepoints(host: Host):
    task_id = host.add_task()

    def careful(app: Flask, *, task: Any, **extra: Any) -> None:
        with host.db.session.begin_nested():
            host.db.session.add(host.Content(task_id=task.task_id, body="kept"))
        with pytest.raises(sa.exc.IntegrityError), host.db.session.begin_nested():
            host.db.session.execute(sa.insert(host.Content).values(task_id=None))

    host.connect(task_completed, careful)

    assert host.post(task_id, completed(task_id)).status_code == 200
    assert "kept" in host.contents()
    assert host.task(task_id).status == "completed"


def test_duplicates_and_stale_events_call_no_receiver(host: Host):
    task_id, calls = host.add_task(), []
    host.connect(task_failed, lambda app, **extra: calls.append("failed"))

    for _ in range(3):
        host.post(task_id, failed(task_id), attempt=1)
    for _ in range(2):
        host.post(task_id, completed(task_id), attempt=2)

    assert calls == ["failed"]
    assert host.publisher.calls == 1


def test_a_failure_says_whether_another_attempt_follows(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(max_retries=1), []
    host.connect(task_failed, lambda app, *, will_retry, error, **extra: seen.append((will_retry, error["message"])))

    host.post(task_id, failed(task_id, "one"), attempt=1)
    host.post(task_id, failed(task_id, "two"), attempt=2)

    assert seen == [(True, "one"), (False, "two")]


def test_a_late_completion_tells_its_receivers(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(status="timeout"), []
    host.connect(task_completed, lambda app, *, late, **extra: seen.append(late))

    host.post(task_id, completed(task_id))

    assert seen == [True]


# --- after the commit --------------------------------------------------------------------------------------------


def test_delivery_processed_comes_after_the_commit(host: Host):
    task_id, seen = host.add_task(), []

    def look(app: Flask, *, task: Any, delivery: Any, outcome: str, **extra: Any) -> None:
        with host.db.engine.connect() as other:
            table, history = host.state.task_model.__table__, host.state.delivery_model.__table__
            seen.append(other.scalar(sa.select(table.c.status).where(table.c.task_id == task_id)))
            seen.append(other.scalar(sa.select(history.c.verdict).where(history.c.id == delivery.id)))
        seen.append((task.status, outcome))

    host.connect(delivery_processed, look)
    host.post(task_id, completed(task_id))

    assert seen == ["completed", "processed", ("completed", "processed")]


@pytest.mark.parametrize(("event", "outcome"), [(completed, "duplicate"), (failed, "ignored")])
def test_delivery_processed_tells_of_what_had_no_effect_too(host: Host, event: Any, outcome: str):
    task_id, seen = host.add_task(status="completed"), []

    def look(app: Flask, *, task: Any, delivery: Any, outcome: str, **extra: Any) -> None:
        seen.append((task.task_id, task.topic, delivery.task_id, delivery.verdict, outcome))

    host.connect(delivery_processed, look)
    host.post(task_id, event(task_id))

    assert seen == [(task_id, host.task(task_id).topic, task_id, outcome, outcome)]


def test_an_error_after_the_commit_is_not_felt(host: Host, caplog: pytest.LogCaptureFixture):
    task_id, seen = host.add_task(), []

    def bad(app: Flask, **extra: Any) -> None:
        raise ValueError("too late")

    host.connect(delivery_processed, bad)
    host.connect(delivery_processed, lambda app, **extra: seen.append("called"))

    assert host.post(task_id, completed(task_id)).status_code == 200
    assert seen == ["called"]
    assert len(host.contents()) == 1
    assert "contenthub-delivery-processed" in caplog.text


def test_a_receiver_after_the_commit_does_not_feel_the_failed_write_of_another(host: Host):
    task_id = host.add_task()

    def bad(app: Flask, **extra: Any) -> None:
        host.db.session.add(host.Content(task_id=None))
        host.db.session.commit()

    def good(app: Flask, *, task: Any, **extra: Any) -> None:
        host.db.session.add(host.Content(task_id=task.task_id, body="logged"))
        host.db.session.commit()

    host.connect(delivery_processed, bad)
    host.connect(delivery_processed, good)
    answer = host.post(task_id, failed(task_id))

    assert answer.status_code == 200
    assert host.contents() == ["logged"]


def test_a_refusal_is_told_with_facts_and_without_secrets(sqlite_host: Host):
    host, task_id, seen = sqlite_host, sqlite_host.add_task(), []
    host.connect(callback_rejected, lambda app, **arguments: seen.append(arguments))
    secret = "Bearer s3cr3t-s3cr3t"

    host.post(
        task_id,
        completed(task_id),
        path=f"{PREFIX}/callback/{task_id}?token=t0ken-t0ken",
        headers={"Authorization": secret, "X-Webhook-Signature": "c2lnbmF0dXJl", "User-Agent": "creator/1"},
    )

    (arguments,) = seen
    assert (arguments["reason"], arguments["status"]) == ("signature_invalid", 401)
    assert arguments["request"]["path"] == f"{PREFIX}/callback/{task_id}"
    assert arguments["request"]["user_agent"] == "creator/1"
    assert not any(text in str(arguments) for text in ("s3cr3t", "t0ken", "c2lnbmF0dXJl", SECRET))


def test_a_receiver_of_refusals_cannot_change_the_answer(sqlite_host: Host):
    host, task_id = sqlite_host, sqlite_host.add_task()

    def bad(app: Flask, **extra: Any) -> None:
        raise ValueError("never mind")

    host.connect(callback_rejected, bad)

    assert host.post(task_id, b"{}").status_code == 400


# --- the extension object ----------------------------------------------------------------------------------------


def test_two_apps_with_one_extension_object_keep_apart(hosts: Build, tmp_path: Any):
    webhook, db = ContentHubWebhook(), SQLAlchemy()
    first = hosts(f"sqlite:///{tmp_path / 'one.db'}", webhook=webhook, db=db)
    second = hosts(f"sqlite:///{tmp_path / 'two.db'}", webhook=webhook, db=db, WEBHOOK_URL_PREFIX="/two")
    task_id = first.add_task()

    first.post(task_id, completed(task_id))

    assert (len(first.contents()), len(second.contents())) == (1, 0)
    assert (first.publisher.calls, second.publisher.calls) == (1, 0)
    assert second.deliveries() == []
    assert first.state is not second.state
    assert second.path("x").startswith("/two/callback/")


def test_a_second_registration_on_one_app_raises(sqlite_host: Host):
    with pytest.raises(RuntimeError, match="already registered"):
        ContentHubWebhook().init_app(sqlite_host.app, sqlite_host.db)


def test_the_object_can_be_made_with_the_app_at_once():
    app, db = Flask("host"), SQLAlchemy()
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", TESTING=True)
    db.init_app(app)

    ContentHubWebhook(app, db)

    assert "contenthub_webhook" in app.extensions


def test_the_app_alone_is_not_enough():
    with pytest.raises(ConfigurationError, match="Flask-SQLAlchemy"):
        ContentHubWebhook(Flask("host"))


def test_an_app_without_the_extension_is_told_what_to_do(sqlite_url: str):
    with Flask("other").app_context(), pytest.raises(RuntimeError, match="init_app"):
        _ = ContentHubWebhook().task_model


def test_registering_does_no_io_and_starts_no_thread(tmp_path: Any):
    path, before = tmp_path / "never.db", threading.active_count()

    host = make_host(f"sqlite:///{path}", create_tables=False)

    assert not path.exists()
    assert threading.active_count() == before
    host.close()


def test_registering_asks_no_database():
    host = make_host("postgresql+psycopg://nobody@127.0.0.1:1/nothing", create_tables=False)

    assert host.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    host.close()
