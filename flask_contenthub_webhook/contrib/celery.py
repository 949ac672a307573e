"""Celery as the engine (WEBHOOK_PROCESSING=celery, extra ``celery``), on the Celery application of the host.

The inbox row is the source of truth; the message is only a wake-up. It names a task, and the worker that receives it
applies that task's waiting events. A lost, duplicated or late message costs time but never an event, because the
scheduler's job ``retry-deliveries`` applies everything older than WEBHOOK_CELERY_GRACE.

Several Flask applications may share one Celery application. The message then says which of them the event came to, by
its number in the order of registration; if nothing waits there, as in a worker that registers others, all are asked.

Requests do not wait for the broker. A separate thread sends the wake-ups over a separate connection with short
timeouts, since Celery's own connection waits for an unresponsive broker until the system's socket timeout.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("celery") is None:
    raise ImportError(
        "flask_contenthub_webhook.contrib.celery needs Celery: pip install 'flask-contenthub-webhook[celery]'."
    )

import contextlib
import os
import select
import threading
import time
from concurrent.futures import wait
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery, signals

from ..core.cooldown import Cooldown
from ..core.logs import get_logger
from ..core.per_process import PerProcess
from ..core.stopping import DaemonThreads
from ..engine.retry import RetryReport, work_off
from ..runtime.background import BackgroundThreads
from ..storage.failure_log import log_unexpected

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["TASK_NAME", "CeleryEngine"]

logger = get_logger(__name__)

TASK_NAME = "flask_contenthub_webhook.process"
"""Name of the Celery task, for the host's ``task_routes``; its first argument is a task id."""

_WakeUp = tuple[str, int]
"""The arguments of a message: a task id, and the number of the Flask application on its Celery application."""
_TIMEOUT = 0.2
"""Seconds to wait for the broker in each step of sending a wake-up."""
_GRACE = 4.0
"""Seconds for which a worker that is to end waits for what it applies; Celery itself needs about three more."""
_LOOK_EVERY = 0.5
"""Seconds between two looks whether the worker is to end, while events are applied."""
_PAUSE = timedelta(seconds=5)
"""Time without wake-ups after the broker failed; an outage costs each process one timeout per pause."""
_KEY = "contenthub_webhook_engines"
"""The attribute of a Celery application that keeps the engines of its Flask applications, where nobody else does."""
_without_celery: list[CeleryEngine] = []
"""Engines whose Flask application has no Celery application yet."""

_MOST_WAITING = 10_000
"""Limit of wake-ups waiting to be sent in one process; further ones are left to the scheduler."""


