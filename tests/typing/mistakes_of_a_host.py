"""What a host must not write: mypy has to find every line that says so."""

# The tests at large pass wrong types on purpose; here they are the point.
# mypy: enable-error-code=arg-type

from __future__ import annotations

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import ContentHubWebhook, WebhookHandler

webhook = ContentHubWebhook()


def mistakes(app: Flask, db: SQLAlchemy) -> None:
    webhook.init_app(app)  # type: ignore[call-arg]
    webhook.init_app(app, db, model=None)  # type: ignore[call-arg]
    webhook.replay("1")  # type: ignore[arg-type]
    webhook.on(1)  # type: ignore[arg-type]
    webhook.callback_url("t", attempt="1")  # type: ignore[arg-type]
    WebhookHandler().handle_task_failed("t", [])  # type: ignore[arg-type]
