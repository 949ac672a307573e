# ruff: noqa: D102 - the protocol says what the methods do
"""Replicate's predictions, through the official SDK; the extra is ``replicate``."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..creators import Callback, Job, RemoteState, Report, UnknownJob, service_errors
from ..creators.error_translation import unsent_options

if TYPE_CHECKING:
    from replicate.client import Client
    from replicate.prediction import Prediction

__all__ = ["ReplicatePredictions"]

_STATES = {
    "starting": "open",
    "processing": "open",
    "succeeded": "completed",
    "canceled": "cancelled",
    "aborted": "failed",
}
_NAMES = {"version": ".+", "model": "[^/:]+/[^/:]+", "deployment": "[^/]+/.+"}
_TIMEOUT = 30.0
"""Seconds. As a float: for an ``int``, the SDK asks Replicate to hold the answer back for as long."""


class ReplicatePredictions:
    """Each task is a prediction: by ``version``, ``model`` or ``deployment``, as the options of ``submit`` say.

    Replicate posts to the task's own URL. It has no idempotency key, and shows no URL or metadata in its list, so a
    prediction whose submission was not answered waits for its webhook.

    Args:
        client: the SDK's client. Its repeats of questions are turned off: they wait for as long as a Retry-After says.
        webhook_secret: of the account: ``client.webhooks.default.secret().key``.
    """

    required_result_fields = ("raw",)

    def __init__(self, client: Client, *, webhook_secret: str) -> None:
        self._client, self._secret = client, webhook_secret
        client._client._transport.max_attempts = 1  # noqa: SLF001 - the SDK has no setting for it

    def submit(self, job: Job, *, wait: float) -> Report:  # noqa: ARG002 - it is answered at once
        with unsent_options("Replicate"):
            kind = _kind_of(job.options)
        api = {"model": self._client.models, "deployment": self._client.deployments}.get(kind, self._client)
        events = ["start", "logs", "completed"] if "progress" in job.callback_events else ["completed"]
        options = {"input": {"prompt": job.prompt}, "wait": _TIMEOUT, "webhook_events_filter": events, **job.options}
        if job.callback_url is not None:
            options["webhook"] = job.callback_url
        with service_errors():
            return _report(api.predictions.create(**options))

    def status(self, creator_task_id: str) -> Report:
        try:
            with service_errors():
                return _report(self._client.predictions.get(creator_task_id))
        except UnknownJob:
            return Report(state=RemoteState.MISSING)

    result = status

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:  # noqa: ARG002
        with service_errors():  # the newest hundred; the others are asked about singly, and results are fetched
            listed = self._client.predictions.list()
        return {found.id: replace(_report(found), result=None) for found in listed if found.id in creator_task_ids}

    def cancel(self, creator_task_id: str) -> None:
        with service_errors():
            self._client.predictions.cancel(creator_task_id)

    def verify_callback(self, callback: Callback) -> str:
        from replicate.webhook import Webhooks, WebhookSigningSecret

        secret = WebhookSigningSecret(key=self._secret)
        Webhooks.validate(headers=dict(callback.headers), body=callback.body.decode(), secret=secret, tolerance=300)
        return callback.headers["webhook-id"]

    def read_callback(self, callback: Callback) -> Report | None:
        from replicate.prediction import Prediction

        return _report(Prediction.construct(**json.loads(callback.body)))  # a webhook leaves out what the SDK requires


def _kind_of(options: Mapping[str, Any]) -> str:
    """Return which of the three options says what is to run; raise a ValueError where the SDK would."""
    kinds = [kind for kind in _NAMES if kind in options]
    if len(kinds) != 1 or not re.fullmatch(_NAMES[kinds[0]], options[kinds[0]]):
        raise ValueError("exactly one is needed of version='ID', model='owner/name' and deployment='owner/name'")
    return kinds[0]


def _report(said: Prediction) -> Report:
    document = json.loads(said.json())
    progress = said.progress
    return Report(
        state=RemoteState(_STATES.get(said.status, said.status)),
        result={"content": _text(document.get("output")), "raw": document} if said.status == "succeeded" else None,
        error={"message": said.error or f"It is {said.status}."},
        raw=json.dumps(document).encode(),
        creator_task_id=said.id,
        progress={"percentage": 100 * progress.percentage} if progress else None,
    )


def _text(output: Any) -> Any:
    """Return text that comes in pieces as one, links line by line, and anything else as it is."""
    if not isinstance(output, list) or not all(isinstance(piece, str) for piece in output):
        return output
    return ("\n" if all(piece.startswith("http") for piece in output) else "").join(output)
