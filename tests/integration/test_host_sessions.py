"""Hosts whose `db.session` is not what most hosts have: it is theirs, and events are applied in it all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import flask_sqlalchemy_lite
import pytest
import sqlalchemy as sa
from flask import Flask, g
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from sqlalchemy.orm import DeclarativeBase, scoped_session, sessionmaker

from flask_contenthub_webhook import (
    ContentHubWebhook,
    DeliveryMixin,
    GenerationTaskMixin,
    delivery_processed,
    task_completed,
)
from flask_contenthub_webhook.errors import ConfigurationError
from tests.support.host import Host, completed

Build = Callable[..., Host]


class ChoosingSession(Session):
    """Chooses among databases, as a host does that reads from a replica."""

    asked = 0

    def get_bind(self, *arguments: Any, **named: Any) -> Any:
        ChoosingSession.asked += 1
        return super().get_bind(*arguments, **named)


def in_another_database(db: SQLAlchemy) -> dict[str, Any]:
    """The tables of the extension, beside the host's own database."""
    task = type("Job", (GenerationTaskMixin, db.Model), {"__tablename__": "jobs", "__bind_key__": "jobs"})
    delivery = type("Event", (DeliveryMixin, db.Model), {"__tablename__": "job_events", "__bind_key__": "jobs"})
    return {"task_model": task, "delivery_model": delivery}


@pytest.fixture(params=["a session class of its own", "tables in another database"])
def host(request: pytest.FixtureRequest, hosts: Build, database_url: str, tmp_path: Any) -> Host:
    if request.param == "a session class of its own":
        ChoosingSession.asked = 0
        return hosts(database_url, db=SQLAlchemy(session_options={"class_": ChoosingSession}))
    other = f"sqlite:///{tmp_path / 'host.db'}"
    binds = {"jobs": database_url}
    return hosts(other, db=SQLAlchemy(), models=in_another_database, SQLALCHEMY_BINDS=binds)


def test_events_are_applied_once_in_the_hosts_session(host: Host):
    task_id, seen = host.add_task(), []

    def look(app: Flask, *, task: Any, delivery: Any, outcome: str, **extra: Any) -> None:
        seen.append((task.task_id, delivery.verdict, outcome))

    host.connect(delivery_processed, look)
    outcomes = [host.post(task_id, completed(task_id), attempt=1).get_json()["outcome"] for _ in range(2)]

    assert outcomes == ["processed", "duplicate"]
    assert seen == [(task_id, outcome, outcome) for outcome in outcomes]
    assert len(host.contents(task_id)) == 1
    assert host.task(task_id).status == "completed"
    if issubclass(host.db.session.session_factory.class_, ChoosingSession):
        assert ChoosingSession.asked > 0


def test_a_handler_that_fails_takes_everything_with_it_and_is_called_again(host: Host):
    task_id = host.add_task()
    host.publisher.broken = True
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 500
    assert (host.contents(task_id), host.task(task_id).status) == ([], "submitted")

    host.publisher.broken = False
    host.clock.advance(seconds=40)
    assert host.retry().outcomes == {"processed": 1}
    assert (len(host.contents(task_id)), host.task(task_id).status) == (1, "completed")


def test_a_test_of_the_hosts_may_undo_all_that_an_event_did(hosts: Build, database_url: str):
    """The engine is replaced by a connection in a transaction that the test rolls back in the end."""
    host = hosts(database_url, db=SQLAlchemy())
    task_id = host.add_task()
    engine = host.engine
    with engine.connect() as connection:
        outer = connection.begin()
        host.db._app_engines[host.app][None] = connection  # type: ignore[assignment]
        assert host.post(task_id, completed(task_id), attempt=1).get_json()["outcome"] == "processed"
        assert host.task(task_id).status == "completed"
        outer.rollback()
    host.db._app_engines[host.app][None] = engine
    assert (host.task(task_id).status, host.contents(), host.deliveries()) == ("submitted", [], [])


