"""The counters and histograms of this process, as instruments of prometheus-client."""

from __future__ import annotations

import os
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Instruments:
    """All counters and histograms. Gauges are not among them: their values are in the database, for every process."""

    deliveries: Counter
    failed_tries: Counter
    refusals: Counter
    responses: Counter
    acceptance_to_effect: Histogram
    creator_to_effect: Histogram
    reconcile_passes: Counter
    reconcile_seconds: Histogram
    polls: Counter
    creator_questions: Counter
    forward_attempts: Counter

    @classmethod
    def make(cls, registry: CollectorRegistry | None) -> Instruments:
        """Make new instruments.

        Args:
            registry: where they are scraped; None where processes share their counts through files.
        """
        instruments = cls(
            deliveries=_counter(catalogue.DELIVERIES, registry),
            failed_tries=_counter(catalogue.FAILED_TRIES, registry),
            refusals=_counter(catalogue.REJECTIONS, registry),
            responses=_counter(catalogue.RESPONSES, registry),
            acceptance_to_effect=_histogram(catalogue.ACCEPTANCE_TO_EFFECT, registry),
            creator_to_effect=_histogram(catalogue.CREATOR_TO_EFFECT, registry),
            reconcile_passes=_counter(catalogue.RECONCILE_PASSES, registry),
            reconcile_seconds=_histogram(catalogue.RECONCILE_SECONDS, registry),
            polls=_counter(catalogue.POLLS, registry),
            creator_questions=_counter(catalogue.CREATOR_QUESTIONS, registry),
            forward_attempts=_counter(catalogue.FORWARD_ATTEMPTS, registry),
        )
        instruments.show_zeros()
        return instruments

    def show_zeros(self) -> None:
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
    return Instruments.make(None)


def _counter(metric: Metric, registry: CollectorRegistry | None) -> Counter:
    return Counter(metric.name, metric.doc, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry | None) -> Histogram:
    return Histogram(metric.name, metric.doc, metric.labels, registry=registry, buckets=metric.buckets)
