"""The models that hosts do not bring, created once in the metadata of a host.

Hosts either let :func:`default_models` create the models, or mix :class:`.GenerationTaskMixin` and
:class:`.DeliveryMixin` into their own::

    class Task(GenerationTaskMixin, db.Model):
        __tablename__ = "content_generation_tasks"
        account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))

    webhook.init_app(app, db, task_model=Task)

Our own models share the metadata with the host's, so that ``create_all`` and Alembic see them, but neither the base
class nor the registry: what the host's base carries is not in our tables, and a class of the host's may be called as
one of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from flask_sqlalchemy.model import Model
from sqlalchemy.orm import DeclarativeBase, MappedColumn

from ..errors import ConfigurationError
from .alert import AlertMixin
from .delivery import DeliveryMixin
from .forward import ForwardAttemptMixin, ForwardMixin
from .mixin import TableMixin
from .task import GenerationTaskMixin

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["Models", "complete_models", "default_models"]

TASKS = "content_generation_tasks"
DELIVERIES = "webhook_deliveries"
FORWARDS = "webhook_forwards"
FORWARD_ATTEMPTS = "webhook_forward_attempts"
ALERTS = "webhook_alerts"
TABLES = frozenset({TASKS, DELIVERIES, FORWARDS, FORWARD_ATTEMPTS, ALERTS})

_MADE = "contenthub_webhook_models"
_BASE = "contenthub_webhook_base"


class Models(NamedTuple):
    """The models of one application."""

    task: type[Any]
    delivery: type[Any]
    forward: type[Any]
    forward_attempt: type[Any]
    alert: type[Any]


def default_models(db: SQLAlchemy, table_names: Mapping[str, str] | None = None) -> tuple[type[Any], type[Any]]:
    """Return ``(ContentGenerationTask, WebhookDelivery)``, for a host that brings no models.

    They live in the host's metadata; every call with the same ``db`` and names returns the same pair.

    Args:
        db: the host's Flask-SQLAlchemy object.
        table_names: as for :meth:`.ContentHubWebhook.init_app`, which must be given the same.
    """
    models = complete_models(db, table_names=table_names)
    return models.task, models.delivery


def complete_models(
    db: SQLAlchemy,
    *,
    task_model: type[Any] | None = None,
    delivery_model: type[Any] | None = None,
    table_names: Mapping[str, str] | None = None,
) -> Models:
    """Return the host's models, and ours for those that it does not bring: in the same bind and schema.

    Raises:
        ConfigurationError: a model lacks columns, the two are in different binds, or the name of a table is taken.
    """
    given = [
        _checked_table(model, mixin)
        for model, mixin in ((task_model, GenerationTaskMixin), (delivery_model, DeliveryMixin))
        if model is not None
    ]
    binds = {table.metadata.info.get("bind_key"): table.name for table in given}
    if len(binds) > 1:
        places = " and ".join(f"{table} in {_named_bind(bind)}" for bind, table in binds.items())
        raise ConfigurationError(
            f"The tables are in two databases: {places}. A task and its history change in one transaction; give both "
            "models the same __bind_key__."
        )
    make = (
        _Maker(db, given[0].metadata, given[0].schema, table_names)
        if given
        else _Maker(db, db.metadata, None, table_names)
    )
    return Models(
        task_model or make("ContentGenerationTask", GenerationTaskMixin, TASKS),
        delivery_model or make("WebhookDelivery", DeliveryMixin, DELIVERIES),
        make("WebhookForward", ForwardMixin, FORWARDS),
        make("WebhookForwardAttempt", ForwardAttemptMixin, FORWARD_ATTEMPTS),
        make("WebhookAlert", AlertMixin, ALERTS),
    )


class _Maker:
    """Makes models in one metadata and schema, each once."""

    def __init__(
        self, db: SQLAlchemy, metadata: sa.MetaData, schema: str | None, names: Mapping[str, str] | None
    ) -> None:
        self._metadata = metadata
        self._schema = schema or metadata.schema
        self._names = names or {}
        self._made: dict[str, type[Any]] = metadata.info.setdefault(_MADE, {})
        if _BASE not in metadata.info:
            contents = {"metadata": metadata, "__fsa__": db, "query_class": db.Query}
            metadata.info[_BASE] = type("OwnModel", (Model, DeclarativeBase), contents)
        if unknown := sorted(self._names.keys() - TABLES):
            raise ConfigurationError(
                f"table_names has {', '.join(unknown)}; its keys are names of our tables: {', '.join(sorted(TABLES))}."
            )

    def __call__(self, name: str, mixin: type[TableMixin], default_table: str) -> type[Any]:
        """Return our model of a mixin."""
        table = self._names.get(default_table, default_table)
        key = f"{self._schema}.{table}" if self._schema else table
        if key not in self._made:
            if key in self._metadata.tables:
                raise ConfigurationError(_taken(key, mixin, default_table))
            contents = {"__tablename__": table, "__table_args__": {"schema": self._schema}, "__module__": __name__}
            self._made[key] = type(name, (mixin, self._metadata.info[_BASE]), contents)
        return self._made[key]


def _taken(table: str, mixin: type[TableMixin], default_table: str) -> str:
    argument = {GenerationTaskMixin: "task_model", DeliveryMixin: "delivery_model"}.get(mixin)
    own = (
        f"If it is meant to be ours, mix {mixin.__name__} into its model and pass that as {argument}. "
        if argument
        else ""
    )
    return (
        f"Your metadata has a table {table} already. {own}Otherwise give ours another name: "
        f'init_app(..., table_names={{"{default_table}": "contenthub_{default_table}"}}).'
    )


def _checked_table(model: type[Any], mixin: type[TableMixin]) -> sa.Table:
    """Return the table of a host's model; nothing is configured yet, as related models may not be imported."""
    mapper = sa.inspect(model, raiseerr=False)
    table = getattr(mapper, "local_table", None)
    if mapper is None or not isinstance(table, sa.Table):
        raise ConfigurationError(f"{model!r} is not mapped to a table; make it of {mixin.__name__} and db.Model.")
    wanted = [key for key, value in vars(mixin).items() if isinstance(value, MappedColumn)]
    if lacks := [key for key in wanted if key not in mapper.columns]:
        raise ConfigurationError(f"The model {model.__name__} lacks {', '.join(lacks)}; mix in {mixin.__name__}.")
    return table


def _named_bind(bind: str | None) -> str:
    return "the default database" if bind is None else f"the bind {bind!r}"
