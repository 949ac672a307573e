"""ElevenLabs on loopback: asynchronous transcripts, and webhooks of a workspace, signed with ``t=,v0=``."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
from typing import Any

from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

from .service import OTHER_KEY, Answer, FakeService, Message, PaidJob, Request

__all__ = ["FakeElevenLabs"]


class FakeElevenLabs(FakeService):
    """Speech to text with ``webhook=true``; the workspace's webhook is ``webhook_url``.

    ElevenLabs documents no webhook about a failure; the one of this server is a guess.
    """

    def answer(self, request: Request) -> Answer | None:
        """See :meth:`.FakeService.answer`."""
        known = re.fullmatch(r"/v1/speech-to-text/transcripts/([^/]+)", request.path)
        if request.method == "POST" and request.path == "/v1/speech-to-text":
            asked = _form(request)
            if not asked.get("model_id") or asked.get("webhook") != "true":
                return 422, _detail("invalid_request", "model_id and webhook are required")
            job = self.start(f"tr_{len(self.jobs):08x}", asked)
            message = "Request processed successfully; the result will be sent to the configured webhooks"
            return 200, {"message": message, "request_id": f"req_{job.id}", "transcription_id": job.id}
        if not known or known[1] not in self.jobs or self.jobs[known[1]].state in {"open", "cancelled"}:
            return 404, _detail("transcript_not_found", "Transcript not found")
        job = self.jobs[known[1]]
        if request.method == "DELETE":
            return 200, {}
        return (200, self.document(job)) if job.state == "completed" else (400, _detail("failed", job.error))

    def document(self, job: PaidJob) -> dict[str, Any]:
        """Return a transcript as the API, and its webhook, show it."""
        known = {"language_code": "en", "language_probability": 0.98, "transcription_id": job.id}
        return {**known, "text": job.text, "words": [{"text": job.text, "type": "word", "logprob": 0.0}]}

    def event(self, job: PaidJob) -> dict[str, Any]:
        """See :meth:`.FakeService.event`."""
        data: dict[str, Any] = {"request_id": f"req_{job.id}", "transcription_id": job.id}
        if "webhook_metadata" in job.asked:
            data["webhook_metadata"] = json.loads(job.asked["webhook_metadata"])
        if job.state == "completed":
            data["transcription"] = self.document(job)
        else:
            data["error"] = {"message": job.error}
        return {"type": "speech_to_text_transcription", "event_timestamp": int(self.clock()), "data": data}

    def signed(self, job: PaidJob, url: str, body: bytes, *, forged: bool) -> Message:  # noqa: ARG002 - it names no job
        """See :meth:`.FakeService.signed`."""
        now = str(int(self.clock()))
        key = OTHER_KEY if forged else self.secret
        signature = hmac.new(key.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
        return Message(url, {"ElevenLabs-Signature": f"t={now},v0={signature}"}, body)


def _form(request: Request) -> dict[str, str]:
    kind, options = parse_options_header(request.headers.get("Content-Type"))
    _, form, _ = FormDataParser().parse(io.BytesIO(request.body), kind, len(request.body), options)
    return dict(form.items())


def _detail(status: str, message: str) -> dict[str, Any]:
    return {"detail": {"status": status, "message": message}}
