"""The creator's delivery of callbacks: one queue in memory, one callback at a time, for all tasks and all receivers.

200, 202             done
other 2xx            sent again at once, four times in all
301, 302, 303        fetched with GET, and a 200 there counts as delivered
307, 308             posted again, there
anything else        four times in all, five seconds apart, then dropped
no answer in 10 s    the same
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from time import perf_counter
from urllib.parse import urljoin

from .ledger import CallbackRecord, Ledger
from .wire import Response, Target, callback_request, read_response

__all__ = ["GAP", "TIMEOUT", "TRIES", "Callback", "Courier"]

TRIES = 4
GAP = 5.0
"""Seconds between two tries."""
TIMEOUT = 10.0
"""Seconds that a receiver has to answer."""

_MAX_REDIRECTS = 21
_BECOMES_GET = frozenset({HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER})
_POSTED_AGAIN = frozenset({HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """An event on its way to a receiver.

    Args:
        task_id: the creator's id of the task.
        event: ``completed`` or ``failed``.
        url: the callback URL.
        body: the bytes of the envelope, the same for every try.
        faults: the faults that apply to it, for the log.
    """

    task_id: str
    event: str
    url: str
    body: bytes = field(repr=False)
    faults: tuple[str, ...] = ()


class Courier:
    """The queue of one simulated process, emptied by a task in its event loop.

    Args:
        ledger: the log of all requests.
        gap: seconds between two tries.
        timeout: seconds that a receiver has to answer, redirects included.
        clock: the time for the log.
        tls: for https receivers; None trusts the system's certificates.
        keep_bodies: keep the bodies in the log.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        gap: float,
        timeout: float,
        clock: Callable[[], datetime],
        tls: ssl.SSLContext | None = None,
        keep_bodies: bool = True,
    ) -> None:
        self._ledger = ledger
        self._gap = gap
        self._timeout = timeout
        self._clock = clock
        self._tls = tls
        self._keep_bodies = keep_bodies
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Callback] = deque()
        self._held: deque[Callback] = deque()
        self._later: dict[asyncio.TimerHandle, Callback] = {}
        self._forging: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._working = False
        self._worker = self._loop.create_task(self._work())

    @property
    def idle(self) -> bool:
        """True if nothing is queued, held back, delayed or on its way."""
        return not (self._queue or self._held or self._later or self._forging or self._working)

    def send(self, callback: Callback, *, after: float = 0.0, hold: float | None = None) -> None:
        """Queue a callback.

        Args:
            callback: the callback.
            after: seconds until it enters the queue.
            hold: seconds that it then waits for a callback of another task to go first.
        """
        if after > 0:
            self._call_later(after, callback, lambda: self._enter(callback, hold))
        else:
            self._enter(callback, hold)

    def send_forged(self, callback: Callback, *, after: float) -> None:
        """Send once, bypassing the queue."""

        def go() -> None:
            task = self._loop.create_task(self._post_forged(callback))
            self._forging.add(task)
            task.add_done_callback(self._forging.discard)

        self._call_later(after, callback, go)

    def lose(self, callback: Callback, why: str) -> None:
        """Log a callback that is never sent."""
        self._ledger.log(
            CallbackRecord(
                task_id=callback.task_id,
                event=callback.event,
                faults=tuple(dict.fromkeys((*callback.faults, why))),
                url=callback.url,
                sent_at=self._clock(),
                body=self._kept(callback.body),
            )
        )

    def die(self, why: str) -> list[asyncio.Task[None]]:
        """Drop the queue, cut the requests in progress, and return the tasks that are being cancelled."""
        waiting = [*self._queue, *self._held, *self._later.values()]
        for handle in self._later:
            handle.cancel()
        self._queue.clear()
        self._held.clear()
        self._later.clear()
        for callback in waiting:
            self.lose(callback, why)
        dying = [self._worker, *self._forging]
        for task in dying:
            task.cancel()
        return dying

    def _call_later(self, after: float, callback: Callback, act: Callable[[], None]) -> None:
        def fire() -> None:
            del self._later[handle]
            act()

        handle = self._loop.call_later(after, fire)
        self._later[handle] = callback

    def _enter(self, callback: Callback, hold: float | None) -> None:
        if hold is not None and hold > 0:
            self._held.append(callback)
            self._at_release(callback, hold)
            return
        self._queue.append(callback)
        self._release([held for held in self._held if held.task_id != callback.task_id])

    def _at_release(self, callback: Callback, hold: float) -> None:
        self._loop.call_later(hold, lambda: self._release([held for held in self._held if held is callback]))

    def _release(self, callbacks: list[Callback]) -> None:
        for callback in callbacks:
            self._held.remove(callback)
            self._queue.append(callback)
        self._wake.set()

    async def _work(self) -> None:
        while True:
            while self._queue:
                self._working = True
                callback = self._queue.popleft()
                await self._deliver(callback)
            self._working = False
            self._wake.clear()
            await self._wake.wait()

    async def _deliver(self, callback: Callback) -> None:
        for attempt in range(1, TRIES + 1):
            status = await self._post(callback, attempt)
            if status in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
                return
            # To the creator's HTTP client any other 2xx is not an error, so there is no gap before the next try.
            if attempt < TRIES and not (status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES):
                await asyncio.sleep(self._gap)

    async def _post_forged(self, callback: Callback) -> None:
        await self._post(callback, 1)

    async def _post(self, callback: Callback, attempt: int) -> int | None:
        """Send a request, follow redirects, and return the last status; None without an answer."""
        deadline = self._loop.time() + self._timeout
        url, body = callback.url, callback.body or None
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._exchange(callback, attempt, url, body, deadline)
            if response is None:
                return None
            location = response.headers.get("location")
            if location is None or response.status not in _BECOMES_GET | _POSTED_AGAIN:
                return response.status
            url = urljoin(url, location)
            if response.status in _BECOMES_GET:
                body = None
        return None

    async def _exchange(
        self, callback: Callback, attempt: int, url: str, body: bytes | None, deadline: float
    ) -> Response | None:
        sent_at, started = self._clock(), perf_counter()
        response, error = None, "crash"
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._talk(url, callback, body)
            error = ""
        except TimeoutError:
            error = "timeout"
        except ConnectionRefusedError:
            error = "refused"
        except (ConnectionError, EOFError):
            error = "reset"
        except (OSError, ValueError) as problem:
            error = str(problem) or type(problem).__name__
        finally:
            # In a finally, so that a request cut by the death of the process is logged as well.
            self._ledger.log(
                CallbackRecord(
                    task_id=callback.task_id,
                    event=callback.event,
                    faults=callback.faults,
                    attempt=attempt,
                    method="GET" if body is None else "POST",
                    url=url,
                    sent_at=sent_at,
                    elapsed=perf_counter() - started,
                    status=None if response is None else response.status,
                    error=error or None,
                    body=self._kept(body),
                )
            )
        return response

    async def _talk(self, url: str, callback: Callback, body: bytes | None) -> Response:
        target = Target.parse(url)
        request = callback_request(target, callback.event, callback.task_id, body)
        tls = (self._tls or ssl.create_default_context()) if target.tls else None
        reader, writer = await asyncio.open_connection(target.host, target.port, ssl=tls)
        try:
            writer.write(request)
            return await read_response(reader)
        finally:
            # Aborted, not closed: a receiver that does not read to the end must not hold up the queue.
            writer.transport.abort()

    def _kept(self, body: bytes | None) -> bytes:
        return body if body is not None and self._keep_bodies else b""
