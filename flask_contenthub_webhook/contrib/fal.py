# ruff: noqa: D102 - the protocol says what the methods do
"""fal's queue, through the official SDK; the extra is ``fal``."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

from ..creators import Callback, Job, RemoteState, Report, UnknownJob, service_errors
from ..creators.error_translation import unsent_options
from ..errors import CreatorUnclear
from .fal_keys import FalKeys

if TYPE_CHECKING:
    from fal_client import SyncClient, SyncRequestHandle

__all__ = ["FalQueue"]

_STATES = {"IN_QUEUE": "open", "IN_PROGRESS": "open", "COMPLETED": "completed"}
_HEADERS = {"hint": "X-Fal-Runner-Hint", "priority": "X-Fal-Queue-Priority", "start_timeout": "X-Fal-Request-Timeout"}
_FAILED = (400, 422)


class FalQueue:
    """Each task is a request to the ``application`` that the options of ``submit`` name, with their ``arguments``.

    fal posts to the task's own URL. It has no idempotency key, and the SDK no list, so a request whose submission was
    not answered waits for its webhook. The SDK would repeat a submission up to ten times; this class sends everything
    once, over the SDK's connections. It names a job ``application/requests/ID``.

    Args:
        client: the SDK's client.
        keys: the URL of the key set that verifies webhooks; by default fal's.
    """

    required_result_fields = ("raw",)

    def __init__(self, client: SyncClient, *, keys: str | None = None) -> None:
        self._client = client
        self.verify_callback = FalKeys(keys).verify

    def submit(self, job: Job, *, wait: float) -> Report:  # noqa: ARG002 - it is answered at once
        from fal_client.client import QUEUE_URL_FORMAT

        with unsent_options("fal"):
            options = {"arguments": {"prompt": job.prompt}, "path": "", "headers": {}, **job.options}
            application = options["application"]
            headers = {name: str(options[option]) for option, name in _HEADERS.items() if option in options}
            headers |= options["headers"]
            url = httpx.URL(f"{QUEUE_URL_FORMAT}{application}/{options['path'].lstrip('/')}".rstrip("/"))
            if job.callback_url is not None:
                url = url.copy_merge_params({"fal_webhook": job.callback_url})
            handle = self._client.get_handle(application, "")
        said = _ask(handle, "POST", url, json=options["arguments"], headers=headers).json()
        return Report(state=RemoteState.OPEN, creator_task_id=f"{application}/requests/{said['request_id']}")

    def status(self, creator_task_id: str) -> Report:
        handle = self._handle(creator_task_id)
        try:
            said = _ask(handle, "GET", handle.status_url).json()
        except UnknownJob:
            return Report(state=RemoteState.MISSING)
        if said.get("error"):
            return _failed(said["error"], said)
        return Report(state=RemoteState(_STATES.get(said["status"], said["status"])), raw=json.dumps(said).encode())

    def result(self, creator_task_id: str) -> Report:
        handle = self._handle(creator_task_id)
        answer = _ask(handle, "GET", handle.response_url, may_have_failed=True)
        said = answer.json()
        return _failed(said.get("detail"), said) if answer.is_error else _completed(said)

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:  # noqa: ARG002
        return {}

    def cancel(self, creator_task_id: str) -> None:
        handle = self._handle(creator_task_id)
        _ask(handle, "PUT", handle.cancel_url)

    def read_callback(self, callback: Callback) -> Report | None:
        said = json.loads(callback.body)  # it names no application, and so not the job; the URL names the task
        if said["status"] != "OK":
            return _failed(said.get("error") or said["payload"], said)
        if said["payload"] is None:  # fal could not put the answer into the webhook: it is fetched
            return Report(state=RemoteState.COMPLETED, raw=callback.body)
        return _completed(said["payload"])

    def _handle(self, name: str) -> SyncRequestHandle:
        application, _, request_id = name.rpartition("/requests/")
        if not application:
            raise CreatorUnclear("Only fal knows the name of this job.")
        return self._client.get_handle(application, request_id)


def _ask(handle: SyncRequestHandle, method: str, url: Any, *, may_have_failed: bool = False, **more: Any) -> Any:
    with service_errors():
        answer = handle.client.request(method, url, timeout=30, **more)
        if not (may_have_failed and answer.status_code in _FAILED):
            answer.raise_for_status()
        answer.json()
        return answer


def _completed(said: Any) -> Report:
    text = said.get("output") if isinstance(said, dict) else said
    result = {"content": text if isinstance(text, str) else json.dumps(said), "raw": said}
    return Report(state=RemoteState.COMPLETED, result=result, raw=json.dumps(said).encode())


def _failed(words: Any, said: Any) -> Report:
    error = {"message": words if isinstance(words, str) else json.dumps(words), "details": {"said": said}}
    return Report(state=RemoteState.FAILED, error=error, raw=json.dumps(said).encode())
