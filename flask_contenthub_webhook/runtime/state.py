"""The state of one application, kept in ``app.extensions``, never on the extension object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app

from ..config.settings import Settings
from ..core.cooldown import Cooldown, Cooldowns
from ..core.per_process import PerProcess
from ..core.stopping import DaemonThreads
from ..creators.named import Creators
from ..creators.protocol import Creator
from ..creators.registry import Registered, Registry
from ..models.defaults import Models
from ..storage.clock import Clock
from ..storage.forwards import Outbox
from ..storage.store import Store
from ..storage.transactions import Database
from .applied_log import AppliedLog
from .background import BackgroundThreads
from .backpressure import Backpressure
from .forward_lanes import Lanes
from .rate_limit import RateLimit
from .refusals import RefusalLog
from .subscriptions import Subscription
from .tracing import Tracing

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler

    from ..creators.guarded import GuardedCreator
    from ..creators.pause import Pause

__all__ = ["CELERY_KEY", "EXTENSION_KEY", "Clock", "Jobs", "WebhookState", "get_state"]

EXTENSION_KEY = "contenthub_webhook"
CELERY_KEY = "contenthub_webhook_celery"
"""The key of the Celery engine in ``app.extensions``, under WEBHOOK_PROCESSING=celery."""

_PREVIOUS = "before the move"
Waker = Callable[[str], None]
"""Wakes an applier of events for one task; never raises."""


def _wake_nobody(task_id: str) -> None:
    """Do nothing: workers poll or listen to the database; only Celery's need a message."""


@dataclass(slots=True, eq=False)
class Jobs:
    """The periodic jobs of one process.

    Args:
        scheduler: decides when they run; None while they are stopped.
        threads: run them.
        was_started: True once they ran in this process.
        was_doubted: True once the log says that they do not start, as it is not clear that this process serves.
        stopping: set while they are being stopped, so that a long job ends early.
        lock: keeps two first requests from starting two schedulers.
        lookout: tells the jobs whether anything is due; see :class:`.operations.lookout.Lookout`.
        purge_memory: lets the purge skip what it has looked at already.
        clock_memory: shows whether the database's clock was set back.
        recorded: the jobs of which passes were recorded.
        recorded_at: when that was last done, by the monotonic clock.
        ended: the jobs of which a pass is not recorded yet.
    """

    scheduler: BackgroundScheduler | None = None
    threads: DaemonThreads | None = None
    was_started: bool = False
    was_doubted: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    lookout: Any = None
    purge_memory: Any = None
    clock_memory: Any = None
    recorded: set[str] = field(default_factory=set)
    recorded_at: timedelta = timedelta()
    ended: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False, kw_only=True)
