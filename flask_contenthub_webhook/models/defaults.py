"""The default models, created once in the host's metadata.

Hosts either let :func:`default_models` create the models, or mix :class:`.GenerationTaskMixin` and
:class:`.DeliveryMixin` into their own::

    class Task(GenerationTaskMixin, db.Model):
        __tablename__ = "content_generation_tasks"
        account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))

    webhook.init_app(app, db, task_model=Task)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .alert import AlertMixin
from .delivery import DeliveryMixin
from .forward import ForwardAttemptMixin, ForwardMixin
from .task import GenerationTaskMixin

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = [
    "add_own_tables",
    "default_alert_model",
    "default_delivery_model",
    "default_forward_models",
    "default_models",
    "default_task_model",
]

DEFAULT_TASK_TABLE = "content_generation_tasks"
DEFAULT_DELIVERY_TABLE = "webhook_deliveries"
_MODELS_KEY = "contenthub_webhook_models"


def default_models(db: SQLAlchemy) -> tuple[type[Any], type[Any]]:
    """Return ``(ContentGenerationTask, WebhookDelivery)``, for a host that brings no models.

    They live in the host's metadata; every call with the same ``db`` returns the same pair.
    """
    add_own_tables(db)
    return default_task_model(db), default_delivery_model(db)


def add_own_tables(db: SQLAlchemy) -> None:
    """Put the tables that no host brings into its metadata: forwards, their tries, alerts."""
    default_forward_models(db)
    default_alert_model(db)


def default_task_model(db: SQLAlchemy) -> type[Any]:
    """Return the task model alone, for a host that brings only a delivery model."""
    return _made_once(db, "ContentGenerationTask", GenerationTaskMixin, DEFAULT_TASK_TABLE)


def default_delivery_model(db: SQLAlchemy) -> type[Any]:
    """Return the delivery model alone, for a host that brings only a task model."""
    return _made_once(db, "WebhookDelivery", DeliveryMixin, DEFAULT_DELIVERY_TABLE)


def default_forward_models(db: SQLAlchemy) -> tuple[type[Any], type[Any]]:
    """Return ``(WebhookForward, WebhookForwardAttempt)``."""
    forward = _made_once(db, "WebhookForward", ForwardMixin, "webhook_forwards")
    return forward, _made_once(db, "WebhookForwardAttempt", ForwardAttemptMixin, "webhook_forward_attempts")


def default_alert_model(db: SQLAlchemy) -> type[Any]:
    """Return the model of alerts."""
    return _made_once(db, "WebhookAlert", AlertMixin, "webhook_alerts")


def _made_once(db: SQLAlchemy, name: str, mixin: type[Any], table: str) -> type[Any]:
    known: dict[str, type[Any]] = db.metadata.info.setdefault(_MODELS_KEY, {})
    if name not in known:
        known[name] = type(name, (mixin, db.Model), {"__tablename__": table})
    return known[name]