class CeleryEngine:
    """Wakes Celery's workers, and applies events in them.

    Args:
        state: the application's state.
        celery_app: the host's Celery application; by default ``app.extensions["celery"]``, looked up when it is needed.
    """

    def __init__(self, state: WebhookState, celery_app: Celery | None = None) -> None:
        self._state = state
        self._celery_app = celery_app
        self._missing_was_logged = False
        self._sender = PerProcess(_Sender)
        _without_celery.append(self)
        _engines_of(self.celery_app)
        # Signals hold bound methods weakly, so an application can be garbage-collected.
        signals.import_modules.connect(self._register)

    @property
    def celery_app(self) -> Celery | None:
        """The host's Celery application, or None if there is none yet."""
        known = self._celery_app if self._celery_app is not None else self._state.app.extensions.get("celery")
        return known if isinstance(known, Celery) else None

    def wake(self, task_id: str) -> None:
        """Tell Celery's workers that an event of this task waits; return at once, and never raise.

        Under ``task_always_eager``, which hosts set in their tests, the event is applied before this returns.
        """
        celery_app = self.celery_app
        if celery_app is None:
            self._warn_no_celery_app()
        elif celery_app.conf.task_always_eager:
            self._apply_eagerly(task_id)
        else:
            engines = _engines_of(celery_app)
            self._sender.value.send(celery_app, (task_id, engines.index(self) if self in engines else len(engines)))

    def apply(self, task_id: str) -> bool:
        """Apply all waiting events of a task; return False if there was none.

        It looks again after the last one: a worker woken by a later event has left it to this one.
        """
        report = RetryReport()
        with self._state.app.app_context():
            while not report.interrupted:
                before = report.claimed
                work_off(self._state, report, limit=before + 1, task_id=task_id)
                if report.claimed == before:
                    break
        return report.claimed > 0

    def close(self) -> None:
        """Close the connection for wake-ups; the next wake-up opens another."""
        self._sender.value.close()

    def try_broker(self, timeout: float) -> None:
        """Connect to the broker, for the doctor.

        Raises:
            Exception: it cannot be reached; each transport has its own errors.
        """
        with _connect(self.celery_app, timeout).connection as connection:
            connection.default_channel  # noqa: B018 - opens the connection

    def workers(self, timeout: float) -> dict[str, bool]:
        """Return the Celery workers that answer within ``timeout`` seconds, and whether each knows our task."""
        if self.celery_app is None:
            return {}
        registered = self.celery_app.control.inspect(timeout=timeout).registered() or {}
        return {name: TASK_NAME in tasks for name, tasks in registered.items()}

    def apply_in_time(self, task_id: str) -> bool:
        """Apply a task's events in another thread, which is abandoned if the worker is to end and it does not return.

        What it had claimed is applied by the scheduler once the lease ends.
        """
        applying = DaemonThreads(1, "contenthub-celery").submit(self.apply, task_id)
        while not applying.done() and not _Shutdown.has_begun():
            wait([applying], timeout=_LOOK_EVERY)
        if not wait([applying], timeout=_GRACE).done:
            logger.warning("An event is left to the scheduler: this worker ends.", extra={"task_id": task_id})
            return True
        return applying.result()

    def _register(self, sender: Celery, **_: Any) -> None:
        """Register our task when a Celery program loads the tasks of its application."""
        celery_app = self.celery_app
        if celery_app is None or sender is not celery_app or TASK_NAME in celery_app.tasks:
            return
        celery_app.task(
            name=TASK_NAME,
            acks_late=True,
            reject_on_worker_lost=True,  # its successor is faster than the scheduler
            ignore_result=True,
            shared=False,  # not shared with other Celery applications of the process
        )(_task_of(celery_app))

    def _apply_eagerly(self, task_id: str) -> None:
        try:
            self.apply(task_id)
        except Exception as error:  # noqa: BLE001 - the request has its answer
            message = "An event was not applied eagerly; the scheduler will apply it."
            log_unexpected(self._state.database, logger, message, error, extra={"task_id": task_id})

    def _warn_no_celery_app(self) -> None:
        if self._missing_was_logged:
            return
        self._missing_was_logged = True
        logger.error(
            "WEBHOOK_PROCESSING is celery, but there is no Celery application: events are applied only by "
            "`flask webhook scheduler`, %g s late. Pass celery= to init_app, or set app.extensions['celery'].",
            self._state.settings.celery_grace.total_seconds(),
        )


def _engines_of(celery_app: Celery | None) -> list[CeleryEngine]:
    """Return the engines of a Celery application, in the order of their registration."""
    if celery_app is None:
        return []
    engines: list[CeleryEngine] = vars(celery_app).setdefault(_KEY, [])
    for engine in [engine for engine in _without_celery if engine.celery_app is celery_app]:
        _without_celery.remove(engine)
        engines.append(engine)
    return engines


class _Shutdown:
    """The end of a Celery worker, as its children learn of it: there is something to read, and nobody reads it.

    Celery tells only the parent of a prefork pool. ``pipe`` is made before the children are forked.
    """

    pipe: ClassVar[tuple[int, int] | None] = None

    @classmethod
    def prepare(cls, **_: Any) -> None:
        if cls.pipe is None:
            cls.pipe = os.pipe()

    @classmethod
    def begin(cls, **_: Any) -> None:
        if cls.pipe is not None and not cls.has_begun():
            os.write(cls.pipe[1], b"!")

    @classmethod
    def has_begun(cls) -> bool:
        return cls.pipe is not None and bool(select.select([cls.pipe[0]], [], [], 0)[0])


