"""Births and deaths of the simulated creator: its process dies of calls and faults, and is started again."""

from __future__ import annotations

import asyncio
import socket

from .behaviour import Behaviour
from .gateway import Gateway
from .ledger import Ledger
from .process import CreatorProcess

__all__ = ["Supervisor"]

_INTERRUPTED = "Task was interrupted by a restart"


class Supervisor:
    """Starts the process of a creator, and starts it again after a death; its coroutines belong to one event loop.

    Args:
        behaviour: the options of the simulator.
        ledger: outlives the process.
        host: the loopback address to listen on.
        port: 0 takes a free one, which is kept over deaths.
        restart_after: seconds from a death by a call or a fault to the next start; None for no next start.
        gateway: put a gateway in front, which has the port and outlives the process.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        ledger: Ledger,
        *,
        host: str,
        port: int,
        restart_after: float | None,
        gateway: bool = False,
    ) -> None:
        self._behaviour, self._ledger = behaviour, ledger
        self.host, self.port = host, port
        self.gateway = Gateway(behaviour, lambda: self.process) if gateway else None
        self._restart_after = restart_after
        self.process: CreatorProcess | None = None
        """The process, while it is alive."""
        self._reserved: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._booting: asyncio.Task[None] | None = None
        self._boot_lock = asyncio.Lock()

    @property
    def will_boot(self) -> bool:
        """True while a restart is to come."""
        return self._timer is not None

    def reserve_port(self) -> None:
        """Take the port for good, whether or not a process listens on it.

        Raises:
            OSError: it is taken.
        """
        self._reserved = _bind(self.host, self.port)
        self.port = self._reserved.getsockname()[1]

    def release_port(self) -> None:
        """Give the port back."""
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    async def open_gateway(self) -> None:
        """Let the gateway listen on the port, if there is one; the process gets a port of its own."""
        if self.gateway is not None:
            await self.gateway.serve(self._listener())

    async def boot(self) -> None:
        """Start the process, unless it is alive."""
        async with self._boot_lock:
            if self.process is not None:
                return
            behaviour = self._behaviour
            fail_at = behaviour.clock() if behaviour.orphans == "failed" else None
            self._ledger.orphan(fail_at=fail_at, message=_INTERRUPTED)
            listener = self._listener() if self.gateway is None else _bind(self.host, 0)
            process = CreatorProcess(behaviour, self._ledger, self._on_death)
            try:
                await process.serve(listener)
            except BaseException:
                process.die("stop")
                listener.close()
                raise
            self.process = process
            self._timer = None

    async def crash(self, reason: str, restart_after: float | None) -> None:
        """Kill the process, and start it again after this many seconds, if any."""
        self._cancel_timer()
        process, self.process = self.process, None
        if process is not None:
            process.die("crash")
            self._ledger.die(reason)
            await process.bury()
        if restart_after is not None:
            self._boot_later(restart_after)

    async def restart(self, after: float) -> None:
        """Kill the process, and start it again after this many seconds; return when it listens."""
        await self.crash("restart", None)
        await asyncio.sleep(after)
        await self.boot()

    async def shut_down(self) -> None:
        """End the process, and everything else on the event loop."""
        self._cancel_timer()
        if self.gateway is not None:
            self.gateway.close()
            await asyncio.sleep(0)  # in which asyncio closes the connections that were cut
        process, self.process = self.process, None
        if process is not None:
            process.die("stop")
            await process.bury()
        strays = asyncio.all_tasks() - {asyncio.current_task()}
        for stray in strays:
            stray.cancel()
        await asyncio.gather(*strays, return_exceptions=True)

    def _listener(self) -> socket.socket:
        try:
            return _bind(self.host, self.port)
        except OSError:
            # Outside Linux two sockets cannot both be bound to a port: give up the reservation.
            if self._reserved is None:
                raise
            self.release_port()
            return _bind(self.host, self.port)

    def _on_death(self, process: CreatorProcess, reason: str) -> None:
        if process is not self.process:
            return  # the second of two deadly calls
        process.die("crash")
        self.process = None
        self._ledger.die(reason)
        if self._restart_after is not None:
            self._boot_later(self._restart_after)

    def _boot_later(self, after: float) -> None:
        loop = asyncio.get_running_loop()

        def boot() -> None:
            self._booting = loop.create_task(self.boot())

        self._timer = loop.call_later(after, boot)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _bind(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen: it reserves the port, and connections are refused."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound
