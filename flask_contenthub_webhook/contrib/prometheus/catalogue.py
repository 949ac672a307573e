"""All metrics with their labels and meanings; the documentation's table is generated from them.

No label holds a value that a stranger can choose: schemes, verdicts, sources, reasons and statuses are closed sets,
event types are the host's own, and no label names a task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "Metric"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric as it is scraped, and as it is documented.

    Args:
        name: as it is scraped; a histogram adds ``_bucket``, ``_sum`` and ``_count``.
        kind: its type in Prometheus.
        labels: the names of its labels.
        buckets: upper bounds of a histogram, in the metric's unit.
        doc: its meaning; also the help text of a scrape.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    doc: str

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The names in a scrape, which a query may use."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{suffix}" for suffix in ("bucket", "sum", "count"))
        return (self.name,)


# --- counted in the process in which it happens --------------------------------------------------------------

DELIVERIES = Metric(
    name="contenthub_webhook_deliveries_total",
    kind="counter",
    labels=("source", "scheme", "event", "verdict"),
    doc="Events that were settled, each once, by verdict: processed, duplicate, ignored, stale.",
)
FAILED_TRIES = Metric(
    name="contenthub_webhook_failed_tries_total",
    kind="counter",
    labels=("source", "event", "verdict"),
    doc="Tries at which a handler failed: the event waits for another try (failed), or for a person (dead).",
)
REJECTIONS = Metric(
    name="contenthub_webhook_rejections_total",
    kind="counter",
    labels=("reason",),
    doc="Refused requests and items of batches, by error code.",
)
RESPONSES = Metric(
    name="contenthub_webhook_responses_total",
    kind="counter",
    labels=("endpoint", "status"),
    doc="Answers of the routes callback, batch and health, by HTTP status.",
)
ACCEPTANCE_TO_EFFECT = Metric(
    name="contenthub_webhook_acceptance_to_effect_seconds",
    kind="histogram",
    labels=("source",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900),
    doc="From the moment an event was accepted to the commit of its effect, waiting and retries included.",
)
CREATOR_TO_EFFECT = Metric(
    name="contenthub_webhook_creator_to_effect_seconds",
    kind="histogram",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
    doc="From the creator's timestamp in a callback to the commit of its effect, by two clocks.",
)
RECONCILE_PASSES = Metric(
    name="contenthub_webhook_reconcile_passes_total",
    kind="counter",
    labels=("outcome",),
    doc="Passes of the poller: done, or paused because the creator was down a moment ago.",
)
RECONCILE_SECONDS = Metric(
    name="contenthub_webhook_reconcile_seconds",
    kind="histogram",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    doc="How long a pass of the poller took.",
)
POLLS = Metric(
    name="contenthub_webhook_polls_total",
    kind="counter",
    labels=("outcome",),
    doc="Tasks that the creator was asked about: settled by the answer (its verdict), open, missing, error.",
)
CREATOR_QUESTIONS = Metric(
    name="contenthub_webhook_creator_questions_total",
    kind="counter",
    labels=("kind",),
    doc="Questions of the poller to the creator: a walk through its list (list), or about one task (single).",
)
FORWARD_ATTEMPTS = Metric(
    name="contenthub_webhook_forward_attempts_total",
    kind="counter",
    labels=("outcome",),
    doc="Tries to send an event on: delivered, to be tried again (waiting), given up (dead).",
)

# --- read from the database at scrape time -------------------------------------------------------------------

DATABASE_UP = Metric(
    name="contenthub_webhook_database_up",
    kind="gauge",
    doc="1 where the extension's tables could be read in time; 0: the gauges below are missing.",
)
OPEN_TASKS = Metric(
    name="contenthub_webhook_open_tasks",
    kind="gauge",
    labels=("status",),
    doc="Tasks that are not settled: pending, submitted, processing.",
)
OVERDUE_TASKS = Metric(
    name="contenthub_webhook_overdue_tasks", kind="gauge", doc="Open tasks that are past their deadline."
)
WAITING_DELIVERIES = Metric(
    name="contenthub_webhook_waiting_deliveries",
    kind="gauge",
    labels=("verdict",),
    doc="Events that wait for their effect: accepted (queued), or to be tried again (failed).",
)
DEAD_DELIVERIES = Metric(
    name="contenthub_webhook_dead_deliveries",
    kind="gauge",
    doc="Events that were given up and wait for a person to replay them.",
)
WAITING_FORWARDS = Metric(
    name="contenthub_webhook_waiting_forwards", kind="gauge", doc="Events that wait to be sent on."
)
DEAD_FORWARDS = Metric(
    name="contenthub_webhook_dead_forwards",
    kind="gauge",
    doc="Events that could not be sent on and wait for a person.",
)
DUE = Metric(
    name="contenthub_webhook_due",
    kind="gauge",
    labels=("queue",),
    doc="What should be in work by now: deliveries, polls, submissions, forwards.",
)
LONGEST_DUE = Metric(
    name="contenthub_webhook_longest_due_seconds",
    kind="gauge",
    labels=("queue",),
    doc="For how long the oldest of it has been due; 0: nothing is.",
)
ALERT_RAISED = Metric(
    name="contenthub_webhook_alert_raised",
    kind="gauge",
    labels=("alert",),
    doc="1 while an alert is raised, 0 since it was cleared.",
)

METRICS: tuple[Metric, ...] = tuple(value for value in dict(globals()).values() if isinstance(value, Metric))
"""All of the above, in the same order."""
