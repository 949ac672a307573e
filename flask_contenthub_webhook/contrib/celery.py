"""Celery as the engine (WEBHOOK_PROCESSING=celery, extra ``celery``), on the Celery application of the host.

The row in the inbox is the truth, and the message is only the wake-up: it names a task, and the worker that gets it
applies what waits for that task. A message that is lost, doubled or late costs time, never an event, because the sweep
(the scheduler's job ``retry-deliveries``) takes whatever is older than WEBHOOK_CELERY_GRACE.

Requests do not wait for the broker. A thread of its own sends the wake-ups, over a connection of its own with short
timeouts: Celery's own connection waits for a broker that does not answer for as long as the system's sockets do.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("celery") is None:
    raise ImportError(
        "flask_contenthub_webhook.contrib.celery needs Celery: pip install 'flask-contenthub-webhook[celery]'."
    )

import contextlib
import logging
import os
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery import Celery, signals

from ..core.cooldown import Cooldown
from ..engine.retry import RetryReport, work_off
from ..runtime.background import BackgroundThreads

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["TASK_NAME", "CeleryEngine"]

logger = logging.getLogger(__name__)

TASK_NAME = "flask_contenthub_webhook.process"
"""The Celery task, for the host's ``task_routes``; its one argument is our id of a task."""

_TIMEOUT = 0.2
"""Seconds that the broker has for each step of taking a wake-up."""
_PAUSE = timedelta(seconds=5)
"""Time without wake-ups after the broker failed, so that an outage costs one timeout each, in each process."""
_MOST_WAITING = 10_000
"""Wake-ups that wait for the broker in one process; beyond that the sweep is quick enough."""


class CeleryEngine:
    """Wakes Celery's workers from the web processes, and is what they run.

    Args:
        state: the application's state.
        celery_app: the host's Celery application; without one, what is in ``app.extensions["celery"]`` by the time
            that it is needed.
    """

    def __init__(self, state: WebhookState, celery_app: Celery | None = None) -> None:
        self._state = state
        self._celery_app = celery_app
        self._made_in = os.getpid()
        self._missing_was_logged = False
        self._sender = _Sender()
        self._task = _task_of(self)
        # They hold bound methods weakly, so an application can be dropped.
        signals.import_modules.connect(self._register)
        signals.worker_process_init.connect(self._begin_after_fork)

    @property
    def celery_app(self) -> Celery | None:
        """The host's Celery application, or None while there is none."""
        known = self._celery_app if self._celery_app is not None else self._state.app.extensions.get("celery")
        return known if isinstance(known, Celery) else None

    def wake(self, task_id: str) -> None:
        """Tell Celery's workers that an event about this task waits; returns at once, and never raises.

        Under ``task_always_eager``, which hosts set in their tests, the event is applied before this returns.
        """
        celery_app = self.celery_app
        if celery_app is None:
            self._log_that_there_is_none()
        elif celery_app.conf.task_always_eager:
            self._apply_eagerly(task_id)
        else:
            self._sender.send(celery_app, task_id)

    def apply(self, task_id: str) -> None:
        """Apply everything that waits for one task; the body of the Celery task.

        After the last event it looks again: the worker that was woken by a later one has found this one at work, and
        left it to us.
        """
        report = RetryReport()
        with self._state.app.app_context():
            while not report.interrupted:
                before = report.claimed
                work_off(self._state, report, limit=before + 1, task_id=task_id)
                if report.claimed == before:
                    return

    def close(self) -> None:
        """Close the connection on which wake-ups are sent; the next one makes another."""
        self._sender.close()

    def try_broker(self, timeout: float) -> None:
        """Connect to the broker, for the doctor.

        Raises:
            Exception: it is not there; each transport has errors of its own.
        """
        with _connect(self.celery_app, timeout).connection as connection:
            connection.default_channel  # noqa: B018 - makes the connection

    def workers(self, timeout: float) -> dict[str, bool]:
        """The Celery workers that answer within some seconds, and whether each knows our task."""
        if self.celery_app is None:
            return {}
        registered = self.celery_app.control.inspect(timeout=timeout).registered() or {}
        return {name: TASK_NAME in tasks for name, tasks in registered.items()}

    def _register(self, sender: Celery, **_: Any) -> None:
        """A Celery program, a worker above all, loads the tasks of its application."""
        celery_app = self.celery_app
        if celery_app is None or sender is not celery_app:
            return
        celery_app.task(
            name=TASK_NAME,
            acks_late=True,
            reject_on_worker_lost=True,  # its successor is sooner than the sweep
            ignore_result=True,
            shared=False,  # with other Celery applications of the process
        )(self._task)

    def _begin_after_fork(self, **_: Any) -> None:
        """A prefork worker must not use the database connections of the process that it was forked from."""
        if os.getpid() == self._made_in:  # the solo pool announces itself, too
            return
        with self._state.app.app_context():
            for engine in self._state.database.db.engines.values():
                engine.dispose(close=False)

    def _apply_eagerly(self, task_id: str) -> None:
        try:
            self.apply(task_id)
        except Exception:
            logger.exception("An event was not applied eagerly; the sweep takes it.", extra={"task_id": task_id})

    def _log_that_there_is_none(self) -> None:
        if self._missing_was_logged:
            return
        self._missing_was_logged = True
        logger.error(
            "WEBHOOK_PROCESSING is celery, but no Celery application is known: events are applied only by the sweep "
            "of `flask webhook scheduler`, %g s late. Pass celery= to init_app, or set app.extensions['celery'].",
            self._state.settings.celery_grace.total_seconds(),
        )


