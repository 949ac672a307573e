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
from dataclasses import replace
from http import HTTPStatus
from time import perf_counter
from typing import Any
from urllib.parse import urljoin

from .behaviour import Behaviour
from .ledger import CallbackRecord, Ledger
from .wire import Response, Target, callback_request, read_response

__all__ = ["Courier"]

_TRIES = 4
_MAX_REDIRECTS = 21
_BECOMES_GET = frozenset({HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER})
_POSTED_AGAIN = frozenset({HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT})


class Courier:
    """The queue of one simulated process, emptied by a task in its event loop.

    A callback waits here as the record that is logged for each of its requests, with the rest filled in.
    """

    def __init__(self, behaviour: Behaviour, ledger: Ledger) -> None:
        self._behaviour = behaviour
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._queue: deque[CallbackRecord] = deque()
        self._held: deque[CallbackRecord] = deque()
        self._later: dict[asyncio.TimerHandle, CallbackRecord] = {}
        self._forging: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._working = False
        self._worker = self._loop.create_task(self._work())

    @property
    def idle(self) -> bool:
        """True if nothing is queued, held back, delayed or on its way."""
        return not (self._queue or self._held or self._later or self._forging or self._working)

    def send(self, callback: CallbackRecord, *, after: float = 0.0, hold: float | None = None) -> None:
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

    def send_forged(self, callback: CallbackRecord, *, after: float) -> None:
        """Send once, bypassing the queue."""

        def go() -> None:
            task = self._loop.create_task(self._post(callback, 1))
            self._forging.add(task)
            task.add_done_callback(self._forging.discard)

        self._call_later(after, callback, go)

    def lose(self, callback: CallbackRecord, why: str) -> None:
        """Log a callback that is never sent."""
        faults = tuple(dict.fromkeys((*callback.faults, why)))
        self._log(replace(callback, faults=faults, sent_at=self._behaviour.clock()))

    def die(self, why: str) -> list[asyncio.Task[Any]]:
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

    def _call_later(self, after: float, callback: CallbackRecord, act: Callable[[], None]) -> None:
        def fire() -> None:
            del self._later[handle]
            act()

        handle = self._loop.call_later(after, fire)
        self._later[handle] = callback

    def _enter(self, callback: CallbackRecord, hold: float | None) -> None:
        if hold is not None and hold > 0:
            self._held.append(callback)
            self._loop.call_later(hold, lambda: self._release([held for held in self._held if held is callback]))
            return
        self._queue.append(callback)
        self._release([held for held in self._held if held.task_id != callback.task_id])

    def _release(self, callbacks: list[CallbackRecord]) -> None:
        for callback in callbacks:
            self._held.remove(callback)
            self._queue.append(callback)
        self._wake.set()

    async def _work(self) -> None:
        while True:
            while self._queue:
                self._working = True
                await self._deliver(self._queue.popleft())
            self._working = False
            self._wake.clear()
            await self._wake.wait()

    async def _deliver(self, callback: CallbackRecord) -> None:
        for attempt in range(1, _TRIES + 1):
            status = await self._post(callback, attempt)
            if status in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
                return
            # To the creator's HTTP client any other 2xx is not an error, so there is no gap before the next try.
            if attempt < _TRIES and not (status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES):
                await asyncio.sleep(self._behaviour.gap)

    async def _post(self, callback: CallbackRecord, attempt: int) -> int | None:
        """Send a request, follow redirects, and return the last status; None without an answer."""
        deadline = self._loop.time() + self._behaviour.timeout
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
        self, callback: CallbackRecord, attempt: int, url: str, body: bytes | None, deadline: float
    ) -> Response | None:
        sent_at, started = self._behaviour.clock(), perf_counter()
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
            record = replace(
                callback,
                attempt=attempt,
                method="GET" if body is None else "POST",
                url=url,
                sent_at=sent_at,
                elapsed=perf_counter() - started,
                status=None if response is None else response.status,
                error=error or None,
                body=body or b"",
            )
            self._log(record)
        return response

    def _log(self, record: CallbackRecord) -> None:
        self._ledger.log(record if self._behaviour.keep_bodies else replace(record, body=b""))

    async def _talk(self, url: str, callback: CallbackRecord, body: bytes | None) -> Response:
        target = Target.parse(url)
        request = callback_request(target, callback.event, callback.task_id, body)
        tls = (self._behaviour.tls or ssl.create_default_context()) if target.tls else None
        reader, writer = await asyncio.open_connection(target.host, target.port, ssl=tls)
        try:
            writer.write(request)
            return await read_response(reader)
        finally:
            # Aborted, not closed: a receiver that does not read to the end must not hold up the queue.
            writer.transport.abort()
