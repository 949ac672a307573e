"""Two things in the host's code that nobody sees: handlers that were collected, and loggers that were disabled."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ...signals import task_completed
from .findings import DoctorContext, Finding, check, ok, warn

__all__ = ["check_handlers", "check_loggers"]

_PACKAGE = __name__.partition(".")[0]


@check("handlers")
def check_handlers(context: DoctorContext) -> Iterator[Finding]:
    """Warn if no function is called when a task is completed."""
    state = context.state
    is_subscribed = any(subscription.event_type == "completed" for subscription in state.subscriptions)
    if is_subscribed or any(True for _ in task_completed.receivers_for(state.app)):
        yield ok("A handler of task_completed is connected.")
    else:
        yield warn(
            "No handler of task_completed is connected: a task is completed, and nothing else happens.",
            "Connect one in a module that the app imports. Inside a function, such as an application factory, use "
            "@task_completed.connect_via(app): connect() alone keeps a weak reference, and the handler is collected.",
        )


@check("logging")
def check_loggers(_context: DoctorContext) -> Iterator[Finding]:
    """Warn if ``logging.config.fileConfig`` has disabled our loggers, as Alembic's env.py does."""
    loggers = logging.root.manager.loggerDict.items()
    disabled = [name for name, logger in loggers if name.startswith(_PACKAGE) and getattr(logger, "disabled", False)]
    if disabled:
        yield warn(
            f"{len(disabled)} loggers of the extension are disabled, {min(disabled)} for one: warnings and errors "
            "are lost. logging.config.fileConfig does that, for example if the app runs its migrations at the start.",
            "In migrations/env.py: fileConfig(config.config_file_name, disable_existing_loggers=False).",
        )
    else:
        yield ok("No logger of the extension is disabled.")
