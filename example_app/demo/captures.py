"""The requests that the real content-creator sent, byte for byte, and how they are sent again."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
TIMEOUT = 10
"""Seconds until the real sender gives up."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as the bytes that go over the wire."""

    head: bytes
    body: bytes

    @classmethod
    def captured(cls, name: str) -> Self:
        """The request in `captures/NAME.http`."""
        head, _, body = (CAPTURES / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
        return cls(head, body)

    def to(self, url: str) -> Request:
        """The same request to another address: only the path and the Host differ."""
        parts = urlsplit(url)
        first, *lines = self.head.split(b"\r\n")
        method, _, version = first.split(b" ")
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        lines = [f"Host: {parts.netloc}".encode() if line.lower().startswith(b"host:") else line for line in lines]
        return Request(b"\r\n".join([b" ".join([method, target.encode(), version]), *lines]), self.body)

    def carrying(self, body: bytes) -> Request:
        """The same request with another body, and the length of that."""
        lines = [
            f"Content-Length: {len(body)}".encode() if line.lower().startswith(b"content-length:") else line
            for line in self.head.split(b"\r\n")
        ]
        return Request(b"\r\n".join(lines), body)

    def signed(self, signature: str) -> Request:
        """The same request with a signature of its body."""
        return Request(self.head + f"\r\nX-Webhook-Signature: {signature}".encode(), self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the HTTP status, and the outcome or the error code of each event."""

    status: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.status} {', '.join(self.words)}"


def send(request: Request, url: str) -> Answer:
    """Send a request to the server of a URL, as bytes over a socket, and read the answer."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 80), TIMEOUT) as connection:
        with suppress(ConnectionError):  # a server may answer before it has read all, and we want the answer
            connection.sendall(request.head + b"\r\n\r\n" + request.body)
        response = http.client.HTTPResponse(connection, method="POST")
        response.begin()
        return Answer(response.status, _words(response.read()))


def _words(body: bytes) -> tuple[str, ...]:
    try:
        answer = json.loads(body)
    except ValueError:
        return ("no JSON",)
    return tuple(_word(result) for result in answer.get("results", [answer]))


def _word(result: dict[str, Any]) -> str:
    return str(result["outcome"] if result.get("success") else result["error"]["code"])
