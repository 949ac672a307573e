"""Celery, if it applies the events: its broker, its workers, and the scheduler behind both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...runtime.state import CELERY_KEY
from .findings import DoctorContext, Finding, check, fail, ok, warn

if TYPE_CHECKING:
    from ...contrib.celery import CeleryEngine

__all__ = ["check_celery"]

_TIMEOUT = 2.0
"""Seconds for the broker, and for the workers to answer."""


@check("celery")
def check_celery(context: DoctorContext) -> Iterator[Finding]:
    """Check broker and workers; without them nothing is lost, but everything waits for the scheduler."""
    engine, settings = context.state.app.extensions.get(CELERY_KEY), context.state.settings
    if engine is None:
        return
    if engine.celery_app is None:
        yield fail(
            "WEBHOOK_PROCESSING is celery, but there is no Celery application; the scheduler applies everything.",
            "Pass celery= to init_app, or set app.extensions['celery'].",
        )
        return
    yield _ask(engine)
    if settings.scheduler_enabled:
        yield ok("The web processes apply what Celery misses.", check="sweep")
    else:
        grace = settings.celery_grace.total_seconds()
        message = f"`flask webhook scheduler` must run: it applies what Celery has not taken after {grace:g} s."
        yield ok(message, check="sweep")


def _ask(engine: CeleryEngine) -> Finding:
    from ...contrib.celery import TASK_NAME

    try:
        engine.try_broker(_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - each transport has errors of its own
        message = f"The broker does not answer ({type(error).__name__}: {error}); the scheduler applies everything."
        return fail(message, "Start the broker, or correct the Celery application's broker_url.")
    workers = engine.workers(_TIMEOUT)
    if not workers:
        return warn(
            "The broker is up, but no Celery worker answers.",
            "Start `celery -A yourapp worker` with the same broker; its module must also create the Flask app.",
        )
    without_task = sorted(name for name, has_task in workers.items() if not has_task)
    if without_task:
        return warn(
            f"Celery worker {without_task[0]} has not registered `{TASK_NAME}`; events it receives wait for the "
            "scheduler.",
            "Have it import the module that creates the Flask app.",
        )
    return ok(f"The broker is up, and {len(workers)} Celery worker(s) have registered `{TASK_NAME}`.")
