"""The statements of an upgrade as an operator reads them: which lock, how long, and who waited meanwhile."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .live_load import Wait

__all__ = ["Step", "read_steps", "table_of"]

WRITERS = ("write", "callback")
READERS = ("read", "poll")
_READING = re.compile(r"(SELECT|SHOW|PRAGMA|EXPLAIN|SET|RESET|ROLLBACK)\b", re.IGNORECASE)
_WORTH_A_LINE = 0.1
_LONGEST = 110
_LOCKS = {
    "postgresql": (
        (r"CREATE (UNIQUE )?INDEX CONCURRENTLY|DROP INDEX CONCURRENTLY", "SHARE UPDATE EXCLUSIVE"),
        (r"ALTER TABLE .*(VALIDATE CONSTRAINT|\bSET \(|\bRESET \()", "SHARE UPDATE EXCLUSIVE"),
        (r"CREATE (UNIQUE )?INDEX", "SHARE"),
        (r"CREATE (OR REPLACE )?TRIGGER", "SHARE ROW EXCLUSIVE"),
        (r"ALTER TABLE|DROP INDEX|DROP TRIGGER|ALTER INDEX", "ACCESS EXCLUSIVE"),
        (r"UPDATE|INSERT|DELETE|WITH", "rows"),
    ),
    "mysql": (
        (r"ALTER TABLE .*ALGORITHM ?= ?INSTANT", "metadata, for a moment (INSTANT)"),
        (r"ALTER TABLE .*(ALGORITHM ?= ?NOCOPY|ALGORITHM ?= ?INPLACE|LOCK ?= ?NONE)", "none while it works (INPLACE)"),
        (r"ALTER TABLE|CREATE (UNIQUE )?INDEX|DROP INDEX", "as the server chooses"),
        (r"(CREATE|DROP) TRIGGER", "metadata, for a moment"),
        (r"UPDATE|INSERT|DELETE|WITH", "rows"),
    ),
    "sqlite": ((r"UPDATE|INSERT|DELETE|CREATE|DROP|ALTER", "the file, for writers"),),
}
"""By the documentation of each database; the waits beside them are measured."""


@dataclass(slots=True)
class Step:
    """All runs of one statement."""

    statement: str
    lock: str
    runs: int = 0
    refused: int = 0
    seconds: float = 0.0
    waits: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    """Of the load, while it ran."""


def read_steps(log: Path, dialect: str, waits: Sequence[Wait], table: str) -> list[Step]:
    """Return the steps in their order, with the longest wait of each kind that overlaps one of their runs.

    Args:
        log: of :mod:`tests.support.live_hub.statement_log`.
        dialect: its name.
        waits: of the load.
        table: the one that everybody uses.
    """
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps: dict[str, Step] = {}
    runs: list[tuple[float, float, Step]] = []
    for entry in entries:
        statement = _normal(entry["statement"])
        seconds = entry["ended"] - entry["started"]
        if statement in {"BEGIN", "COMMIT"} or (_READING.match(statement) and seconds < _WORTH_A_LINE):
            continue
        lock = _lock_of(dialect, statement) if table in statement else ""
        step = steps.setdefault(statement, Step(statement, lock))
        step.runs += 1
        step.refused += entry["error"] is not None
        step.seconds += seconds
        runs.append((entry["started"], entry["ended"], step))
    starts = [started for started, _, _ in runs]
    for wait in waits:
        kind = "writer" if wait.kind in WRITERS else "reader"
        for started, ended, step in reversed(runs[: bisect.bisect_right(starts, wait.ended)]):
            if ended < wait.started:
                break
            if started <= wait.ended:
                step.waits[kind] = max(step.waits.get(kind, 0.0), wait.seconds)
                step.errors += [f"{wait.name}: {wait.error}"] if wait.error else []
    return list(steps.values())


def table_of(steps: Iterable[Step]) -> list[str]:
    """Return the steps as lines of Markdown."""
    lines = ["| statement | times | seconds | lock on the task table | longest wait, writer | reader |"]
    lines.append("|---|---|---|---|---|---|")
    for step in steps:
        times = f"{step.runs}" + (f", {step.refused} refused" if step.refused else "")
        waits = " | ".join(f"{step.waits[kind]:.2f}" if kind in step.waits else "" for kind in ("writer", "reader"))
        lines.append(f"| `{step.statement[:_LONGEST]}` | {times} | {step.seconds:.2f} | {step.lock} | {waits} |")
    return lines


def _normal(statement: str) -> str:
    """Write equal statements with other values alike, on one line."""
    bound = re.sub(r"%\(\w+\)s(::[A-Za-z ]+)?|%s|\?", "?", " ".join(statement.split()))
    numbered = re.sub(r"(?<![\w'])\d+\b", "N", bound)
    return re.sub(r"\(N(, N)+\)", "(N, ...)", numbered).replace("|", "\\|")


def _lock_of(dialect: str, statement: str) -> str:
    return next((lock for pattern, lock in _LOCKS[dialect] if re.match(pattern, statement, re.IGNORECASE)), "")
