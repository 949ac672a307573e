"""What a host writes, checked by mypy in its strict mode; never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import (
    EXISTS,
    ContentHubWebhook,
    ForwardTarget,
    TaskState,
    Verdict,
    WebhookHandler,
    WebhookSignatureVerifier,
    create_verifier,
    default_models,
    delivery_processed,
    generate_secret,
    generate_signature,
    task_completed,
    task_failed,
    verify_signature,
)
from flask_contenthub_webhook.contrib.dashboard import create_dashboard
from flask_contenthub_webhook.core.received import Outcome
from flask_contenthub_webhook.engine.retry import RetryReport
from flask_contenthub_webhook.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    HandlerFailed,
    RequestRefused,
    WebhookError,
)
from flask_contenthub_webhook.forwarding.send import ForwardReport
from flask_contenthub_webhook.operations.alerts import AlertStatus
from flask_contenthub_webhook.signals import alert_changed

db = SQLAlchemy()
webhook = ContentHubWebhook()


def create_app() -> Flask:
    app = Flask(__name__)
    db.init_app(app)
    try:
        webhook.init_app(app, db)
    except ConfigurationError as error:
        assert_type(error.message, str)
        raise
    app.register_blueprint(create_dashboard(permission=lambda: True), url_prefix="/webhooks")
    return app


def create_app_with_own_models(app: Flask) -> None:
    task_model, delivery_model = default_models(db)
    assert_type(webhook.init_app(app, db, task_model=task_model, delivery_model=delivery_model), None)


@task_completed.connect
def publish(app: Flask, *, task: Any, result: Mapping[str, Any], late: bool, **extra: Any) -> None:
    app.logger.info("%s: %s (late: %s)", task.task_id, result["content"], late)


@task_failed.connect
def alert(app: Flask, *, task: Any, error: Mapping[str, Any], will_retry: bool, **extra: Any) -> None:
    if not will_retry:
        app.logger.error("%s: %s", task.task_id, error["message"])


@delivery_processed.connect
def count(app: Flask, *, outcome: str, **extra: Any) -> None:
    app.logger.info(outcome)


def submit() -> None:
    webhook.submit(
        topic="Tea", forward_to=["https://shop.example/", ForwardTarget("https://x.example/", events=["failed"])]
    )
    webhook.submit(topic="Tea", forward_to=[{"url": "https://shop.example/", "where": {"result.images": EXISTS}}])
    assert_type(webhook.send_due_forwards(limit=10), ForwardReport)
    assert_type(webhook.replay_forward(7), None)


@alert_changed.connect
def page(app: Flask, *, alert: AlertStatus, **extra: Any) -> None:
    app.logger.warning("%s: %s", alert.name, alert.message)


@webhook.on("illustrated", where={"result.images": EXISTS})
def illustrate(app: Flask, *, task: Any, **extra: Any) -> int:
    return len(task.task_id)


def a_decorated_handler_keeps_its_type(app: Flask) -> None:
    assert_type(illustrate(app, task=None), int)


def operate(delivery_id: int) -> str:
    applied = webhook.replay(delivery_id)
    assert_type(applied, Outcome)
    assert_type(applied.verdict, Verdict)
    assert_type(applied.status, TaskState)
    report = webhook.retry_due_deliveries(limit=10)
    assert_type(report, RetryReport)
    assert_type(report.outcomes[Verdict.PROCESSED], int)
    assert_type(webhook.check_alerts(), list[AlertStatus])
    assert_type(webhook.purge(verdicts=["rejected", Verdict.DUPLICATE]), int)
    return webhook.callback_url("0b5f6a2e-7a0c-4b1e-9c65-2f6d4d6c7f10", 2, base_url="https://hub.example")


def consume(message: Mapping[str, Any]) -> bool:
    handler = WebhookHandler()
    try:
        applied = handler.handle_task_completed(message["taskId"], message, attempt=1)
    except HandlerFailed as error:
        assert_type(error.delivery_id, int | None)
        return False
    except DatabaseUnavailable as error:
        assert_type(error.retry_after, int | None)
        return False
    except RequestRefused as error:
        assert_type(error.status, int)
        return False
    except WebhookError:
        return False
    return applied.late


def sign(payload: Mapping[str, Any]) -> bool:
    secret = generate_secret()
    assert_type(generate_signature(payload, secret), str)
    verifier = create_verifier(secret)
    assert_type(verifier, WebhookSignatureVerifier)
    return verifier.verify(payload, verifier.generate_signature(payload)) and verify_signature(b"", None, secret)
