"""The two models in a host's metadata."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.schema import CreateTable

from flask_contenthub_webhook import ContentHubWebhook, DeliveryMixin, GenerationTaskMixin, default_models
from flask_contenthub_webhook.models.columns import UTCDateTime
from tests.support.host import SECRET, make_host

CHECK_FAILED = (IntegrityError, OperationalError)
"""The latter with PyMySQL, which does not know MariaDB's number for it."""
CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "unique__%(table_name)s__%(column_0_name)s",
    "ck": "check__%(table_name)s__%(constraint_name)s",
    "fk": "foreign__%(table_name)s__%(column_0_name)s",
    "pk": "primary__%(table_name)s",
}


def names_of(model: Any) -> dict[str, str | None]:
    items: list[Any] = [*model.__table__.constraints, *model.__table__.indexes]
    return {
        type(item).__name__ + str(index): None if item.name is None else str(item.name)
        for index, item in enumerate(items)
    }


def plain(**options: Any) -> SQLAlchemy:
    return SQLAlchemy(metadata=sa.MetaData(**options))


def test_every_constraint_and_index_has_a_name():
    for model in default_models(plain()):
        assert all(names_of(model).values())


def test_a_naming_convention_of_the_host_changes_no_name():
    without = [set(names_of(model).values()) for model in default_models(plain())]
    under = [set(names_of(model).values()) for model in default_models(plain(naming_convention=CONVENTION))]

    assert under == without


def test_the_names_reach_the_ddl_unchanged_under_a_naming_convention():
    task, delivery = default_models(plain(naming_convention=CONVENTION))

    ddl = str(CreateTable(task.__table__)) + str(CreateTable(delivery.__table__))

    assert "check__" not in ddl
    assert "ck_content_generation_tasks_status" in ddl
    assert "pk_webhook_deliveries" in ddl


def test_the_models_are_made_once_for_each_database_object():
    first, second = plain(), plain()

    assert default_models(first) == default_models(first)
    assert default_models(first) != default_models(second)


def test_the_models_live_in_the_hosts_metadata():
    db = plain()
    default_models(db)

    assert {"content_generation_tasks", "webhook_deliveries"} <= set(db.metadata.tables)


def test_the_task_table_has_the_callback_url():
    task, _ = default_models(plain())

    assert task.__table__.c.callback_url.nullable


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mysql"])
def test_the_tables_can_be_written_for(dialect: str):
    engine = sa.create_mock_engine(f"{dialect}://", lambda *_args, **_options: None)

    for model in default_models(plain()):
        assert str(CreateTable(model.__table__).compile(dialect=engine.dialect))


def test_two_columns_never_share_a_name():
    for model in default_models(plain()):
        names = [column.name for column in model.__table__.columns]
        assert len(set(names)) == len(names)


# --- on real databases -------------------------------------------------------------------------------------------


def test_a_task_that_is_open_needs_a_time_to_be_polled(database_url: str):
    host = make_host(database_url)
    task_id = host.add_task()
    table = host.state.task_model.__table__

    with pytest.raises(CHECK_FAILED, match="open_is_polled"), host.engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.task_id == task_id).values(next_poll_at=None))
    host.close()


def test_a_task_that_is_finished_needs_none(database_url: str):
    host = make_host(database_url)
    task_id = host.add_task(status="failed")
    table = host.state.task_model.__table__

    with host.engine.begin() as connection:
        connection.execute(sa.update(table).where(table.c.task_id == task_id).values(next_poll_at=None))

    assert host.task(task_id).next_poll_at is None
    host.close()


def test_a_state_that_does_not_exist_is_refused_by_the_database(database_url: str):
    host = make_host(database_url)

    with pytest.raises(CHECK_FAILED, match="ck_content_generation_tasks_status"):
        host.add_task(status="running")
    host.close()


def test_a_task_id_is_unique(database_url: str):
    host = make_host(database_url)
    task_id = host.add_task()

    with pytest.raises(IntegrityError):
        host.add_task(task_id=task_id)
    host.close()


def test_a_new_task_is_pending_polled_and_of_the_first_attempt(database_url: str):
    host = make_host(database_url)
    with host.app.app_context():
        host.db.session.add(host.state.task_model(topic="键"))
        host.db.session.commit()
    (task,) = host.tasks()

    assert (task.status, task.attempt, task.version, task.priority) == ("pending", 1, 1, 2)
    assert len(task.task_id) == 36
    assert task.next_poll_at - task.created_at == pytest.approx(timedelta(seconds=120), abs=SECOND)
    host.close()


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 11, 23, 15, 27, 35, 632123, UTC),
        datetime(2026, 11, 23, 15, 27, 35, 0, timezone(timedelta(hours=8))),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
    ],
    ids=str,
)
def test_a_time_comes_back_aware_in_utc_and_to_the_microsecond(database_url: str, moment: datetime):
    engine = sa.create_engine(database_url)
    table = sa.Table("times", sa.MetaData(), sa.Column("at", UTCDateTime()))
    table.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(at=moment))
        found = connection.execute(sa.select(table.c.at)).scalar_one()
        same = connection.execute(sa.select(sa.func.count()).where(table.c.at == moment)).scalar_one()
    engine.dispose()

    assert found == moment
    assert found.utcoffset() == timedelta(0)
    assert same == 1


def test_times_are_ordered_whatever_zone_they_were_given_in(database_url: str):
    engine = sa.create_engine(database_url)
    table = sa.Table("times", sa.MetaData(), sa.Column("at", UTCDateTime()))
    table.metadata.create_all(engine)
    early, late = datetime(2026, 1, 1, 8, tzinfo=timezone(timedelta(hours=8))), datetime(2026, 1, 1, 1, tzinfo=UTC)
    with engine.begin() as connection:
        connection.execute(sa.insert(table), [{"at": late}, {"at": early}])
        found = connection.execute(sa.select(table.c.at).order_by(table.c.at)).scalars().all()
    engine.dispose()

    assert found == [early, late]


def test_a_time_without_a_zone_is_refused(database_url: str):
    engine = sa.create_engine(database_url)
    table = sa.Table("times", sa.MetaData(), sa.Column("at", UTCDateTime()))
    table.metadata.create_all(engine)

    with pytest.raises(StatementError, match="time zone"), engine.begin() as connection:
        connection.execute(sa.insert(table).values(at=datetime(2026, 1, 1)))
    engine.dispose()


# --- models of the host's own ------------------------------------------------------------------------------------


def test_a_host_may_bring_models_of_its_own_with_other_names():
    class Base(DeclarativeBase):
        pass

    db = SQLAlchemy(model_class=Base)
    model: Any = db.Model
    job = type("Job", (GenerationTaskMixin, model), {"__tablename__": "jobs"})
    hook = type("Hook", (DeliveryMixin, model), {"__tablename__": "hooks"})
    app = Flask("host")
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", TESTING=True, WEBHOOK_SECRET_KEY=SECRET)
    db.init_app(app)
    webhook = ContentHubWebhook()

    webhook.init_app(app, db, task_model=job, delivery_model=hook)

    with app.app_context():
        assert (webhook.task_model, webhook.delivery_model) == (job, hook)
    assert {table for table in db.metadata.tables if not table.startswith("webhook_")} == {"jobs", "hooks"}
    assert "ck_jobs_status" in names_of(job).values()
