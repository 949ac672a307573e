"""A host whose service is slow, for processes that are stopped while they are busy.

Beside ``DATABASE_URL`` and ``WEBHOOK_*`` the environment holds ``TEST_JOURNAL``, a file with a line for each call of
the service, and ``TEST_SERVICE_SECONDS``, the time that each call takes. ``POST /submit`` submits 25 tasks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from celery import Celery
from flask import Flask

from flask_contenthub_webhook import ContentHubWebhook, task_completed
from flask_contenthub_webhook.creators import Job, RemoteState, Report
from tests.support.celery_host import add_celery
from tests.support.web_host import Content, db

FACTORY = "tests.support.busy_host:create_app()"
SUBMITTED = 25


class SlowService:
    """Every call takes its time; it knows no outcome of a job."""

    keeps_names = True

    def submit(self, job: Job, *, wait: float) -> Report:
        return self._answer(f"submit {job.creator_task_id}")

    def status(self, creator_task_id: str) -> Report:
        return self._answer(f"status {creator_task_id}")

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        return {}

    def result(self, creator_task_id: str) -> Report:
        self._answer(f"result {creator_task_id}")
        return Report(state=RemoteState.COMPLETED, result={"content": "fetched"})

    def cancel(self, creator_task_id: str) -> None:
        self._answer(f"cancel {creator_task_id}")

    def _answer(self, call: str) -> Report:
        with Path(os.environ["TEST_JOURNAL"]).open("a") as journal:
            journal.write(f"{call}\n")
        time.sleep(float(os.environ["TEST_SERVICE_SECONDS"]))
        return Report(state=RemoteState.OPEN)


def create_app(**config: Any) -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI=config.pop("DATABASE_URL", None) or os.environ["DATABASE_URL"],
        WEBHOOK_ENABLED=True,
        WEBHOOK_CALLBACK_BASE_URL="https://hub.example",
        **config,
    )
    db.init_app(app)
    webhook = ContentHubWebhook(app, db, creator=SlowService())

    @task_completed.connect_via(app)
    def publish(_app: Flask, *, task: Any, result: dict[str, Any], **extra: Any) -> None:
        db.session.add(Content(task_id=task.task_id, body=result["content"]))

    @app.post("/submit")
    def submit() -> str:
        for number in range(SUBMITTED):
            webhook.submit(topic=f"Tea {number}", commit=False)
        db.session.commit()
        return "submitted"

    return app


def create_celery() -> Celery:
    """The Celery application of this host, for Celery's own program."""
    return add_celery(create_app(), os.environ["TEST_HOST_BROKER"], queue=os.environ["TEST_HOST_QUEUE"])


if "TEST_HOST_BROKER" in os.environ:
    celery_app = create_celery()
