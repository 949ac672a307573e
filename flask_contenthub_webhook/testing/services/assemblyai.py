"""AssemblyAI on loopback: transcripts, and thin webhooks with a header that the submission named."""

from __future__ import annotations

import re
from typing import Any

from .service import OTHER_KEY, Answer, FakeService, Message, PaidJob, Request

__all__ = ["FakeAssemblyAI"]

_STATES = {"open": "processing", "completed": "completed", "failed": "error", "cancelled": "error"}


class FakeAssemblyAI(FakeService):
    """The API of transcripts: create and get. There is no call that stops one."""

    def answer(self, request: Request) -> Answer | None:
        """See :meth:`.FakeService.answer`."""
        if request.headers.get("Authorization") is None:
            return 401, {"error": "Authentication error, API token missing/invalid"}
        known = re.fullmatch(r"/v2/transcript/([^/]+)", request.path)
        if request.method == "POST" and request.path == "/v2/transcript":
            asked = request.json
            if not asked.get("audio_url"):
                return 400, {"error": "audio_url should be set"}
            return 200, self.document(self.start(f"tr-{len(self.jobs):08x}", asked, asked.get("webhook_url")))
        if request.method == "GET" and known and known[1] in self.jobs:
            return 200, self.document(self.jobs[known[1]])
        return 404, {"error": "Transcript lookup error, transcript id not found"}

    def document(self, job: PaidJob) -> dict[str, Any]:
        """Return a transcript as the API shows it; the value of the webhook's header is not shown."""
        name = job.asked.get("webhook_auth_header_name")
        return {
            "id": job.id,
            "status": _STATES[job.state],
            "audio_url": job.asked["audio_url"],
            "text": job.text if job.state == "completed" else None,
            "error": job.error or None,
            "webhook_url": job.callback_url,
            "webhook_auth": name is not None,
            "webhook_auth_header_name": name,
        }

    def event(self, job: PaidJob) -> dict[str, Any]:
        """See :meth:`.FakeService.event`."""
        return {"transcript_id": job.id, "status": _STATES[job.state]}

    def signed(self, job: PaidJob, url: str, body: bytes, *, forged: bool) -> Message:
        """See :meth:`.FakeService.signed`."""
        name, value = job.asked.get("webhook_auth_header_name"), job.asked.get("webhook_auth_header_value")
        return Message(url, {name: OTHER_KEY if forged else value} if name and value else {}, body)
