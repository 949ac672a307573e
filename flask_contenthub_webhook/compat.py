"""The names that users of the original know: sign and verify a payload, not a request.

New code does not need them; the extension verifies requests by :func:`.core.signatures.verify`.
"""

from __future__ import annotations

from typing import Any

from .core.canonical import canonical_json
from .core.signatures import Secret, sign_contenthub, verify_contenthub

__all__ = ["WebhookSignatureVerifier", "create_verifier", "generate_signature", "verify_signature"]


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
    """Tell whether the signature is right. Whatever is wrong with the arguments, the answer is False.

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


def _message(payload: Any) -> bytes:
    if isinstance(payload, str):
        return payload.encode("utf-8", "surrogatepass")
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    return canonical_json(payload)