def _task_of(engine: CeleryEngine) -> Any:
    """A plain function, since Celery gives it attributes."""

    def process(task_id: str) -> None:
        engine.apply(task_id)

    return process


class _Sender:
    """The wake-ups that this process has to send, each task's once, and the thread that sends them."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        """A forked child begins anew: it has neither the thread nor a right to the connection."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._threads = BackgroundThreads(1)
        self._waiting: dict[str, None] = {}
        self._is_sending = False
        self._cooldown = Cooldown[timedelta](_PAUSE, _PAUSE, jitter=False)
        self._producer: Any = None

    def send(self, celery_app: Celery, task_id: str) -> None:
        if self._pid != os.getpid():
            self._begin()
        if self._cooldown.is_on(_monotonic()):
            return
        with self._lock:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[task_id] = None
            begins, self._is_sending = not self._is_sending, True
        if begins:
            self._threads.submit_or_run(self._send_all, celery_app)

    def close(self) -> None:
        """In the thread that uses it."""
        self._threads.submit_or_run(self._close)

    def _send_all(self, celery_app: Celery) -> None:
        while True:
            with self._lock:
                task_ids, self._waiting = self._waiting, {}
                self._is_sending = bool(task_ids)
            if not task_ids:
                return
            try:
                for task_id in task_ids:
                    self._send_one(celery_app, task_id)
            except Exception as error:  # noqa: BLE001 - each transport has errors of its own
                self._pause(error)

    def _pause(self, error: Exception) -> None:
        self._cooldown.failed(_monotonic())
        with self._lock:
            self._waiting.clear()
        logger.warning(
            "The broker takes no wake-ups (%s: %s); the sweep applies what waits. It is tried again in %g s.",
            type(error).__name__,
            error,
            _PAUSE.total_seconds(),
        )

    def _send_one(self, celery_app: Celery, task_id: str) -> None:
        """A connection may have been idle for long, and be gone; one that was just made counts."""
        if self._producer is not None:
            try:
                return self._publish(celery_app, task_id)
            except Exception as error:  # noqa: BLE001 - as above
                logger.debug("The connection to the broker is made anew: %r", error)
        self._close()
        self._producer = _connect(celery_app, _TIMEOUT)
        try:
            return self._publish(celery_app, task_id)
        except Exception:
            self._close()
            raise

    def _publish(self, celery_app: Celery, task_id: str) -> None:
        celery_app.send_task(TASK_NAME, (task_id,), producer=self._producer, retry=False, ignore_result=True)

    def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(Exception):  # it may be broken already
                producer.connection.release()


def _monotonic() -> timedelta:
    return timedelta(seconds=time.monotonic())


def _connect(celery_app: Celery, timeout: float) -> Any:
    """A producer on a connection that is made when it is first used, and waits no longer than this for any step."""
    connection = celery_app.connection_for_write(connect_timeout=timeout)
    match connection.transport.driver_type:
        case "redis":
            limits = {"socket_connect_timeout": timeout, "socket_timeout": timeout, "retry_on_timeout": False}
        case "amqp":
            limits = {"read_timeout": timeout, "write_timeout": timeout}
        case _:  # it only ever holds up the thread that sends
            limits = {}
    connection.transport_options = {**connection.transport_options, "max_retries": 0, **limits}
    return celery_app.amqp.Producer(connection, auto_declare=False)
