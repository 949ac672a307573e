"""HTTP at the level of bytes and sockets: what a client library would not send, and many requests at one moment."""

from __future__ import annotations

import contextlib
import http.client
import json
import selectors
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PREFIX = "/api/v1/content"


@dataclass(frozen=True)
class Answer:
    """One answer, and how long it took."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body; empty where it is no JSON, as gunicorn's own refusals are not."""
        return json.loads(self.body) if self.headers.get_content_type() == "application/json" else {}

    @property
    def code(self) -> str | None:
        """The code of a refusal, or None."""
        error = self.json.get("error")
        return None if error is None else str(error["code"])

    @property
    def outcome(self) -> str | None:
        """What became of the event, or None where it was refused."""
        outcome = self.json.get("outcome")
        return None if outcome is None else str(outcome)


def completed(task_id: str, content: str = "the article", **fields: Any) -> bytes:
    """The body of a ``completed``, compact as the real sender writes it."""
    result = {"content": content, "images": [], "wordCount": 2, "qualityScore": 8.0}
    event = {"event": "completed", "taskId": task_id, "status": "completed", "result": result, **fields}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def failed(task_id: str, message: str = "no luck", **fields: Any) -> bytes:
    """The body of a ``failed``."""
    event = {"event": "failed", "taskId": task_id, "status": "failed", "error": {"message": message}, **fields}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def callback(task_id: str, query: str = "") -> str:
    """The path of a task's callback; the id stands in it as it is given."""
    return f"{PREFIX}/callback/{task_id}" + (f"?{query}" if query else "")


def post(path: str, body: bytes, headers: Mapping[str, str | bytes | None] | None = None) -> bytes:
    """The bytes of a POST. A header given as None is left out, one given as bytes is sent as it is."""
    given: dict[str, str | bytes | None] = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    lines = [f"POST {path} HTTP/1.1".encode()]
    for name, value in given.items():
        if value is not None:
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunks(*parts: bytes) -> bytes:
    """Parts in the framing of ``Transfer-Encoding: chunked``, with the last chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def send(
    port: int,
    request: bytes | Iterable[bytes],
    *,
    half_close: bool = False,
    timeout: float = 20,
    source: str = "127.0.0.1",
    wrap: Any = None,
) -> Answer:
    """Send bytes over a new connection and read the answer.

    Args:
        port: Where, on 127.0.0.1.
        request: The bytes, or pieces of them.
        half_close: Say that nothing more will come.
        timeout: Seconds without a byte after which the server counts as hanging.
        source: The client's own address; all of 127.0.0.0/8 is ours.
        wrap: Makes a TLS socket of the socket.
    """
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=timeout, source_address=(source, 0)) as plain:
        connection = plain if wrap is None else wrap(plain)
        with connection:
            for piece in [request] if isinstance(request, bytes) else request:
                connection.sendall(piece)
            if half_close:
                with contextlib.suppress(OSError):  # it may have answered and gone already
                    connection.shutdown(socket.SHUT_WR)
            return _read(connection, started)


def send_together(port: int, requests: Sequence[bytes], *, timeout: float = 60) -> list[Answer]:
    """Send all requests at one moment, each over a connection of its own that was open before; answers in order.

    An answered connection is closed at once: gunicorn's sync worker waits for that.
    """
    answers: dict[int, Answer] = {}
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for index in range(len(requests)):
            connection = socket.create_connection(("127.0.0.1", port), timeout=timeout)
            selector.register(stack.enter_context(connection), selectors.EVENT_READ, index)
        started = time.monotonic()
        for key in list(selector.get_map().values()):
            key.fileobj.sendall(requests[key.data])
        while len(answers) < len(requests):
            ready = selector.select(timeout)
            if not ready:
                raise TimeoutError(f"{len(requests) - len(answers)} of {len(requests)} requests have no answer")
            for key, _ in ready:
                selector.unregister(key.fileobj)
                with key.fileobj as connection:
                    answers[key.data] = _read(connection, started)
    return [answers[index] for index in range(len(requests))]


def pieces_of(head: bytes, size: int, piece: bytes = b" " * 65536) -> Iterator[bytes]:
    """A request with a large body that is never whole in memory."""
    yield head
    for _ in range(size // len(piece)):
        yield piece
    yield piece[: size % len(piece)]


def _read(connection: socket.socket, started: float) -> Answer:
    with contextlib.closing(http.client.HTTPResponse(connection)) as response:
        response.begin()
        body = response.read()
    return Answer(response.status, response.headers, body, time.monotonic() - started)
