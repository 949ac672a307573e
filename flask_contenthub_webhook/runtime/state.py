"""What the extension knows of one application: kept in ``app.extensions``, never on the extension object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import current_app

from ..config.settings import Settings
from ..core.cooldown import Pause
from ..core.filters import Where, matches
from ..creators.protocol import Creator
from ..models.defaults import utc_now
from ..storage.sqlite_lock import Turn
from .backpressure import InboxGauge
from .observers import Observer

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy
    from sqlalchemy import Engine

    from ..contrib.celery import CeleryEngine
    from ..forwarding.post import Poster
    from ..operations.retention import PurgeMemory
    from ..storage.forwards import Outbox
    from ..storage.store import Store
    from ..web.guards import RateGuard
    from .background import Dispatcher
    from .forward_lanes import Lanes
    from .refusals import RejectionLog

__all__ = ["EXTENSION_KEY", "Clock", "Subscription", "WebhookState", "get_state"]

EXTENSION_KEY = "contenthub_webhook"

Clock = Callable[[], datetime]
Waker = Callable[[str], None]
"""Tells whoever applies events that one about this task waits; never raises."""
EventHandler = Callable[..., Any]


def _wake_nobody(task_id: str) -> None:
    """Workers look by themselves, or listen to the database; only Celery's need a message."""


class Subscription(NamedTuple):
    """A handler of one event type, and the filter that must hold for it."""

    event_type: str
    handler: EventHandler
    where: Where | None

    def wants(self, event_type: str, payload: Mapping[str, Any]) -> bool:
        """Whether the handler is to be called for this event."""
        return event_type == self.event_type and matches(payload, self.where)


@dataclass(slots=True, eq=False, kw_only=True)
class WebhookState:
    """Everything of one application.

    Args:
        app: the real application object; the sender of all signals.
        db: the host's Flask-SQLAlchemy object.
        settings: the checked configuration.
        task_model: the host's task model, or the default one.
        delivery_model: the host's delivery model, or the default one.
        store: the SQL over the two models.
        rejections: the bounded record of refused requests.
        dispatcher: the threads that hand over what was just submitted.
        outbox: the SQL over forwards and their attempts.
        forward_poster: sends one forwarded event.
        forward_lanes: which URLs may be sent to now.
        forward_dispatcher: the threads that send on what was just applied.
        creator: the service that does the jobs, or None where the host only receives.
        creator_pause: how long to leave the creator alone after it was down.
        rate: the rate guard, or None where no rate is configured.
        scheduler: the scheduler of this process, while it runs.
        scheduler_pid: the process that started it; a forked worker starts its own.
        scheduler_lock: keeps two first requests from starting two.
        inbox: how full the inbox is, where events are not applied inline.
        wake: called after an event was accepted for later.
        engine: where the tables live, once that is known not to change.
        write_turn: whose turn it is to ask SQLite for its write lock.
        stopping: set while the scheduler is being stopped; a job that takes long ends early.
        purge_memory: what this process remembers of its purges.
        celery: what wakes Celery's workers and is run by them, under WEBHOOK_PROCESSING=celery.
        subscriptions: the handlers that were registered with ``webhook.on``, shared with the extension object.
        clock: tells the time; tests move it.
        observers: are told of everything that happens, see :mod:`.observers`.
    """

    app: Flask
    db: SQLAlchemy
    settings: Settings
    task_model: type[Any]
    delivery_model: type[Any]
    store: Store
    rejections: RejectionLog
    dispatcher: Dispatcher
    outbox: Outbox
    forward_poster: Poster
    forward_lanes: Lanes
    forward_dispatcher: Dispatcher
    creator: Creator | None = None
    creator_pause: Pause = field(default_factory=Pause)
    rate: RateGuard | None = None
    scheduler: BackgroundScheduler | None = None
    scheduler_pid: int | None = None
    scheduler_lock: threading.Lock = field(default_factory=threading.Lock)
    inbox: InboxGauge = field(default_factory=InboxGauge)
    wake: Waker = _wake_nobody
    engine: Engine | None = None
    write_turn: Turn = field(default_factory=Turn)
    stopping: threading.Event = field(default_factory=threading.Event)
    purge_memory: PurgeMemory | None = None
    celery: CeleryEngine | None = None
    subscriptions: list[Subscription] = field(default_factory=list)
    clock: Clock = utc_now
    observers: list[Observer] = field(default_factory=list)

    @property
    def custom_events(self) -> tuple[str, ...]:
        """Event types beyond the built-in three: the configured ones, and those that somebody subscribed to."""
        return (*self.settings.events, *(subscription.event_type for subscription in self.subscriptions))


def get_state(app: Flask | None = None) -> WebhookState:
    """The extension's state of an application.

    Args:
        app: the application; without it the current one.

    Raises:
        RuntimeError: the extension was not registered on the application.
    """
    app = app if app is not None else current_app
    state = app.extensions.get(EXTENSION_KEY)
    if not isinstance(state, WebhookState):
        raise RuntimeError(
            f"ContentHubWebhook is not registered on the app {app.name!r}; call webhook.init_app(app, db) first."
        )
    return state
