"""The tables as they are, against the tables as they are mapped; and the revision, against the newest there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ...models.defaults import default_alert_model, default_forward_models
from ..commands import DATABASE_ERRORS, database_words
from .findings import Examination, Finding, Level

__all__ = ["check_schema"]

_MIGRATE = (
    "Run `flask webhook migrations install` (or `flask db migrate`) and then `flask db upgrade`; with models of your "
    "own, add what is missing to a revision of your own."
)


def check_schema(examination: Examination) -> list[Finding]:
    """Missing tables and columns fail, missing indexes are warned about; what is there beyond ours is the host's."""
    state = examination.state
    own = (*default_forward_models(state.database.db), default_alert_model(state.database.db))
    try:
        with state.database.session() as session:
            findings: list[Finding] = []
            for model in (state.task_model, state.delivery_model, *own):
                mapper = sa.inspect(model)
                connection = session.connection(bind_arguments={"mapper": mapper})
                findings += _compare(sa.inspect(connection), mapper.local_table)
            mapped = session.connection(bind_arguments={"mapper": sa.inspect(state.task_model)})
            findings += _check_revision(examination, mapped)
    except DATABASE_ERRORS as error:
        examination.has_schema = False
        return [
            Finding(
                "database",
                Level.FAIL,
                database_words(error),
                "Check SQLALCHEMY_DATABASE_URI, and that the database runs and lets this machine in.",
            )
        ]
    examination.has_schema = not any(finding.level is Level.FAIL for finding in findings)
    return findings or [Finding("database", Level.OK, "All tables have every column, constraint and index.")]


def _compare(inspector: sa.Inspector, table: sa.Table) -> list[Finding]:
    if not inspector.has_table(table.name, schema=table.schema):
        return [
            Finding("database", Level.FAIL, f"The schema is behind: the table {table.name} does not exist.", _MIGRATE)
        ]
    present = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
    missing = [column.name for column in table.columns if column.name not in present]
    if missing:
        words = f"The schema is behind: the table {table.name} has no column {', '.join(missing)}."
        return [Finding("database", Level.FAIL, words, _MIGRATE)]
    return _compare_keys(inspector, table)


def _compare_keys(inspector: sa.Inspector, table: sa.Table) -> list[Finding]:
    indexes = inspector.get_indexes(table.name, schema=table.schema)
    unique: list[tuple[str | None, ...]] = [
        tuple(key["column_names"]) for key in inspector.get_unique_constraints(table.name, schema=table.schema)
    ]
    unique += [tuple(index["column_names"]) for index in indexes if index["unique"]]
    primary = tuple(inspector.get_pk_constraint(table.name, schema=table.schema)["constrained_columns"])
    findings = []
    for constraint in table.constraints:
        columns = tuple(column.name for column in getattr(constraint, "columns", ()))
        if isinstance(constraint, sa.UniqueConstraint) and columns not in {*unique, primary}:
            words = f"The table {table.name} has no unique constraint on {', '.join(columns)}."
            findings.append(Finding("database", Level.FAIL, words, _MIGRATE))
    findable = [*unique, primary, *(tuple(index["column_names"]) for index in indexes)]
    slow = [
        ", ".join(columns)
        for index in sorted(table.indexes, key=lambda index: str(index.name))
        for columns in [tuple(column.name for column in index.columns)]
        if not any(found[: len(columns)] == columns for found in findable)
    ]
    if slow:
        words = f"The table {table.name} has no index on {' and none on '.join(slow)}; it gets slow as it grows."
        findings.append(Finding("database", Level.WARN, words, _MIGRATE))
    return findings


def _check_revision(examination: Examination, connection: sa.Connection) -> list[Finding]:
    """Where the host uses Flask-Migrate: whether its newest revision is applied."""
    registered = examination.state.app.extensions.get("migrate")
    directory = getattr(registered, "directory", None)
    if directory is None or not Path(directory, "env.py").exists():
        return []
    from alembic.util import CommandError

    try:
        current, heads = _revisions(registered, directory, connection)
    except CommandError as error:
        return [Finding("migrations", Level.WARN, f"The migrations cannot be read: {error}", "Run `flask db check`.")]
    if len(heads) > 1:
        words = f"The migrations have {len(heads)} heads ({', '.join(sorted(heads))}); `flask db upgrade` stops there."
        return [Finding("migrations", Level.FAIL, words, "Run `flask db merge heads`.")]
    if current == heads:
        return []
    at, newest = ", ".join(sorted(current)) or "no revision", ", ".join(sorted(heads)) or "none"
    words = f"The schema is behind: the database is at {at}, the newest revision is {newest}."
    return [Finding("migrations", Level.FAIL, words, "Run `flask db upgrade`.")]


def _revisions(registered: Any, directory: str, connection: sa.Connection) -> tuple[set[str], set[str]]:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(registered.migrate.get_config(directory))
    return set(MigrationContext.configure(connection).get_current_heads()), set(script.get_heads())
