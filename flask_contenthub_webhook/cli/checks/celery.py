"""Celery, where it applies the events: its broker, its workers, and the sweep that stands behind both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...runtime.state import CELERY_KEY
from .findings import Examination, Finding, Level

if TYPE_CHECKING:
    from ...contrib.celery import CeleryEngine

__all__ = ["check_celery"]

_TIMEOUT = 2.0
"""Seconds for the broker, and for the workers to answer."""
_WORKER = "Start `celery -A yourapp worker`, with the same broker, on the module that makes the Flask app, too."


def check_celery(examination: Examination) -> list[Finding]:
    """Nothing is lost without a broker or workers, but everything is as late as the sweep is."""
    engine, settings = examination.state.app.extensions.get(CELERY_KEY), examination.state.settings
    if engine is None:
        return []
    if engine.celery_app is None:
        return [
            Finding(
                "celery",
                Level.FAIL,
                "WEBHOOK_PROCESSING is celery, but no Celery application is known; the sweep applies everything.",
                "Pass celery= to init_app, or set app.extensions['celery'].",
            )
        ]
    findings = [_ask(engine)]
    if settings.scheduler_enabled:
        findings.append(Finding("sweep", Level.OK, "The serving processes sweep up what Celery misses."))
    else:
        grace = settings.celery_grace.total_seconds()
        message = f"`flask webhook scheduler` must run: it takes what Celery has not taken after {grace:g} s."
        findings.append(Finding("sweep", Level.OK, message))
    return findings


def _ask(engine: CeleryEngine) -> Finding:
    try:
        engine.try_broker(_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - each transport has errors of its own
        words = f"The broker does not answer ({type(error).__name__}: {error}); the sweep applies everything."
        return Finding("celery", Level.FAIL, words, "Start the broker, or correct the Celery application's broker_url.")
    workers = engine.workers(_TIMEOUT)
    if not workers:
        return Finding("celery", Level.WARN, "The broker is up, but no Celery worker answers.", _WORKER)
    ignorant = sorted(name for name, is_ours in workers.items() if not is_ours)
    if ignorant:
        words = f"The Celery worker {ignorant[0]} does not know our task; what it takes waits for the sweep."
        return Finding("celery", Level.WARN, words, "Let it load the module that makes the Flask app.")
    return Finding("celery", Level.OK, f"The broker is up, and {len(workers)} Celery worker(s) know our task.")
