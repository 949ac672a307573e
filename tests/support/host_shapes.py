"""The shapes of hosts: bases, conventions, schemas, keys, columns, names, sessions, engines, binds and app patterns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from flask import Flask, jsonify
from flask.json.provider import DefaultJSONProvider
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from flask_wtf.csrf import CSRFProtect
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    DeclarativeBaseNoMeta,
    Mapped,
    MappedAsDataclass,
    column_property,
    declarative_base,
    declared_attr,
    deferred,
    mapped_column,
    reconstructor,
    relationship,
    synonym,
    validates,
)
from sqlalchemy.pool import NullPool

from flask_contenthub_webhook import DeliveryMixin, GenerationTaskMixin

__all__ = ["OURS", "SHAPES", "Shape"]

OURS = (
    "content_generation_tasks",
    "webhook_deliveries",
    "webhook_forwards",
    "webhook_forward_attempts",
    "webhook_alerts",
)
CONVENTION = {
    "ix": "idx_%(column_0_label)s",
    "uq": "unique_%(table_name)s_%(constraint_name)s",
    "ck": "check_%(table_name)s_%(constraint_name)s",
    "fk": "foreign_%(table_name)s_%(column_0_name)s",
    "pk": "primary_%(table_name)s",
}
Models = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A host.

    Args:
        db: makes its database object.
        content: makes the model of the rows that the handler adds; by default the usual one.
        models: makes models, and returns arguments of `init_app`.
        before: called with the application before `init_app`.
        after: called with it after that.
        options: arguments of `init_app`.
        engine_options: of SQLAlchemy.
        config: of the application.
        bind: where our tables are; there is a second database of that name.
        has_default: False if there is no other than that.
        schema: the schema to make; such a host needs PostgreSQL.
        migrated: make the tables by `flask db migrate` and `upgrade`, rather than by `create_all`.
    """

    db: Callable[[], SQLAlchemy] = SQLAlchemy
    content: Callable[[SQLAlchemy], type[Any]] | None = None
    models: Callable[[SQLAlchemy], Models] = lambda _: {}
    before: Callable[[Flask], None] = lambda _: None
    after: Callable[[Flask], None] = lambda _: None
    options: Mapping[str, Any] = field(default_factory=dict)
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    bind: str | None = None
    has_default: bool = True
    schema: str | None = None
    migrated: bool = False


def on_base(*bases: type[Any], **contents: Any) -> Callable[[], SQLAlchemy]:
    """A database object whose models have a base class of the host's."""
    return lambda: SQLAlchemy(model_class=type("Base", bases or (DeclarativeBase,), dict(contents)))


def with_metadata(**options: Any) -> Callable[[], SQLAlchemy]:
    return lambda: SQLAlchemy(metadata=sa.MetaData(**options))


def own(task: Mapping[str, Any] | None = None, delivery: Mapping[str, Any] | None = None, *bases: type[Any]) -> Any:
    """Own models, with these contents beyond the mixins'; columns are made anew for each host."""

    def make(db: SQLAlchemy) -> Models:
        models: Models = {}
        for argument, mixin, table, given in (
            ("task_model", GenerationTaskMixin, "jobs", task),
            ("delivery_model", DeliveryMixin, "job_log", delivery),
        ):
            if given is not None:
                contents = {key: value() if callable(value) else value for key, value in given.items()}
                name = {"task_model": "Job", "delivery_model": "JobLog"}[argument]
                models[argument] = type(name, (*bases, mixin, db.Model), {"__tablename__": table, **contents})
        return models

    return make


def both(**contents: Any) -> Any:
    return own(contents, contents)


def column(*args: Any, **options: Any) -> Callable[[], Any]:
    return lambda: mapped_column(*args, **options)


def now() -> datetime:
    return datetime.now(UTC)


def author(context: Any) -> str:
    return f"author of {context.get_current_parameters()['task_id']}"


AUDIT = {
    "created_by": column(sa.String(80), nullable=False, default="host"),
    "created_on": column(sa.DateTime(timezone=True), nullable=False, default=now),
    "author": column(sa.String(80), nullable=False, default=author),
    "stamp": column(sa.String(20), nullable=False, default=sa.func.lower("STAMP")),
    "changed_on": column(sa.DateTime(timezone=True), nullable=False, default=now, onupdate=now),
}


def audited_base() -> SQLAlchemy:
    """Flask-SQLAlchemy's documentation has such a base, with `id` and times."""
    columns = {key: make() for key, make in AUDIT.items() if key != "author"}
    return on_base(DeclarativeBase, id=mapped_column(sa.Integer, primary_key=True), **columns)()


