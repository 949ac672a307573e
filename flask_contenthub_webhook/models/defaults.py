"""The two tables: tasks and deliveries.

Hosts either let :func:`default_models` make the models in their own metadata, or mix :class:`GenerationTaskMixin` and
:class:`DeliveryMixin` into models of their own::

    class Task(GenerationTaskMixin, db.Model):
        __tablename__ = "content_generation_tasks"
        account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))

    webhook.init_app(app, db, task_model=Task)

``task.status`` and the columns beside it belong to the extension: only :mod:`..engine.apply` writes them.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from ..core.state_machine import OPEN_STATES, TERMINAL_STATES, UNSETTLED, TaskState

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["DeliveryMixin", "GenerationTaskMixin", "UTCDateTime", "default_models"]

DEFAULT_TASK_TABLE = "content_generation_tasks"
DEFAULT_DELIVERY_TABLE = "webhook_deliveries"
_FIRST_POLL = timedelta(seconds=120)
MODELS_KEY = "contenthub_webhook_models"

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite only counts up an INTEGER primary key."""
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
Json = sa.JSON(none_as_null=True)
Blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
"""MySQL's plain BLOB ends at 64 KiB."""


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


class UTCDateTime(sa.types.TypeDecorator[datetime]):
    """A point in time that is aware and in UTC on every database, SQLite and MySQL included.

    Alembic writes a type of SQLAlchemy's as ``sa.`` and its repr, and any other as a module that nobody imports. Under
    SQLAlchemy's name a host's generated migration holds a plain ``sa.DateTime(timezone=True)``, and needs no import of
    ours.
    """

    __module__ = "sqlalchemy.types"

    impl = sa.DateTime
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(timezone=True)

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """MySQL keeps whole seconds unless it is told otherwise."""
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To UTC; refuses a naive time, which could mean anything."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; use an aware time such as datetime.now(UTC).")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """To an aware time, also where the database knows no time zones."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def __repr__(self) -> str:
        return "DateTime(timezone=True)"


class GenerationTaskMixin:
    """One job that the host handed to the creator.

    The host fills in what the job is (``topic`` and so on); the rest is the extension's.
    """

    __allow_unmapped__ = False

    id: Mapped[int] = mapped_column(BigId, sort_order=-10)
    task_id: Mapped[str] = mapped_column(sa.String(36), default=lambda: str(uuid.uuid4()), sort_order=-9)
    """Our name of the task, a UUID4; it stands in the callback URL."""
    creator_task_id: Mapped[str | None] = mapped_column(sa.String(255))
    """The creator's name of the current attempt."""
    earlier_creator_task_ids: Mapped[list[str]] = mapped_column(Json, default=list)
    """The creator's names of the attempts before."""

    topic: Mapped[str | None] = mapped_column(sa.String(500))
    requirements: Mapped[str | None] = mapped_column(sa.Text)
    target_audience: Mapped[str | None] = mapped_column(sa.String(500))
    keywords: Mapped[list[str] | None] = mapped_column(Json)
    tone: Mapped[str | None] = mapped_column(sa.String(100))
    priority: Mapped[int] = mapped_column(sa.SmallInteger, default=2)
    """1 (low) to 4 (urgent)."""
    auto_approve: Mapped[bool] = mapped_column(sa.Boolean(create_constraint=False), default=False)

    previous_status: Mapped[str | None] = mapped_column(sa.String(16))
    """The state before the last change; it stands before ``status`` because MySQL assigns from left to right."""
    status: Mapped[str] = mapped_column(sa.String(16), default=TaskState.PENDING.value)
    attempt: Mapped[int] = mapped_column(sa.Integer, default=1)
    """The current submission to the creator, from 1."""
    max_retries: Mapped[int | None] = mapped_column(sa.Integer)
    """Attempts after the first; None takes WEBHOOK_MAX_RETRIES."""
    timeout_seconds: Mapped[int | None] = mapped_column(sa.Integer)
    """How long one attempt may take; None takes WEBHOOK_TASK_TIMEOUT."""
    version: Mapped[int] = mapped_column(sa.Integer, default=1)
    """Counts the changes of this row; every compare-and-set compares it."""

    callback_url: Mapped[str | None] = mapped_column(sa.String(2048))
    callback_events: Mapped[list[str] | None] = mapped_column(Json)
    creator_options: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """What else the creator is told, by its own names."""
    forward_to: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    """Further URLs for this task's events, beside WEBHOOK_FORWARD_URLS; see :mod:`..forwarding`."""

    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error_code: Mapped[str | None] = mapped_column(sa.String(64))
    error_message: Mapped[str | None] = mapped_column(LongText)
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)
    progress_percentage: Mapped[float | None] = mapped_column(sa.Double)
    progress_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    next_submit_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """When a pending task is due for (re)submission."""
    submitting_since: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """Set while somebody hands the task to the creator; still set after a crash, so that nobody does it twice."""
    submit_tries: Mapped[int] = mapped_column(sa.Integer, default=0)
    """How often the creator could not be reached with this attempt."""
    submitted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """When the creator accepted the current attempt."""
    next_poll_at: Mapped[datetime | None] = mapped_column(UTCDateTime, default=lambda: utc_now() + _FIRST_POLL)
    """When an open task is due for a question to the creator; never null while the task is open."""
    polls: Mapped[int] = mapped_column(sa.Integer, default=0)
    """Questions to the creator since the last sign of life."""
    times_missing: Mapped[int] = mapped_column(sa.Integer, default=0)
    """How often in a row the creator did not know the task."""
    deadline_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """When the task reached its terminal state."""

    @declared_attr.directive
    def __table_args__(cls) -> tuple[sa.schema.SchemaItem, ...]:  # noqa: N805
        table = cls.__tablename__  # type: ignore[attr-defined]
        return (
            sa.PrimaryKeyConstraint("id", name=named("pk", table)),
            sa.UniqueConstraint("task_id", name=named("uq", table, "task_id")),
            sa.CheckConstraint(
                f"status IN ({_quoted(*OPEN_STATES, *TERMINAL_STATES)})", name=named("ck", table, "status")
            ),
            sa.CheckConstraint(
                f"status IN ({_quoted(*TERMINAL_STATES)}) OR next_poll_at IS NOT NULL",
                name=named("ck", table, "open_is_polled"),
            ),
            sa.Index(named("ix", table, "creator_task_id"), "creator_task_id"),
            waiting_index(table, "next_submit_at"),
            waiting_index(table, "next_poll_at"),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id} {self.status}>"


