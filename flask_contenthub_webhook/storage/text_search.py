"""The condition for bodies that hold a text, on every kind of database."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = ["holds_text"]


def holds_text(body: Any, text: str) -> sa.ColumnElement[bool]:
    """Match bodies with the text as it is, or as JSON writes it; case matters.

    Args:
        body: the column.
        text: the text, not empty.
    """
    needles = {text, *(json.dumps(text, ensure_ascii=ascii_)[1:-1] for ascii_ in (True, False))}
    encoded = sorted(needle.encode("utf-8", "surrogatepass") for needle in needles)
    return sa.or_(*(_Position(body, sa.literal(needle, sa.LargeBinary())) > 0 for needle in encoded))


class _Position(FunctionElement[int]):
    """The place of some bytes in a column, from 1; 0 if they are not there."""

    type = sa.Integer()
    inherit_cache = True


@compiles(_Position)
def _instr(element: _Position, compiler: Any, **options: Any) -> str:
    body, needle = (compiler.process(clause, **options) for clause in element.clauses)
    return f"instr({body}, {needle})"


@compiles(_Position, "postgresql")
def _position(element: _Position, compiler: Any, **options: Any) -> str:
    body, needle = (compiler.process(clause, **options) for clause in element.clauses)
    return f"position({needle} IN {body})"