# --- models --------------------------------------------------------------------------------------------------------


def tasks_of_accounts(db: SQLAlchemy) -> Models:
    account = type(
        "Account", (db.Model,), {"__tablename__": "accounts", "id": mapped_column(primary_key=True, type_=sa.Integer)}
    )
    contents = {
        "account_id": mapped_column(sa.ForeignKey("accounts.id"), nullable=True, index=True),
        "account": relationship(account, backref="jobs", lazy="joined"),
        "__table_args__": (sa.Index("ix_jobs_account_status", "account_id", "status"),),
    }
    return {"task_model": type("Job", (GenerationTaskMixin, db.Model), {"__tablename__": "jobs", **contents})}


def rows_that_refer_to_ours(db: SQLAlchemy) -> Models:
    key = sa.ForeignKey("content_generation_tasks.id", ondelete="SET NULL")
    contents = {"id": mapped_column(sa.Integer, primary_key=True), "task": mapped_column(key, nullable=True)}
    type("Review", (db.Model,), {"__tablename__": "reviews", **contents})
    return {}


def classes_called_as_ours(db: SQLAlchemy) -> Models:
    for name in ("ContentGenerationTask", "WebhookDelivery", "WebhookForward", "WebhookAlert"):
        type(
            name,
            (db.Model,),
            {"__tablename__": f"my_{name.lower()}", "id": mapped_column(sa.Integer, primary_key=True)},
        )
    return {}


def tables_called_as_ours(db: SQLAlchemy) -> Models:
    for name in OURS:
        type(f"My_{name}", (db.Model,), {"__tablename__": name, "id": mapped_column(sa.Integer, primary_key=True)})
    return {"table_names": {name: f"hub_{name}" for name in OURS}}


def dataclass_content(db: SQLAlchemy) -> type[Any]:
    contents = {
        "__tablename__": "contents",
        "__annotations__": {"id": Mapped[int], "task_id": Mapped[str], "body": Mapped[str]},
        "id": mapped_column(primary_key=True, init=False),
        "task_id": mapped_column(sa.String(64)),
        "body": mapped_column(sa.Text),
    }
    return type("Content", (db.Model,), contents)


def content_in_bind(db: SQLAlchemy) -> type[Any]:
    contents = {
        "__tablename__": "contents",
        "__bind_key__": "jobs",
        "id": mapped_column(sa.Integer, primary_key=True),
        "task_id": mapped_column(sa.String(64), nullable=False),
        "body": mapped_column(sa.Text),
    }
    return type("Content", (db.Model,), contents)


def dataclass_models(*bases: type[Any]) -> Any:
    def make(db: SQLAlchemy) -> Models:
        contents = {"__annotations__": {"account": Mapped[int]}, "account": column(default=7, kw_only=True)}
        return own(contents, contents, *bases)(db)  # type: ignore[no-any-return]

    return make


class Watched:
    """A model that looks at itself."""

    seen = 0

    @reconstructor
    def look(self) -> None:
        type(self).seen += 1

    @validates("topic")
    def check(self, _: str, value: str) -> str:
        return value

    @property
    def is_long(self) -> bool:
        return False


def mapper_arguments(cls: Any) -> dict[str, Any]:
    return {"version_id_col": cls.__table__.c.revision, "polymorphic_on": "kind", "polymorphic_identity": "plain"}


def result_that_is_watched(db: SQLAlchemy) -> Models:
    contents = {
        "result": mapped_column(MutableDict.as_mutable(sa.JSON(none_as_null=True)), nullable=True),
        "headline": synonym("topic"),
        "words": column_property(sa.func.length("three") + 0),
    }
    return {"task_model": type("Job", (GenerationTaskMixin, db.Model), {"__tablename__": "jobs", **contents})}


def tasks_that_are_jobs(db: SQLAlchemy) -> Models:
    """Joined-table inheritance: a task is a row of two tables."""
    job = type(
        "Job",
        (db.Model,),
        {
            "__tablename__": "jobs",
            "id": mapped_column(sa.Integer, primary_key=True),
            "kind": mapped_column(sa.String(9), nullable=False),
            "__mapper_args__": {"polymorphic_on": "kind", "polymorphic_identity": "job"},
        },
    )
    contents = {
        "__tablename__": "generation_jobs",
        "id": mapped_column(sa.ForeignKey("jobs.id"), primary_key=True),
        "__mapper_args__": {"polymorphic_identity": "task"},
    }
    return {"task_model": type("GenerationJob", (GenerationTaskMixin, job), contents)}


