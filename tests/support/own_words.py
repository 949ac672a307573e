"""A service that reports in its own words, its creator, and hosts that hand jobs to it."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from flask_contenthub_webhook.creators import Callback, Creators, Job, RemoteState, Report
from tests.support.host import PREFIX, Host, encode
from tests.support.submission import BASE, OwnCreator

KEY = b"the key of the talking service"
OPTIONS = {"WEBHOOK_CALLBACK_BASE_URL": BASE, "WEBHOOK_SUBMIT_THREADS": 0}


def words(job: str | None, state: str = "completed", **more: Any) -> dict[str, Any]:
    """What the service says of a job."""
    said = {"job": job, "state": state, **more}
    if state == "completed" and "result" not in said:
        said["result"] = {"content": "spoken"}
    return said


def sign(body: bytes, message_id: str, key: bytes = KEY) -> dict[str, str]:
    digest = hmac.digest(key, message_id.encode() + b"." + body, "sha256").hex()
    return {"X-Talk-Id": message_id, "X-Talk-Signature": digest}


class Talker(OwnCreator):
    """Names its jobs by itself, and reports in its own words."""

    keeps_names = False
    key = KEY

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.on_read: Callable[[Callback], None] = lambda _: None
        self.on_verify: Callable[[Callback], Any] | None = None
        self.read: list[Callback] = []
        self.verified: list[Callback] = []
        self.on_submit = lambda job: Report(state=RemoteState.OPEN, creator_task_id=self.name_of(job))

    def name_of(self, job: Job) -> str:
        return f"talk-{hashlib.sha256(job.creator_task_id.encode()).hexdigest()[:12]}"

    def verify_callback(self, callback: Callback) -> str | None:
        self.verified.append(callback)
        if self.on_verify is not None:
            return self.on_verify(callback)  # type: ignore[no-any-return]
        message_id = callback.headers["x-talk-ID"]
        if not hmac.compare_digest(sign(callback.body, message_id, self.key)["X-Talk-Signature"], _signature(callback)):
            raise ValueError(f"expected {sign(callback.body, message_id, self.key)}")
        return message_id

    def read_callback(self, callback: Callback) -> Report | None:
        self._note("read_callback")
        self.read.append(callback)
        self.on_read(callback)
        said = json.loads(callback.body)
        if said["state"] == "gossip":
            return None
        return Report(
            state=RemoteState(said["state"]),
            creator_task_id=said["job"],
            task_id=said.get("task"),
            attempt=said.get("attempt"),
            result=said.get("result"),
            error=said.get("error"),
            progress=said.get("progress"),
            raw=callback.body,
        )


class Whisperer(Talker):
    """Signs nothing, so that only the token of a task's URL is believed."""

    verify_callback = None  # type: ignore[assignment]


def _signature(callback: Callback) -> str:
    return callback.headers["X-TALK-SIGNATURE"]


def with_senders(hosts: Callable[..., Host], url: str, **more: Any) -> Host:
    """Return a host with three services: ``hub`` in our own format, ``talk`` and ``other`` in their own words."""
    hub, talk, other = (kind.__new__(kind) for kind in (OwnCreator, Talker, Talker))
    creators = Creators(hub=hub, talk=talk, other=other)
    host = hosts(url, models=lambda _: {"creator": creators}, **OPTIONS, **more)
    OwnCreator.__init__(hub, host)
    for talker in (talk, other):
        talker.__init__(host)  # type: ignore[misc]
    other.key = b"the key of another service"  # type: ignore[attr-defined]
    return host


def with_sender(hosts: Callable[..., Host], url: str, kind: type[Talker] = Talker, **more: Any) -> Host:
    """Return a host whose only service reports in its own words."""
    talk = kind.__new__(kind)
    host = hosts(url, models=lambda _: {"creator": talk}, **OPTIONS, **more)
    talk.__init__(host)  # type: ignore[misc]
    return host


def talker(host: Host, name: str = "talk") -> Talker:
    creator = host.state.creator
    found = creator[name] if isinstance(creator, Creators) else creator
    assert isinstance(found, Talker)
    return found


def talk(
    host: Host,
    path: str,
    said: Mapping[str, Any] | bytes,
    *,
    key: bytes | None = KEY,
    message_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """Send what the service says; with ``key=None`` it is not signed."""
    body = said if isinstance(said, bytes) else encode(said)
    signed = {} if key is None else sign(body, message_id or uuid.uuid4().hex, key)
    return host.app.test_client().post(
        path, data=body, headers={**signed, **(headers or {})}, content_type="application/json"
    )


def url_of(host: Host, task_id: str) -> str:
    """Path and query of the task's URL, as the service was given it."""
    url = urlsplit(host.task(task_id).callback_url)
    return f"{url.path}?{url.query}"


def project(name: str = "talk") -> str:
    return f"{PREFIX}/callbacks/{name}"
