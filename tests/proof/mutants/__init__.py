"""The mutants: the package with one fault at a time, and the parts of the proof that find it.

Each is a copy of the package with one text replaced. A text that is not there exactly once is an error: the package has
changed, and the mutant must change with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..results import PartResult
from .catalogue import MUTANTS, Mutant

__all__ = ["MUTANTS", "prove", "text_of"]

ROOT = Path(__file__).parents[3]
PACKAGE = "flask_contenthub_webhook"
_SLICE = 10
"""The tests take every tenth mutant."""
_LONGEST = 900


class _Fate(NamedTuple):
    """What became of a mutant: who found it, in how many seconds; nobody, if it survived."""

    mutant: Mutant
    killer: str | None
    seconds: float
    said: str


def prove(*, whole: bool, databases: Sequence[str], say: Callable[[str], None]) -> PartResult:
    """Run the mutants, two at a time; see :class:`..parts.Prove`."""
    began = time.monotonic()
    chosen = MUTANTS if whole else MUTANTS[::_SLICE]
    for mutant in chosen:  # before an hour of work
        text_of(mutant)
    fates = []
    with ThreadPoolExecutor(2 if whole else 1) as pool:
        for fate in pool.map(_fate_of, chosen):
            say(f"{fate.mutant.name}: {fate.killer or 'SURVIVED'} ({fate.seconds:.0f} s)")
            fates.append(fate)
    killers = Counter(_kind_of(fate.killer) for fate in fates if fate.killer is not None)
    return PartResult(
        part="mutants",
        cases=len(fates),
        stories=tuple(_story(fate) for fate in fates if fate.killer is None),
        seconds=time.monotonic() - began,
        counts={"killed": killers.total(), **{f"by {kind}": count for kind, count in killers.most_common()}},
    )


def _fate_of(mutant: Mutant) -> _Fate:
    began, said = time.monotonic(), ""
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        place = Path(directory)
        _make(mutant, place)
        for killer in mutant.killers:
            is_found, said = _run(killer, place)
            if is_found:
                return _Fate(mutant, killer, time.monotonic() - began, said)
    return _Fate(mutant, None, time.monotonic() - began, said)


def _make(mutant: Mutant, place: Path) -> None:
    """Copy the package with its one fault; all else is where it was."""
    shutil.copytree(ROOT / PACKAGE, place / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "pyproject.toml", "docs", "example_app", "benchmarks"):
        (place / name).symlink_to(ROOT / name)
    (place / PACKAGE / mutant.file).write_text(text_of(mutant).replace(mutant.old, mutant.new), "utf-8")


def text_of(mutant: Mutant) -> str:
    """Return the file that a mutant changes; raise LookupError if its text is not there exactly once."""
    text = (ROOT / PACKAGE / mutant.file).read_text("utf-8")
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: its text is {text.count(mutant.old)} times in {mutant.file}, not once.")
    return text


def _run(killer: str, place: Path) -> tuple[bool, str]:
    """Run what may find the mutant; return whether it did, and what it said. An error of its own finds nothing."""
    kind, _, rest = killer.rpartition(": ")
    if killer.startswith("tests/"):
        arguments, sign = ["pytest", "-q", "-x", "-p", "no:cacheprovider", killer], " failed"
    elif kind == "interleavings":
        arguments, sign = ["tests.proof.mutants.pair", *rest.split()], "BROKEN:"
    else:
        arguments, sign = ["tests.proof.model", killer], "A counterexample"
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", *arguments]
    try:
        ran = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=_LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"{killer} took more than {_LONGEST} s"
    return ran.returncode == 1 and sign in ran.stdout, ran.stdout + ran.stderr


def _kind_of(killer: str) -> str:
    if killer.startswith("tests/"):
        return "named tests"
    return "interleavings" if killer.startswith("interleavings:") else "model"


def _story(fate: _Fate) -> str:
    mutant = fate.mutant
    return f"A mutant survived: {mutant.name} ({mutant.why}; {mutant.file})\n{fate.said[-2000:]}"
