"""The host of :mod:`.latency`, as gunicorn, Flask's command line and Celery load it; the environment says how."""

from __future__ import annotations

import importlib
import os
import time
from typing import Any

from flask import Flask

from flask_contenthub_webhook import task_completed

from .hosts import ENGINE_OPTIONS, product

__all__ = ["BROKER", "DATABASE", "PROCESSING", "SLOW", "SLOW_SECONDS"]

DATABASE, PROCESSING, BROKER = "DATABASE_URL", "BENCH_PROCESSING", "BENCH_BROKER"
SLOW = "ffff"
"""How the id of a task begins whose handler is slow."""
SLOW_SECONDS = 2.0


def _make(environment: Any) -> Flask:
    ENGINE_OPTIONS["pool_size"] = 24  # for the threads of the worker
    made = product(environment[DATABASE], processing=environment[PROCESSING])
    if broker := environment.get(BROKER):
        celery: Any = importlib.import_module("celery")
        made.extensions["celery"] = celery.Celery("benchmark", broker=broker)
    task_completed.connect(_take_long, sender=made)
    return made


def _take_long(_: Flask, *, task: Any, **_extra: Any) -> None:
    if task.task_id.startswith(SLOW):
        time.sleep(SLOW_SECONDS)


if PROCESSING in os.environ:
    app = _make(os.environ)
    celery_app = app.extensions.get("celery")
