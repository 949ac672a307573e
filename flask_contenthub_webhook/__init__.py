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
from .core.filters import EXISTS, MISSING
from .core.forward_targets import ForwardTarget
from .core.signatures import generate_secret
from .core.state_machine import TaskState, Verdict
from .extension import ContentHubWebhook
from .models.defaults import default_models
from .models.delivery import DeliveryMixin
from .models.task import GenerationTaskMixin
from .signals import (
    delivery_processed,
    task_cancelled,
    task_completed,
    task_failed,
    task_progress,
    task_submitted,
    task_timed_out,
)

__all__ = [
    "EXISTS",
    "MISSING",
    "ContentHubWebhook",
    "DeliveryMixin",
    "ForwardTarget",
    "GenerationTaskMixin",
    "TaskState",
    "Verdict",
    "WebhookHandler",
    "WebhookSignatureVerifier",
    "__version__",
    "create_verifier",
    "default_models",
    "delivery_processed",
    "generate_secret",
    "generate_signature",
    "task_cancelled",
    "task_completed",
    "task_failed",
    "task_progress",
    "task_submitted",
    "task_timed_out",
    "verify_signature",
]
