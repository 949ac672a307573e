"""The object with which a host has metrics."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask, abort, current_app, request
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from werkzeug.wrappers import Response

from ...errors import ConfigurationError
from ...runtime.state import get_state
from .collector import DatabaseCollector
from .instruments import (
    MULTIPROC_DIR,
    Instruments,
    is_multiprocess,
    shared_instruments,
)
from .recorder import Recorder

__all__ = ["WebhookMetrics"]

logger = logging.getLogger(__name__)

Permission = Callable[[], Any]

_KEY = "contenthub_webhook_metrics"
_ENDPOINT = "contenthub_webhook_metrics"


@dataclass(slots=True, eq=False, kw_only=True)
class _AppMetrics:
    """What belongs to one application."""

    registry: CollectorRegistry
    recorder: Recorder
    instruments: Callable[[], Instruments]
    permission: Permission | None
    page: Callable[..., Any]
    warned: bool = False


class WebhookMetrics:
    """Counts what the extension does, and shows it to Prometheus. One object can serve many applications.

    Args:
        app: set up for this application at once.
        **options: see :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        if app is not None:
            self.init_app(app, **options)

    def init_app(
        self,
        app: Flask,
        *,
        registry: CollectorRegistry | None = None,
        path: str | None = None,
        permission: Permission | None = None,
    ) -> None:
        """Count from now on. Call it after ``webhook.init_app``.

        Args:
            app: the application.
            registry: where the metrics are registered, beside those of the host; by default in one of their own. Where
                processes share their counts (PROMETHEUS_MULTIPROC_DIR), only the gauges are registered.
            path: where this application answers scrapes, ``/metrics`` for example; by default nowhere.
            permission: called at every scrape, within the request; a false answer is a 403. Without it scrapes are
                only answered in debug mode and in tests.

        Raises:
            ConfigurationError: PROMETHEUS_MULTIPROC_DIR is no folder that can be written to.
            RuntimeError: ``webhook.init_app`` was not called, or this was called before.
        """
        if _KEY in app.extensions:
            raise RuntimeError(f"WebhookMetrics are already set up for the app {app.name!r}.")
        state = get_state(app)
        database = DatabaseCollector(state)
        shown, instruments = _shared() if is_multiprocess() else _own(registry)
        for wanted in {shown} if registry is None else {shown, registry}:
            wanted.register(database)
        recorder = Recorder(state, instruments)
        recorder.connect()
        app.extensions[_KEY] = _AppMetrics(
            registry=shown,
            recorder=recorder,
            instruments=instruments,
            permission=permission,
            page=make_wsgi_app(shown),
        )
        if path is not None:
            app.add_url_rule(path, _ENDPOINT, self.view, methods=["GET"])

    @property
    def registry(self) -> CollectorRegistry:
        """Everything that a scrape of the current application shows, for a page or a server of the host's own."""
        return _of_current_app().registry

    def view(self) -> Response:
        """Answer a scrape."""
        metrics = _of_current_app()
        _check_permission(metrics)
        _check_processes(metrics)
        metrics.instruments()  # so that what did not happen yet shows as 0
        return Response.from_app(metrics.page, request.environ)


def _own(registry: CollectorRegistry | None) -> tuple[CollectorRegistry, Callable[[], Instruments]]:
    """For what this process alone counts."""
    shown = CollectorRegistry() if registry is None else registry
    made = Instruments.make(shown)
    return shown, lambda: made


def _shared() -> tuple[CollectorRegistry, Callable[[], Instruments]]:
    """For what every process that shares the folder counts."""
    folder = os.environ[MULTIPROC_DIR]
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):  # noqa: PTH112 - as os.access
        raise ConfigurationError(f"{MULTIPROC_DIR} is {folder!r}; it must be a folder that this process can write to.")
    shown = CollectorRegistry()
    MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
    return shown, shared_instruments


def _of_current_app() -> _AppMetrics:
    metrics = current_app.extensions.get(_KEY)
    if not isinstance(metrics, _AppMetrics):
        raise RuntimeError(f"There are no WebhookMetrics for the app {current_app.name!r}; call metrics.init_app(app).")
    return metrics


def _check_permission(metrics: _AppMetrics) -> None:
    if metrics.permission is not None:
        if not current_app.ensure_sync(metrics.permission)():
            abort(403)
    elif not (current_app.debug or current_app.testing):
        logger.warning("A scrape was refused; WebhookMetrics needs a `permission` outside debug mode.")
        abort(403)


def _check_processes(metrics: _AppMetrics) -> None:
    """Say so, once, where every scrape would show the counts of another process."""
    if request.environ.get("wsgi.multiprocess") and not is_multiprocess() and not metrics.warned:
        metrics.warned = True
        logger.warning(
            "Several processes serve this app, and a scrape sees the counts of one of them; set %s to a folder that "
            "they share.",
            MULTIPROC_DIR,
        )
