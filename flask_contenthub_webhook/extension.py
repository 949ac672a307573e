"""The extension object: registers everything on an application, and is the host's way to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask

from .callback_urls import build_callback_url
from .client_certificates import check_certificate_support
from .config import load_settings
from .csrf import exempt_from_csrf
from .database import watch_commits
from .errors import ConfigurationError
from .guards import RateGuard
from .lifecycle import Applied
from .matching import Where
from .models import default_delivery_model, default_task_model
from .processing import RetryReport, replay, retry_due_deliveries
from .rejections import RejectionLog
from .state import EXTENSION_KEY, Subscription, WebhookState, get_state
from .store import Store
from .views import blueprint

if TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["ContentHubWebhook"]

F = TypeVar("F", bound=Callable[..., Any])


class ContentHubWebhook:
    """Receives callbacks for a Flask application.

    One object can serve many applications; what belongs to one application is kept in
    ``app.extensions["contenthub_webhook"]``.

    Args:
        app: register on this application at once; needs ``db``.
        db: the host's Flask-SQLAlchemy object.
        **options: see :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None, db: SQLAlchemy | None = None, **options: Any) -> None:
        self._subscriptions: list[Subscription] = []
        if app is not None:
            if db is None:
                raise ConfigurationError("ContentHubWebhook(app) needs the Flask-SQLAlchemy object: (app, db).")
            self.init_app(app, db, **options)

    def init_app(
        self,
        app: Flask,
        db: SQLAlchemy,
        *,
        task_model: type[Any] | None = None,
        delivery_model: type[Any] | None = None,
    ) -> None:
        """Register the extension on an application. Does no I/O and starts no thread.

        Args:
            app: the application, already configured.
            db: the host's Flask-SQLAlchemy object; the models live in its metadata.
            task_model: a model with the columns of ``GenerationTaskMixin``; by default one is made.
            delivery_model: a model with the columns of ``DeliveryMixin``; by default one is made.

        Raises:
            ConfigurationError: a configuration value cannot be used; names the key.
            RuntimeError: the extension is already registered on this application.
        """
        if EXTENSION_KEY in app.extensions:
            raise RuntimeError(
                f"A ContentHubWebhook is already registered on the app {app.name!r}; use that one instead."
            )
        settings = load_settings(app.config, debug=app.debug or app.testing)
        check_certificate_support(settings.client_certs)
        task_model = task_model if task_model is not None else default_task_model(db)
        delivery_model = delivery_model if delivery_model is not None else default_delivery_model(db)
        app.extensions[EXTENSION_KEY] = WebhookState(
            app=app,
            db=db,
            settings=settings,
            task_model=task_model,
            delivery_model=delivery_model,
            store=Store(task_model, delivery_model, lock_timeout=settings.timeout),
            rejections=RejectionLog(),
            rate=RateGuard(app, settings.rate_limit) if settings.rate_limit else None,
            subscriptions=self._subscriptions,
        )
        watch_commits(db)
        app.register_blueprint(blueprint, url_prefix=settings.url_prefix)
        exempt_from_csrf(app, blueprint)

    # --- of the current application --------------------------------------------------------------------------

    @property
    def task_model(self) -> type[Any]:
        """The task model of the current application."""
        return get_state().task_model

    @property
    def delivery_model(self) -> type[Any]:
        """The delivery model of the current application."""
        return get_state().delivery_model

    def on(self, event_type: str, *, where: Where | None = None) -> Callable[[F], F]:
        """Subscribe a function to an event type, a custom one usually; subscribing makes the type known.

        The function is called inside the transaction, as ``function(app, task=..., event=..., delivery=...,
        **extra)``, under the rule of :mod:`.signals`, and is held for good.

        Args:
            event_type: for example ``illustrated``.
            where: a filter over the payload, see :mod:`.matching`; without it every event of the type matches.
        """

        def subscribe(function: F) -> F:
            self._subscriptions.append(Subscription(event_type, function, where))
            return function

        return subscribe

    def callback_url(self, task_id: str, attempt: int | None = 1, *, base_url: str | None = None) -> str:
        """The URL under which the creator reports on a task; see :func:`.callback_urls.build_callback_url`."""
        return build_callback_url(get_state().settings, task_id, attempt, base_url=base_url)

    def replay(self, delivery_id: int) -> Applied:
        """Apply the event of a delivery again; see :func:`.processing.replay`.

        Call it outside a transaction: the event is applied in one of its own.
        """
        return replay(get_state(), delivery_id)

    def retry_due_deliveries(self, *, limit: int = 100) -> RetryReport:
        """Try again what handlers failed at and what is due; see :func:`.processing.retry_due_deliveries`."""
        return retry_due_deliveries(get_state(), limit=limit)
