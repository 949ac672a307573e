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


def _counter(name: str, labels: tuple[str, ...], doc: str) -> Metric:
    return Metric(name=f"contenthub_webhook_{name}", kind="counter", labels=labels, doc=doc)


def _histogram(name: str, labels: tuple[str, ...], doc: str, *, buckets: tuple[float, ...]) -> Metric:
    return Metric(name=f"contenthub_webhook_{name}", kind="histogram", labels=labels, buckets=buckets, doc=doc)


def _gauge(name: str, labels: tuple[str, ...], doc: str) -> Metric:
    return Metric(name=f"contenthub_webhook_{name}", kind="gauge", labels=labels, doc=doc)


# --- counted in the process in which it happens --------------------------------------------------------------

DELIVERIES = _counter(
    "deliveries_total",
    ("source", "scheme", "event", "verdict"),
    "Events that were settled, each once, by verdict: processed, duplicate, ignored, stale.",
)
FAILED_TRIES = _counter(
    "failed_tries_total",
    ("source", "event", "verdict"),
    "Tries at which a handler failed: the event waits for another try (failed), or for a person (dead).",
)
REJECTIONS = _counter("rejections_total", ("reason",), "Refused requests and items of batches, by error code.")
RESPONSES = _counter(
    "responses_total", ("endpoint", "status"), "Answers of the routes callback, batch and health, by HTTP status."
)
ACCEPTANCE_TO_EFFECT = _histogram(
    "acceptance_to_effect_seconds",
    ("source",),
    "From the moment an event was accepted to the commit of its effect, waiting and further tries included.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900),
)
CREATOR_TO_EFFECT = _histogram(
    "creator_to_effect_seconds",
    (),
    "From the creator's timestamp in a callback to the commit of its effect, by the clocks of both.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
RECONCILE_PASSES = _counter(
    "reconcile_passes_total",
    ("outcome",),
    "Passes of the poller: done, or paused because the creator was down a moment ago.",
)
RECONCILE_SECONDS = _histogram(
    "reconcile_seconds",
    (),
    "Duration of a pass of the poller.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
POLLS = _counter(
    "polls_total",
    ("outcome",),
    "Tasks that the creator was asked about: settled by the answer (its verdict), open, missing, error.",
)
CREATOR_QUESTIONS = _counter(
    "creator_questions_total",
    ("kind",),
    "Queries of the poller to the creator: a walk through its list (list), or about one task (single).",
)
FORWARD_ATTEMPTS = _counter(
    "forward_attempts_total",
    ("outcome",),
    "Tries of forwards: delivered, to be tried again (waiting), given up (dead).",
)

# --- read from the database at scrape time -------------------------------------------------------------------

DATABASE_UP = _gauge(
    "database_up", (), "1 if the extension's tables could be read in time; 0: the gauges below are missing."
)
OPEN_TASKS = _gauge("open_tasks", ("status",), "Tasks that are not settled: pending, submitted, processing.")
OVERDUE_TASKS = _gauge("overdue_tasks", (), "Open tasks that are past their deadline.")
WAITING_DELIVERIES = _gauge(
    "waiting_deliveries",
    ("verdict",),
    "Events that wait for their effect: accepted (queued), or to be tried again (failed).",
)
DEAD_DELIVERIES = _gauge("dead_deliveries", (), "Events that were given up and wait for a person to replay them.")
WAITING_FORWARDS = _gauge("waiting_forwards", (), "Forwards that wait for a try.")
DEAD_FORWARDS = _gauge("dead_forwards", (), "Forwards that were given up and wait for a person to replay them.")
DUE = _gauge("due", ("queue",), "Work that is due: deliveries, polls, submissions, forwards.")
LONGEST_DUE = _gauge(
    "longest_due_seconds", ("queue",), "Seconds for which the oldest of it has been due; 0: nothing is due."
)
LAST_PASS = _gauge(
    "job_last_pass_timestamp_seconds", ("job",), "When a pass of the periodic job last ended, in Unix time."
)
ALERT_RAISED = _gauge("alert_raised", ("alert",), "1 while an alert is raised, 0 once it is cleared.")

METRICS: tuple[Metric, ...] = tuple(value for value in dict(globals()).values() if isinstance(value, Metric))
"""All of the above, in the same order."""
