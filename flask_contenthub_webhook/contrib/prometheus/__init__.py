"""Metrics for Prometheus: events are counted as they happen, queues are read from the database.

::

    metrics = WebhookMetrics()

    webhook.init_app(app, db)
    metrics.init_app(app, path="/metrics", permission=may_scrape)

Needs the extra ``prometheus``. An app that several processes serve also needs ``PROMETHEUS_MULTIPROC_DIR``.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("prometheus_client") is None:
    raise ImportError(
        "flask_contenthub_webhook.contrib.prometheus needs prometheus-client: "
        "pip install 'flask-contenthub-webhook[prometheus]'."
    )

from .catalogue import METRICS, Metric
from .extension import WebhookMetrics

__all__ = ["METRICS", "Metric", "WebhookMetrics"]
