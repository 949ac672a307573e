"""The requests that the real content-creator sent, byte for byte, and a way to send them again."""

from __future__ import annotations

import http.client
import json
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
TIMEOUT = 10
"""Seconds until the real sender gives up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The HTTP status, and the outcome or the error code of each event."""

    status: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.status} {', '.join(self.words)}"


def captured(name: str, url: str, body: bytes | None = None, signature: str | None = None) -> bytes:
    """Return the request in `captures/NAME.http`, sent to another URL, and with another body where one is given.

    Only path and Host, and with a new body the Content-Length, differ from the capture.
    """
    head, _, original = _read(name)
    parts = urlsplit(url)
    head = re.sub(rb"(?<=^POST )\S+", parts._replace(scheme="", netloc="").geturl().encode(), head)
    head = _with_header(head, "Host", parts.netloc)
    if body is not None:
        head = _with_header(head, "Content-Length", str(len(body)))
    if signature is not None:
        head += f"\r\nX-Webhook-Signature: {signature}".encode()
    return head + b"\r\n\r\n" + (original if body is None else body)


def body_of(name: str) -> bytes:
    return _read(name)[2]


def send(request: bytes, url: str) -> Answer:
    """Send a request to the server of a URL, as bytes over a socket, and read the answer."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), TIMEOUT) as connection:
        with suppress(ConnectionError):  # a server may answer before it has read everything, and we want the answer
            connection.sendall(request)
        response = http.client.HTTPResponse(connection, method="POST")
        response.begin()
        return Answer(response.status, _words(response.read()))


def _read(name: str) -> tuple[bytes, bytes, bytes]:
    return (CAPTURES / f"{name}.http").read_bytes().partition(b"\r\n\r\n")


def _with_header(head: bytes, name: str, value: str) -> bytes:
    return re.sub(rf"(?im)^{name}:[^\r]*".encode(), f"{name}: {value}".encode(), head)


def _words(body: bytes) -> tuple[str, ...]:
    try:
        answer: dict[str, Any] = json.loads(body)
    except ValueError:
        return ("no JSON",)
    results = answer.get("results", [answer])
    return tuple(str(it["outcome"] if it.get("success") else it["error"]["code"]) for it in results)