signals.worker_init.connect(_Shutdown.prepare)
signals.worker_shutting_down.connect(_Shutdown.begin)


def _task_of(celery_app: Celery) -> Any:
    """Return the body of the Celery task, the same for all Flask applications; Celery sets attributes on it."""

    def process(task_id: str, number: int = 0) -> None:
        engines = _engines_of(celery_app)
        meant, others = engines[number : number + 1], engines[:number] + engines[number + 1 :]
        any(engine.apply_in_time(task_id) for engine in meant + others)

    return process


class _Sender:
    """Sends wake-ups of one process in one thread; tasks that wait already are not added twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = BackgroundThreads(1)
        self._waiting: dict[_WakeUp, None] = {}
        self._is_sending = False
        self._cooldown = Cooldown[timedelta](_PAUSE, _PAUSE, jitter=False)
        self._producer: Any = None

    def send(self, celery_app: Celery, wake_up: _WakeUp) -> None:
        if self._cooldown.is_on(_monotonic()):
            return
        with self._lock:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[wake_up] = None
            begins, self._is_sending = not self._is_sending, True
        if begins and not self._threads.submit_or_run(self._send_all, celery_app):
            self._is_sending = False  # the next wake-up takes those that wait with it

    def close(self) -> None:
        """Close the connection, in the thread that uses it."""
        self._threads.submit_or_run(self._close)

    def _send_all(self, celery_app: Celery) -> None:
        while True:
            with self._lock:
                wake_ups, self._waiting = self._waiting, {}
                self._is_sending = bool(wake_ups)
            if not wake_ups:
                return
            try:
                for wake_up in wake_ups:
                    self._send_one(celery_app, wake_up)
            except Exception as error:  # noqa: BLE001 - each transport has its own errors
                self._pause(error)

    def _pause(self, error: Exception) -> None:
        self._cooldown.failed(_monotonic())
        with self._lock:
            self._waiting.clear()
        logger.warning(
            "The broker accepts no wake-ups (%s: %s); the scheduler applies the events. Next try in %g s.",
            type(error).__name__,
            error,
            _PAUSE.total_seconds(),
        )

    def _send_one(self, celery_app: Celery, wake_up: _WakeUp) -> None:
        """Send a wake-up; a connection that was idle may be dead, so an error counts only on a new one."""
        if self._producer is not None:
            try:
                return self._publish(celery_app, wake_up)
            except Exception as error:  # noqa: BLE001 - as above
                logger.debug("Reconnecting to the broker: %r", error)
        self._close()
        self._producer = _connect(celery_app, _TIMEOUT)
        try:
            return self._publish(celery_app, wake_up)
        except Exception:
            self._close()
            raise

    def _publish(self, celery_app: Celery, wake_up: _WakeUp) -> None:
        celery_app.send_task(TASK_NAME, wake_up, producer=self._producer, retry=False, ignore_result=True)

    def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(Exception):  # it may be broken already
                producer.connection.release()


def _monotonic() -> timedelta:
    return timedelta(seconds=time.monotonic())


def _connect(celery_app: Celery, timeout: float) -> Any:
    """Return a producer whose connection opens at first use, and waits at most ``timeout`` seconds in each step."""
    connection = celery_app.connection_for_write(connect_timeout=timeout)
    match connection.transport.driver_type:
        case "redis":
            limits = {"socket_connect_timeout": timeout, "socket_timeout": timeout, "retry_on_timeout": False}
        case "amqp":
            limits = {"read_timeout": timeout, "write_timeout": timeout}
        case _:  # it delays only the sending thread
            limits = {}
    connection.transport_options = {**connection.transport_options, "max_retries": 0, **limits}
    return celery_app.amqp.Producer(connection, auto_declare=False)
