"""fal's signature: Ed25519, by keys that fal publishes, and that are fetched and cached here."""

from __future__ import annotations

import base64
import hashlib
import math
import threading
import time
from typing import TYPE_CHECKING

import httpx

from ..creators import Callback, service_errors
from ..errors import SignatureExpired, SignatureInvalid, SignatureMissing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["FalKeys"]

_URL = "https://rest.alpha.fal.ai/.well-known/jwks.json"
_DAY, _MINUTE = 86_400, 60
_TOLERANCE = 300
_SIGNED = ("X-Fal-Webhook-Request-Id", "X-Fal-Webhook-User-Id", "X-Fal-Webhook-Timestamp")


class FalKeys:
    """The public keys, fetched again after a day, or for a signature by none of them, at most once a minute.

    Args:
        url: of the key set; by default fal's.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url or _URL
        self._keys: list[Ed25519PublicKey] = []
        self._fetched_at = -math.inf
        self._lock = threading.Lock()

    def verify(self, callback: Callback) -> str:
        """Return the id of the message.

        Raises:
            RequestRefused: fal has not signed it, or not within the last five minutes.
            CreatorError: the keys cannot be fetched now.
        """
        try:
            signed = [callback.headers[name] for name in _SIGNED]
            signature = bytes.fromhex(callback.headers["X-Fal-Webhook-Signature"])
            age = time.time() - int(signed[2])
        except KeyError:
            raise SignatureMissing from None
        except ValueError:
            raise SignatureInvalid from None
        message = "\n".join((*signed, hashlib.sha256(callback.body).hexdigest())).encode()
        for oldest in (_DAY, _MINUTE):
            if any(_is_signed(message, signature, key) for key in self._not_older_than(oldest)):
                if abs(age) > _TOLERANCE:
                    raise SignatureExpired
                return signed[0]
        raise SignatureInvalid

    def _not_older_than(self, seconds: float) -> list[Ed25519PublicKey]:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        with self._lock:
            if time.monotonic() - self._fetched_at >= seconds:
                with service_errors():
                    found = httpx.get(self._url, timeout=10, follow_redirects=True).raise_for_status().json()["keys"]
                encoded = [base64.urlsafe_b64decode(key["x"] + "==") for key in found if key.get("crv") == "Ed25519"]
                self._keys = [Ed25519PublicKey.from_public_bytes(key) for key in encoded]
                self._fetched_at = time.monotonic()
            return self._keys


def _is_signed(message: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
