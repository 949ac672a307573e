"""The model: every state of a small world that the shipped code can reach, one transaction or call at a time.

Processes are the shipped functions, on an SQLite in memory; see :mod:`.tape` for how they are stopped and brought back,
:mod:`.world` for the service, :mod:`.promises` for what must hold.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from ..results import PartResult
from .search import Found, search
from .settings import SLICE, WHOLE

__all__ = ["prove"]

_LONGEST = 600.0
"""Seconds of processor time after which one search of the whole is stopped; it says so."""


def prove(*, whole: bool, databases: Sequence[str], say: Callable[[str], None]) -> PartResult:
    """Search all settings; see :class:`..parts.Prove`. It needs no database but SQLite, whose rows it puts back."""
    began = time.monotonic()
    found = _search_at_once(say) if whole else [search(setting, say=say) for setting in SLICE]
    counts: Counter[str] = Counter()
    for one in found:
        if not whole:
            say(_line(one))
        counts.update(states=one.states, transitions=one.transitions, steps=one.steps)
    depth, stopped = max(one.depth for one in found), sum(not one.is_whole for one in found)
    return PartResult(
        part="model",
        cases=counts["states"],
        stories=tuple(story for one in found for story in one.stories),
        seconds=time.monotonic() - began,
        counts={
            "searches": len(found),
            "of them stopped early": stopped,
            "transitions": counts["transitions"],
            "steps of the code": counts["steps"],
            "depth": depth,
        },
    )


def _search_at_once(say: Callable[[str], None]) -> list[Found]:
    """Search the settings of the whole in as many processes as there are processors."""
    found = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        for future in as_completed(pool.submit(search, setting, seconds=_LONGEST) for setting in WHOLE):
            found.append(future.result())
            say(_line(found[-1]))
    return found


def _line(found: Found) -> str:
    end = "" if found.is_whole or found.stories else ", STOPPED before everything was reached"
    broken = f", {len(found.stories)} violations" if found.stories else ""
    return (
        f"{found.name}: {found.states:,} states, {found.transitions:,} transitions, depth {found.depth}, "
        f"{found.seconds:.0f} s{end}{broken}"
    )
