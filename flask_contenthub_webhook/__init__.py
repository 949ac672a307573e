"""Callbacks you can trust, and a poller that catches the ones you lose, in one state machine.

::

    from flask_contenthub_webhook import ContentHubWebhook, task_completed

    webhook = ContentHubWebhook()

    def create_app():
        app = Flask(__name__)
        db.init_app(app)
        webhook.init_app(app, db)
        return app

    @task_completed.connect
    def publish(app, *, task, result, delivery, **extra):
        db.session.add(Content(task_id=task.task_id, body=result["content"]))
"""

from ._version import __version__
from .compat import (
    WebhookHandler,
    WebhookSignatureVerifier,
    create_verifier,
    generate_signature,
    verify_signature,
)
from .config.settings import InsecureConfiguration
from .core.filters import EXISTS, MISSING
from .core.forward_targets import ForwardTarget
from .core.received import Outcome
from .core.signatures import generate_secret
from .core.state_machine import TaskState, Verdict
from .creators.protocol import Creator, Job, RemoteState, Report
from .engine.retry import RetryReport
from .errors import (
    ConfigurationError,
    CreatorError,
    CreatorRefused,
    CreatorUnclear,
    CreatorUnreachable,
    DatabaseUnavailable,
    DeliveryNotFound,
    ForwardNotFound,
    HandlerFailed,
    InvalidPayload,
    ReplayRefused,
    RequestRefused,
    TaskNotFound,
    TransitionRefused,
    WebhookError,
)
from .extension import ContentHubWebhook
from .forwarding.send import ForwardReport
from .models.defaults import default_models
from .models.delivery import DeliveryMixin
from .models.task import GenerationTaskMixin
from .operations.alerts import AlertStatus
from .signals import (
    alert_changed,
    callback_rejected,
    delivery_processed,
    failure_rate_exceeded,
    forward_finished,
    reconcile_finished,
    task_cancelled,
    task_completed,
    task_failed,
    task_progress,
    task_submitted,
    task_timed_out,
)
from .tasks.handover import SubmitReport
from .tasks.reconcile import ReconcileReport

__all__ = [
    "EXISTS",
    "MISSING",
    "AlertStatus",
    "ConfigurationError",
    "ContentHubWebhook",
    "Creator",
    "CreatorError",
    "CreatorRefused",
    "CreatorUnclear",
    "CreatorUnreachable",
    "DatabaseUnavailable",
    "DeliveryMixin",
    "DeliveryNotFound",
    "ForwardNotFound",
    "ForwardReport",
    "ForwardTarget",
    "GenerationTaskMixin",
    "HandlerFailed",
    "InsecureConfiguration",
    "InvalidPayload",
    "Job",
    "Outcome",
    "ReconcileReport",
    "RemoteState",
    "ReplayRefused",
    "Report",
    "RequestRefused",
    "RetryReport",
    "SubmitReport",
    "TaskNotFound",
    "TaskState",
    "TransitionRefused",
    "Verdict",
    "WebhookError",
    "WebhookHandler",
    "WebhookSignatureVerifier",
    "__version__",
    "alert_changed",
    "callback_rejected",
    "create_verifier",
    "default_models",
    "delivery_processed",
    "failure_rate_exceeded",
    "forward_finished",
    "generate_secret",
    "generate_signature",
    "reconcile_finished",
    "task_cancelled",
    "task_completed",
    "task_failed",
    "task_progress",
    "task_submitted",
    "task_timed_out",
    "verify_signature",
]
