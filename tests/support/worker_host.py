"""The host of workers: `web_host`, with a custom event, ``numbered``, and a clock that can be set while it runs.

Beside what `web_host` knows, the environment may hold ``TEST_CLOCK_OFFSET``: a file with the seconds by which the
extension's clock is wrong.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask_contenthub_webhook.models.columns import utc_now
from flask_contenthub_webhook.runtime.state import get_state
from flask_contenthub_webhook.runtime.subscriptions import Subscription
from tests.support import faketime, web_host

if TYPE_CHECKING:
    from datetime import datetime

    from flask import Flask

FACTORY = "tests.support.worker_host:create_app()"
"""How gunicorn and flask name this application."""


def create_app(**config: Any) -> Flask:
    """The application; ``config`` wins over the environment."""
    faketime.mend_sleep()
    app = web_host.create_app(
        **{"WEBHOOK_PROCESSING": "worker", "WEBHOOK_SUBMIT_THREADS": 0, "WEBHOOK_EVENTS": "numbered", **config}
    )
    state = get_state(app)
    state.subscriptions.append(Subscription("numbered", _note, None))
    if path := os.environ.get("TEST_CLOCK_OFFSET"):
        state.clock = lambda: _wrong_by(Path(path))
    return app


def _note(app: Flask, *, task: Any, event: Any, **extra: Any) -> None:
    """One row for each event, in the order in which they are applied."""
    web_host.db.session.add(web_host.Content(task_id=task.task_id, body=str(event.payload["number"])))


def _wrong_by(path: Path) -> datetime:
    seconds = float(path.read_text() or 0) if path.exists() else 0.0
    return utc_now() + timedelta(seconds=seconds)
