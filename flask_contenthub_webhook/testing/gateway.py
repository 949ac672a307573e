"""A gateway in front of the simulated creator, such as nginx: while the creator is away, it answers in its place."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from .wire import BadRequest, Request, RequestReader, api_response
from .workshop import Died

if TYPE_CHECKING:
    from .behaviour import Behaviour
    from .process import CreatorProcess

__all__ = ["Gateway"]

_SERVER = b"Server: nginx/1.26.3\r\n"
_RETRY_AFTER = 30


class Gateway:
    """Passes calls on to the process of a creator; its coroutines belong to the event loop of that.

    Args:
        behaviour: the options of the simulator.
        process: returns the process, or None while it is dead.
    """

    def __init__(self, behaviour: Behaviour, process: Callable[[], CreatorProcess | None]) -> None:
        self._behaviour = behaviour
        self.process = process
        self._outage: tuple[datetime, datetime, Sequence[int]] | None = None
        self._server: asyncio.Server | None = None
        self.connections: set[asyncio.Transport] = set()
        self.answered: Counter[int] = Counter()
        """The number of calls that it answered itself, by status."""

    async def serve(self, listener: socket.socket) -> None:
        """Begin to listen."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Client(self), sock=listener)

    def close(self) -> None:
        """Stop listening, and cut every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.abort()

    def begin_outage(self, seconds: float, answers: Sequence[int]) -> None:
        """Answer everything itself for this many seconds of the simulator's clock, with one status after the other."""
        now = self._behaviour.clock()
        self._outage = now, now + timedelta(seconds=seconds), answers

    async def answer(self, request: Request) -> bytes:
        """Return the bytes of the answer to a call."""
        status = self._status_of_outage()
        process = self.process()
        if status is None and process is not None:
            answer = await self._pass_on(request, process)
            if answer is not None:
                return answer
        return self._page(502 if status is None else status, keep_alive=request.keep_alive)

    async def _pass_on(self, request: Request, process: CreatorProcess) -> bytes | None:
        """Return the creator's answer; None if it died before it gave one."""
        call = asyncio.ensure_future(process.api.answer(request))
        try:
            either: set[asyncio.Future[Any]] = {call, process.ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                return None
            answer = call.result()
        except Died as death:
            process.fall_over(str(death))
            return None
        except asyncio.CancelledError:
            if not call.cancelled():  # it is the client that left
                raise
            return None
        finally:
            call.cancel()
        raw = api_response(*answer, at=self._behaviour.clock(), keep_alive=request.keep_alive)
        head, _, rest = raw.partition(b"\r\n")
        return head + b"\r\n" + _SERVER + rest

    def _status_of_outage(self) -> int | None:
        if self._outage is None:
            return None
        begin, end, answers = self._outage
        now = self._behaviour.clock()
        if not begin <= now < end:
            return None
        return answers[int((now - begin) / (end - begin) * len(answers))]

    def _page(self, status: int, *, keep_alive: bool) -> bytes:
        self.answered[status] += 1
        phrase = "Maintenance" if status == HTTPStatus.OK else f"{status} {HTTPStatus(status).phrase}"
        body = f"<html>\r\n<head><title>{phrase}</title></head>\r\n<body>\r\n<center><h1>{phrase}</h1></center>\r\n"
        body += "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"Date: {format_datetime(self._behaviour.clock().astimezone(UTC), usegmt=True)}",
            "Content-Type: text/html",
            f"Content-Length: {len(body)}",
            f"Connection: {'keep-alive' if keep_alive else 'close'}",
        ]
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            lines.append(f"Retry-After: {_RETRY_AFTER}")
        head, *fields = (line.encode() + b"\r\n" for line in lines)
        return b"".join([head, _SERVER, *fields, b"\r\n", body.encode()])


class _Client(asyncio.Protocol):
    """A connection to the gateway, whose calls are answered one after the other."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._requests = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._call: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - the event loop's promise, for the type checker
        self._transport = transport
        self._gateway.connections.add(transport)

    def data_received(self, data: bytes) -> None:
        self._requests.feed(data)
        if self._call is None:
            self._call = asyncio.get_running_loop().create_task(self._serve())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._transport is not None:
            self._gateway.connections.discard(self._transport)
        if self._call is not None:
            self._call.cancel()

    async def _serve(self) -> None:
        with contextlib.suppress(BadRequest):
            while (request := self._requests.take()) is not None:
                answer = await self._gateway.answer(request)
                if self._transport is None or self._transport.is_closing():
                    return
                self._transport.write(answer)
                if not request.keep_alive:
                    break
            else:
                self._call = None
                return
        if self._transport is not None:
            self._transport.close()
