"""HTTP/1.1 as bytes: what the creator writes to a receiver, what it reads back, and what its own API reads and writes.

No HTTP library: they decide on the order and the spelling of headers themselves, and those are part of what is
simulated.
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

__all__ = [
    "MAX_BODY",
    "BadRequest",
    "Request",
    "Response",
    "Target",
    "api_response",
    "callback_request",
    "read_response",
    "take_request",
]

MAX_BODY = 10 * 1024 * 1024
"""Bytes of a request to the API; more is answered with 500."""

_MAX_HEAD = 64 * 1024
_UNSAFE_IN_REQUEST_LINE = re.compile(r"[^\x21-\x7e]+")
# What Node refuses to send: https://nodejs.org/api/errors.html#err_invalid_char
_UNSENDABLE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")


class BadRequest(Exception):
    """What came in is not a request that the API can answer."""


# --- callbacks, as the client ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads on the wire.

    Args:
        host: the name or address to connect to.
        port: the port to connect to.
        tls: whether the scheme is ``https``.
        path: path and query, as they stand in the request line: verbatim, without the fragment.
        host_header: the value of ``Host``.
        credentials: ``user:pass`` as they stand in the URL, percent escapes and all; None where there are none.
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
            path=_UNSAFE_IN_REQUEST_LINE.sub(lambda found: quote(found[0]), path),
            host_header=name if port == default_port else f"{name}:{port}",
            credentials=(userinfo if ":" in userinfo else f"{userinfo}:") if at else None,
        )


@dataclass(frozen=True, slots=True)
class Response:
    """An answer to a callback. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]


def callback_request(target: Target, event: str, task_id: str, body: bytes | None) -> bytes:
    """The bytes of a callback.

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
    lines = [f"{'GET' if body is None else 'POST'} {target.path} HTTP/1.1", "Accept: application/json, text/plain, */*"]
    if body is not None:
        lines.append("Content-Type: application/json")
    lines += ["User-Agent: content-creator/1.0", f"X-Webhook-Event: {event}", f"X-Task-ID: {task_id}"]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    lines += ["Accept-Encoding: gzip, compress, deflate, br", f"Host: {target.host_header}"]
    if target.credentials is not None:
        lines.append(f"Authorization: Basic {base64.b64encode(target.credentials.encode()).decode()}")
    lines.append("Connection: keep-alive")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


async def read_response(reader: StreamReader) -> Response:
    """Read an answer to its end; the body is thrown away.

    Raises:
        ValueError: it is not HTTP.
        EOFError: it ended too early.
    """
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        found = _STATUS_LINE.fullmatch(head[0])
        if found is None:
            raise ValueError("Parse Error: Expected HTTP/")
        response = Response(int(found[1]), _headers(head[1:]))
        if response.status >= HTTPStatus.OK:
            break
    if response.status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
        await _skip_body(reader, response.headers)
    return response


async def _skip_body(reader: StreamReader, headers: Mapping[str, str]) -> None:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
    elif "content-length" in headers:
        await reader.readexactly(int(headers["content-length"]))
    else:
        while await reader.read(_MAX_HEAD):
            pass


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
        """Whether the connection stays open for another call."""
        return self.headers.get("connection", "").lower() != "close"

    @property
    def segments(self) -> tuple[str, ...]:
        """The parts of the path, decoded."""
        return tuple(unquote(segment) for segment in self.path.strip("/").split("/"))


def take_request(buffer: bytearray) -> Request | None:
    """Take the first whole request out of what has arrived; None where it is not whole yet.

    Raises:
        BadRequest: it is not HTTP, or larger than the API takes.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > _MAX_HEAD:
            raise BadRequest("the headers are too large")
        return None
    lines = bytes(buffer[:end]).split(b"\r\n")
    parts = lines[0].decode("latin-1").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, target, version
        raise BadRequest("the request line is malformed")
    headers = _headers(lines[1:])
    if "chunked" in headers.get("transfer-encoding", "").lower():
        taken = _take_chunks(buffer, end + 4)
    else:
        taken = _take_length(buffer, end + 4, headers.get("content-length", "0"))
    if taken is None:
        return None
    body, used = taken
    del buffer[:used]
    target = urlsplit(parts[1])
    query = dict(parse_qsl(target.query, keep_blank_values=True))
    return Request(parts[0], target.path.rstrip("/") or "/", query, headers, body)


def api_response(status: int, body: bytes, *, at: datetime, keep_alive: bool) -> bytes:
    """The bytes of an answer, with the headers that Express and Node put there."""
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
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _take_length(buffer: bytearray, start: int, length: str) -> tuple[bytes, int] | None:
    if not (length.isascii() and length.isdigit()):
        raise BadRequest("the Content-Length is malformed")
    if int(length) > MAX_BODY:
        raise BadRequest("the body is too large")
    end = start + int(length)
    return None if len(buffer) < end else (bytes(buffer[start:end]), end)


def _take_chunks(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    body = bytearray()
    while (line_end := buffer.find(b"\r\n", start)) >= 0:
        try:
            size = int(bytes(buffer[start:line_end]).split(b";")[0], 16)
        except ValueError:
            raise BadRequest("a chunk is malformed") from None
        if size < 0 or len(body) + size > MAX_BODY:
            raise BadRequest("the body is too large")
        start = line_end + 2 + size + 2
        if len(buffer) < start:
            return None
        if size == 0:
            return bytes(body), start
        body += buffer[line_end + 2 : start - 2]
    return None


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers
