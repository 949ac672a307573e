"""A host application for tests over real HTTP: a factory that gunicorn's workers import.

Everything is configured by the environment. Beside ``DATABASE_URL`` and ``WEBHOOK_*`` these are known:

- ``TEST_HOST_SWITCH``: a file that says what the handlers do; see `Behaviour`.
- ``TEST_HOST_BUSY_TIMEOUT``: seconds that SQLite waits for a lock (5).
- ``TEST_HOST_PROXY_FIX``: trust this many proxies (0).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String, Text
from sqlalchemy import event as sa_event
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_contenthub_webhook import ContentHubWebhook, default_models, task_completed, task_failed

FACTORY = "tests.support.web_host:create_app()"
"""How gunicorn names this application."""

db = SQLAlchemy()
default_models(db)


class Content(db.Model):  # type: ignore[name-defined, misc]
    """The effect of a ``completed``. Nothing here keeps a task from having two: the extension has to."""

    __tablename__ = "contents"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text().with_variant(mysql.LONGTEXT(), "mysql"))


class Failure(db.Model):  # type: ignore[name-defined, misc]
    """The effect of a ``failed``."""

    __tablename__ = "failures"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(String(64))
    will_retry: Mapped[bool]


class Behaviour:
    r"""What the handlers do beside their work, as the switch file says at that moment.

    ``raise`` raises after the Content row was added; ``raise TEXT`` raises with that text, in which ``\udcff`` and the
    like are understood; ``unprintable`` raises an error that cannot be turned into text; ``sleep SECONDS`` sleeps.
    No file, or an empty one: nothing.
    """

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None

    def act(self) -> None:
        if self._path is None or not self._path.exists():
            return
        action, _, argument = self._path.read_text().strip().partition(" ")
        match action:
            case "raise":
                raise ValueError(argument.encode().decode("unicode_escape") or "the host's handler is broken")
            case "unprintable":
                raise _UnprintableError
            case "sleep":
                time.sleep(float(argument))


class _UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("this error has no text")


def create_app(**config: Any) -> Flask:
    """The application; ``config`` wins over the environment, for use within the test process."""
    app = Flask(__name__)
    url = str(config.pop("DATABASE_URL", None) or os.environ["DATABASE_URL"])
    app.config.from_mapping(SQLALCHEMY_DATABASE_URI=url, WEBHOOK_ENABLED=True, **config)
    is_sqlite = url.startswith("sqlite")
    if is_sqlite:
        busy_timeout = float(os.environ.get("TEST_HOST_BUSY_TIMEOUT", "5"))
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": {"timeout": busy_timeout}}
    db.init_app(app)
    ContentHubWebhook(app, db)
    behaviour = Behaviour(os.environ.get("TEST_HOST_SWITCH"))

    def publish(_app: Flask, *, task: Any, result: dict[str, Any], **extra: Any) -> None:
        db.session.add(Content(task_id=task.task_id, body=result["content"]))
        behaviour.act()

    def complain(_app: Flask, *, task: Any, will_retry: bool, **extra: Any) -> None:
        db.session.add(Failure(task_id=task.task_id, will_retry=will_retry))
        behaviour.act()

    # Of this application alone: the signals are shared by every application in the process.
    task_completed.connect(publish, sender=app, weak=False)
    task_failed.connect(complain, sender=app, weak=False)
    if is_sqlite:
        with app.app_context():
            sa_event.listen(db.engine, "connect", _write_ahead)
    if proxies := int(os.environ.get("TEST_HOST_PROXY_FIX", "0")):
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies)  # type: ignore[method-assign]
    return app


def _write_ahead(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
