"""The requests: one captured from the real sender, once for each task."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Literal

from flask_contenthub_webhook.core.signatures import CONTENTHUB_HEADER, sign_contenthub, sign_url

__all__ = ["SECRET", "Signing", "captured_body", "new_task_ids", "request_bytes"]

Signing = Literal["none", "url", "contenthub"]

SECRET = "a secret that is only used by the benchmark"
_CAPTURE = Path(__file__).with_name("completed.http").read_bytes()
_HEAD, _BODY = _CAPTURE.split(b"\r\n\r\n", 1)
_FOUND = re.search(rb'"taskId":"([0-9a-f-]{36})"', _BODY)
_TASK_ID = _FOUND[1] if _FOUND else b""


def new_task_ids(count: int) -> list[str]:
    """Ids for new tasks."""
    return [str(uuid.uuid4()) for _ in range(count)]


def captured_body(task_id: str) -> bytes:
    """The body of the captured request as it would have been sent for this task."""
    return _BODY.replace(_TASK_ID, task_id.encode())


def request_bytes(path: str, task_id: str, signing: Signing) -> bytes:
    """The captured request as it would have been sent for this task: same headers, a body of the same length.

    Args:
        path: where to, without the task id, which is added at the end.
        task_id: a UUID.
        signing: ``url`` adds the token to the URL, ``contenthub`` a header.
    """
    body = captured_body(task_id)
    headers = _HEAD.replace(_TASK_ID, task_id.encode()).split(b"\r\n")[1:]
    target = f"{path}{task_id}?attempt=1"
    if signing == "url":
        target += f"&token={sign_url(SECRET, task_id, 1)}"
    if signing == "contenthub":
        headers.append(f"{CONTENTHUB_HEADER}: {sign_contenthub(body, SECRET)}".encode())
    return b"\r\n".join([f"POST {target} HTTP/1.1".encode(), *headers, b"", body])
