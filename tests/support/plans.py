"""The plans of statements: how a database says that it would find their rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["indexes_of", "plan_of", "whole_tables"]

_OURS = r"webhook_deliveries|content_generation_tasks|webhook_forwards"
_WHOLE_TABLE = re.compile(rf"SCAN ({_OURS})(?! USING)|Seq Scan on ({_OURS})|whole table ({_OURS})")
_INDEX = re.compile(r"(?:using|on|INDEX) ((?:ix|pk|uq)_\w+)")


def plan_of(connection: sa.Connection, statement: str, parameters: Any, *, small: bool = False) -> str:
    """The plan of a statement, in the words of its database; empty for one that reads no rows.

    Args:
        connection: in no transaction of interest; `small` changes its settings until that ends.
        statement: as the driver was given it.
        parameters: of the statement.
        small: whether the tables are so short that a server would read them as a whole, which says nothing about long
            ones; that is forbidden to it then, or made dear.
    """
    if statement.startswith("SET "):
        return ""
    match connection.dialect.name:
        case "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return "\n".join(str(row[-1]) for row in rows)
        case "postgresql":
            if small:
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            rows = connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", parameters)
            return "\n".join(str(row[-1]) for row in rows)
        case _:
            steps = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).mappings()
            return "\n".join(map(_step_of_mariadb, steps))


def whole_tables(plan: str) -> list[str]:
    """The tables of ours that a plan reads from end to end."""
    return [next(filter(None, names)) for names in _WHOLE_TABLE.findall(plan)]


def indexes_of(plan: str) -> set[str]:
    """The indexes by which a plan finds rows."""
    return set(_INDEX.findall(plan))


def _step_of_mariadb(step: Any) -> str:
    if step["type"] == "ALL":
        return f"whole table {step['table']}"
    return f"{step['type']} of {step['table']} using {step['key']} ({step['Extra']})"
