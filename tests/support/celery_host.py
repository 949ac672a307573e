"""`web_host` with a Celery application, as Flask's documentation has it: what gunicorn serves, and what Celery runs.

Beside what `web_host` knows: ``TEST_HOST_BROKER``, the URL of the broker, and
``TEST_HOST_QUEUE``, a queue of its own. The database is used before anything is
forked, as a host may do that reads its settings from there.
"""

from __future__ import annotations

import os

import sqlalchemy as sa
from celery import Celery
from flask import Flask

from .web_host import create_app, db

WEB_APP = "tests.support.celery_host:app"
"""How gunicorn and Flask name the application."""
CELERY_APP = "tests.support.celery_host:celery_app"
"""How Celery names its own."""


def add_celery(flask_app: Flask, broker: str, *, queue: str = "celery") -> Celery:
    """A Celery application that the extension finds by itself."""
    celery = Celery(flask_app.name, broker=broker)
    celery.conf.task_default_queue = queue
    celery.conf.broker_connection_retry_on_startup = True
    celery.conf.broker_connection_max_retries = None  # until the broker is back
    flask_app.extensions["celery"] = celery
    return celery


if "TEST_HOST_BROKER" in os.environ:
    app = create_app()
    celery_app = add_celery(app, os.environ["TEST_HOST_BROKER"], queue=os.environ.get("TEST_HOST_QUEUE", "celery"))
    with app.app_context():
        db.session.execute(sa.text("SELECT 1"))