class WebhookState:
    """Everything of one application.

    Args:
        app: the real application object; the sender of all signals.
        creator: the services that do the jobs; None if the host only receives. Call them through :meth:`service_of`.
        previous_creator: the service before a move; its jobs are awaited, and it gets no new ones.
        subscriptions: the handlers registered with ``webhook.on``; see :class:`.Subscriptions`.
        post: sends one forwarded event to a URL.
        submit_threads: hand over tasks that were just submitted.
        forward_threads: forward events that were just applied.
        pauses: leave a creator alone after it was away, by its name and address.
        strays_told: jobs that showed life although no open task wants them, and that were cancelled a moment ago.
        early_events: jobs that reported while nobody knew them and some submission was not answered yet; after three
            times they count as those of another application.
        wake: called after an event was accepted for later.
        applied: counts the events that a worker applies, whose lines are for DEBUG then; None in any other process.
        tracing: opens spans; None unless the host traces.
    """

    app: Flask
    settings: Settings
    database: Database
    models: Models
    creator: Creator | Creators | None
    subscriptions: list[Subscription]
    post: Callable[[str, bytes, Mapping[str, str]], Any]
    rate: RateLimit | None
    refusals: RefusalLog
    backpressure: Backpressure
    submit_threads: BackgroundThreads
    forward_threads: BackgroundThreads
    forward_lanes: Lanes
    pauses: dict[tuple[str, str | None], Pause] = field(default_factory=dict)
    strays_told: Cooldowns[timedelta] = field(
        default_factory=lambda: Cooldowns(lambda: Cooldown(timedelta(minutes=1), timedelta(hours=1)))
    )
    early_events: Cooldowns[timedelta] = field(
        default_factory=lambda: Cooldowns(lambda: Cooldown(timedelta(hours=1), timedelta(hours=1), patience=4))
    )
    wake: Waker = _wake_nobody
    applied: AppliedLog | None = None
    tracing: Tracing | None = None
    previous_creator: Creator | None = None
    jobs: PerProcess[Jobs] = field(default_factory=lambda: PerProcess(Jobs))
    _registry: Registry | None = field(default=None, init=False)

    @property
    def clock(self) -> Clock:
        """The application's clock, for what people see; tests replace it, and move the database's time with it."""
        return self.store.clock.read

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self.store.clock.read = clock

    def now(self) -> datetime:
        """Return the time by which processes agree, the database's; inside a transaction use ``store.now(tx)``.

        Raises:
            SQLAlchemyError: the database had to be asked, and is down.
        """
        return self.store.clock.recent_now() or self.database.ask(self.store.now)

    def submitted_since(self, *tasks: Mapping[str, Any]) -> datetime:
        """Return a time by the application's clock, before which no job of these tasks was submitted.

        It is a little early, since the answer that is noted came after the call, and clocks are compared roughly.
        """
        at: datetime = min(task["submitting_since"] or task["submitted_at"] or task["created_at"] for task in tasks)
        return at - (self.now() - self.clock()) - timedelta(seconds=self.settings.creator_submit_wait)

    def waited(self) -> timedelta:
        """Return a time that only grows, to measure waits with inside this process."""
        return self.store.clock.waited()

    @property
    def registry(self) -> Registry:
        """The creators by name, each with the settings of its tasks."""
        known = self._registry
        if known is None or known.source is not self.creator or known.settings is not self.settings:
            known = self._registry = Registry(self.creator, self.settings)
        return known

    @property
    def service(self) -> GuardedCreator | None:
        """The only creator, or the first one; None if there is none."""
        return None if self.registry.first is None else self.guarded(self.registry.first)

    @property
    def services(self) -> Sequence[GuardedCreator]:
        """Every creator that may have jobs of this application: the current ones, and the one before a move."""
        return [*(self.guarded(entry) for entry in self.registry.entries), *self._previous]

    def service_for(self, task: Mapping[str, Any]) -> GuardedCreator | None:
        """Return the creator that a task is for; None if there is none at all, or none of that name any more."""
        entry = self.registry.of(task["creator_name"])
        return None if entry is None else self.guarded(entry)

    def services_for(self, task: Mapping[str, Any]) -> Sequence[GuardedCreator]:
        """Return every creator that may have jobs of a task: the one that it is for, and the one before a move."""
        service = self.service_for(task)
        return self._previous if service is None else [service, *self._previous]

    def service_of(self, task: Mapping[str, Any]) -> GuardedCreator | None:
        """Return the creator that has the current attempt of a task; None if there is none."""
        known = {service.address: service for service in reversed(self.services_for(task))}
        return known.get(task["creator_address"]) or self.service_for(task)

    def settings_for(self, task: Mapping[str, Any]) -> Settings:
        """Return the configuration as it holds for a task: its creator may have settings of its own."""
        registry = self.registry
        entry = registry.of(task["creator_name"])
        return registry.default_settings if entry is None else entry.settings

    def url_name_for(self, task: Mapping[str, Any]) -> str | None:
        """Return the name that the creator of a task has in its callback URL; None if it needs none there."""
        return self.registry.url_name(self.registry.of(task["creator_name"]))

    def resting(self, *, at_once: bool = False) -> Sequence[str]:
        """Return the creators that are left alone now, by the ``creator_name`` of their tasks; empty text is none.

        Args:
            at_once: ask the database, even if that was done a moment ago.
        """
        names: list[str] = []
        for entry in self.registry.entries:
            if self.guarded(entry).pause.is_on(at_once=at_once):
                names += self.registry.columns_of(entry)
        return tuple(dict.fromkeys(names))

    def are_all_in(self, resting: Sequence[str]) -> bool:
        """Tell whether every creator is among those that are left alone."""
        return bool(resting) and all((entry.column or "") in resting for entry in self.registry.entries)

    def release_turns(self) -> None:
        """Let other processes find out whether a creator is back, if this one had nothing to ask."""
        for pause in self.pauses.values():
            pause.release()

    def guarded(self, entry: Registered) -> GuardedCreator:
        """Return a creator as the extension calls it: in an application context, with its answers checked."""
        return self._guard(entry.creator, entry.name)

    @property
    def _previous(self) -> Sequence[GuardedCreator]:
        previous = self.previous_creator
        return [] if previous is None else [self._guard(previous, _PREVIOUS)]

    def _guard(self, creator: Creator, name: str) -> GuardedCreator:
        from ..creators.guarded import GuardedCreator
        from ..creators.holds import Holds
        from ..creators.pause import Pause
        from ..storage.holds import SharedHolds

        address = getattr(creator, "address", None)
        pause = self.pauses.get((name, address))
        if pause is None:
            shared = SharedHolds(self.database, self.models.alert, name if address is None else f"{name} {address}")
            pause = self.pauses.setdefault((name, address), Pause(Holds(shared.now, shared)))
        return GuardedCreator(creator, self.app, self.database.db, pause, name=name)

    def look_again(self) -> None:
        """Let a scheduler of this process see work that was just committed."""
        lookout = self.jobs.value.lookout
        if lookout is not None:
            lookout.forget()

    @property
    def store(self) -> Store:
        """Statements over tasks and deliveries."""
        return self.database.store

    @property
    def outbox(self) -> Outbox:
        """Statements over forwards and their tries."""
        return self.database.outbox

    @property
    def task_model(self) -> type[Any]:
        """The host's task model, or the default one."""
        return self.database.task_model

    @property
    def delivery_model(self) -> type[Any]:
        """The host's delivery model, or the default one."""
        return self.database.delivery_model

    @property
    def custom_events(self) -> tuple[str, ...]:
        """Event types beyond the built-in three: the configured ones, and those with a subscriber."""
        return (*self.settings.events, *(subscription.event_type for subscription in self.subscriptions))


def get_state(app: Flask | None = None) -> WebhookState:
    """Return the extension's state of an application, or of the current one.

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
