"""A host for every kind of server: the application as WSGI, and behind two adapters as ASGI.

It notes each pass of the poller, with the id of its process, in the file that ``TEST_JOURNAL`` names.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

from flask import Flask, g
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String, Text, select, text
from sqlalchemy.orm import Mapped, mapped_column

from flask_contenthub_webhook import ContentHubWebhook, default_models, task_completed
from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.signals import reconcile_finished

db = SQLAlchemy()
default_models(db)


class Content(db.Model):  # type: ignore[name-defined, misc]
    """The effect of a ``completed``."""

    __tablename__ = "contents"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)


class NeverDone:
    """A creator with which every task stays open."""

    def submit(self, job: Job, *, wait: float) -> Report:
        return Report(state=RemoteState.OPEN)

    def status(self, creator_task_id: str) -> Report:
        return Report(state=RemoteState.OPEN)

    def statuses(self, creator_task_ids: Any, *, since: Any = None) -> dict[str, Report]:
        return {name: self.status(name) for name in creator_task_ids}

    result = status

    def cancel(self, creator_task_id: str) -> None:
        pass


def create_app() -> Flask:
    logging.basicConfig(level=logging.INFO)
    app = Flask(__name__)
    url = os.environ["DATABASE_URL"]
    app.config.from_mapping(SQLALCHEMY_DATABASE_URI=url, WEBHOOK_ENABLED=True)
    db.init_app(app)
    ContentHubWebhook(app, db, creator=NeverDone())

    @app.before_request
    def current_user() -> None:
        g.user = db.session.scalar(text("select 'Ada'"))  # as Flask-Login does: the session holds a connection

    @app.get("/pid")
    def pid() -> str:
        return str(os.getpid())

    @app.get("/async")
    async def asynchronous() -> str:
        await asyncio.sleep(0)
        return f"{g.user}: {len(db.session.scalars(select(Content)).all())}"

    @task_completed.connect_via(app, weak=False)
    def publish(_app: Flask, *, task: Any, result: dict[str, Any], **extra: Any) -> None:
        db.session.add(Content(task_id=task.task_id, body=result["content"]))

    @task_completed.connect_via(app, weak=False)
    async def publish_asynchronously(_app: Flask, *, task: Any, **extra: Any) -> None:
        await asyncio.sleep(0)
        db.session.add(Content(task_id=task.task_id, body="from an async handler"))

    @reconcile_finished.connect_via(app, weak=False)
    def passed(_app: Flask, *, report: Any, **extra: Any) -> None:
        with Path(os.environ["TEST_JOURNAL"]).open("a") as journal:
            journal.write(f"{os.getpid()}\n")

    return app


app = create_app()


def __getattr__(name: str) -> Any:
    """Make the adapter that a server asks for; each needs a package of its own."""
    if name == "asgi":
        from asgiref.wsgi import WsgiToAsgi

        return WsgiToAsgi(app)
    if name == "asgi_of_a2wsgi":
        from a2wsgi import WSGIMiddleware

        return WSGIMiddleware(app)
    raise AttributeError(name)
