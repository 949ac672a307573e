"""The extension object: registers everything on an application, and offers the methods for hosts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask

from .config.settings import Settings, load_settings
from .core.events import EVENT_NAME, EVENT_NAME_RULE
from .core.filters import Where, parse_where
from .core.late import late
from .creators.configured import configured_creator, previous_creator
from .creators.named import Creators
from .creators.protocol import Creator
from .creators.registry import Registry
from .errors import ConfigurationError
from .models.defaults import Models, complete_models
from .runtime.background import BackgroundThreads
from .runtime.backpressure import Backpressure
from .runtime.current_app import of_current_app
from .runtime.forward_lanes import Lanes
from .runtime.rate_limit import RateLimit
from .runtime.refusals import WINDOW, RefusalLog
from .runtime.state import CELERY_KEY, EXTENSION_KEY, WebhookState, get_state
from .runtime.subscriptions import Subscription, Subscriptions
from .storage.clock import AgreedClock
from .storage.commit_guard import watch_commits
from .storage.forwards import Outbox
from .storage.store import Store
from .storage.transactions import Database
from .web.callback_tokens import callback_url, check_token
from .web.client_certificates import check_certificate_support
from .web.exemptions import exempt_from_host_checks
from .web.views import blueprint

if TYPE_CHECKING:
    import click
    from celery import Celery
    from flask_sqlalchemy import SQLAlchemy

    from .core.promises import Finding
    from .core.received import Outcome
    from .core.state_machine import Verdict
    from .engine.replay import replay
    from .engine.retry import RetryReport, retry_due_deliveries
    from .forwarding.replay import replay_forward
    from .forwarding.send import send_due_forwards
    from .operations.alerts import check_alerts, read_alerts
    from .operations.audit import audit
    from .operations.purge import purge_deliveries
    from .operations.scheduler import start_scheduler, stop_scheduler
    from .tasks.handover import submit_due
    from .tasks.reconcile import reconcile
    from .tasks.submit import cancel, retry, submit
else:
    (replay,) = late(f"{__package__}.engine.replay", "replay")
    (retry_due_deliveries,) = late(f"{__package__}.engine.retry", "retry_due_deliveries")
    (replay_forward,) = late(f"{__package__}.forwarding.replay", "replay_forward")
    (send_due_forwards,) = late(f"{__package__}.forwarding.send", "send_due_forwards")
    check_alerts, read_alerts = late(f"{__package__}.operations.alerts", "check_alerts", "read_alerts")
    (audit,) = late(f"{__package__}.operations.audit", "audit")
    (purge_deliveries,) = late(f"{__package__}.operations.purge", "purge_deliveries")
    start_scheduler, stop_scheduler = late(f"{__package__}.operations.scheduler", "start_scheduler", "stop_scheduler")
    (submit_due,) = late(f"{__package__}.tasks.handover", "submit_due")
    (reconcile,) = late(f"{__package__}.tasks.reconcile", "reconcile")
    cancel, retry, submit = late(f"{__package__}.tasks.submit", "cancel", "retry", "submit")

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
        self._subscriptions = Subscriptions()
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
        creator: Creator | Creators | None = None,
        celery: Celery | None = None,
        table_names: Mapping[str, str] | None = None,
    ) -> None:
        """Register the extension on an application. Does no I/O and starts no thread.

        Args:
            app: the application, already configured.
            db: the host's Flask-SQLAlchemy object; the models live in its metadata.
            task_model: a model with the columns of ``GenerationTaskMixin``; by default one is made.
            delivery_model: a model with the columns of ``DeliveryMixin``; by default one is made.
            creator: the service that does the jobs, or several of them as ``Creators``; by default an ``HttpCreator``
                for CREATOR_API_BASE_URL, or a ``CliCreator`` for CREATOR_CLI_PATH.
            celery: the Celery application that applies events under WEBHOOK_PROCESSING=celery; by default what is in
                ``app.extensions["celery"]`` when the first event comes.
            table_names: other names for our tables, by their usual names: ``{"webhook_alerts": "hub_alerts"}``.

        Raises:
            ConfigurationError: a configuration value, a model or ``db`` cannot be used; names it.
            RuntimeError: the extension is already registered on this application.
        """
        if EXTENSION_KEY in app.extensions:
            raise RuntimeError(
                f"A ContentHubWebhook is already registered on the app {app.name!r}; use that one instead."
            )
        _check_is_flask_sqlalchemy(db)
        settings = load_settings(app.config, debug=app.debug or app.testing)
        check_certificate_support(settings.client_certs)
        models = complete_models(db, task_model=task_model, delivery_model=delivery_model, table_names=table_names)
        _check_bind(app, models.task)
        database = _make_database(app, db, settings, models, Registry(creator, settings))
        state = _make_state(app, settings, database, creator, self._subscriptions.register(app), models=models)
        app.extensions[EXTENSION_KEY] = state
        watch_commits(db)
        if settings.processing == "celery":
            _use_celery(state, celery)
        if settings.scheduler_enabled:
            from .operations.in_process import start_scheduler_with_first_request

            start_scheduler_with_first_request(app)
        _import_what_is_used(state)
        app.register_blueprint(blueprint, url_prefix=settings.url_prefix)
        exempt_from_host_checks(app, blueprint)
        app.cli.add_command(_commands())

    # --- of the current application --------------------------------------------------------------------------

    @property
    def task_model(self) -> type[Any]:
        """The task model of the current application."""
        return get_state().task_model

    @property
    def delivery_model(self) -> type[Any]:
        """The delivery model of the current application."""
        return get_state().delivery_model

    @property
    def settings(self) -> Settings:
        """The checked configuration of the current application."""
        return get_state().settings

    def on(self, event_type: str, *, where: Where | None = None) -> Callable[[F], F]:
        """Subscribe a function to an event type, a custom one usually; subscribing makes the type known.

        The function is called inside the transaction, as ``function(app, task=..., event=..., delivery=...,
        **extra)``, under the rules of ``flask_contenthub_webhook.signals``. At module level this subscribes it for
        all applications, in an application factory for the application that is being made.

        Args:
            event_type: for example ``illustrated``.
            where: a filter over the payload; without it every event of the type matches.

        Raises:
            ValueError: the event type or the filter is not valid.
        """
        if not re.fullmatch(EVENT_NAME, event_type):
            raise ValueError(f"{event_type!r} is not a valid event type; {EVENT_NAME_RULE}.")
        parsed = parse_where(where)

        def subscribe(function: F) -> F:
            self._subscriptions.add(Subscription(event_type, function, parsed), _caller())
            return function

        return subscribe

    def callback_url(
        self, task_id: str, attempt: int | None = 1, *, base_url: str | None = None, creator: str | None = None
    ) -> str:
        """Return the URL under which the creator reports on a task.

        Args:
            task_id: our id of the task.
            attempt: the attempt, from 1; None for whichever is current when the sender uses the URL.
            base_url: replaces WEBHOOK_CALLBACK_BASE_URL.
            creator: the name of the task's creator, if there are several; by default the first one.

        Raises:
            ConfigurationError: there is no base URL.
            ValueError: there is no such creator.
        """
        return callback_url(get_state(), task_id, attempt, base_url=base_url, creator=creator)

    check_token = of_current_app(check_token)

    # --- tasks -----------------------------------------------------------------------------------------------

    submit = of_current_app(submit)
    retry = of_current_app(retry)
    cancel = of_current_app(cancel)
    submit_due = of_current_app(submit_due)
    reconcile = of_current_app(reconcile)

    # --- forwarding ------------------------------------------------------------------------------------------

    send_due_forwards = of_current_app(send_due_forwards)
    replay_forward = of_current_app(replay_forward)

    # --- background ------------------------------------------------------------------------------------------

    def start_scheduler(self, app: Flask) -> None:
        """Run the periodic jobs in threads of this process."""
        start_scheduler(app)

    def stop_scheduler(self, app: Flask, *, wait: bool = True) -> None:
        """Stop the periodic jobs; with ``wait``, after the running ones have ended."""
        stop_scheduler(app, wait=wait)

    def purge(self, *, before: datetime | None = None, verdicts: Collection[Verdict | str] = ()) -> int:
        """Delete old history, in small batches, and return the number of deliveries that were deleted.

        Args:
            before: delete what was received earlier; the default follows from WEBHOOK_HISTORY_RETENTION_DAYS and
                WEBHOOK_HISTORY_RETENTION_BY_VERDICT.
            verdicts: delete only deliveries with these verdicts; any by default.
        """
        return purge_deliveries(get_state(), before=before, verdicts=verdicts)

    def audit(self, *, whole_history: bool = False) -> Iterator[Finding]:
        """Yield a finding for each promise that a row breaks; reads page by page, locks and writes nothing.

        Args:
            whole_history: nothing was ever purged, and the extension made every task. By default a task is expected to
                have its history only if that was certainly not purged.
        """
        return audit(get_state(), whole_history=whole_history)

    check_alerts = of_current_app(check_alerts)
    alerts = of_current_app(read_alerts)

    # --- deliveries ------------------------------------------------------------------------------------------

    def replay(self, delivery_id: int, *, by: str | None = None) -> Outcome:
        """Apply the event of a delivery again, as a new delivery with the source ``replay``.

        A failed or dead delivery becomes ``replayed``, and is not tried again. Call this outside a transaction: the
        event is applied in a separate one.

        Args:
            delivery_id: the history row.
            by: who asks for it; the history shows it.

        Raises:
            DeliveryNotFound: there is no such row.
            ReplayRefused: the row was refused without authentication, or holds no valid event.
            CreatorError: the creator that translates its body cannot do so now.
            HandlerFailed: a handler raised again; the new row is tried again later.
            DatabaseUnavailable: nothing was written.
        """
        return replay(get_state(), delivery_id, by=by)

    def retry_due_deliveries(self, *, limit: int = 100) -> RetryReport:
        """Apply the due deliveries in the inbox, new and failed ones; any number of processes may do so at once.

        Args:
            limit: the greatest number of deliveries.
        """
        return retry_due_deliveries(get_state(), limit=limit)


def _caller() -> FrameType | None:
    """Return the frame that called the function that calls this one."""
    frame = inspect.currentframe()
    return frame.f_back.f_back if frame is not None and frame.f_back is not None else None


def _check_is_flask_sqlalchemy(db: object) -> None:
    if not all(hasattr(db, name) for name in ("Model", "metadata")):
        raise ConfigurationError(
            f"init_app needs the SQLAlchemy object of Flask-SQLAlchemy 3.1 or newer; a {type(db).__module__}."
            f"{type(db).__qualname__} lacks what the models need. Flask-SQLAlchemy-Lite is not supported: replace its "
            "object by flask_sqlalchemy.SQLAlchemy(model_class=Base), with the declarative base that you have."
        )


def _check_bind(app: Flask, task_model: type[Any]) -> None:
    """Refuse a bind that the configuration lacks, if Flask-SQLAlchemy has read that already."""
    bind = task_model.__table__.metadata.info.get("bind_key")
    if bind is not None and "sqlalchemy" in app.extensions and bind not in (app.config.get("SQLALCHEMY_BINDS") or {}):
        raise ConfigurationError(f"Our tables are in the bind {bind!r}, which SQLALCHEMY_BINDS does not have.")


def _make_database(app: Flask, db: SQLAlchemy, settings: Settings, models: Models, creators: Registry) -> Database:
    """Build the database object: the statements over the models, and their transactions."""
    clock, usual = AgreedClock(), creators.default_settings.poll_intervals
    own = {entry.column: entry.settings.poll_intervals for entry in creators.entries if entry.column is not None}
    store = Store(
        models.task,
        models.delivery,
        lock_timeout=settings.timeout,
        poll_intervals=usual,
        own_intervals={name: times for name, times in own.items() if times != usual},
        clock=clock,
    )
    return Database(app, db, store, Outbox(models.task, models.forward, models.forward_attempt, clock=clock))


def _make_state(
    app: Flask,
    settings: Settings,
    database: Database,
    creator: Creator | Creators | None,
    subscriptions: list[Subscription],
    *,
    models: Models,
) -> WebhookState:
    """Assemble the state of an application, without starting a thread or opening a connection."""
    return WebhookState(
        app=app,
        settings=settings,
        database=database,
        models=models,
        creator=creator if creator is not None else configured_creator(settings, lambda: get_state(app).clock()),
        previous_creator=None if creator is not None else previous_creator(settings, lambda: get_state(app).clock()),
        subscriptions=subscriptions,
        post=_poster(settings),
        rate=RateLimit(app, settings.rate_limit) if settings.rate_limit else None,
        refusals=RefusalLog(database, window=min(WINDOW, settings.alert_window)),
        backpressure=Backpressure(database, settings.inbox_limit),
        submit_threads=BackgroundThreads(settings.submit_threads),
        forward_threads=BackgroundThreads(settings.forward_concurrency if settings.submit_threads else 0),
        forward_lanes=Lanes(settings.forward_concurrency),
    )


def _poster(settings: Settings) -> Callable[[str, bytes, Mapping[str, str]], Any]:
    """Return a function that posts to URLs; its HTTP client is imported by the first call, if not before."""

    def post(url: str, body: bytes, headers: Mapping[str, str]) -> Any:
        from .forwarding.post import Poster

        if not posters:
            posters.append(Poster(timeout=settings.forward_timeout, allowed=settings.forward_allowed_networks))
        return posters[0].post(url, body, headers)

    posters: list[Any] = []
    return post


def _import_what_is_used(state: WebhookState) -> None:
    """Import now what the configuration says will be used, so that no request and no forked child has to."""
    modules: list[str] = []
    if state.creator is not None:
        modules += (".creators.guarded", ".creators.pause", ".storage.holds", ".tasks.submit")
    if state.registry.has_readers:
        modules.append(".web.own_words")
    if state.settings.forward_to:
        modules += (".forwarding.post", ".forwarding.send")
    for module in modules:
        import_module(module, __package__)


def _use_celery(state: WebhookState, celery_app: Celery | None) -> None:
    try:
        from .contrib.celery import CeleryEngine
    except ImportError as error:
        raise ConfigurationError(f"WEBHOOK_PROCESSING is celery, but: {error}") from error
    engine = CeleryEngine(state, celery_app)
    state.app.extensions[CELERY_KEY] = engine
    state.wake = engine.wake


def _commands() -> click.Group:
    from .cli import webhook_group

    return webhook_group
