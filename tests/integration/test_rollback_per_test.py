"""A host that undoes the work of each of its tests by the documented recipe, in any order, also with pytest-flask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session

from flask_contenthub_webhook import ContentHubWebhook, task_completed
from flask_contenthub_webhook.testing import CallbackSender
from tests.support.host import SECRET

db = SQLAlchemy()
webhook = ContentHubWebhook()


class Article(db.Model):  # type: ignore[misc, name-defined]
    id = db.Column(db.Integer, primary_key=True)
    body = db.Column(db.Text, nullable=False)


def publish(app, *, task, result, **extra):
    db.session.add(Article(body=result["content"]))
    if result["content"] == "broken":
        db.session.flush()
        raise ValueError("broken")


# --- the documented recipe
@contextlib.contextmanager
def rolled_back(app):
    """Run a test on connections whose transactions are undone at its end."""
    with app.app_context():
        engines: Any = db.engines
        db.session.configure(join_transaction_mode="create_savepoint")
    real = dict(engines)
    for key, engine in real.items():
        engines[key] = connection = engine.connect()
        connection.begin()
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # Python's driver would begin only at the first INSERT
    try:
        yield
    finally:
        for key, engine in real.items():
            engines[key].close()  # rolls back
            engines[key] = engine


# --- end of the recipe


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    """In a host this is the application of all its tests, made once."""
    app = Flask(__name__)
    app.config.update(
        TESTING=True,
        SQLALCHEMY_DATABASE_URI=database_url,
        WEBHOOK_ENABLED=True,
        WEBHOOK_SECRET_KEY=SECRET,
        WEBHOOK_CALLBACK_BASE_URL="https://hub.example.com",
        WEBHOOK_SUBMIT_THREADS=0,
    )
    db.init_app(app)
    webhook.init_app(app, db)
    task_completed.connect(publish, sender=app)
    with app.app_context():
        db.create_all()
    yield app
    with app.app_context():
        assert rows(app) == (0, 0, 0)
        db.session.remove()
        db.session.configure(join_transaction_mode="conditional_savepoint")
        db.engine.dispose()


def rows(app: Flask) -> tuple[int, ...]:
    models = (webhook.task_model, webhook.delivery_model, Article)
    return tuple(db.session.scalars(sa.select(sa.func.count()).select_from(model)).one() for model in models)


# --- tests as a host writes them ---------------------------------------------------------------------------------


def a_task() -> str:
    task = webhook.task_model(topic="Tea")
    db.session.add(task)
    db.session.commit()
    return str(task.task_id)


def completes(app: Flask) -> None:
    sender = CallbackSender(app)
    task_id = a_task()

    assert sender.completed(task_id, {"content": "# Tea"}).get_json()["outcome"] == "processed"
    assert sender.completed(task_id, {"content": "# Tea"}).get_json()["outcome"] == "duplicate"
    assert rows(app) == (1, 2, 1)


def fails(app: Flask) -> None:
    task_id = a_task()

    assert CallbackSender(app).completed(task_id, {"content": "broken"}).status_code == 500
    assert rows(app) == (1, 1, 0)
    assert db.session.query(webhook.task_model).one().status == "pending"


def looks_after_it(app: Flask) -> None:
    task_id = a_task()

    assert CallbackSender(app).failed(task_id).status_code == 200
    webhook.reconcile()
    webhook.retry_due_deliveries()
    webhook.check_alerts()
    assert webhook.purge() == 0
    assert rows(app) == (1, 1, 0)


def finds_nothing_of_the_others(app: Flask) -> None:
    assert rows(app) == (0, 0, 0)


HOST_TESTS = (completes, fails, looks_after_it, finds_nothing_of_the_others)


@contextlib.contextmanager
def context_of_a_test(app: Flask, kind: str) -> Iterator[None]:
    """What is around a host's test: nothing but its own fixture, or the request context of pytest-flask."""
    with app.test_request_context() if kind == "pytest-flask" else app.app_context():
        yield
        db.session.remove()


@pytest.mark.parametrize("kind", ["plain", "pytest-flask"])
@pytest.mark.parametrize(
    "order", list(permutations(HOST_TESTS[:3])), ids=lambda order: "-".join(t.__name__ for t in order)
)
def test_tests_are_undone_in_any_order(app: Flask, order: tuple[Any, ...], kind: str):
    for test in order:
        for each in (test, finds_nothing_of_the_others):
            with rolled_back(app), context_of_a_test(app, kind):
                each(app)


@pytest.mark.parametrize("first", ["undone", "kept"])
def test_a_test_that_is_not_undone_may_come_before_and_after(app: Flask, first: str):
    kept = False
    for undone in (first == "undone", first != "undone", first == "undone"):
        with rolled_back(app) if undone else contextlib.nullcontext(), context_of_a_test(app, "plain"):
            before = rows(app)
            task_id = a_task()
            assert CallbackSender(app).completed(task_id).status_code == 200
            if not undone:
                db.session.rollback()  # MariaDB goes on showing what was there when the transaction began
            assert rows(app) == tuple(count + 1 for count in before)
        kept |= not undone
    assert kept
    with app.app_context():
        for model in (webhook.task_model, webhook.delivery_model, Article):
            db.session.execute(sa.delete(model))
        db.session.commit()


def test_another_session_class_may_come_later(app: Flask):
    """As a plugin does that replaces ``db.session``, after a callback has used the engine."""

    class Bound(Session):
        connection_of_test: sa.Connection

        def get_bind(self, *_: Any, **__: Any) -> sa.Connection:
            return self.connection_of_test

    with context_of_a_test(app, "plain"):
        task_id = a_task()
        CallbackSender(app).completed(task_id)
        for model in (webhook.task_model, webhook.delivery_model, Article):
            db.session.execute(sa.delete(model))
        db.session.commit()
        engine = db.engine
    sessions = db.session
    with engine.connect() as connection:
        connection.begin()
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        Bound.connection_of_test = connection
        options = {"class_": Bound, "join_transaction_mode": "create_savepoint"}
        db.session = db._make_scoped_session(options)
        try:
            with context_of_a_test(app, "plain"):
                completes(app)
        finally:
            db.session = sessions
