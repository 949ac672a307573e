"""The text that `make serve` prints: what to do next, with commands that work as they stand."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping

from flask import Flask
from sqlalchemy import select

from flask_contenthub_webhook import generate_signature

from .extensions import db, webhook
from .models import GenerationTask
from .tasks import account_named, create_task

WITH_SIMULATOR = "make serve CREATOR=simulator"


def how_to_be_the_creator(app: Flask, url: str) -> str:
    """Explain how to send callbacks by hand where there is no creator."""
    with app.app_context():
        task = open_task(url)
        progress = {"event": "progress", "taskId": task.task_id, "progress": {"percentage": 40, "message": "writing"}}
        article = "# Hello from curl\n\nA callback made this."
        completed = {"event": "completed", "taskId": task.task_id, "result": {"content": article, "qualityScore": 9.1}}
        secrets = app.extensions["contenthub_webhook"].settings.secrets
        signed = curl(f"{url}/api/v1/content/callback/{task.task_id}", progress, secret=next(iter(secrets), None))
        by_token = curl(webhook.callback_url(task.task_id, task.attempt, base_url=url), completed)
        return f"""
{greeting(url)}

Task {task.task_id} is waiting for its callback. Play its creator from another terminal:

1. Progress, signed with X-Webhook-Signature (HMAC-SHA256 of the body, with WEBHOOK_SECRET_KEY):

{signed}

2. The result, sent to the URL for a creator that cannot sign (the token in it authenticates the request):

{by_token}

Send the second one again: it is a duplicate, and there is still one content. Change a letter of the token and it is
refused. Then open {url}, or run: curl {url}/api/hub/contents
The callbacks that came, and the effect of each, are on {url}/webhooks/

For a simulated creator, whose callbacks are sometimes lost, duplicated or late: {WITH_SIMULATOR}
"""


def how_to_watch_the_creator(app: Flask, url: str, creator_url: str) -> str:
    """Explain how to order something from the creator, and how to follow it."""
    flask = f"{sys.executable} -m flask --app example_app"
    order = curl(f"{url}/api/hub/tasks", {"topic": "Cats", "auto_approve": True})
    with app.app_context():
        return f"""
{greeting(url)}

A simulated creator is on {creator_url}. Each task takes it 2 to 8 s. One callback in five is lost, one in five
comes twice, and some are late or contradict each other; one attempt in five fails; and some callbacks are forged.

Order something on {url}, or from another terminal, a few times:

{order}

and watch every task being settled all the same, on {url}/webhooks/ or with:

curl {url}/api/hub/tasks
{flask} webhook tasks
{flask} webhook deliveries list
"""


def greeting(url: str) -> str:
    database = db.engine.url.render_as_string(hide_password=True)
    return f"ContentHub is on {url} (Ctrl-C ends it). Database: {database}"


def curl(url: str, event: Mapping[str, object], *, secret: str | None = None) -> str:
    """Return a command line that sends an event, with a signature of its body if there is a secret."""
    body = json.dumps(event)
    headers = ["Content-Type: application/json"]
    if secret is not None:
        headers.append(f"X-Webhook-Signature: {generate_signature(body, secret)}")
    options = " ".join(f"-H {shlex.quote(header)}" for header in headers)
    return f"curl {shlex.quote(url)} {options} \\\n  -d {shlex.quote(body)}"


def open_task(url: str) -> GenerationTask:
    """Return a task to play with: the one from last time while it is still open, else a new one."""
    waiting = select(GenerationTask).where(GenerationTask.topic == "Hello", GenerationTask.finished_at.is_(None))
    task = db.session.scalars(waiting).first()
    if task is None:
        task = create_task(account_named("Tech Weekly", min_quality=8), "Hello", base_url=url, auto_approve=True)
        db.session.commit()
    return task
