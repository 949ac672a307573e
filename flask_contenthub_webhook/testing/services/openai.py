"""OpenAI on loopback: background responses and batches, thin webhooks signed by Standard Webhooks."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from .service import OTHER_KEY, Answer, FakeService, Message, PaidJob, Request
from .standard_webhooks import standard_headers

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = ["FakeOpenAI"]

_STATES = {
    "response": {"open": "in_progress", "completed": "completed", "failed": "failed", "cancelled": "cancelled"},
    "batch": {"open": "in_progress", "completed": "completed", "failed": "failed", "cancelled": "cancelled"},
}


class FakeOpenAI(FakeService):
    """The Responses, Batch and Files API as far as background jobs need them.

    A webhook says only which job has ended; the API says how. The project's webhook is ``webhook_url``.
    """

    def __init__(self, *, webhook_url: str | None = None) -> None:
        super().__init__(webhook_url=webhook_url)
        self.webhook_secret = "whsec_" + base64.b64encode(self.secret.encode()).decode()
        """What the dashboard shows of the project's webhook."""

    def client(self) -> OpenAI:
        """Return the SDK's own client for this server."""
        from openai import OpenAI

        client = OpenAI(base_url=f"{self.base_url}/v1", api_key="sk-fake", webhook_secret=self.webhook_secret)
        self.closing(client.close)
        return client

    def answer(self, request: Request) -> Answer | None:
        """See :meth:`.FakeService.answer`."""
        known = re.fullmatch(r"/v1/(?:responses|batches)/([^/]+)(/cancel)?", request.path)
        if request.method == "POST" and request.path in {"/v1/responses", "/v1/batches"}:
            return self._create(request)
        if known and known[1] in self.jobs:
            job = self.jobs[known[1]]
            if known[2] and job.state == "open":
                job.state = "cancelled"
            return 200, self.document(job)
        return 404, _error(f"No object found with id '{known[1]}'.") if known else _error("Invalid URL.")

    def _create(self, request: Request) -> Answer:
        asked = request.json
        if request.path == "/v1/batches":
            return 200, self.document(self.start(f"batch_{len(self.jobs):08x}", asked))
        if not asked.get("model"):
            return 400, _error("Missing required parameter: 'model'.", param="model")
        if asked.get("background") is not True:
            return 400, _error("This server runs background responses only.", param="background")
        return 200, self.document(self.start(f"resp_{len(self.jobs):08x}", asked))

    def document(self, job: PaidJob) -> dict[str, Any]:
        """Return a job as the API shows it, made by the SDK's own type."""
        made = self._batch(job) if job.id.startswith("batch_") else self._response(job)
        shown: dict[str, Any] = json.loads(made.model_dump_json(exclude_unset=True))
        return shown

    def event(self, job: PaidJob) -> dict[str, Any]:
        """See :meth:`.FakeService.event`."""
        from openai.types import webhooks

        kind = job.id.partition("_")[0].replace("resp", "response")
        name = f"{kind}.{_STATES[kind][job.state]}"
        made = {
            "response.completed": webhooks.ResponseCompletedWebhookEvent,
            "response.failed": webhooks.ResponseFailedWebhookEvent,
            "response.cancelled": webhooks.ResponseCancelledWebhookEvent,
            "batch.completed": webhooks.BatchCompletedWebhookEvent,
            "batch.failed": webhooks.BatchFailedWebhookEvent,
            "batch.cancelled": webhooks.BatchCancelledWebhookEvent,
        }[name]
        values = {"id": f"evt_{job.id}", "object": "event", "created_at": int(self.clock()), "type": name}
        event: dict[str, Any] = made.model_validate({**values, "data": {"id": job.id}}).model_dump()
        return event

    def signed(self, job: PaidJob, url: str, body: bytes, *, forged: bool) -> Message:
        """See :meth:`.FakeService.signed`."""
        key = OTHER_KEY if forged else self.secret
        return Message(url, standard_headers(key.encode(), f"wh_{job.id}", body, now=self.clock()), body)

    def _response(self, job: PaidJob) -> Any:
        from openai.types.responses import Response

        asked = {name: value for name, value in job.asked.items() if name in {"metadata", "model", "instructions"}}
        text = {"type": "output_text", "text": job.text, "annotations": []}
        said = {"id": f"msg_{job.id}", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
        return Response.model_validate(
            {
                "id": job.id,
                "object": "response",
                "created_at": job.created_at,
                "status": _STATES["response"][job.state],
                "background": True,
                "output": [said] if job.state == "completed" else [],
                "error": {"code": "server_error", "message": job.error} if job.state == "failed" else None,
                "parallel_tool_calls": True,
                "tool_choice": "auto",
                "tools": [],
                **asked,
            }
        )

    def _batch(self, job: PaidJob) -> Any:
        from openai.types import Batch

        errors = {"object": "list", "data": [{"code": "invalid_json_line", "message": job.error}]}
        return Batch.model_validate(
            {
                "id": job.id,
                "object": "batch",
                "created_at": int(job.created_at),
                "status": _STATES["batch"][job.state],
                "errors": errors if job.state == "failed" else None,
                "output_file_id": f"file-{job.text}" if job.state == "completed" else None,
                **job.asked,
            }
        )


def _error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None, "param": None, **more}}
