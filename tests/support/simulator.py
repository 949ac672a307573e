"""The creator simulator at fifty times its speed, and the captures that it is checked against."""

from __future__ import annotations

import json
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx

from flask_contenthub_webhook.testing import CreatorSimulator

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
CALLBACKS = sorted(path.stem for path in (CAPTURES / "callbacks").glob("*.http"))
SCALE = 0.02  # 5 s become 100 ms, 10 s become 200 ms
GAP, TIMEOUT = 5 * SCALE, 10 * SCALE
FIELDS = {"topic": "T", "requirements": "R", "targetAudience": "A"}
TLS = ssl.create_default_context()  # made once: it takes longer than most of these tests
ID = "5837d91f-f64b-4f20-b5ab-17090b7576e5"


def callback_capture(name):
    """The head and the body of a captured callback."""
    head, _, body = (CAPTURES / "callbacks" / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), body


def api_capture(name):
    return json.loads((CAPTURES / "api" / f"{name}.json").read_text())


def anonymous(text):
    """JSON text without what differs from run to run: ids, times, durations, and names made of them."""
    text = text.decode() if isinstance(text, bytes) else text
    text = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", text)
    text = re.sub(r"\d{13}-[0-9a-z]{6}\.png", "NAME.png", text)
    text = re.sub(r"_([01])_\d{13}\.png", r"_\1_NAME.png", text)
    return re.sub(r'"(duration|uptime)":\d+', r'"\1":N', text)


def parsed_time(text):
    return datetime.fromisoformat(text)


@contextmanager
def simulator(**options):
    with CreatorSimulator(**{"time_scale": SCALE, "callback_timeout": 10.0, "seed": 1, **options}) as running:
        yield running


def call(creator, method, path, body=None):
    content = None if body is None else json.dumps(body)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    return httpx.request(method, creator.base_url + path, content=content, headers=headers, timeout=10, verify=TLS)


def submit(creator, url=None, **fields):
    callback = {} if url is None else {"callbackUrl": url}
    return call(creator, "POST", "/api/tasks", {**FIELDS, **callback, **fields})


@contextmanager
def submitted(creator, url=None, **fields):
    """A submission that is being waited for; yields the future of its answer once the task is there."""
    before = len(creator.tasks)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(submit, creator, url, **fields)
        wait_for(lambda: len(creator.tasks) > before)
        yield answer


def wait_for(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: not within {timeout:g} s"
        time.sleep(0.002)
