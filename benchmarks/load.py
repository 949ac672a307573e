"""The load generator, a process of its own: so many requests at a time, each on a connection of its own.

It is a bare event loop over sockets, because on two processors whatever it takes is missing to the servers. It reads a
pickled ``(port, in_flight, requests)`` from its standard input and writes a pickled :class:`Load` to its output.
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
from pathlib import Path
from typing import NamedTuple

__all__ = ["Load", "generate"]

_SILENCE = 60.0


class Load(NamedTuple):
    """What became of one load.

    Args:
        seconds: from the first request to the last answer.
        cpu_seconds: what the generator itself took of a processor.
        latencies: of each request answered with 200, in seconds, from the connect to the answer.
        failures: how often another status line came.
    """

    seconds: float
    cpu_seconds: float
    latencies: list[float]
    failures: Counter[str]


def generate(port: int, requests: list[bytes], *, in_flight: int) -> Load:
    """Play requests at 127.0.0.1 in another process.

    Args:
        port: of the server.
        requests: the bytes of each.
        in_flight: how many are under way at any time.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=Path(__file__).parents[1],
        input=pickle.dumps((port, in_flight, requests)),
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    load: Load = Load(*pickle.loads(done.stdout))
    return load


def _play(port: int, in_flight: int, requests: list[bytes]) -> Load:
    selector = selectors.DefaultSelector()
    waiting = iter(requests)
    latencies: list[float] = []
    failures: Counter[str] = Counter()

    def send_next() -> None:
        if (request := next(waiting, None)) is None:
            return
        started = time.perf_counter()
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(request)
        selector.register(connection, selectors.EVENT_READ, (started, bytearray()))

    cpu, begun = time.process_time(), time.perf_counter()
    for _ in range(in_flight):
        send_next()
    while selector.get_map():
        ready = selector.select(_SILENCE)
        if not ready:
            raise TimeoutError(f"no answer within {_SILENCE:g} s")
        for key, _ in ready:
            connection, (started, answer) = key.fileobj, key.data
            assert isinstance(connection, socket.socket)
            if chunk := connection.recv(65536):
                answer += chunk
                continue
            selector.unregister(connection)
            connection.close()
            status = bytes(answer.partition(b"\r\n")[0]).decode("ascii", "replace")
            if status == "HTTP/1.1 200 OK":
                latencies.append(time.perf_counter() - started)
            else:
                failures[status or "no answer"] += 1
            send_next()
    return Load(time.perf_counter() - begun, time.process_time() - cpu, latencies, failures)


if __name__ == "__main__":
    gc.disable()
    sys.stdout.buffer.write(pickle.dumps(tuple(_play(*pickle.load(sys.stdin.buffer)))))
