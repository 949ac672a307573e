"""The counters and histograms of this process, as instruments of prometheus-client."""

from __future__ import annotations

import os
from functools import cache
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Histogram

from ... import errors
from ...core.events import BUILT_IN_EVENTS
from ...core.received import Source
from ...core.state_machine import Verdict
from . import catalogue
from .catalogue import Metric

__all__ = ["MULTIPROC_DIR", "Instruments", "is_multiprocess", "shared_instruments"]

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client's own variable: the folder through which processes share their counts."""


class Instruments:
    """All counters and histograms. Gauges are not among them: their values are in the database, for every process.

    Args:
        registry: where they are scraped; None if processes share their counts through files.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.deliveries = _counter(catalogue.DELIVERIES, registry)
        self.failed_tries = _counter(catalogue.FAILED_TRIES, registry)
        self.refusals = _counter(catalogue.REJECTIONS, registry)
        self.responses = _counter(catalogue.RESPONSES, registry)
        self.acceptance_to_effect = _histogram(catalogue.ACCEPTANCE_TO_EFFECT, registry)
        self.creator_to_effect = _histogram(catalogue.CREATOR_TO_EFFECT, registry)
        self.reconcile_passes = _counter(catalogue.RECONCILE_PASSES, registry)
        self.reconcile_seconds = _histogram(catalogue.RECONCILE_SECONDS, registry)
        self.polls = _counter(catalogue.POLLS, registry)
        self.creator_questions = _counter(catalogue.CREATOR_QUESTIONS, registry)
        self.forward_attempts = _counter(catalogue.FORWARD_ATTEMPTS, registry)
        self._show_zeros()

    def _show_zeros(self) -> None:
        """Start the counters of failures at 0: Prometheus computes no rate for a series that has just appeared."""
        not_refusals = {errors.HandlerFailed, errors.DatabaseUnavailable, errors.InboxFull}
        for refusal in set(errors.RequestRefused.__subclasses__()) - not_refusals:
            self.refusals.labels(refusal.code)
        for event, verdict in product(BUILT_IN_EVENTS, (Verdict.FAILED, Verdict.DEAD)):
            self.failed_tries.labels(Source.WEBHOOK.value, event, verdict.value)


def is_multiprocess() -> bool:
    """Return True if prometheus-client keeps the counts in files that all processes share."""
    return MULTIPROC_DIR in os.environ


@cache
def shared_instruments() -> Instruments:
    """Return the instruments of all applications of this process; two writers would overwrite each other's file.

    They are made when something is counted first, so that a command that counts nothing leaves no file.
    """
    return Instruments(None)


def _counter(metric: Metric, registry: CollectorRegistry | None) -> Counter:
    return Counter(metric.name, metric.doc, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry | None) -> Histogram:
    return Histogram(metric.name, metric.doc, metric.labels, registry=registry, buckets=metric.buckets)
