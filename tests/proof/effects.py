"""A host application whose handlers leave one row for each call, so that an effect that happened twice shows."""

from __future__ import annotations

from typing import Any

from flask_contenthub_webhook import task_cancelled, task_failed, task_progress, task_timed_out
from flask_contenthub_webhook.core.filters import parse_where
from flask_contenthub_webhook.runtime.subscriptions import Subscription
from tests.support.host import Host, make_host
from tests.support.submission import BASE

__all__ = ["CUSTOM", "host_with_effects"]

CUSTOM = "illustrated"
"""A type of event that changes no state."""


def host_with_effects(url: str, **options: Any) -> Host:
    """Build a host that hands over and forwards only when it sweeps; the arguments are those of `make_host`."""
    host = make_host(url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0, **options)

    def leave(task: Any, effect: str) -> None:
        host.db.session.add(host.Content(task_id=task.task_id, body=effect))

    def on_failed(app: Any, *, task: Any, delivery: Any, **extra: Any) -> None:
        leave(task, f"failed:{delivery.attempt}")

    def on_progress(app: Any, *, task: Any, progress: Any, **extra: Any) -> None:
        leave(task, f"progress:{progress['percentage']:g}")

    def on_cancelled(app: Any, *, task: Any, **extra: Any) -> None:
        leave(task, "cancelled")

    def on_timed_out(app: Any, *, task: Any, **extra: Any) -> None:
        leave(task, "timed_out")

    def on_custom(app: Any, *, task: Any, **extra: Any) -> None:
        leave(task, CUSTOM)

    host.connect(task_failed, on_failed)
    host.connect(task_progress, on_progress)
    host.connect(task_cancelled, on_cancelled)
    host.connect(task_timed_out, on_timed_out)
    host.state.subscriptions.append(Subscription(CUSTOM, on_custom, parse_where(None)))
    return host
