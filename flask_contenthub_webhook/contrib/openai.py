# ruff: noqa: D102 - the protocol says what the methods do
"""OpenAI's background responses and batches, through the official SDK; the extra is ``openai``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..creators import Callback, Job, RemoteState, Report, UnknownJob, service_errors
from ..creators.error_translation import unsent_options
from ..errors import CreatorAway

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = ["OpenAIResponses"]

_TASK, _ATTEMPT = "contenthub_task", "contenthub_attempt"
_OPEN = ("queued", "in_progress", "validating", "finalizing", "cancelling")
_STATES = dict.fromkeys(_OPEN, "open") | dict.fromkeys(("incomplete", "expired"), "failed")
_MAY_SUCCEED_LATER = {"server_error", "rate_limit_exceeded", "vector_store_timeout", "expired"}


class OpenAIResponses:
    """Each task is a background response; with ``input_file_id`` among its options, a batch.

    The project's webhook is ``/callbacks/<name>``. Its events are thin: the response is read when one comes. OpenAI has
    no idempotency key and no list of responses, so a response whose submission was not answered waits for its event.

    Args:
        client: the SDK's client. The SDK's own retries are not used: they would start, and bill, another response.
        webhook_secret: of the project's webhook.
    """

    required_result_fields = ("raw",)

    def __init__(self, client: OpenAI, *, webhook_secret: str) -> None:
        self._client = client.with_options(max_retries=0, timeout=30)
        self._secret = webhook_secret

    def submit(self, job: Job, *, wait: float) -> Report:  # noqa: ARG002 - a background response is answered at once
        is_batch = "input_file_id" in job.options
        create = self._client.batches.create if is_batch else self._client.responses.create
        with unsent_options("OpenAI"):
            metadata = {**(job.options.get("metadata") or {}), _TASK: job.task_id, _ATTEMPT: str(job.attempt)}
            ours = {"metadata": metadata} if is_batch else {"metadata": metadata, "background": True}
            options = ({} if is_batch else {"input": job.prompt}) | {**job.options, **ours}
            inspect.signature(create).bind(**options)
        return self._report(create, **options)

    def status(self, creator_task_id: str) -> Report:
        try:
            return self._report(self._api_of(creator_task_id).retrieve, creator_task_id)
        except UnknownJob:
            return Report(state=RemoteState.MISSING)

    result = status

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:  # noqa: ARG002
        return {}

    def cancel(self, creator_task_id: str) -> None:
        self._report(self._api_of(creator_task_id).cancel, creator_task_id)

    def verify_callback(self, callback: Callback) -> str:
        self._client.webhooks.verify_signature(callback.body, callback.headers, secret=self._secret)
        return callback.headers["webhook-id"]

    def read_callback(self, callback: Callback) -> Report | None:
        event = json.loads(callback.body)
        if not event["type"].startswith(("response.", "batch.")):
            return None
        report = self.status(event["data"]["id"])
        return None if report.task_id is None else report

    def _api_of(self, name: str) -> Any:
        return self._client.batches if name.startswith("batch_") else self._client.responses

    @staticmethod
    def _report(call: Any, *args: Any, **options: Any) -> Report:
        with service_errors():
            said = call(*args, **options)
        if isinstance(said, str):
            raise CreatorAway("OpenAI answers with a page.", retry_after=30)
        ours = said.metadata or {}
        return Report(
            state=RemoteState(_STATES.get(said.status, said.status)),
            result={"content": _content(said), "raw": said.to_dict(mode="json")}
            if said.status == "completed"
            else None,
            error=_error(said) if _STATES.get(said.status, said.status) == "failed" else None,
            raw=said.to_json().encode(),
            creator_task_id=said.id,
            task_id=ours.get(_TASK),
            attempt=int(ours[_ATTEMPT]) if _ATTEMPT in ours else None,
        )


def _content(said: Any) -> str | None:
    """Return the text of a response; of a batch, the id of the file with its results."""
    text: str | None = said.output_file_id if said.object == "batch" else said.output_text
    return text


def _error(said: Any) -> dict[str, Any]:
    """Return the words of OpenAI, and its verdict on another try."""
    errors = (said.errors and said.errors.data) or [] if said.object == "batch" else filter(None, [said.error])
    words = [(error.message, error.code) for error in errors]
    if said.status == "incomplete":
        words.append((f"The response is incomplete: {said.incomplete_details.reason}", "incomplete"))
    message, code = words[0] if words else (f"It is {said.status}.", said.status)
    return {"message": message, "code": code, "details": {"retryable": code in _MAY_SUCCEED_LATER}}