def test_a_session_for_each_thread_is_left_as_the_request_had_it(hosts: Build, database_url: str):
    host = hosts(database_url, db=SQLAlchemy(session_options={"scopefunc": threading.get_ident}))
    session, task_id, left = host.db.session, host.add_task(), []

    @host.app.before_request
    def use() -> None:
        g.task = session.scalars(sa.select(host.state.task_model)).one()
        g.unsaved = host.Content(task_id=task_id, body="the request's own")
        session.add(g.unsaved)

    @host.app.after_request
    def look(response: Any) -> Any:
        left.append(g.task in session and g.unsaved in session.new)
        return response

    host.publisher.broken = True
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 500
    assert (host.contents(), host.task(task_id).status) == ([], "submitted")
    host.publisher.broken = False
    answers = [host.post(task_id, completed(task_id), attempt=1).get_json()["outcome"] for _ in range(2)]

    assert answers == ["processed", "duplicate"]
    assert (len(host.contents()), host.task(task_id).status) == (1, "completed")
    assert left == [True, True, True]


def test_a_session_that_cannot_be_closed_is_not_left_to_a_later_context(hosts: Build, sqlite_url: str):
    """A context is known by its address, which a later one gets; a session that was left there became that one's."""
    host = hosts(sqlite_url)
    task_id = host.add_task()
    sessions = host.db.session.registry.registry
    sessions.clear()

    def close(app: Flask, **_: Any) -> None:
        host.db.session.connection().connection.dbapi_connection.close()

    host.connect(task_completed, close)
    assert host.post(task_id, completed(task_id), attempt=1).status_code == 500

    assert sessions == {}


def test_a_session_for_each_thread_survives_a_call_of_the_service(hosts: Build, sqlite_url: str):
    class Service:
        cancelled = ""

        def cancel(self, creator_task_id: str) -> None:
            self.cancelled = creator_task_id

    db = SQLAlchemy(session_options={"scopefunc": threading.get_ident})
    host = hosts(sqlite_url, db=db, WEBHOOK_SUBMIT_THREADS=0)
    task_id = host.add_task(creator_task_id="job-1", submitted_at=datetime.now(UTC))
    host.state.creator = service = Service()  # type: ignore[assignment]
    with host.app.app_context():
        unsaved = host.Content(task_id=task_id, body="the request's own")
        host.db.session.add(unsaved)
        host.webhook.cancel(task_id)
        assert service.cancelled == "job-1"
        assert unsaved in host.db.session.new


def test_a_test_of_the_hosts_may_put_a_session_of_its_own_in_the_place(hosts: Build, database_url: str):
    """A ``scoped_session`` for the whole test, on a connection in a transaction that is rolled back in the end."""
    host = hosts(database_url, db=SQLAlchemy())
    task_id, hosts_own = host.add_task(), host.db.session
    with host.engine.connect() as connection:
        outer = connection.begin()
        host.db.session = scoped_session(sessionmaker(bind=connection))
        task = host.db.session.scalars(sa.select(host.state.task_model)).one()
        assert host.post(task_id, completed(task_id), attempt=1).get_json()["outcome"] == "processed"
        again = host.db.session.scalars(sa.select(host.state.task_model), execution_options={"populate_existing": True})
        assert (again.one().status, task.task_id) == ("completed", task_id)
        host.db.session.remove()
        outer.rollback()
    host.db.session = hosts_own
    assert (host.task(task_id).status, host.contents(), host.deliveries()) == ("submitted", [], [])


@pytest.mark.parametrize("wrong", ["Flask-SQLAlchemy-Lite", "something else"])
def test_an_object_that_is_not_flask_sqlalchemys_is_refused_with_words(wrong: str):
    db: Any = flask_sqlalchemy_lite.SQLAlchemy() if wrong == "Flask-SQLAlchemy-Lite" else object()

    with pytest.raises(ConfigurationError, match=r"flask_sqlalchemy\.SQLAlchemy\(model_class=Base\)"):
        ContentHubWebhook().init_app(Flask("host"), db)


def test_a_declarative_base_of_flask_sqlalchemy_lite_moves_as_it_is(hosts: Build, sqlite_url: str):
    class Base(DeclarativeBase):
        pass

    host = hosts(sqlite_url, db=SQLAlchemy(model_class=Base))
    task_id = host.add_task()

    assert host.post(task_id, completed(task_id), attempt=1).status_code == 200


def test_a_session_that_does_not_begin_by_itself(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, db=SQLAlchemy(session_options={"autobegin": False}), models=lambda db: {})
    task_id = "00000000-0000-4000-8000-000000000001"
    with host.engine.begin() as connection:
        values = {"task_id": task_id, "status": "submitted", "earlier_creator_task_ids": []}
        connection.execute(sa.insert(host.state.task_model.__table__).values(**values))

    assert host.post(task_id, completed(task_id)).status_code == 200
    assert host.post(task_id, completed(task_id)).get_json()["outcome"] == "duplicate"
