"""Sending callbacks to a host's app in its tests, as the creator would, signed in any scheme."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.test import TestResponse

from ..core.signatures import sign_headers
from ..errors import ConfigurationError
from ..runtime.state import get_state
from .envelope import iso_time

__all__ = ["CallbackSender"]

_ANY_BASE = "http://callback.invalid"


class CallbackSender:
    """Posts callbacks through the app's test client.

    Args:
        app: the host's app, with the extension registered.
        scheme: how to sign by default; ``url`` if the app has a secret, else ``none``.
    """

    def __init__(self, app: Flask, *, scheme: str | None = None) -> None:
        self.app = app
        self.state = get_state(app)
        self.scheme = scheme or ("url" if self.state.settings.secrets else "none")

    def completed(self, task: Any, result: Mapping[str, Any] | None = None, **options: Any) -> TestResponse:
        """Report that the work is done.

        Args:
            task: a task, or its ``task_id``.
            result: the result object; by default one with a short ``content``.
            **options: see :meth:`send`.
        """
        return self.send(task, "completed", result=dict(result) if result is not None else _RESULT, **options)

    def failed(self, task: Any, message: str = "It did not work.", **options: Any) -> TestResponse:
        """Report that an attempt failed.

        Args:
            task: a task, or its ``task_id``.
            message: the error message.
            **options: see :meth:`send`.
        """
        return self.send(task, "failed", error={"message": message, "type": "execution_error"}, **options)

    def progress(self, task: Any, percentage: float, **options: Any) -> TestResponse:
        """Report progress.

        Args:
            task: a task, or its ``task_id``.
            percentage: 0 to 100.
            **options: see :meth:`send`.
        """
        return self.send(task, "progress", progress={"percentage": percentage}, **options)

    def send(
        self,
        task: Any,
        event: str,
        *,
        attempt: int | None = 1,
        scheme: str | None = None,
        message_id: str | None = None,
        **fields: Any,
    ) -> TestResponse:
        """Report anything.

        Args:
            task: a task, or its ``task_id``.
            event: the event type.
            attempt: the attempt that it is about; None leaves it out.
            scheme: how to sign this one.
            message_id: for ``standard``, the id of the message, the same over resends; by default a new one.
            **fields: what else the payload holds; also replaces ``event``, ``taskId`` and ``timestamp``.

        Returns:
            The app's answer.
        """
        task_id = task if isinstance(task, str) else task.task_id
        payload = {"event": event, "taskId": task_id, "timestamp": iso_time(datetime.now(UTC)), **fields}
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        return self.post(task_id, body, attempt=attempt, scheme=scheme, message_id=message_id)

    def post(
        self,
        task_id: str,
        body: bytes,
        *,
        attempt: int | None = 1,
        scheme: str | None = None,
        message_id: str | None = None,
    ) -> TestResponse:
        """Post any bytes to a task's callback URL; arguments as for :meth:`send`."""
        scheme = scheme or self.scheme
        secrets = self.state.settings.secrets
        if not secrets and scheme != "none":
            raise ConfigurationError(f"The app has no WEBHOOK_SECRET_KEY to sign a callback with ({scheme}).")
        headers = {}
        if scheme != "none":
            message_id = message_id or f"msg_{uuid.uuid4().hex}"
            now = int(self.state.clock().timestamp())
            headers = sign_headers(scheme, body, secrets[0], message_id=message_id, timestamp=now)
        url = urlsplit(self.state.settings.callback_urls.build(task_id, attempt, base_url=_ANY_BASE))
        query = [part for part in url.query.split("&") if scheme == "url" or not part.startswith("token=")]
        target = f"{url.path}?{'&'.join(query)}"
        return self.app.test_client().post(target, data=body, headers=headers, content_type="application/json")


_RESULT = {"content": "# A test article\n\nWritten by nobody.", "wordCount": 6, "images": [], "metrics": {}}
