# ruff: noqa: ARG002, D101, D102 - the protocol says what the methods do, and not every service needs every argument
"""A creator of one's own: a press that keeps each job under ``/jobs/NAME``, and calls its states as we do."""

from collections.abc import Collection, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

import httpx

from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorRefused, CreatorUnclear, CreatorUnreachable


class PressCreator:
    def __init__(self, base_url: str) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=10)

    def submit(self, job: Job, *, wait: float) -> Report:
        return self._call("PUT", job.creator_task_id, {"title": job.topic, "notify": job.callback_url})

    def status(self, creator_task_id: str) -> Report:
        return self._call("GET", creator_task_id)

    result = status  # the answer brings both
    idempotent = True  # and a second PUT under the same name starts no second job

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        return {name: self.status(name) for name in creator_task_ids}  # a service with a list would read that

    def cancel(self, creator_task_id: str) -> None:
        self._call("DELETE", creator_task_id)

    def _call(self, method: str, name: str, body: Any = None) -> Report:
        try:
            answer = self._http.request(method, f"/jobs/{name}", json=body)
            said = answer.json()
        except httpx.ConnectError as error:  # nothing was delivered
            raise CreatorUnreachable(str(error)) from error
        except (httpx.HTTPError, ValueError) as error:  # it may have heard us, or not
            raise CreatorUnclear(str(error)) from error
        if answer.status_code == HTTPStatus.BAD_REQUEST:
            raise CreatorRefused(said["error"])
        return Report(state=RemoteState(said["state"]), result=said.get("result"), raw=answer.content)
