"""The mapped tables against the database, and its revision against the newest one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ...models.columns import is_name
from ...storage.dialect import reuses_ids
from .findings import DoctorContext, Finding, Level, check, fail, ok, warn

__all__ = ["check_schema"]

_MIGRATE = (
    "Run `flask webhook migrations install` (or `flask db migrate`) and then `flask db upgrade`; if you use your own "
    "models, add what is missing in your own revision."
)


@check("database")
def check_schema(context: DoctorContext) -> list[Finding]:
    """Fail on missing tables and columns, warn about missing indexes, and ignore whatever the host has added."""
    state = context.state
    referred_to = (state.models.delivery, state.models.forward)
    with state.database.session() as session:
        findings: list[Finding] = []
        for model in state.models:
            mapper = sa.inspect(model)
            connection = session.connection(bind_arguments={"mapper": mapper})
            findings += _compare(sa.inspect(connection), mapper.local_table)
            findings += _compare_names(connection, mapper.local_table)
            if model in referred_to and reuses_ids(connection, mapper.local_table):
                findings.append(_reuses_ids(mapper.local_table.name))
        mapped = session.connection(bind_arguments={"mapper": sa.inspect(state.task_model)})
        findings += _check_revision(context, mapped)
    context.has_schema = not any(finding.level is Level.FAIL for finding in findings)
    return findings or [ok("All tables have every column, constraint and index.")]


def _compare(inspector: sa.Inspector, table: sa.Table) -> Iterator[Finding]:
    if not inspector.has_table(table.name, schema=table.schema):
        yield fail(f"The schema is behind: the table {table.name} does not exist.", _MIGRATE)
        return
    present = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
    missing = [column.name for column in table.columns if column.name not in present]
    if missing:
        yield fail(f"The schema is behind: the table {table.name} has no column {', '.join(missing)}.", _MIGRATE)
    else:
        yield from _compare_keys(inspector, table)


def _compare_keys(inspector: sa.Inspector, table: sa.Table) -> Iterator[Finding]:
    indexes = inspector.get_indexes(table.name, schema=table.schema)
    unique: list[tuple[str | None, ...]] = [
        tuple(key["column_names"]) for key in inspector.get_unique_constraints(table.name, schema=table.schema)
    ]
    unique += [tuple(index["column_names"]) for index in indexes if index["unique"]]
    primary = tuple(inspector.get_pk_constraint(table.name, schema=table.schema)["constrained_columns"])
    for constraint in table.constraints:
        columns = tuple(column.name for column in getattr(constraint, "columns", ()))
        if isinstance(constraint, sa.UniqueConstraint) and columns not in {*unique, primary}:
            yield fail(f"The table {table.name} has no unique constraint on {', '.join(columns)}.", _MIGRATE)
    usable = [*unique, primary, *(tuple(index["column_names"]) for index in indexes)]
    wanted = [
        tuple(column.name for column in index.columns) for index in sorted(table.indexes, key=lambda i: str(i.name))
    ]
    slow = [", ".join(columns) for columns in wanted if not any(index[: len(columns)] == columns for index in usable)]
    if slow:
        message = f"The table {table.name} has no index on {' and none on '.join(slow)}; it gets slow as it grows."
        yield warn(message, _MIGRATE)


def _compare_names(connection: sa.Connection, table: sa.Table) -> Iterator[Finding]:
    """Find names that MySQL compares without case or accents; a table of the host's may be older than the extension."""
    names = [column.name for column in table.columns if is_name(column, connection.dialect) and column.key != "status"]
    if connection.dialect.name not in {"mysql", "mariadb"} or not names:
        return
    of_table = "table_name = :table AND table_schema = coalesce(:schema, database()) AND column_name IN :names"
    query = sa.text(f"SELECT column_name, collation_name FROM information_schema.columns WHERE {of_table}")  # noqa: S608
    query = query.bindparams(sa.bindparam("names", names, expanding=True), table=table.name, schema=table.schema)
    for column, collation in connection.execute(query).all():
        if collation and not collation.endswith("_bin"):
            exact = f"{collation.partition('_')[0]}_bin"
            yield warn(
                f"{table.name}.{column} compares by {collation}: ids that differ only in case or accents are one.",
                f"If ids of yours may differ so, give it COLLATE {exact} in a revision of your own, together with the "
                "columns whose foreign keys refer to it.",
            )


def _reuses_ids(table: str) -> Finding:
    return warn(
        f"SQLite may give the id of a purged row of {table} to a new one: the table was made without AUTOINCREMENT.",
        f"Copy it in a revision of your own: `with op.batch_alter_table({table!r}, recreate='always', "
        "table_kwargs={'sqlite_autoincrement': True}): pass`.",
    )


def _check_revision(context: DoctorContext, connection: sa.Connection) -> list[Finding]:
    """Compare the database with the newest revision, if the host uses Flask-Migrate."""
    registered = context.state.app.extensions.get("migrate")
    directory = getattr(registered, "directory", None)
    if directory is None or not Path(directory, "env.py").exists():
        return []
    return [replace(finding, check="migrations") for finding in _compare_revisions(registered, directory, connection)]


def _compare_revisions(registered: Any, directory: str, connection: sa.Connection) -> Iterator[Finding]:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        script = ScriptDirectory.from_config(registered.migrate.get_config(directory))
        current, heads = set(MigrationContext.configure(connection).get_current_heads()), set(script.get_heads())
    except CommandError as error:
        yield warn(f"The migrations cannot be read: {error}", "Run `flask db check`.")
        return
    if len(heads) > 1:
        names = ", ".join(sorted(heads))
        message = f"The migrations have {len(heads)} heads ({names}); `flask db upgrade` stops there."
        yield fail(message, "Run `flask db merge heads`.")
    elif current != heads:
        at, newest = ", ".join(sorted(current)) or "no revision", ", ".join(sorted(heads)) or "none"
        message = f"The schema is behind: the database is at {at}, the newest revision is {newest}."
        yield fail(message, "Run `flask db upgrade`.")
