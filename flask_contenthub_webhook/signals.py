"""The blinker signals, and the function that calls receivers without letting their errors through.

The sender of every signal is the real application object. All arguments are passed by keyword, and a receiver must
take ``**extra``, so that a later version can add one. A receiver connected without a sender hears of every app of
the process; in an application factory, which runs once for each, connect with ``@task_completed.connect_via(app)``.

Receivers of the first group run *inside the transaction* that changes the task: what they write through
``db.session`` commits together with the new status or not at all. If one raises, everything is rolled back and the
event is tried again later. They must not commit or roll back; trying to raises an error, which counts as their failure.

Receivers of the second group run after the commit. Their errors are logged and have no other effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blinker import NamedSignal, Namespace

from .errors import ends_process, without_parameters

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
"""A task reached ``completed``. Arguments: ``task``, ``result`` (the result object as received), ``delivery``, ``late``
(True if the task had already failed or timed out here)."""

task_failed = _signals.signal("contenthub-task-failed")
"""An attempt failed. Arguments: ``task``, ``error`` (the error object as received), ``delivery``, ``will_retry`` (True
if the task goes back to ``pending`` for another attempt)."""

task_progress = _signals.signal("contenthub-task-progress")
"""A task made progress. Arguments: ``task``, ``progress`` (the progress object as received), ``delivery``."""

task_timed_out = _signals.signal("contenthub-task-timed-out")
"""A task ran out of time. Arguments: ``task``, ``delivery``."""

task_cancelled = _signals.signal("contenthub-task-cancelled")
"""A task was cancelled. Arguments: ``task``, ``delivery``."""

# --- after the commit ----------------------------------------------------------------------------------------

delivery_processed = _signals.signal("contenthub-delivery-processed")
"""An event was processed, whether or not it changed anything; or a handler failed and the event was kept. Arguments:
``delivery``, ``task``, ``outcome`` (the verdict as text; ``failed`` or ``dead`` if a handler failed)."""

task_submitted = _signals.signal("contenthub-task-submitted")
"""The creator accepted an attempt. Arguments: ``task``, ``attempt``."""

reconcile_finished = _signals.signal("contenthub-reconcile-finished")
"""A reconciliation pass ended. Arguments: ``report`` (a ``ReconcileReport``)."""

forward_finished = _signals.signal("contenthub-forward-finished")
"""A forwarded event was delivered, or given up. Arguments: ``forward``, ``outcome`` (``delivered`` or ``dead``)."""

callback_rejected = _signals.signal("contenthub-callback-rejected")
"""A request was refused. Arguments: ``reason`` (the error code), ``status`` (of the answer), ``request`` (facts without
secrets: a dict of method, path, remote_addr, content_length, user_agent)."""

alert_changed = _signals.signal("contenthub-alert-changed")
"""An alert was raised or cleared; sent once, by the process that recorded the change. Arguments: ``alert`` (an
``AlertStatus``: name, raised, value, limit, sample, window, message)."""

failure_rate_exceeded = _signals.signal("contenthub-failure-rate-exceeded")
"""The alert ``failure_rate`` was raised or cleared; ``alert_changed`` is sent as well. Arguments: ``rate`` (0 to 1),
``sample`` (number of events measured), ``window`` (a timedelta), ``cleared`` (True if it was cleared)."""


# --- private: for metrics, which count without loading a row ------------------------------------------------

event_handled = _signals.signal("contenthub-event-handled")
"""An event was applied, or a handler failed at it. Arguments: ``received``, ``verdict``; if it was applied, also
``arrived_at``, by the application's clock."""

forward_tried = _signals.signal("contenthub-forward-tried")
"""A forward was tried. Arguments: ``status`` of the forward: ``delivered``, ``waiting`` or ``dead``."""


def send_quietly(
    signal: NamedSignal, app: Flask, *, clean_up: Callable[[], None] = lambda: None, **arguments: Any
) -> None:
    """Call every receiver; log the errors of those that raise.

    Args:
        signal: the signal to send.
        app: the real application object.
        clean_up: called after a receiver raised, to leave a usable session to the next one.
        **arguments: the signal's arguments.
    """
    if not signal.receivers:
        return
    for receiver in list(signal.receivers_for(app)):
        try:
            app.ensure_sync(receiver)(app, **arguments)
        except BaseException as error:
            if ends_process(error):
                raise
            logger.exception(
                "A receiver of %s raised; what it was doing is lost.",
                signal.name,
                exc_info=without_parameters(error),
                extra={"signal": signal.name},
            )
            clean_up()
