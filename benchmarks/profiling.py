"""Where the time goes: one callback after another in this process, without gunicorn and without a socket.

First without a profiler, contestants in turn, request by request: those figures can be trusted. Then under cProfile,
which tells what the time is made of. It makes Python functions look dearer than C functions, so its figures are scaled
to the measured sum, and are good for an order, not for a second digit. The slower half of the callbacks is left out:
whatever else goes on in the machine only ever adds.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .callbacks import new_task_ids, request_bytes
from .contestants import Contestant
from .databases import Database
from .in_process import build, call, engine_of, environ_of

__all__ = ["Hot", "InProcess", "Profile", "profile", "time_in_process"]

_WARM_UP = 30
_PACKAGE = "flask_contenthub_webhook"
_LAYERS = (
    ("sqlalchemy/orm/", "SQLAlchemy session and ORM"),
    ("flask_sqlalchemy/", "SQLAlchemy session and ORM"),
    ("sqlalchemy/", "SQLAlchemy Core"),
    ("psycopg", "driver and waiting for it"),
    ("sqlite3", "driver and waiting for it"),
    ("werkzeug/", "Flask and Werkzeug"),
    ("flask/", "Flask and Werkzeug"),
    ("blinker/", "Flask and Werkzeug"),
    (f"{_PACKAGE}/", "the extension"),
    ("benchmarks/", "the host's views and handlers"),
)
_ELSE = "the standard library and others"

_Function = tuple[str, int, str]
_Callers = dict[_Function, tuple[int, int, float, float]]


class InProcess(NamedTuple):
    """What one callback takes in this process, in microseconds, medians.

    Args:
        wall: of the clock; with PostgreSQL the server's part is in it.
        cpu: of the processor, by this process; steadier where others work on the machine, too.
    """

    wall: float
    cpu: float


class Hot(NamedTuple):
    """A line of a profile, for one callback; microseconds.

    Args:
        name: module, line and name.
        calls: how often it is called.
        own: what it takes itself, with the built-in functions that it calls.
        total: with all that it calls.
    """

    name: str
    calls: float
    own: float
    total: float


class Profile(NamedTuple):
    """Where the time of one callback goes, in microseconds: by layer, by module, by function of the extension."""

    layers: dict[str, float]
    modules: dict[str, float]
    functions: list[Hot]


def time_in_process(database: Database, contestants: Sequence[Contestant], *, requests: int) -> dict[str, InProcess]:
    """What one callback takes; contestants that start from the same state of their tasks take turns, one by one."""
    apps = [build(contestant, database) for contestant in contestants]
    ids = [new_task_ids(_WARM_UP + requests) for _ in contestants]
    taken: list[list[InProcess]] = [[] for _ in contestants]
    database.fill([task_id for group in ids for task_id in group], status=contestants[0].status_before)
    turns = range(len(contestants))
    for number in range(_WARM_UP + requests):
        for turn in (*turns[number % len(turns) :], *turns[: number % len(turns)]):
            contestant = contestants[turn]
            environ = environ_of(request_bytes(contestant.path, ids[turn][number], contestant.signing))
            wall, cpu = time.perf_counter(), time.process_time()
            call(apps[turn], environ, answer=contestant.answer)
            taken[turn].append(InProcess(time.perf_counter() - wall, time.process_time() - cpu))
    for app in apps:
        engine_of(app).dispose()
    return {
        contestant.name: InProcess(*(statistics.median(values) * 1e6 for values in zip(*one[_WARM_UP:], strict=True)))
        for contestant, one in zip(contestants, taken, strict=True)
    }


def profile(database: Database, contestant: Contestant, *, requests: int, measured: float) -> Profile:
    """Run callbacks under cProfile.

    Args:
        database: the database.
        contestant: whose.
        requests: how many.
        measured: what one takes without a profiler, in microseconds; everything is scaled to it.
    """
    task_ids = new_task_ids(_WARM_UP + requests)
    database.fill(task_ids, status=contestant.status_before)
    app = build(contestant, database)
    environs = [environ_of(request_bytes(contestant.path, task_id, contestant.signing)) for task_id in task_ids]
    for environ in environs[:_WARM_UP]:
        call(app, environ, answer=contestant.answer)
    profiles: list[pstats.Stats] = []
    for environ in environs[_WARM_UP:]:
        profiler = cProfile.Profile()
        profiler.enable()
        call(app, environ, answer=contestant.answer)
        profiler.disable()
        profiles.append(pstats.Stats(profiler))
    engine_of(app).dispose()
    quicker = sorted(profiles, key=_seconds_of)[: max(1, requests // 2)]
    stats: Any = quicker[0]
    stats.add(*quicker[1:])
    return _condense(stats.stats, len(quicker), measured / _seconds_of(stats))


def _seconds_of(stats: Any) -> float:
    total: float = stats.total_tt
    return total


def _condense(rows: dict[_Function, tuple[int, int, float, float, _Callers]], requests: int, scale: float) -> Profile:
    """By layer, by function of the extension, by module of others; built-in functions belong to whoever calls them.

    Args:
        rows: as :mod:`pstats` has them; seconds of all callbacks.
        requests: how many callbacks.
        scale: from those seconds to microseconds of one callback.
    """
    own: dict[_Function, float] = defaultdict(float)
    for function, (_, _, itself, _, callers) in rows.items():
        for owner, share in _owners(function, itself, callers):
            own[owner] += share * scale
    layers: dict[str, float] = defaultdict(float)
    modules: dict[str, float] = defaultdict(float)
    functions: list[Hot] = []
    for function, itself in own.items():
        layers[_layer(function)] += itself
        modules[_module(function)] += itself
        file, line, name = function
        if f"{_PACKAGE}/" in file:
            _, calls, _, total, _ = rows[function]
            functions.append(Hot(f"{_module(function)}:{line} {name}", calls / requests, itself, total * scale))
    return Profile(layers, modules, sorted(functions, key=lambda hot: -hot.total))


def _owners(function: _Function, itself: float, callers: _Callers) -> Iterator[tuple[_Function, float]]:
    """Who answers for the time of a function: itself, or the callers of a built-in one that is no driver's."""
    if function[0] != "~" or _layer(function) != _ELSE or not callers:
        yield function, itself
        return
    for caller, (_, _, share, _) in callers.items():
        yield caller, share


def _layer(function: _Function) -> str:
    text = function[2] if function[0] == "~" else function[0].rpartition("site-packages/")[2]
    if function[0] == "~" and "select" in text:
        return "driver and waiting for it"
    return next((layer for mark, layer in _LAYERS if mark in text), _ELSE)


def _module(function: _Function) -> str:
    """The module that a function belongs to; of a driver's built-in function its own name."""
    file, _, name = function
    if file == "~":
        return name.strip("<>").partition(" at 0x")[0] if _layer(function) != _ELSE else "built-in functions"
    if f"{_PACKAGE}/" in file:
        return file.rpartition(f"{_PACKAGE}/")[2].removesuffix(".py")
    if "site-packages/" in file:
        return file.rpartition("site-packages/")[2].removesuffix(".py")
    return "/".join(Path(file).parts[-2:]).removesuffix(".py")
