"""`web_host` with metrics: a factory for gunicorn, and as a program one of the processes beside the web workers.

``python -m tests.support.metrics_host retry:5 reconcile cancel:TASK replay:DELIVERY`` does these things in order, in an
hour's time, so that what waits is due.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta

from flask import Flask

from flask_contenthub_webhook.contrib.prometheus import WebhookMetrics
from flask_contenthub_webhook.engine.replay import replay
from flask_contenthub_webhook.engine.retry import retry_due_deliveries
from flask_contenthub_webhook.models.columns import utc_now
from flask_contenthub_webhook.runtime.refusals import RefusalLog
from flask_contenthub_webhook.runtime.state import WebhookState, get_state
from flask_contenthub_webhook.tasks.reconcile import reconcile
from flask_contenthub_webhook.tasks.submit import cancel

from . import web_host

FACTORY = "tests.support.metrics_host:create_app()"


def create_app() -> Flask:
    """The application. It writes every refusal down at once, so that the table can be compared at any moment."""
    app = web_host.create_app()
    state = get_state(app)
    state.refusals = RefusalLog(state.database, interval=timedelta(0))
    WebhookMetrics(app, path="/metrics", permission=lambda: "TEST_HOST_NO_SCRAPES" not in os.environ)
    return app


def main(*jobs: str) -> None:
    app = create_app()
    state = get_state(app)
    state.clock = lambda: utc_now() + timedelta(hours=1)
    with app.app_context():
        for job in jobs:
            name, _, argument = job.partition(":")
            _do(state, name, argument)


def _do(state: WebhookState, name: str, argument: str) -> None:
    match name:
        case "retry":
            report = retry_due_deliveries(state, limit=int(argument))
            assert report.claimed == int(argument), report
        case "reconcile":
            reconcile(state)
        case "cancel":
            cancel(state, argument)
        case "replay":
            replay(state, int(argument))
        case _:
            raise ValueError(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
