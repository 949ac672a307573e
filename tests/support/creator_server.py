"""A creator on loopback that answers as the real one was captured, byte for byte, cut connections included."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

CAPTURES = Path(__file__).parents[1] / "captures" / "api"


# --- answers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """Bytes for the socket, or their absence.

    Args:
        raw: what is written, and then the connection is closed.
        delay: seconds before that; a server that stops does not wait.
        dies: close the port as well, as a process that died.
        resets: end the connection with a reset instead of an orderly close.
    """

    raw: bytes = b""
    delay: float = 0.0
    dies: bool = False
    resets: bool = False
    after: tuple[Reply, ...] = field(default=())


def captured(name: str) -> dict[str, Any]:
    """One captured exchange."""
    exchange: dict[str, Any] = json.loads((CAPTURES / f"{name}.json").read_text("utf-8"))
    return exchange


def replay(name: str) -> Reply:
    """What the real creator wrote in a captured exchange; nothing where it died of it."""
    exchange = captured(name)
    if exchange["outcome"] != "response":
        return Reply(dies=exchange["serverProcessAfter"]["died"])
    response = exchange["response"]
    head = [f"HTTP/1.1 {response['status']} {HTTPStatus(response['status']).phrase}", *response["headers"], "", ""]
    return Reply("\r\n".join(head).encode("latin-1") + response["bodyText"].encode())


def answer(status: int, body: bytes | str, *headers: str) -> Reply:
    raw = body.encode() if isinstance(body, str) else body
    length = [] if any(h.lower().startswith("content-length") for h in headers) else [f"Content-Length: {len(raw)}"]
    head = [f"HTTP/1.1 {status} Whatever", "Connection: close", *length, *headers, "", ""]
    return Reply("\r\n".join(head).encode("latin-1") + raw)


def success(data: Any, status: int = 200, *, timestamp: str = "2026-11-24T12:00:00.000Z") -> Reply:
    body = json.dumps({"success": True, "data": data, "timestamp": timestamp}, ensure_ascii=False)
    return answer(status, body, "Content-Type: application/json; charset=utf-8")


def failure(status: int, message: str, code: str | None = None, details: Any = None) -> Reply:
    error = {"message": message, "code": code, "details": details}
    error = {name: value for name, value in error.items() if value is not None}
    return answer(status, json.dumps({"success": False, "error": error}))


CUT = Reply()
HANG = Reply(delay=60.0)


# --- the server ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def line(self) -> str:
        return f"{self.method} {self.target}"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class CreatorServer:
    """Serves what a function answers, on a free port of 127.0.0.1.

    Args:
        answer: the reply to each request; called in the thread of the request.
    """

    def __init__(self, answer: Callable[[Seen], Reply]) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.deaths = 0
        self._stopping = threading.Event()
        self._port = 0
        self._server: _Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def lines(self) -> list[str]:
        return [seen.line for seen in self.seen]

    def start(self) -> Self:
        self._stopping.clear()
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def die(self) -> None:
        """Close the port, as a process that died."""
        server, self._server = self._server, None
        if server is not None:
            self.deaths += 1
            server.shutdown()
            server.server_close()

    def stop(self) -> None:
        self._stopping.set()
        self.die()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def handle(self, seen: Seen, connection: socket.socket) -> None:
        self.seen.append(seen)
        reply = self.answer(seen)
        for part in (reply, *reply.after):
            if part.delay and self._stopping.wait(part.delay):
                return
            if part.dies:
                self.die()
            if part.resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                connection.sendall(part.raw)
            except OSError:
                return  # the client hung up, as it may


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: CreatorServer) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up in the middle here; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def answer_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.close_connection = True
        self.server.owner.handle(Seen(self.command, self.path, headers, body), self.connection)

    do_GET = do_POST = do_DELETE = answer_any  # noqa: N815 - http.server's names


# --- a creator with tasks ------------------------------------------------------------------------------------


class TrapRiddenApi:
    """The real creator's API over a number of tasks: it dies where the real one dies.

    Args:
        tasks: id and status, newest first, one second apart.
        newest: when the first one was created.
        list_kills: as on its PostgreSQL set-up.
    """

    def __init__(
        self, tasks: Iterable[tuple[str, str]] = (), *, newest: datetime | None = None, list_kills: bool = False
    ) -> None:
        self.now = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
        newest = newest if newest is not None else self.now
        self.rows = [
            {"id": name, "status": status, "errorMessage": None, "createdAt": _iso(newest - timedelta(seconds=index))}
            for index, (name, status) in enumerate(tasks)
        ]
        self.list_kills = list_kills

    def __call__(self, seen: Seen) -> Reply:
        if seen.path == "/api/tasks":
            return self._list(seen)
        found = re.fullmatch(r"/api/tasks/([^/]+)(/result)?", seen.path)
        assert found is not None, seen.line
        row = next((row for row in self.rows if row["id"] == found[1]), None)
        if row is None:
            return replay("get-unknown-uuid")
        if seen.method == "DELETE":
            return replay("cancel-completed") if row["status"] == "completed" else self._cancel(row)
        if found[2]:
            return replay("result-completed") if row["status"] == "completed" else Reply(dies=True)
        return success(row, timestamp=_iso(self.now))

    def _list(self, seen: Seen) -> Reply:
        if self.list_kills:
            return replay("pg-list")
        page, limit = int(seen.query.get("page", 1)), int(seen.query.get("limit", 20))
        if limit > 100:
            return replay("list-limit-101")
        total = len(self.rows)
        pagination = {"page": page, "limit": limit, "total": total, "totalPages": -(-total // limit)}
        rows = self.rows[(page - 1) * limit : page * limit]
        return success({"tasks": rows, "pagination": pagination}, timestamp=_iso(self.now))

    def _cancel(self, row: dict[str, Any]) -> Reply:
        row["status"] = "cancelled"
        return success({"taskId": row["id"], "status": "cancelled", "message": "Task has been cancelled"})


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
