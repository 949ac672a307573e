"""The part of the simulator that can die: a server with its connections, its work and its queue."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from .api import Answer, CreatorApi
from .behaviour import Behaviour
from .courier import Courier
from .ledger import Ledger
from .wire import BadRequest, Request, RequestReader, api_response
from .workshop import Died, Workshop

__all__ = ["CreatorProcess"]

_BACKLOG = 511
_KEEP_ALIVE = 5.0
_logger = logging.getLogger(__name__)


class CreatorProcess:
    """The creator from one start to its death. Make and use it inside the event loop.

    Args:
        behaviour: its options.
        ledger: its database, which survives it.
        on_death: called with the process and the reason when a call has killed it.
    """

    def __init__(self, behaviour: Behaviour, ledger: Ledger, on_death: Callable[[CreatorProcess, str], None]) -> None:
        self.behaviour = behaviour
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._courier = Courier(behaviour, ledger)
        self.workshop = Workshop(behaviour, ledger, self._courier)
        self.api = CreatorApi(behaviour, ledger, self.workshop)
        self.connections: set[_Connection] = set()
        self.dead = False
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done once it is dead."""
        self._server: asyncio.Server | None = None
        self._dying: list[asyncio.Task[Any]] = []

    @property
    def idle(self) -> bool:
        """True if no task is being worked on and no callback is on its way."""
        return self.workshop.idle and self._courier.idle

    async def serve(self, listener: socket.socket) -> None:
        """Begin to listen."""
        self._server = await self._loop.create_server(lambda: _Connection(self), sock=listener, backlog=_BACKLOG)

    def fall_over(self, reason: str) -> None:
        """Die of a call, from outside the call, since that is cancelled with the process."""
        self._loop.call_soon(self._on_death, self, reason)

    def die(self, why: str) -> None:
        """Cut every connection, stop all work, drop the queue."""
        self.dead = True
        if not self.ended.done():
            self.ended.set_result(None)
        if self._server is not None:
            for listener in self._server.sockets:
                self._loop.remove_reader(listener.fileno())
            self._dying.append(self._loop.create_task(self._close(self._server)))
        self.workshop.die()
        self._dying.extend(self._courier.die(why))
        for connection in list(self.connections):
            self._dying.extend(connection.cut())

    async def bury(self) -> None:
        """Wait until all of its tasks have ended."""
        await asyncio.gather(*self._dying, return_exceptions=True)

    async def _close(self, server: asyncio.Server) -> None:
        """Close the server one turn of the loop after it has accepted its last client.

        Otherwise a client that asyncio has accepted, but not yet made a connection for, would leave its socket open.
        """
        server.close()


class _Connection(asyncio.Protocol):
    """A client. Its calls are answered one after the other; when it leaves, the call ends and the work goes on."""

    def __init__(self, process: CreatorProcess) -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._requests = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._call: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - the event loop's promise, for the type checker
        self._transport = transport
        if self._process.dead:
            transport.abort()
        self._process.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._requests.feed(data)
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._process.connections.discard(self)
        self._stop_waiting()
        if self._call is not None:
            self._call.cancel()

    def cut(self) -> list[asyncio.Task[None]]:
        """Close without an answer, as the kernel does for a dead process."""
        if self._transport is not None:
            self._transport.abort()
        return [] if self._call is None else [self._call]

    def _advance(self) -> None:
        if self._call is not None:
            return
        self._stop_waiting()
        try:
            request = self._requests.take()
        except BadRequest:
            self._write(self._process.api.broken(), keep_alive=False)
            return
        if request is not None:
            self._call = self._loop.create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        try:
            answer = await self._process.api.answer(request)
        except Died as death:
            self._process.fall_over(str(death))
            return  # with self._call still set: nothing more is read
        except Exception:
            _logger.exception("The simulator failed to answer %s %s", request.method, request.path)
            answer = self._process.api.broken()
        self._call = None
        self._write(answer, keep_alive=request.keep_alive)
        if request.keep_alive:
            self._advance()

    def _write(self, answer: Answer, *, keep_alive: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        at = self._process.behaviour.clock()
        self._transport.write(api_response(*answer, at=at, keep_alive=keep_alive))
        if keep_alive:
            self._idle = self._loop.call_later(_KEEP_ALIVE, self._transport.close)
        else:
            self._transport.close()

    def _stop_waiting(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
