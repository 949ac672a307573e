"""RunPod on loopback: serverless jobs, and webhooks without any signature."""

from __future__ import annotations

import re
from typing import Any

from .service import Answer, FakeService, Message, PaidJob, Request

__all__ = ["FakeRunPod"]

_STATES = {"open": "IN_PROGRESS", "completed": "COMPLETED", "failed": "FAILED", "cancelled": "CANCELLED"}


class FakeRunPod(FakeService):
    """The API of one serverless endpoint: run, status, cancel. A forged webhook is one to a URL with a wrong token."""

    def answer(self, request: Request) -> Answer | None:
        """See :meth:`.FakeService.answer`."""
        asked = re.fullmatch(r"/v2/[^/]+/(run|status|cancel)(?:/([^/]+))?", request.path)
        if not asked or request.headers.get("Authorization") is None:
            return 401, {"error": "unauthorized"}
        if asked[1] == "run" and request.method == "POST":
            body = request.json
            if not isinstance(body.get("input"), dict):
                return 400, {"error": "input is required"}
            job = self.start(f"{len(self.jobs):08x}-e1", body, body.get("webhook"))
            return 200, {"id": job.id, "status": "IN_QUEUE"}
        if asked[2] not in self.jobs:
            return 404, {"error": "job not found"}
        job = self.jobs[asked[2]]
        if asked[1] == "cancel" and job.state == "open":
            job.state = "cancelled"
        return 200, self.document(job)

    def document(self, job: PaidJob) -> dict[str, Any]:
        """Return a job as the API, and its webhook, show it."""
        ended: dict[str, Any] = {"delayTime": 12, "executionTime": 3400, "workerId": "fake"}
        if job.state == "completed":
            ended["output"] = {"text": job.text}
        if job.state == "failed":
            ended["error"] = job.error
        return {"id": job.id, "status": _STATES[job.state], **(ended if job.state != "open" else {})}

    def event(self, job: PaidJob) -> dict[str, Any]:
        """See :meth:`.FakeService.event`."""
        return self.document(job)

    def signed(self, job: PaidJob, url: str, body: bytes, *, forged: bool) -> Message:  # noqa: ARG002 - it names no job
        """See :meth:`.FakeService.signed`."""
        return Message(re.sub(r"token=[^&]{4}", "token=0000", url) if forged else url, {}, body)
