"""A test event: a signed callback that this application sends to itself, about a task that does not exist.

It takes the way of every callback, through middleware, guards and signature, to where the task is looked up; no handler
runs, and nothing but the history changes.
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import TYPE_CHECKING

from flask import request

from ...core.signatures import sign_headers
from ...runtime.state import WebhookState

if TYPE_CHECKING:
    import httpx

__all__ = ["EXPECTED", "send_test_event"]

EXPECTED = "task_not_found"
"""The answer to a test event where all is in order."""


def send_test_event(state: WebhookState, now: datetime) -> str:
    """Send a test event, and return the code of the refusal, or ``HTTP`` and the status of any other answer."""
    import httpx

    settings, task_id = state.settings, f"test-{uuid.uuid4()}"
    body = json.dumps({"event": "progress", "taskId": task_id, "progress": {"percentage": 1}}).encode()
    url = settings.callback_urls.build(task_id, 1, base_url=request.host_url)
    headers = {"Content-Type": "application/json", "User-Agent": "flask-webhook-test-event"}
    if settings.secrets and "token=" not in url:
        scheme = settings.signature_schemes[0]
        headers |= sign_headers(
            scheme, body, settings.secrets[0], message_id=f"msg_{uuid.uuid4().hex}", timestamp=int(now.timestamp())
        )
    transport = httpx.WSGITransport(
        app=state.app, script_name=request.script_root, remote_addr=request.remote_addr or ""
    )
    with httpx.Client(transport=transport) as client:
        answer = client.post(url, content=body, headers=headers)
    state.refusals.flush()
    return _code_of(answer)


def _code_of(answer: httpx.Response) -> str:
    try:
        code = answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        code = None
    return code if isinstance(code, str) else f"HTTP {answer.status_code}"
