"""Runs the same enumeration on several kinds of database, the whole of it in shares, three at a time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from .results import PartResult

__all__ = ["Kept", "Share", "prove_on_each"]

_Item = TypeVar("_Item")

_AT_ONCE = 3
_SHARES = 6
"""Of each kind of database, so that two processors have work to the end, and a line tells how far it is."""
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


@dataclass(frozen=True, slots=True)
class Share:
    """Every so-manieth of some items.

    Args:
        number: of this share, from 0.
        total: the number of shares.
    """

    number: int
    total: int

    def of(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Return the items of this share."""
        return islice(items, self.number, None, self.total)


def prove_on_each(
    part: str,
    work: Callable[[str, Share | None], Kept],
    kinds: Sequence[str],
    *,
    whole: bool,
    say: Callable[[str], None],
) -> PartResult:
    """Do the work on each kind of database, and add up.

    Args:
        part: the name of the part.
        work: gets the kind, and the share of everything that is to be enumerated, or None for a slice; a function of a
            module.
        kinds: of databases.
        whole: everything; else a slice, one kind after the other, in this process.
        say: prints a line.
    """
    began, counts, stories = time.monotonic(), Counter[str](), list[str]()
    for kept in _shares(work, kinds) if whole else (work(kind, None) for kind in kinds):
        for line in kept.lines:
            say(line)
        counts += kept.counts
        stories += kept.stories
    cases = counts.pop("cases")
    seconds = time.monotonic() - began
    return PartResult(part=part, cases=cases, stories=tuple(stories), seconds=seconds, counts=dict(counts))


def _shares(work: Callable[[str, Share | None], Kept], kinds: Sequence[str]) -> Iterator[Kept]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_AT_ONCE, context, initializer=_be_quiet) as pool:
        shares = [Share(number, _SHARES) for number in range(_SHARES)]
        for future in as_completed(pool.submit(work, kind, share) for kind in kinds for share in shares):
            yield future.result()


def _be_quiet() -> None:
    """Keep out of the way: nothing is logged of the failures that are made on purpose, and no disk is written."""
    logging.disable(logging.CRITICAL)
    if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK):
        os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)
