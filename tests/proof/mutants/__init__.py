"""The mutants: the package with one fault at a time, and the parts of the proof that find it.

Each is a copy of the package with one text replaced. A text that is not there exactly once is an error: the package has
changed, and the mutant must change with it.
"""

from __future__ import annotations

import os
import re
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

from ..parts import PARTS
from ..results import PartResult
from .catalogue import MUTANTS, Mutant

__all__ = ["prove"]

ROOT = Path(__file__).parents[3]
PACKAGE = "flask_contenthub_webhook"
_SLICE = 10
"""The tests take every tenth mutant."""
_LONGEST = 900
_VIOLATIONS = re.compile(r"^\| \w+ \|.*\| ([1-9]\d*) \|$", re.MULTILINE)


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
    fates = []
    with ThreadPoolExecutor(2 if whole else 1) as pool:
        for fate in pool.map(lambda mutant: _fate_of(mutant, databases), chosen):
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


def _fate_of(mutant: Mutant, databases: Sequence[str]) -> _Fate:
    began, said = time.monotonic(), ""
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        place = Path(directory)
        _make(mutant, place)
        for killer in mutant.killers:
            if killer in {"interleavings", "crash_points"} and killer not in PARTS:
                continue
            is_found, said = _run(killer, place, databases)
            if is_found:
                return _Fate(mutant, killer, time.monotonic() - began, said)
    return _Fate(mutant, None, time.monotonic() - began, said)


def _make(mutant: Mutant, place: Path) -> None:
    """Copy the package with its one fault; all else is where it was."""
    shutil.copytree(ROOT / PACKAGE, place / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "pyproject.toml", "docs", "example_app", "benchmarks"):
        (place / name).symlink_to(ROOT / name)
    changed = place / PACKAGE / mutant.file
    text = changed.read_text("utf-8")
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: its text is {text.count(mutant.old)} times in {mutant.file}, not once.")
    changed.write_text(text.replace(mutant.old, mutant.new), "utf-8")


def _run(killer: str, place: Path, databases: Sequence[str]) -> tuple[bool, str]:
    """Run what may find the mutant; return whether it did, and what it said. An error of its own finds nothing."""
    python = [sys.executable, "-m"]
    if killer.startswith("tests/"):
        command = [*python, "pytest", "-q", "-x", "-p", "no:cacheprovider", killer]
    elif killer in PARTS:
        command = [*python, "tests.proof", killer, "--slice", *(f"--database={name}" for name in databases)]
    else:
        command = [*python, "tests.proof.model", killer]
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ran = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=_LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return False, f"{killer} took more than {_LONGEST} s"
    said = ran.stdout + ran.stderr
    if killer.startswith("tests/"):
        is_found = ran.returncode == 1 and " failed" in said
    elif killer in PARTS:
        is_found = ran.returncode == 1 and _VIOLATIONS.search(said) is not None
    else:
        is_found = ran.returncode == 1 and "A counterexample" in said
    return is_found, said


def _kind_of(killer: str) -> str:
    if killer.startswith("tests/"):
        return "tests"
    return killer if killer in PARTS else "model"


def _story(fate: _Fate) -> str:
    mutant = fate.mutant
    return f"A mutant survived: {mutant.name} ({mutant.why}; {mutant.file})\n{fate.said[-2000:]}"
