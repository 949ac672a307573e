# ruff: noqa: ARG002, D101, D102 - the protocol says what the methods do, and not every service needs every argument
"""A creator of one's own: a press that keeps each job under ``/jobs/NAME``, and calls its states as we do."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import httpx

from flask_contenthub_webhook.creators import Job, RemoteState, Report, UnknownJob, service_errors


class PressCreator:
    idempotent = True  # a second PUT under the same name starts no second job

    def __init__(self, base_url: str) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=10)

    def submit(self, job: Job, *, wait: float) -> Report:
        body = {"title": job.topic, "notify": job.callback_url}
        return self._call("PUT", job.creator_task_id, json=body, timeout=wait)

    def status(self, creator_task_id: str) -> Report:
        try:
            return self._call("GET", creator_task_id)
        except UnknownJob:  # the press itself says so, not a gateway in front of it
            return Report(state=RemoteState.MISSING)

    result = status  # the answer brings both

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        return {}  # the press has no list: each job is asked about with `status`

    def cancel(self, creator_task_id: str) -> None:
        self._call("DELETE", creator_task_id)

    def _call(self, method: str, name: str, **options: Any) -> Report:
        with service_errors():  # an answer of 503, a page of a gateway, a cut connection: each as the right error
            answer = self._http.request(method, f"/jobs/{name}", **options).raise_for_status()
            said = answer.json()
        return Report(state=RemoteState(said["state"]), result=said.get("result"), raw=answer.content)
