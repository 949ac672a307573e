"""`python -m example_app.serve [PORT]`, or `make serve`: migrate, show how to send a callback, serve until Ctrl-C."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping

from flask import Flask
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from flask_contenthub_webhook import ConfigurationError, generate_signature

from . import create_app
from .extensions import db, webhook
from .models import GenerationTask
from .server import SetupError, check_dependencies, gunicorn_command, listen, migrate_database
from .tasks import account_named, create_task

DEFAULT_PORT = 8000
LOG_FORMAT = '%(t)s %(h)s "%(m)s %(U)s" %(s)s'
"""Without the query string: the token in it is as good as a password."""


def main() -> None:
    try:
        check_dependencies("gunicorn")
        listener = listen(port_of(sys.argv[1:]))
        app = create_app()
        migrate_database(app)
    except (SetupError, ConfigurationError, SQLAlchemyError) as error:
        sys.exit(f"example_app: {getattr(error, 'orig', None) or error}")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    print(instructions(app, url), flush=True)
    listener.set_inheritable(True)
    command = gunicorn_command(listener, "--access-logfile", "-", "--access-logformat", LOG_FORMAT)
    os.execv(command[0], command)  # noqa: S606 - from here on this process is gunicorn


def port_of(arguments: list[str]) -> int:
    """The port: the argument, else PORT of the environment, else 8000."""
    text = arguments[0] if arguments else os.environ.get("PORT", str(DEFAULT_PORT))
    try:
        return int(text)
    except ValueError:
        raise SetupError(f"{text!r} is no port. Usage: python -m example_app.serve [PORT]") from None


def instructions(app: Flask, url: str) -> str:
    """What to do now, with commands that work as they stand."""
    with app.app_context():
        task = open_task(url)
        progress = {"event": "progress", "taskId": task.task_id, "progress": {"percentage": 40, "message": "writing"}}
        article = "# Hello from curl\n\nA callback made this."
        completed = {"event": "completed", "taskId": task.task_id, "result": {"content": article, "qualityScore": 9.1}}
        secrets = app.extensions["contenthub_webhook"].settings.secrets
        signed = curl(f"{url}/api/v1/content/callback/{task.task_id}", progress, secret=next(iter(secrets), None))
        by_token = curl(webhook.callback_url(task.task_id, task.attempt, base_url=url), completed)
        return f"""
ContentHub is on {url} (Ctrl-C ends it). Database: {db.engine.url.render_as_string(hide_password=True)}

A task waits for its callback: {task.task_id}. Be its creator, from another terminal:

1. Progress, signed with X-Webhook-Signature (HMAC-SHA256 over the body, under WEBHOOK_SECRET_KEY):

{signed}

2. The result, under the URL that a creator who cannot sign is given (its token vouches for it):

{by_token}

Send the second one again: it is a duplicate, and there is still one content. Change a letter of the token: refused.
Then look at {url}, or ask: curl {url}/api/hub/contents
"""


def curl(url: str, event: Mapping[str, object], *, secret: str | None = None) -> str:
    """A command line that sends an event, with a signature over its body where there is a secret."""
    body = json.dumps(event)
    headers = ["Content-Type: application/json"]
    if secret is not None:
        headers.append(f"X-Webhook-Signature: {generate_signature(body, secret)}")
    options = " ".join(f"-H {shlex.quote(header)}" for header in headers)
    return f"curl {shlex.quote(url)} {options} \\\n  -d {shlex.quote(body)}"


def open_task(url: str) -> GenerationTask:
    """A task to play with: the one of last time, while it is open."""
    waiting = select(GenerationTask).where(GenerationTask.topic == "Hello", GenerationTask.finished_at.is_(None))
    task = db.session.scalars(waiting).first()
    if task is None:
        task = create_task(account_named("Tech Weekly", min_quality=8), "Hello", base_url=url, auto_approve=True)
        db.session.commit()
    return task


if __name__ == "__main__":
    main()
