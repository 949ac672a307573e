"""All that a database holds, in a form in which two of them can be compared: its schema, and its rows."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

LATER_THAN_OLD_ROWS = "2025-04-01"

_POSTGRESQL = {
    "columns": """
        SELECT concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
            pg_get_expr(d.adbin, d.adrelid))
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0
            AND NOT a.attisdropped""",
    "relations": """
        SELECT concat_ws(' ', relname, relkind, reloptions) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S', 'i')""",
    "constraints": """
        SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n'""",
    "indexes": """
        SELECT concat_ws(' ', indexrelid::regclass, indisvalid, pg_get_indexdef(indexrelid)) FROM pg_index
        JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace = 'public'::regnamespace""",
    "triggers": """
        SELECT concat_ws(' ', tgname, tgenabled, pg_get_triggerdef(oid)) FROM pg_trigger WHERE NOT tgisinternal""",
    "functions": """
        SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace""",
    "sequences": """
        SELECT concat_ws(' ', seqrelid::regclass, format_type(seqtypid, -1), seqmax) FROM pg_sequence""",
}
_MARIADB = (
    """
        SELECT trigger_name, action_timing, event_manipulation, action_statement FROM information_schema.triggers
        WHERE trigger_schema = database()""",
    """
        SELECT routine_name, routine_definition FROM information_schema.routines
        WHERE routine_schema = database()""",
)


def schema_of(connection: sa.Connection) -> list[str]:
    """Return every table, column, constraint, index, trigger, function and sequence, a line each, sorted."""
    match connection.dialect.name:
        case "postgresql":
            found = [
                f"{kind}: {line}"
                for kind, query in _POSTGRESQL.items()
                for line in connection.scalars(sa.text(query.replace(":", "\\:")))
            ]
        case "sqlite":
            found = [
                f"{row.type} {row.name}: {line}"
                for row in connection.execute(sa.text("SELECT type, name, sql FROM sqlite_master WHERE type <> 'view'"))
                for line in _lines(row.sql or "")
            ]
        case _:
            found = _of_mariadb(connection)
    return sorted(" ".join(line.split()) for line in found)


def rows_of(connection: sa.Connection) -> dict[str, list[dict[str, str]]]:
    """Return the rows of every table and view, without what differs between two upgrades: present times, made ids."""
    inspector = sa.inspect(connection)
    views = inspector.get_view_names()
    rows: dict[str, list[dict[str, str]]] = {}
    for table in sorted([*inspector.get_table_names(), *views]):
        found = connection.execute(sa.text(f"SELECT * FROM {table}")).mappings()
        compared = [{name: _comparable(name, value, row) for name, value in row.items()} for row in found]
        if table in views:  # of constants: what an upgrade did, in any order
            compared = [dict(row) for row in {tuple(row.items()) for row in compared}]
        rows[table] = sorted(compared, key=lambda row: (len(row.get("id", "")), str(sorted(row.items()))))
    return rows


def _comparable(name: str, value: Any, row: Any) -> str:
    if name == "task_id" and row["id"] % 10 == 0 and len(value or "") == 36:
        return "made by the upgrade"  # as old_contenthub.fill leaves it out
    text = str(value)
    return "a time of the upgrade" if re.match(r"20\d\d-\d\d-\d\d[ T]", text) and text > LATER_THAN_OLD_ROWS else text


def _of_mariadb(connection: sa.Connection) -> list[str]:
    found: list[str] = []
    for name, kind in connection.execute(sa.text("SHOW FULL TABLES")).all():
        if kind == "VIEW":
            continue
        definition = connection.execute(sa.text(f"SHOW CREATE TABLE {name}")).one()[1]
        found += [f"{name}: {line}" for line in _lines(re.sub(r"AUTO_INCREMENT=\d+ ", "", definition))]
    return found + [" ".join(map(str, row)) for query in _MARIADB for row in connection.execute(sa.text(query))]


def _lines(definition: str) -> list[str]:
    """The lines of a statement; columns that were added in another order are no difference."""
    return [line.strip().rstrip(",") for line in definition.splitlines()]
