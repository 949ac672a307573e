"""Runs the same enumeration on several kinds of database, two at a time where there is no hurry to be quiet."""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .results import PartResult

__all__ = ["Kept", "prove_on_each"]

_AT_ONCE = 2
_MEMORY = Path("/dev/shm")


@dataclass
class Kept:
    """What was found on one kind of database.

    Args:
        counts: figures by name; one of them is ``cases``.
        stories: one for each violation.
        lines: for people.
    """

    counts: Counter[str] = field(default_factory=Counter)
    stories: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def prove_on_each(
    part: str, work: Callable[[str, bool], Kept], kinds: Sequence[str], *, whole: bool, say: Callable[[str], None]
) -> PartResult:
    """Do the work on each kind of database, and add up.

    Args:
        part: the name of the part.
        work: gets the kind, and whether everything is to be enumerated; a function of a module.
        kinds: of databases.
        whole: everything; else a slice, one kind after the other, in this process.
        say: prints a line.
    """
    began, counts, stories = time.monotonic(), Counter[str](), list[str]()
    if whole:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(_AT_ONCE, context, initializer=_be_quiet) as pool:
            found = list(pool.map(work, kinds, [True] * len(kinds)))
    else:
        found = [work(kind, False) for kind in kinds]
    for kept in found:
        for line in kept.lines:
            say(line)
        counts += kept.counts
        stories += kept.stories
    cases = counts.pop("cases")
    seconds = time.monotonic() - began
    return PartResult(part=part, cases=cases, stories=tuple(stories), seconds=seconds, counts=dict(counts))


def _be_quiet() -> None:
    """Keep out of the way: nothing is logged of the failures that are made on purpose, and no disk is written."""
    logging.disable(logging.CRITICAL)
    if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK):
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)
