"""The blinker signals, and the rule by which receivers are called.

The sender of every signal is the real application object. All arguments come by keyword, and a receiver must take
``**extra``, so that a later version can add one. Blinker holds receivers weakly: a function defined inside an
application factory must be kept alive by something, or be connected with ``weak=False``.

Receivers of the first group run *inside the transaction* that changes the task: what they write through
``db.session`` commits with the new status or not at all. If one raises, everything is rolled back and the event is
tried again later. They must not commit or roll back; that is prevented and reported as the receiver's error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blinker import NamedSignal, Namespace

if TYPE_CHECKING:
    from flask import Flask

__all__ = [
    "alert_changed",
    "callback_rejected",
    "delivery_processed",
    "failure_rate_exceeded",
    "forward_finished",
    "reconcile_finished",
    "task_cancelled",
    "task_completed",
    "task_failed",
    "task_progress",
    "task_submitted",
    "task_timed_out",
]

logger = logging.getLogger(__name__)

_signals = Namespace()

# --- inside the transaction ----------------------------------------------------------------------------------

task_completed = _signals.signal("contenthub-task-completed")
"""A task reached ``completed``. Arguments: ``task``, ``result`` (the result object as it came), ``delivery``,
``late`` (True where we had already given the task up)."""

task_failed = _signals.signal("contenthub-task-failed")
"""An attempt failed. Arguments: ``task``, ``error`` (the error object as it came), ``delivery``, ``will_retry`` (True
where the task goes back to ``pending`` for another attempt)."""

task_progress = _signals.signal("contenthub-task-progress")
"""A task made progress. Arguments: ``task``, ``progress`` (the progress object as it came), ``delivery``."""

task_timed_out = _signals.signal("contenthub-task-timed-out")
"""A task ran out of time. Arguments: ``task``, ``delivery``."""

task_cancelled = _signals.signal("contenthub-task-cancelled")
"""A task was cancelled. Arguments: ``task``, ``delivery``."""

# --- afterwards ----------------------------------------------------------------------------------------------

delivery_processed = _signals.signal("contenthub-delivery-processed")
"""An event was applied, or found to have no effect any more, and that is committed; also when a handler failed and the
event is kept, with ``failed`` or ``dead`` as the outcome. Arguments: ``delivery``, ``task``, ``outcome`` (the verdict
as text). Errors in receivers are logged and never felt."""

task_submitted = _signals.signal("contenthub-task-submitted")
"""The creator accepted an attempt. Arguments: ``task``, ``attempt``. Errors in receivers are logged and never felt."""

reconcile_finished = _signals.signal("contenthub-reconcile-finished")
"""A pass of reconciliation ended. Arguments: ``report`` (a ``ReconcileReport``). Errors in receivers are logged and
never felt."""

forward_finished = _signals.signal("contenthub-forward-finished")
"""A forwarded event was delivered, or given up. Arguments: ``forward``, ``outcome`` (``delivered`` or ``dead``). Errors
in receivers are logged and never felt."""

callback_rejected = _signals.signal("contenthub-callback-rejected")
"""A request was refused. Arguments: ``reason`` (the error code), ``status`` (of the answer), ``request`` (a dict of
facts without secrets: method, path, remote_addr, content_length, user_agent). Errors in receivers are logged and
never felt."""

alert_changed = _signals.signal("contenthub-alert-changed")
"""An alert was raised or cleared, by whichever process found it; sent by one process only, and once. Arguments:
``alert`` (an ``AlertStatus``: name, raised, value, limit, sample, window, message). Errors in receivers are logged and
never felt."""

failure_rate_exceeded = _signals.signal("contenthub-failure-rate-exceeded")
"""The alert ``failure_rate`` alone, when it is raised, and once when it is cleared; ``alert_changed`` is sent as well.
Arguments: ``rate`` (0 to 1), ``sample`` (events that it was measured on), ``window`` (a timedelta), ``cleared``. Errors
in receivers are logged and never felt."""


# --- private: metrics count by them, without loading a row ---------------------------------------------------

event_handled = _signals.signal("contenthub-event-handled")
"""After an event was applied or a handler failed at it. Arguments: ``received``, ``verdict``."""

forward_tried = _signals.signal("contenthub-forward-tried")
"""After a try to send an event on. Arguments: ``status`` of the forward: ``delivered``, ``waiting`` or ``dead``."""


def send_quietly(
    signal: NamedSignal, app: Flask, *, clean_up: Callable[[], None] = lambda: None, **arguments: Any
) -> None:
    """Call every receiver; one that raises is logged and does not keep the others from being called.

    Args:
        signal: what to send.
        app: the real application object.
        clean_up: called after a receiver raised, so that the next one finds a usable session.
        **arguments: of the signal.
    """
    for receiver in list(signal.receivers_for(app)):
        try:
            app.ensure_sync(receiver)(app, **arguments)
        except Exception:
            logger.exception("A receiver of %s raised; its work is lost.", signal.name, extra={"signal": signal.name})
            clean_up()
