"""fal on loopback: its queue, and webhooks signed with an Ed25519 key that it publishes."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from typing import TYPE_CHECKING, Any

import httpx

from .service import TIMEOUT, Answer, FakeService, Message, PaidJob, Request

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from fal_client import SyncClient

__all__ = ["FakeFal"]

_STATES = {"open": "IN_PROGRESS", "completed": "COMPLETED", "failed": "COMPLETED", "cancelled": "COMPLETED"}
_NO_JSON = "Response payload is not JSON serializable. Either return a JSON serializable object or use the queue."


class FakeFal(FakeService):
    """The queue: submit, status, result, cancel; and the key set, of which :meth:`rotate` makes a new one.

    A job that is ``broken`` comes with ``payload: null``, as one whose answer fal could not put into a webhook.
    """

    def __init__(self, *, webhook_url: str | None = None) -> None:
        super().__init__(webhook_url=webhook_url)
        self._stranger = _new_key()
        self._key = _new_key()
        self.jwks_url = f"{self.base_url}/.well-known/jwks.json"
        """Where the public keys are."""

    def rotate(self) -> None:
        """Sign with another key from now on, and publish only that one."""
        self._key = _new_key()

    def client(self) -> SyncClient:
        """Return the SDK's own client; what it sends to fal's host comes here."""
        from fal_client import SyncClient

        client = SyncClient(key="fake")
        http = httpx.Client(
            transport=_ToLoopback(self.base_url), headers={"Authorization": "Key fake"}, timeout=TIMEOUT
        )
        self.closing(http.close)
        client.__dict__["_client"] = http  # a cached property: the SDK knows no other way to another host
        return client

    def answer(self, request: Request) -> Answer | None:
        """See :meth:`.FakeService.answer`."""
        if request.path == "/.well-known/jwks.json":
            public = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).rstrip(b"=").decode()
            return 200, {"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "x": public}]}
        known = re.fullmatch(r"/(.+)/requests/([^/]+)(?:/(status|cancel))?", request.path)
        if known is None and request.method == "POST":
            job = self.start(str(uuid.uuid4()), request.json, request.query.get("fal_webhook"))
            base = f"https://queue.fal.run/{'/'.join(request.path.split('/')[1:3])}/requests/{job.id}"
            urls = {"response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}
            return 200, {"request_id": job.id, "status": "IN_QUEUE", "queue_position": 0, **urls}
        if known is None or known[2] not in self.jobs:
            return 404, {"detail": "Request not found"}
        return self._about(self.jobs[known[2]], known[3])

    def _about(self, job: PaidJob, what: str | None) -> Answer:
        if what == "cancel":
            if job.state != "open":
                return 400, {"status": "ALREADY_COMPLETED"}
            job.state, job.error = "cancelled", "Request cancelled"
            return 202, {"status": "CANCELLATION_REQUESTED"}
        if what == "status":
            said: dict[str, Any] = {"status": _STATES[job.state], "logs": None, "metrics": {}}
            return 200 if job.state != "open" else 202, {**said, "error": job.error} if job.error else said
        if job.state == "open":
            return 400, {"detail": "Request is still in progress"}
        return (200, {"output": job.text}) if job.state == "completed" else (422, {"detail": job.error})

    def event(self, job: PaidJob) -> dict[str, Any]:
        """See :meth:`.FakeService.event`."""
        names = {"request_id": job.id, "gateway_request_id": job.id}
        if job.state != "completed":
            payload = {"detail": job.error}
            return {**names, "status": "ERROR", "error": job.error, "payload": payload}
        if job.broken:
            return {**names, "status": "OK", "payload": None, "payload_error": _NO_JSON}
        return {**names, "status": "OK", "payload": {"output": job.text}}

    def signed(self, job: PaidJob, url: str, body: bytes, *, forged: bool) -> Message:
        """See :meth:`.FakeService.signed`."""
        timestamp = str(int(self.clock()))
        parts = (job.id, "user-1", timestamp, hashlib.sha256(body).hexdigest())
        key = self._stranger if forged else self._key
        headers = {
            "X-Fal-Webhook-Request-Id": job.id,
            "X-Fal-Webhook-User-Id": "user-1",
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": key.sign("\n".join(parts).encode()).hex(),
        }
        return Message(url, headers, body)


def _new_key() -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


class _ToLoopback(httpx.HTTPTransport):
    """Sends what is meant for a host of fal to the server on loopback."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._base = httpx.URL(base_url)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme=self._base.scheme, host=self._base.host, port=self._base.port)
        return super().handle_request(request)
