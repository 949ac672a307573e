"""Replicate on loopback: predictions, and webhooks that bring the whole prediction, signed by Standard Webhooks."""

from __future__ import annotations

import base64
import re
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx

from .service import OTHER_KEY, Answer, FakeService, Message, PaidJob, Request
from .standard_webhooks import standard_headers

if TYPE_CHECKING:
    from replicate.client import Client

__all__ = ["FakeReplicate"]

_STATES = {"open": "processing", "completed": "succeeded", "failed": "failed", "cancelled": "canceled"}
_CREATE = re.compile(r"/v1/(?:(?:models|deployments)/([^/]+/[^/]+)/)?predictions")


class FakeReplicate(FakeService):
    """The API of predictions by version, model or deployment: create, get, list, cancel, and the signing secret."""

    def __init__(self, *, webhook_url: str | None = None) -> None:
        super().__init__(webhook_url=webhook_url)
        self.webhook_secret = "whsec_" + base64.b64encode(self.secret.encode()).decode()
        """The account's signing secret."""
        self.logs: dict[str, str] = {}
        """The log of a prediction, by its id."""

    def client(self) -> Client:
        """Return the SDK's own client for this server."""
        from replicate.client import Client

        transport = httpx.HTTPTransport()
        self.closing(transport.close)
        return Client(api_token=secrets.token_hex(8), base_url=self.base_url, transport=transport)

    def answer(self, request: Request) -> Answer | None:
        """See :meth:`.FakeService.answer`."""
        created = _CREATE.fullmatch(request.path)
        known = re.fullmatch(r"/v1/predictions/([^/]+)(/cancel)?", request.path)
        if request.path == "/v1/webhooks/default/secret":
            return 200, {"key": self.webhook_secret}
        if created and request.method == "POST":
            asked = request.json
            if not isinstance(asked.get("input"), dict):
                return 422, _problem(422, "- input is required")
            name = f"{len(self.jobs):026x}"
            return 201, self.document(self.start(name, {"model": created[1], **asked}, asked.get("webhook")))
        if created:
            newest = [self.document(job) for job in reversed(self.jobs.values())]
            return 200, {"previous": None, "next": None, "results": newest}
        if not known or known[1] not in self.jobs:
            return 404, _problem(404, "The requested resource could not be found.")
        job = self.jobs[known[1]]
        if known[2] and job.state == "open":
            job.state = "cancelled"
        return 200, self.document(job)

    def document(self, job: PaidJob) -> dict[str, Any]:
        """Return a prediction as the API shows it, made by the SDK's own type."""
        from replicate.prediction import Prediction

        url = f"{self.base_url}/v1/predictions/{job.id}"
        moment = datetime.fromtimestamp(job.created_at, UTC).isoformat().replace("+00:00", "Z")
        made = Prediction(
            id=job.id,
            model=job.asked["model"] or "owner/model",
            version=job.asked.get("version") or "hidden",
            status=_STATES[job.state],
            input=job.asked["input"],
            output=job.text if job.state == "completed" else None,
            logs=self.logs.get(job.id, ""),
            error=job.error or None,
            metrics={},
            created_at=moment,
            started_at=moment,
            completed_at=None if job.state == "open" else moment,
            urls={"get": url, "cancel": f"{url}/cancel"},
        )
        shown: dict[str, Any] = made.dict()
        return shown

    def event(self, job: PaidJob) -> dict[str, Any]:
        """See :meth:`.FakeService.event`."""
        return self.document(job)

    def signed(self, job: PaidJob, url: str, body: bytes, *, forged: bool) -> Message:
        """See :meth:`.FakeService.signed`."""
        key = OTHER_KEY if forged else self.secret
        return Message(url, standard_headers(key.encode(), f"msg_{job.id}_{job.state}", body, now=self.clock()), body)


def _problem(status: int, detail: str) -> dict[str, Any]:
    return {"title": "The request failed", "status": status, "detail": detail}
