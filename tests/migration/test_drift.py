"""The packaged revisions and the models say the same, on every database."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from flask_contenthub_webhook.migrations.revisions import (
    contenthub0001_tasks,
    contenthub0002_deliveries,
    contenthub0003_queues,
)
from flask_contenthub_webhook.models.defaults import default_models
from flask_contenthub_webhook.storage.dialect import reuses_ids
from tests.migration.hosts import CONVENTION, MigratingHost

DIALECTS = {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql}
TABLES = {
    "content_generation_tasks",
    "webhook_deliveries",
    "webhook_forwards",
    "webhook_forward_attempts",
    "webhook_alerts",
}


def as_upgraded(engine: sa.Engine) -> dict[str, Any]:
    inspector = sa.inspect(engine)
    return {
        table: {
            "columns": [
                (column["name"], column["type"].compile(engine.dialect), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            ],
            "primary key": inspector.get_pk_constraint(table),
            "counts on": counts_on(engine, table),
            "unique": inspector.get_unique_constraints(table),
            "checks": sorted(inspector.get_check_constraints(table), key=lambda check: str(check["name"])),
            "indexes": sorted(
                (str(index["name"]), index["column_names"], index["unique"], where_of(index))
                for index in inspector.get_indexes(table)
            ),
        }
        for table in sorted(TABLES)
    }


def counts_on(engine: sa.Engine, table: str) -> bool:
    with engine.connect() as connection:
        return not reuses_ids(connection, sa.Table(table, sa.MetaData()))


def where_of(index: Any) -> list[str]:
    return [str(value) for option, value in index.get("dialect_options", {}).items() if option.endswith("_where")]


@pytest.mark.parametrize("convention", [None, CONVENTION], ids=["", "with a naming convention"])
def test_upgraded_tables_are_those_of_the_models_to_the_last_detail(
    tmp_path: Path, database_url: str, convention: dict[str, str] | None
):
    host = MigratingHost(tmp_path, database_url, naming_convention=convention)
    host.install()
    host.upgrade()
    upgraded = as_upgraded(host.engine)
    host.check()
    host.downgrade("base")
    assert host.schema() == {"views": [], "tables": {}}

    with host.app.app_context():
        host.db.create_all()

    created = as_upgraded(host.engine)
    for table, details in created.items():  # the order of columns is nobody's promise
        for each in (details, upgraded[table]):
            each["columns"] = sorted(each["columns"])
    assert upgraded == created


@pytest.mark.parametrize("name", DIALECTS)
def test_generated_sql_creates_what_the_models_create(name: str):
    dialect = DIALECTS[name].dialect()
    models = SQLAlchemy()
    default_models(models)
    wanted = set()
    for table in models.metadata.tables.values():
        wanted |= statements(str(CreateTable(table).compile(dialect=dialect)) + ";")
        for index in table.indexes:
            wanted |= statements(str(CreateIndex(index).compile(dialect=dialect)) + ";")

    made = statements(sql_of_revisions(name))

    assert set(models.metadata.tables) == TABLES

    assert wanted == {statement for statement in made if statement.startswith(("CREATE TABLE", "CREATE INDEX"))}


def sql_of_revisions(dialect: str) -> str:
    """What the revisions do on a database of another kind, without one, and without its driver."""
    output = io.StringIO()
    context = MigrationContext.configure(dialect_name=dialect, opts={"as_sql": True, "output_buffer": output})
    for revision in (contenthub0001_tasks, contenthub0002_deliveries, contenthub0003_queues):
        with Operations.context(context):
            revision.upgrade()
    return output.getvalue()


def statements(sql: str) -> set[str]:
    """Each statement with its parts in an order that does not depend on that of the columns; these with the table."""
    created: dict[str, list[str]] = {}
    found = set()
    for statement in sql.replace("\t", " ").split(";"):
        lines = [line.strip().rstrip(",") for line in statement.splitlines() if line.strip()]
        if not lines:
            continue
        if added := re.fullmatch(r"ALTER TABLE (\w+) ADD COLUMN (.+)", lines[0]):
            created[added[1]].append(added[2])
        elif made := re.fullmatch(r"CREATE TABLE (\w+) \(", lines[0]):
            created[made[1]] = lines
        else:
            found.add("\n".join([lines[0], *sorted(lines[1:])]))
    return found | {"\n".join([lines[0], *sorted(lines[1:])]) for lines in created.values()}