def later_related(db: SQLAlchemy) -> Models:
    contents = {"owner_id": mapped_column(sa.ForeignKey("owners.id"), nullable=True), "owner": relationship("Owner")}
    return {"task_model": type("Job", (GenerationTaskMixin, db.Model), {"__tablename__": "jobs", **contents})}


def declare_owner(app: Flask) -> None:
    db = app.extensions["sqlalchemy"]
    owner = type("Owner", (db.Model,), {"__tablename__": "owners", "id": mapped_column(sa.Integer, primary_key=True)})
    db.metadata.info["owner"] = owner  # or it would be forgotten


# --- sessions and applications -----------------------------------------------------------------------------------


class ChoosingSession(Session):
    """Chooses among databases, as a host does that reads from a replica."""

    def get_bind(self, *arguments: Any, **named: Any) -> Any:
        return super().get_bind(*arguments, **named)


def in_session(**options: Any) -> Callable[[], SQLAlchemy]:
    return lambda: SQLAlchemy(session_options=options)


def errors_in_the_hosts_words(app: Flask) -> None:
    @app.errorhandler(Exception)
    def tell(error: Exception) -> Any:
        return jsonify(trouble=type(error).__name__), getattr(error, "code", None) or 500


def reads_before_each_request(app: Flask) -> None:
    @app.before_request
    def read() -> None:
        app.extensions["sqlalchemy"].session.execute(sa.text("SELECT 1"))


def removes_the_session(app: Flask) -> None:
    @app.teardown_request
    def remove(_: BaseException | None) -> None:
        app.extensions["sqlalchemy"].session.remove()


def own_json(app: Flask) -> None:
    class Provider(DefaultJSONProvider):
        sort_keys = False
        ensure_ascii = False

        def dumps(self, obj: Any, **options: Any) -> str:
            return super().dumps(obj, **{"indent": 2, **options})

    app.json = Provider(app)


def protected(app: Flask) -> None:
    app.config["WTF_CSRF_ENABLED"] = True
    CSRFProtect(app)


IN_JOBS: dict[str, Any] = {"bind": "jobs", "content": content_in_bind}

