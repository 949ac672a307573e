"""The host of the soak: `web_host`, with an endpoint that submits tasks.

Beside what `web_host` knows, the environment may hold ``TEST_SOAK_LEASE_MARGIN``: seconds in place of the 30 for which
a submission that a killed process had claimed is left alone beyond the calls' own time limits. A soak of 40 seconds
cannot wait that long.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from flask import request

from flask_contenthub_webhook import ContentHubWebhook
from flask_contenthub_webhook.engine import task_changes
from tests.support import web_host

if TYPE_CHECKING:
    from flask import Flask

FACTORY = "tests.support.soak_host:create_app()"
"""How gunicorn and flask name this application."""

webhook = ContentHubWebhook()


def create_app() -> Flask:
    """The application, configured by the environment alone."""
    if margin := os.environ.get("TEST_SOAK_LEASE_MARGIN"):
        task_changes._LEASE_MARGIN = timedelta(seconds=float(margin))
    app = web_host.create_app()

    @app.post("/submit")
    def submit() -> dict[str, str]:
        task = webhook.submit(callback_url=request.host_url, **request.get_json())
        return {"task_id": task.task_id}

    return app
