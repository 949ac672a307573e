"""The load generator, a process of its own that lives as long as a run.

It is a bare event loop over sockets, because on two processors whatever it takes is missing to the servers. Connections
are used again where the server leaves them open (gunicorn's threads do, its sync workers do not).
"""

from __future__ import annotations

import gc
import pickle
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

__all__ = ["Load", "LoadGenerator"]

_SILENCE = 60.0
_IDLE = 1.0
"""Seconds after which an idle connection is not used again: gunicorn closes them after two."""


class Load(NamedTuple):
    """What became of one load.

    Args:
        seconds: from the first request to the last answer.
        cpu_seconds: what the generator itself took of a processor.
        latencies: of each request that was answered as it should be, in seconds, to the answer's last byte: from the
            moment it was sent, or, at a fixed rate, from the moment it should have been.
        failures: how often another status line came.
    """

    seconds: float
    cpu_seconds: float
    latencies: list[float]
    failures: Counter[str]


class _Job(NamedTuple):
    port: int
    requests: Sequence[bytes]
    answer: int
    in_flight: int | None
    rate: float | None


class LoadGenerator:
    """Plays requests at servers on 127.0.0.1; a context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def play(self, port: int, requests: Sequence[bytes], *, in_flight: int, answer: int = 200) -> Load:
        """As fast as they are answered.

        Args:
            port: of the server.
            requests: the bytes of each.
            in_flight: how many are under way at any time.
            answer: the status that each should be answered with.
        """
        return self._ask(_Job(port, requests, answer, in_flight, None))

    def play_at(self, port: int, requests: Sequence[bytes], *, rate: float, answer: int = 200) -> Load:
        """So many a second, however fast they are answered: who waits in a queue is counted as waiting."""
        return self._ask(_Job(port, requests, answer, None, rate))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            with self._process:
                self._process.kill()
            self._process = None

    def _ask(self, job: _Job) -> Load:
        assert self._process is not None, "use the generator as a context manager"
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        pickle.dump(tuple(job), stdin)
        stdin.flush()
        return Load(*pickle.load(stdout))


# --- in the other process ------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    started: float = 0.0
    answer: bytearray = field(default_factory=bytearray)
    used_at: float = 0.0


class _Player:
    """Plays one job."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._address = ("127.0.0.1", job.port)
        self._expected = f"HTTP/1.1 {job.answer} ".encode()
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        self._latencies: list[float] = []
        self._failures: Counter[str] = Counter()

    def play(self) -> Load:
        cpu, begun = time.process_time(), time.perf_counter()
        if self._job.rate is None:
            self._keep_in_flight(self._job.in_flight or 1)
        else:
            self._keep_rate(self._job.rate, begun)
        seconds = time.perf_counter() - begun
        for connection in self._idle:
            connection.socket.close()
        return Load(seconds, time.process_time() - cpu, self._latencies, self._failures)

    def _keep_in_flight(self, in_flight: int) -> None:
        waiting = iter(self._job.requests)
        for request in islice(waiting, in_flight):
            self._send(request, time.perf_counter())
        while self._selector.get_map():
            for request in islice(waiting, self._receive(_SILENCE)):
                self._send(request, time.perf_counter())

    def _keep_rate(self, rate: float, begun: float) -> None:
        for number, request in enumerate(self._job.requests):
            due = begun + number / rate
            while (left := due - time.perf_counter()) > 0:
                self._receive(left)
            self._send(request, due)
        while self._selector.get_map():
            self._receive(_SILENCE)

    def _send(self, request: bytes, started: float) -> None:
        connection = self._connection()
        connection.started = started
        connection.socket.sendall(request)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if time.perf_counter() - connection.used_at < _IDLE:
                return connection
            connection.socket.close()
        return _Connection(socket.create_connection(self._address))

    def _receive(self, seconds: float) -> int:
        """Read what comes within some seconds; how many answers are complete."""
        if not self._selector.get_map():
            time.sleep(seconds)
            return 0
        ready = self._selector.select(seconds)
        if not ready and seconds >= _SILENCE:
            raise TimeoutError(f"no answer within {_SILENCE:g} s")
        return sum(self._read(key.data) for key, _ in ready)

    def _read(self, connection: _Connection) -> bool:
        chunk = connection.socket.recv(65536)
        connection.answer += chunk
        is_complete, is_last = _state_of(connection.answer)
        if chunk and not is_complete:
            return False
        self._selector.unregister(connection.socket)
        now = time.perf_counter()
        if is_complete and connection.answer.startswith(self._expected):
            self._latencies.append(now - connection.started)
        else:
            self._failures[connection.answer.partition(b"\r\n")[0].decode("ascii", "replace") or "no answer"] += 1
        if is_last or not chunk:
            connection.socket.close()
        else:
            connection.answer.clear()
            connection.used_at = now
            self._idle.append(connection)
        return True


def _state_of(answer: bytearray) -> tuple[bool, bool]:
    """Whether an answer is complete, and whether it is the last on its connection."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False, False
    headers = dict(line.split(b": ", 1) for line in bytes(head).lower().split(b"\r\n")[1:])
    return len(body) >= int(headers[b"content-length"]), headers.get(b"connection") == b"close"


def _serve(jobs: IO[bytes], loads: IO[bytes]) -> None:
    while True:
        try:
            job = _Job(*pickle.load(jobs))
        except EOFError:
            return
        gc.disable()
        load = _Player(job).play()
        gc.enable()
        pickle.dump(tuple(load), loads)
        loads.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