SHAPES: dict[str, Shape] = {
    # bases
    "the default models": Shape(migrated=True),
    "a DeclarativeBase": Shape(db=on_base(), migrated=True),
    "a DeclarativeBaseNoMeta": Shape(db=on_base(DeclarativeBaseNoMeta), migrated=True),
    "a declarative_base()": Shape(db=lambda: SQLAlchemy(model_class=declarative_base())),
    "id on the base": Shape(db=on_base(id=mapped_column(sa.Integer, primary_key=True)), migrated=True),
    "id on the base, own models": Shape(
        db=on_base(id=mapped_column(sa.Integer, primary_key=True)), models=both(), migrated=True
    ),
    "an audited base": Shape(db=audited_base, migrated=True),
    "an audited base, own models": Shape(db=audited_base, models=both(), migrated=True),
    "mapper arguments on the base": Shape(db=on_base(__mapper_args__={"eager_defaults": True}), models=both()),
    "table arguments on the base": Shape(
        db=on_base(__table_args__={"comment": "the host's"}), models=both(), migrated=True
    ),
    "no automatic names": Shape(db=lambda: SQLAlchemy(disable_autonaming=True)),
    "models that are dataclasses": Shape(models=dataclass_models(MappedAsDataclass), db=on_base(), migrated=True),
    # names
    "a naming convention": Shape(db=with_metadata(naming_convention=CONVENTION), migrated=True),
    "a naming convention, own models": Shape(
        db=with_metadata(naming_convention=CONVENTION), models=both(), migrated=True
    ),
    "own table names": Shape(models=both(), migrated=True),
    "other names for our tables": Shape(options={"table_names": {name: f"hub_{name}" for name in OURS}}, migrated=True),
    "classes called as ours": Shape(models=classes_called_as_ours, migrated=True),
    "tables called as ours": Shape(models=tables_called_as_ours, migrated=True),
    # schemas
    "a schema of the metadata": Shape(db=with_metadata(schema="hub"), schema="hub", migrated=True),
    "a schema of own models": Shape(models=both(__table_args__={"schema": "hub"}), schema="hub", migrated=True),
    "a schema of the task": Shape(models=own({"__table_args__": {"schema": "hub"}}), schema="hub", migrated=True),
    # table arguments, keys and columns
    "table arguments in a tuple": Shape(
        models=both(__table_args__=lambda: (sa.CheckConstraint("1 = 1", name="mine"), {"comment": "mine"}))
    ),
    "tasks of accounts": Shape(models=tasks_of_accounts, migrated=True),
    "rows that refer to ours": Shape(models=rows_that_refer_to_ours, migrated=True),
    "an integer key": Shape(models=both(id=column(sa.Integer, primary_key=True)), migrated=True),
    "renamed columns": Shape(
        models=both(
            id=column("pk", sa.Integer, primary_key=True),
            task_id=column("ref", sa.String(255), nullable=True, default=None),
            attempt=column("run", sa.Integer, nullable=False, default=1),
        ),
        migrated=True,
    ),
    "renamed columns of an index": Shape(
        models=own(
            {"status": column("state", sa.String(16), nullable=False, default="pending")},
            {"verdict": column("judgement", sa.String(16), nullable=False)},
        ),
        migrated=True,
    ),
    "defaults of the host's": Shape(models=both(**AUDIT), migrated=True),
    "defaults of the history alone": Shape(models=own(None, AUDIT)),
    "an onupdate of the task": Shape(models=own({"by": column(sa.String(9), onupdate="someone")})),
    "server defaults": Shape(models=both(note=column(sa.String(9), nullable=False, server_default="x")), migrated=True),
    "a version and a discriminator": Shape(
        models=both(
            revision=column(sa.Integer, nullable=False),
            kind=column(sa.String(9), nullable=False),
            __mapper_args__=lambda: declared_attr.directive(mapper_arguments),
        )
    ),
    "a model that looks at itself": Shape(models=own({}, None, Watched)),
    "a result that is watched": Shape(models=result_that_is_watched),
    "deferred columns": Shape(
        models=own(None, {"headers": lambda: deferred(mapped_column(sa.JSON(none_as_null=True)))})
    ),
    "tasks that are jobs": Shape(models=tasks_that_are_jobs, migrated=True),
    "related models that come later": Shape(models=later_related, after=declare_owner, migrated=True),
    # sessions
    "a session class of the host's": Shape(db=in_session(class_=ChoosingSession)),
    "a session that does not expire": Shape(db=in_session(expire_on_commit=False)),
    "a session that does not flush": Shape(db=in_session(autoflush=False)),
    "a session for each thread": Shape(db=in_session(scopefunc=threading.get_ident)),
    "a session that joins by savepoints": Shape(db=in_session(join_transaction_mode="create_savepoint")),
    # engines
    "no pool": Shape(engine_options={"poolclass": NullPool}),
    "a strict isolation": Shape(engine_options={"isolation_level": "SERIALIZABLE"}),
    "an engine that commits by itself": Shape(engine_options={"isolation_level": "AUTOCOMMIT"}),
    "queries recorded and changes tracked": Shape(
        config={"SQLALCHEMY_RECORD_QUERIES": True, "SQLALCHEMY_TRACK_MODIFICATIONS": True}
    ),
    # binds
    "all of ours in a bind": Shape(
        models=both(__bind_key__="jobs"), bind="jobs", content=content_in_bind, migrated=True
    ),
    "the task in a bind": Shape(
        models=own({"__bind_key__": "jobs"}), bind="jobs", content=content_in_bind, migrated=True
    ),
    "the history in a bind": Shape(
        models=own(None, {"__bind_key__": "jobs"}), bind="jobs", content=content_in_bind, migrated=True
    ),
    "no database but a bind": Shape(
        models=own({"__bind_key__": "jobs"}), bind="jobs", content=content_in_bind, has_default=False
    ),
    # applications
    "CSRF protection": Shape(before=protected),
    "errors in the host's words": Shape(before=errors_in_the_hosts_words),
    "a request that reads first": Shape(before=reads_before_each_request),
    "a request that removes the session": Shape(before=removes_the_session),
    "JSON in the host's form": Shape(before=own_json),
    "another prefix": Shape(config={"WEBHOOK_URL_PREFIX": "/hooks/in"}),
    "an application root": Shape(config={"APPLICATION_ROOT": "/hub"}),
    "debug": Shape(config={"DEBUG": True}),
}

if sa.__version__ < "2.1":  # with which Flask-SQLAlchemy 3.1 itself cannot make such a base
    SHAPES["a base that makes dataclasses"] = Shape(
        db=on_base(MappedAsDataclass, DeclarativeBase),
        models=dataclass_models(),
        content=dataclass_content,
        migrated=True,
    )
