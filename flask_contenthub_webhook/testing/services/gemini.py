"""Gemini on loopback: background interactions, and dynamic webhooks signed by a JWT in RS256."""

from __future__ import annotations

import hashlib
import json
import re
import time
from typing import TYPE_CHECKING, Any

from .service import Answer, FakeService, Message, PaidJob, Request

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = ["FakeGemini"]

_STATES = {"open": "in_progress", "completed": "completed", "failed": "failed", "cancelled": "cancelled"}


class FakeGemini(FakeService):
    """The Interactions API. The token says who sends a webhook, and the body only which interaction it is about."""

    def __init__(self, *, webhook_url: str | None = None) -> None:
        super().__init__(webhook_url=webhook_url)
        self._key, self._stranger = _new_key(), _new_key()
        self.jwks_url = f"{self.base_url}/.well-known/jwks.json"
        """Where the public keys are."""
        self.audience = "projects/fake"
        """The audience of the tokens."""

    def answer(self, request: Request) -> Answer | None:
        """See :meth:`.FakeService.answer`."""
        if request.path == "/.well-known/jwks.json":
            return 200, {"keys": [self._public_key()]}
        known = re.fullmatch(r"/v\w+/interactions/([^/]+?)(/cancel)?", request.path)
        if request.method == "POST" and re.fullmatch(r"/v\w+/interactions", request.path):
            asked = request.json
            if not asked.get("model") or asked.get("background") is not True:
                return 400, _error("invalid_request", "model and background are required")
            uris = asked.get("webhook_config", {}).get("uris", [None])
            return 200, self.document(self.start(f"v1_{len(self.jobs):08x}", asked, uris[0]))
        if not known or known[1] not in self.jobs:
            return 404, _error("not_found", "Requested entity was not found.")
        job = self.jobs[known[1]]
        if known[2] and job.state == "open":
            job.state = "cancelled"
        return 200, self.document(job)

    def document(self, job: PaidJob) -> dict[str, Any]:
        """Return an interaction as the API shows it."""
        said = [{"type": "model_output", "content": [{"type": "text", "text": job.text}]}]
        asked = {name: value for name, value in job.asked.items() if name in {"model", "labels", "webhook_config"}}
        return {
            "id": job.id,
            "object": "interaction",
            "status": _STATES[job.state],
            "steps": said if job.state == "completed" else [],
            "errors": [{"code": "INTERNAL", "message": job.error}] if job.state == "failed" else [],
            **asked,
        }

    def event(self, job: PaidJob) -> dict[str, Any]:
        """See :meth:`.FakeService.event`."""
        failure = {"error_code": "INTERNAL", "error_message": job.error} if job.state == "failed" else {}
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock()))
        data = {"id": job.id, **failure}
        return {"type": f"interaction.{_STATES[job.state]}", "version": "v1", "timestamp": moment, "data": data}

    def signed(self, job: PaidJob, url: str, body: bytes, *, forged: bool) -> Message:
        """See :meth:`.FakeService.signed`."""
        import jwt

        now = int(self.clock())
        claims = {
            "iss": "https://generativelanguage.googleapis.com",
            "aud": self.audience,
            "iat": now,
            "exp": now + 300,
        }
        key = self._stranger if forged else self._key
        headers = {
            "Webhook-Id": hashlib.sha256(f"{job.id} {job.state}".encode()).hexdigest()[:24],
            "Webhook-Timestamp": str(now),
            "Webhook-Signature": jwt.encode(claims, key, algorithm="RS256", headers={"kid": "fake-1"}),
        }
        return Message(url, headers, body)

    def _public_key(self) -> dict[str, Any]:
        from jwt.algorithms import RSAAlgorithm

        return {
            **json.loads(RSAAlgorithm.to_jwk(self._key.public_key())),
            "kid": "fake-1",
            "alg": "RS256",
            "use": "sig",
        }


def _new_key() -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    return generate_private_key(public_exponent=65537, key_size=2048)


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}
