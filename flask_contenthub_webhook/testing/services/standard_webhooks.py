"""The signature of Standard Webhooks v1, which several services use."""

from __future__ import annotations

import base64
import hashlib
import hmac

__all__ = ["standard_headers"]


def standard_headers(key: bytes, message_id: str, body: bytes, *, now: float) -> dict[str, str]:
    """Return the headers that sign a body."""
    timestamp = str(int(now))
    signature = hmac.digest(key, b".".join((message_id.encode(), timestamp.encode(), body)), hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(signature).decode(),
    }
