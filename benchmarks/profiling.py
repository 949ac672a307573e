"""Where the time goes: one callback after another in this process, without gunicorn and without a socket.

First without a profiler, contestants in turn, request by request, so that the sums can be trusted; then under
cProfile, whose own cost makes small functions look worse than they are: read it as an order, not as a sum.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from flask import Flask

from .callbacks import new_task_ids, request_bytes
from .databases import Database
from .rounds import Contestant
from .statements import build, call, engine_of, environ_of

__all__ = ["Hot", "Profile", "profile", "time_in_process"]

_WARM_UP = 30
_PACKAGE = "flask_contenthub_webhook"


class Hot(NamedTuple):
    """A line of a profile; microseconds for one callback."""

    name: str
    calls: float
    own: float
    total: float


class Profile(NamedTuple):
    """Where the time of one contestant went: by library, and by function of the package."""

    libraries: list[Hot]
    functions: list[Hot]


def time_in_process(database: Database, contestants: Sequence[Contestant], *, requests: int) -> dict[str, float]:
    """The median time of one callback, in microseconds; contestants take turns, callback by callback."""
    apps = {contestant.name: build(contestant, database) for contestant in contestants}
    ids = {contestant.name: new_task_ids(_WARM_UP + requests) for contestant in contestants}
    times: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    database.fill([task_id for group in ids.values() for task_id in group], status="processing")
    for number in range(_WARM_UP + requests):
        turn = number % len(contestants)
        for contestant in (*contestants[turn:], *contestants[:turn]):
            message = request_bytes(contestant.path, ids[contestant.name][number], contestant.signing)
            times[contestant.name].append(_timed(apps[contestant.name], message))
    for app in apps.values():
        engine_of(app).dispose()
    return {name: statistics.median(values[_WARM_UP:]) * 1e6 for name, values in times.items()}


def _timed(app: Flask, message: bytes) -> float:
    environ = environ_of(message)
    statuses: list[str] = []

    def start_response(status: str, *_: object) -> Callable[[bytes], None]:
        statuses.append(status)
        return lambda _: None

    started = time.perf_counter()
    answer = app.wsgi_app(environ, start_response)
    body = b"".join(answer)
    answer.close()  # type: ignore[attr-defined]
    took = time.perf_counter() - started
    if statuses != ["200 OK"]:
        raise RuntimeError(f"{statuses}: {body!r}")
    return took


def profile(database: Database, contestant: Contestant, *, requests: int) -> Profile:
    """Run callbacks under cProfile."""
    task_ids = new_task_ids(_WARM_UP + requests)
    database.fill(task_ids, status=contestant.status)
    app = build(contestant, database)
    messages = [request_bytes(contestant.path, task_id, contestant.signing) for task_id in task_ids]
    for message in messages[:_WARM_UP]:
        call(app, message)
    profiler = cProfile.Profile()
    for message in messages[_WARM_UP:]:
        environ = environ_of(message)
        profiler.enable()
        answer = app.wsgi_app(environ, lambda *_: lambda _: None)
        profiler.disable()
        answer.close()  # type: ignore[attr-defined]
    engine_of(app).dispose()
    return _condense(pstats.Stats(profiler), requests)


def _condense(stats: pstats.Stats, requests: int) -> Profile:
    libraries: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    functions: list[Hot] = []
    rows: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = stats.stats  # type: ignore[attr-defined]
    for (file, line, function), (_, calls, own, total, _callers) in rows.items():
        name = _library(file, function)
        libraries[name][0] += calls
        libraries[name][1] += own
        if name.startswith(_PACKAGE):
            functions.append(_hot(f"{Path(file).name}:{line} {function}", calls, own, total, requests))
    return Profile(
        sorted(
            (_hot(name, calls, own, own, requests) for name, (calls, own) in libraries.items()),
            key=lambda hot: -hot.own,
        ),
        sorted(functions, key=lambda hot: -hot.total),
    )


def _hot(name: str, calls: float, own: float, total: float, requests: int) -> Hot:
    return Hot(name, calls / requests, own / requests * 1e6, total / requests * 1e6)


def _library(file: str, function: str) -> str:
    """The library that a function belongs to, the module too where it is ours."""
    if file == "~":
        for mark, name in (("sqlite3", "sqlite3 (driver)"), ("psycopg", "psycopg (driver)"), ("select", "waiting")):
            if mark in function:
                return name
        return "built-in functions"
    path = Path(file)
    parts = path.parts
    if _PACKAGE in parts:
        return f"{_PACKAGE}.{path.stem}"
    if "site-packages" in parts:
        name = parts[parts.index("site-packages") + 1]
        return "psycopg (driver)" if name.startswith("psycopg") else name.removesuffix(".py")
    return "benchmarks" if "benchmarks" in parts else "the standard library"
