"""HTTP/1.1 as bytes: callbacks, API calls, and the answers to both.

h11 does the reading. The writing is done here: h11 would move ``Host`` to the front, and the creator's own order of
headers is part of what is simulated.
"""

from __future__ import annotations

import base64
import hashlib
import re
from asyncio import StreamReader
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import h11

__all__ = [
    "MAX_BODY",
    "BadRequest",
    "Request",
    "RequestReader",
    "Response",
    "Target",
    "api_response",
    "callback_request",
    "read_response",
]

MAX_BODY = 10 * 1024 * 1024
"""Bytes of a request to the API; more is answered with 500."""

_MAX_HEAD = 64 * 1024
_UNSAFE_IN_REQUEST_LINE = re.compile(r"[^\x21-\x7e]+")
# What Node refuses to send: https://nodejs.org/api/errors.html#err_invalid_char
_UNSENDABLE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


class BadRequest(Exception):
    """The bytes are not a request that the API can answer."""


# --- callbacks, as the client ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A callback URL as a connection and a request line.

    Args:
        host: the name or address to connect to.
        port: the port to connect to.
        tls: the scheme is ``https``.
        path: path and query, verbatim, without the fragment.
        host_header: the value of ``Host``.
        credentials: ``user:pass`` as they stand in the URL, percent escapes and all; None if there are none.
    """

    host: str
    port: int
    tls: bool
    path: str
    host_header: str
    credentials: str | None

    @classmethod
    def parse(cls, url: str) -> Target:
        """Take a URL apart.

        Raises:
            ValueError: it is not an http or https URL with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"Unsupported protocol {parts.scheme}:")
        tls = parts.scheme == "https"
        default_port = 443 if tls else 80
        port = parts.port or default_port
        name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        userinfo, at, _ = parts.netloc.rpartition("@")
        return cls(
            host=parts.hostname,
            port=port,
            tls=tls,
            path=_UNSAFE_IN_REQUEST_LINE.sub(lambda match: quote(match[0]), path),
            host_header=name if port == default_port else f"{name}:{port}",
            credentials=(userinfo if ":" in userinfo else f"{userinfo}:") if at else None,
        )


@dataclass(frozen=True, slots=True)
class Response:
    """An answer to a callback. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]


def callback_request(target: Target, event: str, task_id: str, body: bytes | None) -> bytes:
    """Return the bytes of a callback.

    Args:
        target: where it goes.
        event: ``completed`` or ``failed``.
        task_id: the creator's id of the task.
        body: the envelope; None makes the GET that follows a 301, 302 or 303.

    Raises:
        ValueError: the id cannot stand in a header.
    """
    if _UNSENDABLE.search(task_id):
        raise ValueError('Invalid character in header content ["X-Task-ID"]')
    credentials = None if target.credentials is None else base64.b64encode(target.credentials.encode()).decode()
    lines = [
        f"{'GET' if body is None else 'POST'} {target.path} HTTP/1.1",
        "Accept: application/json, text/plain, */*",
        None if body is None else "Content-Type: application/json",
        "User-Agent: content-creator/1.0",
        f"X-Webhook-Event: {event}",
        f"X-Task-ID: {task_id}",
        None if body is None else f"Content-Length: {len(body)}",
        "Accept-Encoding: gzip, compress, deflate, br",
        f"Host: {target.host_header}",
        None if credentials is None else f"Authorization: Basic {credentials}",
        "Connection: keep-alive",
    ]
    return _message([line for line in lines if line is not None], body or b"")


async def read_response(reader: StreamReader) -> Response:
    """Read an answer to its end, and throw its body away.

    Raises:
        ValueError: it is not HTTP.
        EOFError: it ended too early.
    """
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    # h11 takes no answer before it has sent a request; this one goes nowhere, and ours has gone already.
    parser.send(h11.Request(method="POST", target="/", headers=[("Host", "")]))
    parser.send(h11.EndOfMessage())
    response = Response(0, {})
    try:
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                parser.receive_data(await reader.read(_MAX_HEAD))
            elif isinstance(event, h11.Response):
                response = Response(event.status_code, _headers(event))
    except h11.RemoteProtocolError as error:
        _, has_ended = parser.trailing_data
        raise (EOFError if has_ended else ValueError)(f"Parse Error: {error}") from None
    return response


# --- the API, as the server -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """A call of the API. Header names are in lower case; the path is without the query and a trailing slash."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def keep_alive(self) -> bool:
        """The connection stays open for another call."""
        return self.headers.get("connection", "").lower() != "close"

    @property
    def segments(self) -> tuple[str, ...]:
        """The parts of the path, decoded."""
        return tuple(unquote(segment) for segment in self.path.strip("/").split("/"))


class RequestReader:
    """Read the requests of one connection."""

    _head: h11.Request

    def __init__(self) -> None:
        self._begin(b"")

    def feed(self, data: bytes) -> None:
        """Add bytes as they arrive."""
        self._parser.receive_data(data)

    def take(self) -> Request | None:
        """Return the next request; None until it is whole.

        Raises:
            BadRequest: it is not HTTP, or larger than the API takes.
        """
        try:
            while not isinstance(event := self._parser.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    self._head = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                else:
                    return None
                if len(self._body) > MAX_BODY:
                    raise BadRequest("the body is too large")
        except h11.RemoteProtocolError as error:
            raise BadRequest(str(error)) from None
        target = urlsplit(self._head.target.decode())
        request = Request(
            method=self._head.method.decode(),
            path=target.path.rstrip("/") or "/",
            query=dict(parse_qsl(target.query, keep_blank_values=True)),
            headers=_headers(self._head),
            body=bytes(self._body),
        )
        self._begin(self._parser.trailing_data[0])
        return request

    def _begin(self, data: bytes) -> None:
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._body = bytearray()
        if data:  # to h11, no bytes are the end of the connection
            self._parser.receive_data(data)


def api_response(status: int, body: bytes, *, at: datetime, keep_alive: bool) -> bytes:
    """Return the bytes of an answer, with the headers of Express and Node."""
    digest = base64.b64encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode()[:27]
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "X-Powered-By: Express",
        "Access-Control-Allow-Origin: *",
        "Access-Control-Allow-Methods: GET, POST, PUT, DELETE, OPTIONS",
        "Access-Control-Allow-Headers: Content-Type, Authorization",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        f'ETag: W/"{len(body):x}-{digest}"',
        f"Date: {format_datetime(at.astimezone(UTC), usegmt=True)}",
    ]
    lines += ["Connection: keep-alive", "Keep-Alive: timeout=5"] if keep_alive else ["Connection: close"]
    return _message(lines, body)


def _message(lines: list[str], body: bytes) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _headers(head: h11.Request | h11.Response) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in head.headers}
