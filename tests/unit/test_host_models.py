"""Models of a host's own, and ours beside whatever else a host's metadata, registry and base class hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, declared_attr, mapped_column, relationship
from sqlalchemy.schema import CreateTable

from flask_contenthub_webhook import ContentHubWebhook, DeliveryMixin, GenerationTaskMixin, default_models
from flask_contenthub_webhook.errors import ConfigurationError
from flask_contenthub_webhook.models.defaults import Models, complete_models
from flask_contenthub_webhook.runtime.state import get_state
from tests.support.host import SECRET

OURS = {
    "content_generation_tasks",
    "webhook_deliveries",
    "webhook_forwards",
    "webhook_forward_attempts",
    "webhook_alerts",
}


def a_database(base: type[Any] = DeclarativeBase, **contents: Any) -> SQLAlchemy:
    return SQLAlchemy(model_class=type("Base", (base,), contents))


def register(db: SQLAlchemy, **options: Any) -> Models:
    app = Flask("host")
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", TESTING=True, WEBHOOK_SECRET_KEY=SECRET)
    db.init_app(app)
    ContentHubWebhook().init_app(app, db, **options)
    return get_state(app).models


def names(model: Any) -> set[str]:
    """The names of what a table has beside its columns."""
    return {str(item.name) for item in (*model.__table__.constraints, *model.__table__.indexes)}


# --- what the host's base carries --------------------------------------------------------------------------------


def test_our_tables_do_not_depend_on_what_the_hosts_base_carries():
    plain = {model.__tablename__: names(model) for model in register(a_database())}
    shapes = {model.__tablename__: list(model.__table__.columns.keys()) for model in register(a_database())}
    db = a_database(
        id=mapped_column(sa.Integer, primary_key=True),
        created_by=mapped_column(sa.String(20), nullable=False),
        __table_args__={"comment": "the host's"},
        __mapper_args__={"eager_defaults": True},
    )

    models = register(db)

    assert {model.__tablename__: names(model) for model in models} == plain
    assert {model.__tablename__: list(model.__table__.columns.keys()) for model in models} == shapes


def test_our_models_are_in_the_hosts_metadata_and_have_its_query():
    db = a_database()
    models = register(db)

    assert set(db.metadata.tables) == OURS
    app = Flask("host")
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://")
    db.init_app(app)
    with app.app_context():
        db.create_all()
        assert [model.query.count() for model in models] == [0] * 5


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["the host's", "ours"])
def test_a_host_may_have_classes_that_are_called_as_ours(first: str):
    db = a_database()
    own: dict[str, Any] = {"__tablename__": "hooks", "id": mapped_column(sa.Integer, primary_key=True)}
    if first == "ours":
        register(db)
    hook = type("WebhookDelivery", (db.Model,), own)
    user: Any = type(
        "User",
        (db.Model,),
        {
            "__tablename__": "users",
            "id": mapped_column(sa.Integer, primary_key=True),
            "hook_id": mapped_column(sa.ForeignKey("hooks.id")),
            "hook": relationship("WebhookDelivery"),
        },
    )
    if first != "ours":
        register(db)

    assert sa.inspect(user).relationships["hook"].mapper.class_ is hook


@pytest.mark.parametrize("table", sorted(OURS))
def test_a_table_name_that_is_taken_is_refused_with_the_way_out(table: str):
    db = a_database()
    type("Mine", (db.Model,), {"__tablename__": table, "id": mapped_column(sa.Integer, primary_key=True)})

    with pytest.raises(ConfigurationError, match=f'has a table {table} already.*table_names={{"{table}": '):
        register(db)

    models = register(db, table_names={table: "hub_things"})
    assert {model.__tablename__ for model in models} == OURS - {table} | {"hub_things"}
    assert all(model.__tablename__ in name for model in models for name in names(model))


def test_every_table_can_be_called_otherwise():
    db = a_database()
    others = {name: f"hub_{name}" for name in OURS}

    assert default_models(db, others) == register(db, table_names=others)[:2]
    assert set(db.metadata.tables) == set(others.values())


def test_a_name_of_no_table_of_ours_is_refused():
    with pytest.raises(ConfigurationError, match=r"table_names has webhook_alarms; its keys are .*webhook_alerts"):
        register(a_database(), table_names={"webhook_alarms": "alarms"})


# --- __table_args__ ----------------------------------------------------------------------------------------------


def declared(cls: Any) -> Any:
    return sa.Index("mine", "topic"), {"comment": "mine"}


HOST_ARGUMENTS: dict[str, tuple[Any, set[str]]] = {
    "a tuple": ((sa.CheckConstraint("1 = 1", name="mine"), {"comment": "mine"}), {"mine"}),
    "a dict": ({"comment": "mine"}, set()),
    "declared": (declared_attr.directive(declared), {"mine"}),
    "with the primary key": ((sa.PrimaryKeyConstraint("id"), {"comment": "mine"}), set()),
}


@pytest.mark.parametrize(("arguments", "added"), HOST_ARGUMENTS.values(), ids=HOST_ARGUMENTS)
@pytest.mark.parametrize("mixin_is", ["first", "last"])
def test_table_args_of_the_hosts_are_added_to_ours(arguments: Any, added: set[str], mixin_is: str):
    db = a_database()
    bases = (GenerationTaskMixin, db.Model) if mixin_is == "first" else (db.Model, GenerationTaskMixin)

    task: Any = type("Task", bases, {"__tablename__": "tasks", "__table_args__": arguments})

    assert names(task) == names_without_arguments() | added
    assert task.__table__.comment == "mine"


def names_without_arguments() -> set[str]:
    return names(type("Task", (GenerationTaskMixin, a_database().Model), {"__tablename__": "tasks"}))


def test_table_args_of_the_hosts_base_are_added_too():
    db = a_database(__table_args__=(sa.CheckConstraint("1 = 1", name="mine"), {"comment": "mine"}))
    task: Any = type("Task", (GenerationTaskMixin, db.Model), {"__tablename__": "tasks"})

    assert task.__table__.comment == "mine"
    assert names(task) == names_without_arguments() | {"mine"}


def test_a_task_that_is_a_row_of_two_tables_is_constrained_and_its_subclasses_once():
    db = a_database()
    key = mapped_column(sa.Integer, primary_key=True)
    job = type("Job", (db.Model,), {"__tablename__": "jobs", "id": key})
    key = mapped_column(sa.ForeignKey("jobs.id"), primary_key=True)
    task: Any = type("Task", (GenerationTaskMixin, job), {"__tablename__": "tasks", "id": key})
    key = mapped_column(sa.ForeignKey("tasks.id"), primary_key=True)
    special: Any = type("Special", (task,), {"__tablename__": "special", "id": key})

    assert names_without_arguments() < names(task)
    assert not names(special) & names_without_arguments()
    assert len(special.__table__.constraints) == 2  # its keys


def test_a_column_that_the_host_calls_otherwise_is_constrained_under_its_name():
    columns = {key: mapped_column(f"c_{key}", sa.String(40), nullable=False) for key in ("task_id", "status")}
    task: Any = type("Task", (GenerationTaskMixin, a_database().Model), {"__tablename__": "tasks", **columns})

    ddl = str(CreateTable(task.__table__))

    assert "UNIQUE (c_task_id)" in ddl
    assert "CHECK (c_status IN (" in ddl
    assert names(task) == names_without_arguments()


# --- models that are dataclasses ---------------------------------------------------------------------------------


Made = tuple[SQLAlchemy, type[Any], type[Any]]


def dataclasses_one_by_one() -> Made:
    db = a_database()
    return db, *_dataclasses(db, MappedAsDataclass)


def dataclasses_by_their_base() -> Made:
    db = SQLAlchemy(model_class=type("Base", (MappedAsDataclass, DeclarativeBase), {}))
    return db, *_dataclasses(db)


WAYS = [dataclasses_one_by_one]
if sa.__version__ < "2.1":  # with which Flask-SQLAlchemy 3.1 itself cannot make such a base
    WAYS.append(dataclasses_by_their_base)


def _dataclasses(db: SQLAlchemy, *before: type[Any]) -> tuple[type[Any], type[Any]]:
    task = type(
        "Task",
        (*before, GenerationTaskMixin, db.Model),
        {
            "__tablename__": "tasks",
            "__annotations__": {"account": Mapped[int], "tone": Mapped[str | None]},
            "tone": mapped_column(sa.String(30), kw_only=True, default="calm"),
            "__table_args__": {"comment": "mine"},
        },
    )
    return task, type("Event", (*before, DeliveryMixin, db.Model), {"__tablename__": "events"})


@pytest.mark.parametrize("make", WAYS)
def test_a_model_may_be_a_dataclass(make: Callable[[], Made]):
    db, task_model, delivery_model = make()
    models = register(db, task_model=task_model, delivery_model=delivery_model)
    plain = register(a_database())

    for model, like in ((models.task, plain.task), (models.delivery, plain.delivery)):
        ours, theirs = ({c.key: (repr(c.type), c.nullable) for c in m.__table__.columns} for m in (model, like))
        assert {key: ours[key] for key in theirs} | {"tone": None} == theirs | {"tone": None}
        assert {name.replace(like.__tablename__, model.__tablename__) for name in names(like)} == names(model)
    task: Any = models.task(7, topic="键", callback_url="https://hub.example/?token=secret")
    assert (task.account, task.topic, task.tone, task.status, task.attempt) == (7, "键", "calm", "pending", 1)
    assert len(task.task_id) == 36
    assert "secret" not in repr(task)
    assert models.delivery(source="webhook", verdict="processed").received_at <= datetime.now(UTC)
    with pytest.raises(TypeError, match="verdict"):
        models.delivery(source="webhook")


# --- models that cannot be used ----------------------------------------------------------------------------------


def test_a_model_without_the_columns_is_refused_with_their_names():
    db = a_database()
    own: dict[str, Any] = {"__tablename__": "jobs", "id": mapped_column(sa.Integer, primary_key=True)}
    job = type("Job", (db.Model,), own)

    with pytest.raises(ConfigurationError, match=r"The model Job lacks task_id, .*status.*mix in GenerationTaskMixin"):
        register(db, task_model=job)
    with pytest.raises(ConfigurationError, match=r"The model Job lacks task_id, .*verdict.*mix in DeliveryMixin"):
        register(db, delivery_model=job)


def test_a_class_that_is_not_mapped_is_refused():
    with pytest.raises(ConfigurationError, match=r"Flask.* is not mapped to a table; make it of GenerationTaskMixin"):
        register(a_database(), task_model=Flask)


def test_a_model_with_the_columns_but_not_the_mixin_will_do():
    db = a_database()
    columns = [
        sa.Column(c.name, c.type, primary_key=c.primary_key) for c in default_models(a_database())[0].__table__.c
    ]
    task = type("Task", (db.Model,), {"__table__": sa.Table("tasks", db.metadata, *columns)})

    assert register(db, task_model=task).task is task


def test_a_related_model_may_be_declared_later():
    db = a_database()
    task = type(
        "Task",
        (GenerationTaskMixin, db.Model),
        {
            "__tablename__": "tasks",
            "owner_id": mapped_column(sa.ForeignKey("owners.id")),
            "owner": relationship("Owner"),
        },
    )

    models = register(db, task_model=task)
    type("Owner", (db.Model,), {"__tablename__": "owners", "id": mapped_column(sa.Integer, primary_key=True)})

    assert models.task(owner=None).owner is None


# --- binds and schemas -------------------------------------------------------------------------------------------


def in_bind(db: SQLAlchemy, mixin: type[Any], bind: str | None) -> type[Any]:
    place = {} if bind is None else {"__bind_key__": bind}
    return type(mixin.__name__[:5], (mixin, db.Model), {"__tablename__": f"my_{mixin.__name__}", **place})


@pytest.mark.parametrize("given", ["task_model", "delivery_model"])
def test_our_tables_are_in_the_bind_of_the_model_that_is_given(given: str):
    db = a_database()
    mixin = GenerationTaskMixin if given == "task_model" else DeliveryMixin

    complete_models(db, **{given: in_bind(db, mixin, "jobs")})

    assert set(db.metadata.tables) == set()
    assert len(db.metadatas["jobs"].tables) == 5


@pytest.mark.parametrize(("task_bind", "delivery_bind"), [("jobs", None), (None, "jobs"), ("jobs", "events")])
def test_two_binds_are_refused_with_words(task_bind: str | None, delivery_bind: str | None):
    db = a_database()
    task, delivery = in_bind(db, GenerationTaskMixin, task_bind), in_bind(db, DeliveryMixin, delivery_bind)

    with pytest.raises(ConfigurationError, match=r"in two databases: .*'jobs'.* the same __bind_key__"):
        register(db, task_model=task, delivery_model=delivery)


def test_a_bind_that_is_not_configured_is_refused():
    db = a_database()

    with pytest.raises(ConfigurationError, match="in the bind 'jobs', which SQLALCHEMY_BINDS does not have"):
        register(db, task_model=in_bind(db, GenerationTaskMixin, "jobs"))


def test_the_doctor_tells_that_there_is_no_database_for_our_tables():
    db, app = a_database(), Flask("host")
    app.config.update(SQLALCHEMY_BINDS={"jobs": "sqlite://"}, TESTING=True, WEBHOOK_SECRET_KEY=SECRET)
    db.init_app(app)
    ContentHubWebhook().init_app(app, db)

    result = app.test_cli_runner().invoke(args=["webhook", "doctor"])

    assert result.exit_code == 1
    assert "The database cannot be used: Bind key 'None' is not in 'SQLALCHEMY_BINDS'" in " ".join(
        result.output.split()
    )


@pytest.mark.parametrize("where", ["the model", "the metadata"])
def test_our_tables_are_in_the_schema_of_the_task(where: str):
    db = SQLAlchemy(metadata=sa.MetaData(schema="hub" if where == "the metadata" else None))
    options: dict[str, Any] = {}
    if where == "the model":
        own = {"__tablename__": "tasks", "__table_args__": {"schema": "hub"}}
        options["task_model"] = type("Task", (GenerationTaskMixin, db.Model), own)

    models = complete_models(db, **options)

    assert {model.__table__.schema for model in models} == {"hub"}
    assert complete_models(db, **options) == models
