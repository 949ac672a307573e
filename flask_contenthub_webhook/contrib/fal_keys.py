"""fal's signature: Ed25519, by keys that fal publishes, and that are fetched and cached here."""

from __future__ import annotations

import base64
import hashlib
import math
import threading
import time
from typing import TYPE_CHECKING

import httpx

from ..core.logs import get_logger
from ..core.per_process import PerProcess
from ..creators import Callback, service_errors
from ..errors import CreatorUnreachable, SignatureExpired, SignatureInvalid, SignatureMissing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["FalKeys"]

logger = get_logger(__name__)

_URL = "https://rest.alpha.fal.ai/.well-known/jwks.json"
_DAY, _MINUTE = 86_400, 60
_TOLERANCE = 300
_SIGNED = ("X-Fal-Webhook-Request-Id", "X-Fal-Webhook-User-Id", "X-Fal-Webhook-Timestamp")


class FalKeys:
    """The public keys, fetched again after a day, or for a signature by none of them.

    They are fetched at most once a minute, whatever comes of it, by one thread; meanwhile, and if it fails, the others
    use those that are known.

    Args:
        url: of the key set; by default fal's.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url or _URL
        self._keys: list[Ed25519PublicKey] = []
        self._tried_at = self._fetched_at = -math.inf
        self._fetching = PerProcess(threading.Lock)

    def verify(self, callback: Callback) -> str:
        """Return the id of the message.

        Raises:
            RequestRefused: fal has not signed it, or not within the last five minutes.
            CreatorError: none of the known keys fits, and the present ones cannot be fetched now.
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
            self._fetch_if_older_than(oldest)
            if any(_is_signed(message, signature, key) for key in self._keys):
                if abs(age) > _TOLERANCE:
                    raise SignatureExpired
                return signed[0]
        if self._tried_at > self._fetched_at:
            raise CreatorUnreachable("The keys of fal cannot be fetched; they are tried again once a minute.")
        raise SignatureInvalid

    def _fetch_if_older_than(self, seconds: float) -> None:
        """Fetch the keys, unless another thread does so and some are known."""
        fetching = self._fetching.value
        if self._is_due(seconds) and fetching.acquire(blocking=not self._keys):
            try:
                if self._is_due(seconds):
                    self._tried_at = time.monotonic()
                    self._keys, self._fetched_at = self._fetch(), time.monotonic()
            except Exception as error:  # noqa: BLE001 - whatever that host answers, the known keys still hold
                logger.warning("The keys of fal could not be fetched; those that are known are used. %s", error)
            finally:
                fetching.release()

    def _is_due(self, seconds: float) -> bool:
        now = time.monotonic()
        return now - self._fetched_at >= seconds and now - self._tried_at >= _MINUTE

    def _fetch(self) -> list[Ed25519PublicKey]:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        with service_errors():
            found = httpx.get(self._url, timeout=10, follow_redirects=True).raise_for_status().json()["keys"]
        encoded = [base64.urlsafe_b64decode(key["x"] + "==") for key in found if key.get("crv") == "Ed25519"]
        return [Ed25519PublicKey.from_public_bytes(key) for key in encoded]


def _is_signed(message: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
