"""The gauges that are read from the database at scrape time, so every process shows the same values."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ...core.per_process import PerProcess
from ...storage.failure_log import describe_briefly
from . import catalogue
from .catalogue import Metric
from .readings import Reading, read

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["DatabaseCollector"]

logger = logging.getLogger(__name__)


class DatabaseCollector(Collector):
    """Read the database when scraped. If it is down or does not answer, the gauges are missing but the scrape works.

    Args:
        state: the application's state.
        max_age: seconds for which a reading is reused, so that several scrapers cost no more than one.
        patience: seconds that a scrape waits for the database. Prometheus itself gives up after ten, and would lose the
            counters as well.
    """

    def __init__(self, state: WebhookState, *, max_age: float = 1.0, patience: float = 2.0) -> None:
        self._state = state
        self._max_age = max_age
        self._patience = patience
        self._readings = PerProcess(_Readings)
        self._was_up = True

    def describe(self) -> list[GaugeMetricFamily]:
        """Name the gauges, so that registering this collector does not need a scrape."""
        return [GaugeMetricFamily(metric.name, metric.doc) for metric in catalogue.METRICS if metric.kind == "gauge"]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        reading = self._read()
        yield _gauge(catalogue.DATABASE_UP, 0 if reading is None else 1)
        if reading is not None:
            yield from (_gauge(metric, value) for metric, value in reading.items())

    def _read(self) -> Reading | None:
        readings = self._readings.value
        with readings.lock:
            if readings.latest is None or readings.latest.is_older_than(self._max_age):
                readings.latest = _Reader(self._state)
            reader = readings.latest
        if not reader.wait(self._patience):
            self._log_change(up=False, why=f"it did not answer within {self._patience:g} s")
            return None
        self._log_change(up=reader.reading is not None, why=reader.why)
        return reader.reading

    def _log_change(self, *, up: bool, why: str) -> None:
        """Log one line when the database goes and one when it is back, not one for every scrape."""
        if up == self._was_up:
            return
        self._was_up = up
        if up:
            logger.info("The database can be read for metrics again.")
        else:
            logger.warning("The database could not be read for metrics: %s", why)


class _Readings:
    """The latest reading of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.latest: _Reader | None = None


class _Reader:
    """A reading in a separate thread, since there is no other way to give up on a connection that hangs.

    The thread runs in the context of the scrape, so that tracing of the scrape includes its statements.
    """

    def __init__(self, state: WebhookState) -> None:
        self.reading: Reading | None = None
        self.why = ""
        self._ended_at: float | None = None
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._read, state), name="contenthub-metrics", daemon=True
        )
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Return True if it ended within this time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def is_older_than(self, seconds: float) -> bool:
        """Return True if it ended that long ago, or its thread died."""
        if self._ended_at is None:
            return not self._thread.is_alive()
        return time.monotonic() - self._ended_at > seconds

    def _read(self, state: WebhookState) -> None:
        try:
            self.reading = read(state)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything, and the counters are still to be scraped
            self.why = describe_briefly(error)
        self._ended_at = time.monotonic()


def _gauge(metric: Metric, reading: float | Mapping[str, float]) -> GaugeMetricFamily:
    if not isinstance(reading, Mapping):
        return GaugeMetricFamily(metric.name, metric.doc, value=reading)
    family = GaugeMetricFamily(metric.name, metric.doc, labels=metric.labels)
    for label, value in reading.items():
        family.add_metric([label], value)
    return family
