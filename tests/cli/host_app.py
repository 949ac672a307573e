"""A host for processes: it writes what its scheduler and its creator do to the file that ``TEST_JOURNAL`` names."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import ContentHubWebhook
from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.signals import reconcile_finished

db = SQLAlchemy()


def note(words: str) -> None:
    with Path(os.environ["TEST_JOURNAL"]).open("a") as journal:
        journal.write(f"{words} {os.getpid()}\n")


class OddCreator:
    """Completes whatever it is asked about; ``TEST_CREATOR`` says what is odd about it.

    ``slow``: takes a second and a half to say so. ``broken``: raises what no creator may raise, the first time.
    """

    def __init__(self, oddity: str) -> None:
        self._oddity = oddity
        self._asked = 0

    def submit(self, job: Job, *, wait: float) -> Report:
        note("submitted")
        return Report(state=RemoteState.OPEN)

    def status(self, creator_task_id: str) -> Report:
        return self.statuses([creator_task_id])[creator_task_id]

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        note("asked")
        self._asked += 1
        if self._oddity == "broken" and self._asked == 1:
            raise RuntimeError("this creator is broken")
        if self._oddity == "slow":
            time.sleep(1.5)
        note("answered")
        report = Report(state=RemoteState.COMPLETED, result={"content": "done"})
        return dict.fromkeys(creator_task_ids, report)

    def result(self, creator_task_id: str) -> Report:
        return self.status(creator_task_id)

    def cancel(self, creator_task_id: str) -> None:
        pass


def create_app() -> Flask:
    logging.basicConfig(level=logging.INFO)
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    db.init_app(app)
    Migrate(app, db)
    oddity = os.environ.get("TEST_CREATOR", "")
    ContentHubWebhook(app, db, creator=OddCreator(oddity) if oddity != "none" else None)

    @reconcile_finished.connect_via(app, weak=False)
    def passed(_app: Flask, *, report: Any, **extra: Any) -> None:
        note("pass")

    @app.get("/pid")
    def pid() -> str:
        return str(os.getpid())

    return app
