"""The names that users of the original know: apply events from Python; sign and verify payloads.

New code does not need them: the extension verifies requests itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .core.canonical import canonical_json
from .core.events import parse_event
from .core.received import Outcome, ReceivedEvent, Source
from .core.signatures import Secret, sign_contenthub, verify_contenthub
from .engine.process import process
from .runtime.state import get_state

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["WebhookHandler", "WebhookSignatureVerifier", "create_verifier", "generate_signature", "verify_signature"]


def generate_signature(payload: Any, secret: Secret) -> str:
    """Make the value of ``X-Webhook-Signature`` for a payload.

    Args:
        payload: bytes or text are signed as they stand; anything else as JSON with sorted keys and without blanks.
        secret: the shared secret.

    Raises:
        ValueError: the secret is empty, or the payload refers to itself.
        TypeError: the payload is not JSON.
    """
    return sign_contenthub(_message(payload), secret)


def verify_signature(payload: Any, signature: str | None, secret: Secret | None) -> bool:
    """Tell whether the signature is right; return False for invalid arguments.

    Args:
        payload: the raw body, or the object that it holds. Prefer the raw body: parsing loses how the sender wrote it.
        signature: base64 or hexadecimal, after an optional ``sha256=``.
        secret: the shared secret.
    """
    if not isinstance(signature, str) or not isinstance(secret, str | bytes):
        return False
    try:
        message = _message(payload)
    except (TypeError, ValueError, RecursionError):
        return False
    return verify_contenthub(message, signature, [secret])


class WebhookSignatureVerifier:
    """Signs and verifies payloads with one secret.

    Args:
        secret_key: the shared secret. With an empty one nothing verifies, and signing raises ValueError.
    """

    def __init__(self, secret_key: Secret) -> None:
        self.secret_key = secret_key

    def generate_signature(self, payload: Any) -> str:
        """Make the signature of a payload, as :func:`generate_signature` does."""
        return generate_signature(payload, self.secret_key)

    def verify_signature(self, payload: Any, signature: str | None) -> bool:
        """Tell whether the signature is right, as :func:`verify_signature` does."""
        return verify_signature(payload, signature, self.secret_key)

    def verify(self, payload: Any, signature: str | None) -> bool:
        """Tell whether the signature is right; another name of :meth:`verify_signature`."""
        return self.verify_signature(payload, signature)


def create_verifier(secret_key: Secret) -> WebhookSignatureVerifier:
    """Make a :class:`WebhookSignatureVerifier`."""
    return WebhookSignatureVerifier(secret_key)


class WebhookHandler:
    """Applies events that the host received by other means, such as a message queue.

    No signature is checked. Everything else is as for a callback: the state machine, the history, the handlers, the
    exactly-once effect.

    Args:
        app: the application; by default the current one at each call.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._app = app

    def handle_task_completed(self, task_id: str, payload: Mapping[str, Any], *, attempt: int | None = None) -> Outcome:
        """Apply a ``completed`` event.

        Args:
            task_id: our id of the task.
            payload: the event as on the wire; ``event`` and ``taskId`` may be left out.
            attempt: the attempt that it is about, from 1; None means the current one.

        Raises:
            InvalidPayload: a field is missing or of the wrong type.
            TaskNotFound: there is no such task.
            HandlerFailed: a signal handler raised; the event is kept and tried again.
            DatabaseUnavailable: nothing was written.
        """
        return self._handle("completed", task_id, payload, attempt)

    def handle_task_failed(self, task_id: str, payload: Mapping[str, Any], *, attempt: int | None = None) -> Outcome:
        """Apply a ``failed`` event; arguments and errors as for :meth:`handle_task_completed`."""
        return self._handle("failed", task_id, payload, attempt)

    def handle_task_progress(self, task_id: str, payload: Mapping[str, Any], *, attempt: int | None = None) -> Outcome:
        """Apply a ``progress`` event; arguments and errors as for :meth:`handle_task_completed`."""
        return self._handle("progress", task_id, payload, attempt)

    def _handle(self, type_: str, task_id: str, payload: Mapping[str, Any], attempt: int | None) -> Outcome:
        state = get_state(self._app)
        whole = {"taskId": task_id, **payload, "event": type_}
        event = parse_event(whole, required_fields=state.registry.common_fields)
        body = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
        received = ReceivedEvent(
            task_id=task_id,
            event=event,
            source=Source.HOST,
            received_at=state.clock(),
            attempt=attempt,
            task_is_authenticated=True,
            body=body,
        )
        return process(state, received)


def _message(payload: Any) -> bytes:
    if isinstance(payload, str):
        return payload.encode("utf-8", "surrogatepass")
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    return canonical_json(payload)