class DeliveryMixin:
    """One event that reached us, whatever brought it, and what became of it; or a batch of refused requests."""

    __allow_unmapped__ = False

    id: Mapped[int] = mapped_column(BigId, sort_order=-10)
    task_id: Mapped[str | None] = mapped_column(sa.String(255), sort_order=-9)
    """``task_id`` of the task; no foreign key, since the history outlives tasks."""
    event: Mapped[str | None] = mapped_column(sa.String(64))
    attempt: Mapped[int | None] = mapped_column(sa.Integer)
    """The attempt that the event spoke for, or None where it did not say."""
    source: Mapped[str] = mapped_column(sa.String(16))
    """``webhook``, ``poll``, ``response``, ``replay`` or ``host``."""
    scheme: Mapped[str | None] = mapped_column(sa.String(16))
    """The signature scheme that vouched for it, or None for an unsigned one."""
    message_id: Mapped[str | None] = mapped_column(sa.String(255))
    """The ``webhook-id`` of a Standard Webhooks sender."""

    verdict: Mapped[str] = mapped_column(sa.String(16))
    reason: Mapped[str | None] = mapped_column(sa.Text)
    """Why the verdict is what it is."""
    error: Mapped[str | None] = mapped_column(LongText)
    """What a handler raised, or the code of a refusal."""
    status_before: Mapped[str | None] = mapped_column(sa.String(16))
    status_after: Mapped[str | None] = mapped_column(sa.String(16))
    late: Mapped[bool] = mapped_column(sa.Boolean(create_constraint=False), default=False)
    tries: Mapped[int] = mapped_column(sa.Integer, default=1)
    """How often the event was given to the handlers."""
    next_retry_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """When the event is due for its next try; null once it is settled, or parked."""
    claimed_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """Until when a worker has the event in hand; a worker that dies loses it then."""
    occurrences: Mapped[int] = mapped_column(sa.Integer, default=1)
    """How many refused requests this row stands for."""
    replay_of: Mapped[int | None] = mapped_column(BigId)

    occurred_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """When the sender says that it built the event."""
    received_at: Mapped[datetime] = mapped_column(UTCDateTime, default=utc_now)
    processed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    latency_ms: Mapped[float | None] = mapped_column(sa.Double)
    """Milliseconds from acceptance to the change of state (the handlers' own time is not in it)."""

    remote_addr: Mapped[str | None] = mapped_column(sa.String(64))
    headers: Mapped[dict[str, str] | None] = mapped_column(Json)
    """Request headers, secrets redacted."""
    body: Mapped[bytes | None] = mapped_column(Blob)
    """The raw body; of an unbelieved request only its beginning."""
    body_digest: Mapped[str | None] = mapped_column(sa.String(64))
    """SHA-256 of the raw body, in hex."""

    @declared_attr.directive
    def __table_args__(cls) -> tuple[sa.schema.SchemaItem, ...]:  # noqa: N805
        table = cls.__tablename__  # type: ignore[attr-defined]
        return (
            sa.PrimaryKeyConstraint("id", name=named("pk", table)),
            sa.Index(named("ix", table, "task_id"), "task_id", "id"),
            waiting_index(table, "next_retry_at"),
            _queue_index(table),
            unsettled_index(table, cls.verdict.column.name or "verdict"),  # type: ignore[attr-defined]
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.event} {self.verdict}>"


