"""A server that keeps the bytes of every request and answers as it is told: what is on the wire, seen from its end."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

from tests.support.processes import wait_until


@dataclass(frozen=True)
class Received:
    """One request: its bytes, and when the last of them came, in seconds of the monotonic clock."""

    raw: bytes = field(repr=False)
    at: float

    @property
    def head(self) -> list[str]:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def method(self) -> str:
        return self.head[0].split(" ")[0]

    @property
    def path(self) -> str:
        return self.head[0].split(" ")[1]

    def header(self, name: str) -> str | None:
        found = [line.partition(": ")[2] for line in self.head[1:] if line.lower().startswith(f"{name.lower()}:")]
        return found[0] if found else None


@dataclass(frozen=True)
class Reply:
    """An answer. `delay` comes first, in seconds; with `hang` or `reset` nothing else does."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang: bool = False
    reset: bool = False
    raw: bytes | None = None


class Receiver:
    """Answers every request with `reply`: a status, a `Reply`, or a function of the request and its number from 0."""

    def __init__(self, reply: int | Reply | Callable[[Received, int], int | Reply] = 200) -> None:
        self.requests: list[Received] = []
        self._reply = reply
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self), bind_and_activate=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def netloc(self) -> str:
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def url(self, path: str = "/hook") -> str:
        return f"http://{self.netloc}{path}"

    def wait_for(self, count: int, *, timeout: float = 10.0) -> list[Received]:
        wait_until(
            lambda: len(self.requests) >= count,
            timeout=timeout,
            what=f"{count} requests",
            log=lambda: "\n".join(request.head[0] for request in self.requests),
        )
        return list(self.requests)

    def answer(self, connection: socket.socket, raw: bytes) -> None:
        request = Received(raw, time.monotonic())
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
        reply = self._reply(request, number) if callable(self._reply) else self._reply
        if isinstance(reply, int):
            reply = Reply(reply)
        self._stopping.wait(reply.delay)
        if reply.hang:
            self._stopping.wait()
        elif reply.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.sendall(reply.raw or _bytes(reply))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def _handler(receiver: Receiver) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                raw = _read_request(self.request)
                if raw:
                    receiver.answer(self.request, raw)
            except ConnectionError:
                pass  # the sender has gone; what it sent is noted

    return Handler


def _read_request(connection: Any) -> bytes:
    raw = b""
    while b"\r\n\r\n" not in raw:
        data = connection.recv(65536)
        if not data:
            return b""
        raw += data
    head, _, body = raw.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        data = connection.recv(65536)
        if not data:
            return b""
        raw, body = raw + data, body + data
    return raw


def _bytes(reply: Reply) -> bytes:
    body = b"" if reply.status in {204, 304} else b'{"success":true}'
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
