"""Metrics for Prometheus, as the host sets them up."""

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
from .instruments import MULTIPROC_DIR, Instruments, is_multiprocess, shared_instruments
from .recorder import Recorder

__all__ = ["WebhookMetrics"]

logger = logging.getLogger(__name__)

Permission = Callable[[], bool]

_KEY = "contenthub_webhook_metrics"
_ENDPOINT = "contenthub_webhook_metrics"


@dataclass(slots=True, eq=False, kw_only=True)
class _AppMetrics:
    """The metrics of one application."""

    registry: CollectorRegistry
    recorder: Recorder
    instruments: Callable[[], Instruments]
    permission: Permission | None
    page: Callable[..., Any]
    warned: bool = False


class WebhookMetrics:
    """Count what the extension does, and show it to Prometheus. One object can serve many applications.

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
            registry: the host's registry, to which the metrics are added; by default they get their own. Where
                processes share their counts (PROMETHEUS_MULTIPROC_DIR), only the gauges are registered.
            path: the path at which this application answers scrapes, such as ``/metrics``; by default it answers none.
            permission: called at every scrape, within the request; True answers it, anything else is a 403.
                Without it scrapes are only answered in debug mode and in tests.

        Raises:
            ConfigurationError: PROMETHEUS_MULTIPROC_DIR is not a folder that can be written to; or ``path`` is given to
                an application with host matching.
            RuntimeError: ``webhook.init_app`` was not called, or this was called before.
        """
        if _KEY in app.extensions:
            raise RuntimeError(f"WebhookMetrics are already set up for the app {app.name!r}.")
        if path is not None and app.url_map.host_matching:
            raise ConfigurationError(
                "In an app with host_matching=True, add the route yourself instead of giving a path: "
                "app.add_url_rule('/metrics', view_func=metrics.view, host=...)."
            )
        state = get_state(app)
        database = DatabaseCollector(state)
        shown, instruments = _shared() if is_multiprocess() else _own(registry)
        for target in {shown} if registry is None else {shown, registry}:
            target.register(database)
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
        """The registry that a scrape of the current application shows, for a host that serves it in its own way."""
        return _of_current_app().registry

    def view(self) -> Response:
        """Answer a scrape."""
        metrics = _of_current_app()
        _check_permission(metrics)
        _check_processes(metrics)
        metrics.instruments()  # so that counters of what has not happened yet show 0
        return Response.from_app(metrics.page, request.environ)


def _own(registry: CollectorRegistry | None) -> tuple[CollectorRegistry, Callable[[], Instruments]]:
    """Return a registry, and the instruments of this process alone."""
    shown = CollectorRegistry() if registry is None else registry
    instruments = Instruments(shown)
    return shown, lambda: instruments


def _shared() -> tuple[CollectorRegistry, Callable[[], Instruments]]:
    """Return a registry that adds up the processes that share the folder, and the instruments of this one."""
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
        answer: Any = current_app.ensure_sync(metrics.permission)()
        if answer is True:
            return
        if answer:
            logger.error(
                "A scrape was refused; the permission returned %s, and must return True or False.",
                type(answer).__name__,
            )
        abort(403)
    elif not (current_app.debug or current_app.testing):
        logger.warning("A scrape was refused; WebhookMetrics needs a `permission` outside debug mode.")
        abort(403)


def _check_processes(metrics: _AppMetrics) -> None:
    """Warn once if each scrape would show the counts of another process."""
    if request.environ.get("wsgi.multiprocess") and not is_multiprocess() and not metrics.warned:
        metrics.warned = True
        logger.warning(
            "Several processes serve this app, and a scrape sees the counts of one of them; set %s to a folder that "
            "they share.",
            MULTIPROC_DIR,
        )