def default_models(db: SQLAlchemy) -> tuple[type[Any], type[Any]]:
    """The task model and the delivery model for a host that brings none, made once in its own metadata.

    Args:
        db: the host's Flask-SQLAlchemy object.

    Returns:
        ``(ContentGenerationTask, WebhookDelivery)``; the same pair on every call with the same ``db``.
    """
    known: dict[str, type[Any]] = db.metadata.info.setdefault(MODELS_KEY, {})
    add_own_tables(db)
    return default_task_model(db, known), default_delivery_model(db, known)


def add_own_tables(db: SQLAlchemy) -> None:
    """Put the tables that no host brings into its metadata: forwards, their attempts, alerts."""
    from .alert import default_alert_model
    from .forward import default_forward_models

    default_forward_models(db)
    default_alert_model(db)


def default_task_model(db: SQLAlchemy, known: dict[str, type[Any]] | None = None) -> type[Any]:
    """The task model alone, for a host that brings only a delivery model."""
    known = db.metadata.info.setdefault(MODELS_KEY, {}) if known is None else known
    if "task" not in known:
        known["task"] = type(
            "ContentGenerationTask", (GenerationTaskMixin, db.Model), {"__tablename__": DEFAULT_TASK_TABLE}
        )
    return known["task"]


def default_delivery_model(db: SQLAlchemy, known: dict[str, type[Any]] | None = None) -> type[Any]:
    """The delivery model alone, for a host that brings only a task model."""
    known = db.metadata.info.setdefault(MODELS_KEY, {}) if known is None else known
    if "delivery" not in known:
        known["delivery"] = type(
            "WebhookDelivery", (DeliveryMixin, db.Model), {"__tablename__": DEFAULT_DELIVERY_TABLE}
        )
    return known["delivery"]


def named(kind: str, table: str, column: str = "") -> str:
    """A constraint name that stays what it is under whatever naming convention the host's metadata has."""
    return sa.schema.conv("_".join(part for part in (kind, table, column) if part))


def waiting_index(table: str, column: str) -> sa.Index:
    """An index of the rows that wait for a time; settled rows, nearly all of them, are not in it."""
    waiting = sa.text(f"{column} IS NOT NULL")
    return sa.Index(named("ix", table, column), column, postgresql_where=waiting, sqlite_where=waiting)


def _queue_index(table: str) -> sa.Index:
    """The queue of each task: which of its deliveries is the first that waits."""
    waiting = sa.text("next_retry_at IS NOT NULL")
    return sa.Index(named("ix", table, "waiting"), "task_id", "id", postgresql_where=waiting, sqlite_where=waiting)


def unsettled_index(table: str, verdict: str) -> sa.Index:
    """An index of the deliveries that have had no effect yet; people look for these few among all the others.

    Args:
        table: its name.
        verdict: the name of the column, which a host may have mapped to another attribute name.
    """
    unsettled = sa.text(f"{verdict} IN ({_quoted(*UNSETTLED)})")
    return sa.Index(named("ix", table, "unsettled"), verdict, "id", postgresql_where=unsettled, sqlite_where=unsettled)


def _quoted(*values: StrEnum) -> str:
    return ", ".join(f"'{value.value}'" for value in values)
