"""How a database finds the rows of each statement that a callback issues."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa

__all__ = ["Plan", "Statement", "explain", "watch_statements"]

_LONG_LISTS = (
    (re.compile(r"\bSELECT (?:DISTINCT )?(?:[^()]|\([^()]*\))*? FROM"), "SELECT … FROM"),
    (re.compile(r"\bRETURNING [^()]*(?=\)|$)"), "RETURNING …"),
    (re.compile(r"\bSET .*? WHERE"), "SET … WHERE"),
    (re.compile(r"(INSERT INTO \w+) \([^()]*\)"), r"\1 (…)"),
    (re.compile(r"\bVALUES \(.*?\)(?= RETURNING|$)"), "VALUES (…)"),
)
_KEPT = 90
"""A list that is shorter stays as it is."""
_WHOLE_TABLE = re.compile(r"Seq Scan on (\w+)|^\W*SCAN (\w+)(?! USING)", re.MULTILINE)
_MADE = re.compile(r"^\W*(?:MATERIALIZE|CO-ROUTINE) (\w+)", re.MULTILINE)
"""What a statement makes itself on the way, and may well read from beginning to end."""


class Statement(NamedTuple):
    """A statement as the driver got it."""

    text: str
    parameters: Any


class Plan(NamedTuple):
    """How a database would run a statement.

    Args:
        statement: shortened.
        lines: the database's own words.
        scanned: tables that are read from beginning to end.
    """

    statement: str
    lines: list[str]
    scanned: list[str]


@contextmanager
def watch_statements(engine: sa.Engine) -> Iterator[list[Statement]]:
    """The statements that are executed within the block, each once."""
    seen: dict[str, Statement] = {}
    statements: list[Statement] = []

    def before(*arguments: Any) -> None:
        _, _, text, parameters, _, is_many = arguments
        if text not in seen:
            seen[text] = Statement(text, parameters[0] if is_many else parameters)
            statements.append(seen[text])

    sa.event.listen(engine, "before_cursor_execute", before)
    try:
        yield statements
    finally:
        sa.event.remove(engine, "before_cursor_execute", before)


def explain(engine: sa.Engine, statement: Statement) -> Plan:
    """Ask the database; nothing is executed."""
    if engine.dialect.name == "sqlite":
        ask, line = "EXPLAIN QUERY PLAN ", 3
    else:
        ask, line = "EXPLAIN (COSTS OFF) ", 0
    with engine.connect() as connection:
        lines = [str(row[line]) for row in connection.exec_driver_sql(ask + statement.text, statement.parameters)]
    text = "\n".join(lines)
    made = {*_MADE.findall(text), "CONSTANT"}
    scanned = [name for pair in _WHOLE_TABLE.findall(text) for name in pair if name and name not in made]
    return Plan(_shortened(statement.text), lines, scanned)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    for pattern, short in _LONG_LISTS:
        text = pattern.sub(lambda found: found[0] if len(found[0]) < _KEPT else found.expand(short), text)  # noqa: B023
    return text
