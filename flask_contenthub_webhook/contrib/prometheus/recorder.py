"""Counting: signals and hooks of the extension become counters.

An event is counted once, where it is settled: in the request, at a later try, in a worker, by the poller. Events that
wait (queued or failed) are not settled; the gauges of :mod:`.readings` show them. So for each verdict of settled events
the counter, summed over all processes, equals the number of rows in the history.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request

from ... import signals
from ...core.received import ReceivedEvent, Source
from ...core.state_machine import Verdict
from ...tasks.reconcile import ReconcileReport
from ...web.views import blueprint
from .instruments import Instruments

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["Recorder"]

logger = logging.getLogger(__name__)

_SETTLED = {Verdict.PROCESSED, Verdict.DUPLICATE, Verdict.IGNORED, Verdict.STALE}
_FAILED = {Verdict.FAILED, Verdict.DEAD}
_UNSIGNED = "none"


class Recorder:
    """Count for one application. Keep a reference to it, since signals hold their receivers weakly.

    Args:
        state: the application's state.
        instruments: returns the instruments; called when there is something to count.
    """

    def __init__(self, state: WebhookState, instruments: Callable[[], Instruments]) -> None:
        self._state = state
        self._instruments = instruments

    def connect(self) -> None:
        """Connect to the signals and hooks of the application."""
        app = self._state.app
        signals.event_handled.connect(self.event_handled, sender=app)
        signals.forward_tried.connect(self.forward_tried, sender=app)
        signals.callback_rejected.connect(self.callback_rejected, sender=app)
        signals.reconcile_finished.connect(self.reconcile_finished, sender=app)
        app.after_request_funcs.setdefault(blueprint.name, []).append(self.answered)

    # --- receivers -------------------------------------------------------------------------------------------

    def event_handled(
        self, _: Flask, *, received: ReceivedEvent, verdict: Verdict, arrived_at: datetime | None = None, **_extra: Any
    ) -> None:
        """Count an event that was settled, or at which a handler failed."""
        instruments, source, event = self._instruments(), received.source, received.event
        exemplar = None if self._state.tracing is None else self._state.tracing.exemplar()
        if verdict in _FAILED:
            instruments.failed_tries.labels(source.value, event.type, verdict.value).inc(exemplar=exemplar)
        if verdict not in _SETTLED:
            return
        settled = instruments.deliveries.labels(source.value, received.scheme or _UNSIGNED, event.type, verdict.value)
        settled.inc(exemplar=exemplar)
        if verdict is Verdict.PROCESSED:
            now = self._state.clock()
            instruments.acceptance_to_effect.labels(source.value).observe(_seconds(arrived_at or now, now), exemplar)
            if source is Source.WEBHOOK and event.occurred_at is not None:
                instruments.creator_to_effect.observe(_seconds(event.occurred_at, now), exemplar)

    def callback_rejected(self, _: Flask, *, reason: str, **_extra: Any) -> None:
        """Count a refused request, or a refused item of a batch."""
        self._instruments().refusals.labels(reason).inc()

    def reconcile_finished(self, _: Flask, *, report: ReconcileReport, **_extra: Any) -> None:
        """Count a pass of the poller."""
        instruments = self._instruments()
        instruments.reconcile_passes.labels("paused" if report.paused else "done").inc()
        if report.paused:
            return
        instruments.reconcile_seconds.observe(report.seconds)
        outcomes = {"open": report.still_open, "missing": report.missing, "error": report.errors}
        for outcome, tasks in {**report.applied, **outcomes}.items():
            if tasks and report.asked:
                instruments.polls.labels(outcome).inc(tasks)
        instruments.creator_questions.labels("list").inc(report.asked > 0)
        instruments.creator_questions.labels("single").inc(report.asked_alone)

    def forward_tried(self, _: Flask, *, status: str, **_extra: Any) -> None:
        """Count a try of a forward."""
        exemplar = None if self._state.tracing is None else self._state.tracing.exemplar()
        self._instruments().forward_attempts.labels(status).inc(exemplar=exemplar)

    def answered(self, response: Response) -> Response:
        """Count an answer of our routes; an error in counting must not break an answer that is already committed."""
        endpoint = str(request.endpoint).rpartition(".")[2]
        try:
            self._instruments().responses.labels(endpoint, str(response.status_code)).inc()
        except Exception:
            logger.exception("An answer was not counted.")
        return response


def _seconds(earlier: datetime, later: datetime) -> float:
    """Return the time between; 0 if two clocks disagree about the order."""
    return max(0.0, (later - earlier).total_seconds())
