"""Two columns, two indexes and three tables, for the queues, forwarding and alerts of flask_contenthub_webhook.

Both columns are nullable and without a default, so that no row is touched and every database adds them in place; the
indexes read the history once, while others write to it. What exists already stays as it is. The downgrade undoes
exactly what the upgrade did, which is recorded in the database, in a view that selects constants.

Revision ID: contenthub0003
Revises:
"""

# ruff: noqa: D103 - one self-contained script, which the names of its functions explain
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError
from sqlalchemy.dialects import mysql

# --- the engine ---
from .engine import (
    MYSQL,
    STOPS,
    Step,
    check_options,
    dialect,
    drop_index,
    index_concurrently,
    log,
    placed_in,
    politely,
    quote,
    read_view,
    run_steps,
    stops,
    valid_indexes,
    write_view,
    x_arguments,
)

# --- end of the engine ---

# --- filled in by `flask webhook migrations install` ---
revision = "contenthub0003"
down_revision: str | None = None
TASKS = "content_generation_tasks"
TASK_NAMES: dict[str, str] = {}  # what the host's model calls a column otherwise
DELIVERIES = "webhook_deliveries"
DELIVERY_NAMES: dict[str, str] = {}  # what the host's model calls a column otherwise
FORWARDS = "webhook_forwards"
ATTEMPTS = "webhook_forward_attempts"
ALERTS = "webhook_alerts"
SCHEMA: str | None = None
BIND = ""  # the database, where Flask-Migrate upgrades several
# --- end ---
branch_labels = None
depends_on = None

RECORD = f"{TASKS[:40]}_{revision}"
SQLITE_THAT_DROPS_COLUMNS = (3, 35)

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), *MYSQL)
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), *MYSQL)
Blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), *MYSQL)


def Name(length: int) -> sa.String:  # noqa: N802 - a type
    """Names and digests are compared byte for byte; MySQL's usual collations ignore case and accents."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, *MYSQL)


def new_columns() -> dict[str, sa.Column[Any]]:
    """By the table that gets them."""
    return {
        TASKS: sa.Column(TASK_NAMES.get("forward_to", "forward_to"), sa.JSON(), nullable=True),
        DELIVERIES: sa.Column(DELIVERY_NAMES.get("claimed_until", "claimed_until"), Moment, nullable=True),
    }


def new_tables() -> dict[str, list[sa.Column[Any]]]:
    return {
        FORWARDS: [
            sa.Column("id", Id, nullable=False),
            sa.Column("delivery_id", Id, nullable=False),
            sa.Column("task_id", Name(255), nullable=False),
            sa.Column("event", sa.String(64), nullable=False),
            sa.Column("url", sa.String(2048), nullable=False),
            sa.Column("message_id", Name(255), nullable=False),
            sa.Column("status", sa.String(16), nullable=False),
            sa.Column("tries", sa.Integer(), nullable=False),
            sa.Column("next_try_at", Moment, nullable=True),
            sa.Column("created_at", Moment, nullable=False),
            sa.Column("finished_at", Moment, nullable=True),
            sa.Column("resent_by", sa.String(255), nullable=True),
            sa.Column("resent_at", Moment, nullable=True),
            sa.Column("traceparent", sa.String(55), nullable=True),
            sa.Column("body", Blob, nullable=False),
        ],
        ATTEMPTS: [
            sa.Column("id", Id, nullable=False),
            sa.Column("forward_id", Id, nullable=False),
            sa.Column("number", sa.Integer(), nullable=False),
            sa.Column("started_at", Moment, nullable=False),
            sa.Column("duration_ms", sa.Double(), nullable=True),
            sa.Column("address", sa.String(64), nullable=True),
            sa.Column("status_code", sa.Integer(), nullable=True),
            sa.Column("error", LongText, nullable=True),
            sa.Column("request_headers", sa.JSON(), nullable=True),
            sa.Column("response_headers", sa.JSON(), nullable=True),
            sa.Column("response_body", sa.Text(), nullable=True),
        ],
        ALERTS: [
            sa.Column("name", sa.String(64), nullable=False),
            sa.Column("raised", sa.Boolean(create_constraint=False), nullable=False),
            sa.Column("changed_at", Moment, nullable=True),
            sa.Column("checked_at", Moment, nullable=True),
            sa.Column("value", sa.Double(), nullable=True),
            sa.Column("sample", sa.Integer(), nullable=False),
            sa.Column("version", sa.Integer(), nullable=False),
            sa.Column("acknowledged_by", sa.String(255), nullable=True),
        ],
    }


NAMES_IN_INDEXES = ("id", "task_id", "verdict", "next_retry_at", "processed_at", "latency_ms")


def new_indexes() -> dict[str, tuple[str, list[str], str | None]]:
    """By name: the table, the columns, and which rows are in it; nearly all rows are settled, and left out."""
    d = {key: DELIVERY_NAMES.get(key, key) for key in NAMES_IN_INDEXES}
    unsettled = f"{quote(d['verdict'])} IN ('queued', 'failed', 'dead')"
    return {
        f"ix_{DELIVERIES}_waiting": (DELIVERIES, [d["task_id"], d["id"]], f"{quote(d['next_retry_at'])} IS NOT NULL"),
        f"ix_{DELIVERIES}_unsettled": (DELIVERIES, [d["verdict"], d["id"]], unsettled),
        f"ix_{DELIVERIES}_waited": (DELIVERIES, [d["processed_at"]], f"{quote(d['latency_ms'])} >= 60000"),
        f"ix_{FORWARDS}_delivery_id": (FORWARDS, ["delivery_id"], None),
        f"ix_{FORWARDS}_next_try_at": (FORWARDS, ["next_try_at"], "next_try_at IS NOT NULL"),
        f"ix_{FORWARDS}_dead": (FORWARDS, ["status"], "status = 'dead'"),
        f"ix_{ATTEMPTS}_forward_id": (ATTEMPTS, ["forward_id", "id"], None),
    }


class Entry(NamedTuple):
    """A `column`, `table` or `index` that the upgrade makes, and the table that it belongs to."""

    kind: str
    name: str
    table_name: str


def entries() -> list[Entry]:
    """Everything there is to make, in the order in which it is made."""
    return [
        *(Entry("column", column.name, table) for table, column in new_columns().items()),
        *(Entry("table", table, table) for table in new_tables()),
        *(Entry("index", index, table) for index, (table, *_) in new_indexes().items()),
    ]


# --- up ------------------------------------------------------------------------------------------------------


def upgrade(engine_name: str = BIND) -> None:
    if engine_name != BIND:
        return
    check_options()
    missing = entries()
    if not op.get_context().as_sql:
        inspector = sa.inspect(op.get_bind())
        refuse_other_tables(inspector)
        for entry in missing:
            if exists(entry, inspector):
                log.info("The %s %s of %s is there already and stays as it is", *entry)
    if is_in_use():
        run_steps(steps())
        return
    missing = left_to_make()
    write_record([*read_record(), *missing])  # of a first try that broke off, where the database cannot roll back
    for entry in missing:
        make(entry)


def plan() -> tuple[list[Step], dict[str, str]]:
    """Return the steps of an upgrade of this database, and what it leaves alone: nothing."""
    check_options()
    return steps(), {}


def steps() -> list[Step]:
    missing = left_to_make()
    record = [*read_record(), *missing]
    return [Step("record what will be done", STOPS["nobody"], lambda: write_record(record)), *map(step, missing)]


def step(entry: Entry) -> Step:
    """Return the change that makes something, beside those who use the table."""
    if entry.kind == "column":
        column = new_columns()[entry.table_name]
        sa.Table(entry.table_name, sa.MetaData(), column)
        words = str(sa.schema.CreateColumn(column).compile(dialect=op.get_context().dialect))
        instant = ", ALGORITHM=INSTANT" if dialect() == "mysql" else ""
        table = placed(entry.table_name)
        statement = f"ALTER TABLE {table} ADD COLUMN {words}{instant}"
        run: Callable[[], None] = lambda: politely(statement, table=table)  # noqa: E731
        return Step(f"add {entry.name} to {entry.table_name}", stops("everybody"), run, table=entry.table_name)
    if entry.kind == "index":
        _, columns, where = new_indexes()[entry.name]
        condition = f" WHERE {where}" if where and dialect() == "postgresql" else ""
        words = f"({', '.join(map(quote, columns))}){condition}"
        run = lambda: index_concurrently(quote(entry.name), words, placed(entry.table_name))  # noqa: E731
        return Step(f"make the index {entry.name}", stops("nobody"), run, "index", entry.table_name)
    return Step(f"make the {entry.kind} {entry.name}", stops("nobody yet"), lambda: make(entry))


def left_to_make() -> list[Entry]:
    if op.get_context().as_sql:
        return entries()
    inspector = sa.inspect(op.get_bind())
    return [entry for entry in entries() if not exists(entry, inspector)]


def is_in_use() -> bool:
    """Tell whether a table may have rows that others write: not if it has been made in the same upgrade."""
    if dialect() == "sqlite":
        return False
    if op.get_context().as_sql:
        return bool(op.get_context().opts.get("starting_rev")) or x_arguments().get("tasks", "created") != "created"
    tables = (sa.table(table, schema=SCHEMA) for table in (TASKS, DELIVERIES))
    rows = [op.get_bind().execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() for table in tables]
    return any(row is not None for row in rows)


def make(entry: Entry) -> None:
    match entry.kind:
        case "column":
            op.add_column(entry.table_name, new_columns()[entry.table_name], schema=SCHEMA)
        case "table":
            columns = new_tables()[entry.name]
            key = sa.PrimaryKeyConstraint(columns[0].name, name=op.f(f"pk_{entry.name}"))
            op.create_table(
                entry.name,
                *columns,
                key,
                schema=SCHEMA,
                sqlite_autoincrement=columns[0].name == "id",
                mysql_charset="utf8mb4",
                mariadb_charset="utf8mb4",
            )
        case "index":
            create_index(entry.name, *new_indexes()[entry.name])


def create_index(index: str, table: str, columns: list[str], where: str | None) -> None:
    options: Any = {} if where is None else {f"{each}_where": sa.text(where) for each in ("postgresql", "sqlite")}
    op.create_index(op.f(index), table, columns, schema=SCHEMA, **options)


def refuse_other_tables(inspector: sa.Inspector) -> None:
    """Refuse tables of the same names that are not ours; the host's own migrations may have created ours."""
    for table, columns in new_tables().items():
        if not inspector.has_table(table, schema=SCHEMA):
            continue
        present = {column["name"] for column in inspector.get_columns(table, schema=SCHEMA)}
        missing = [column.name for column in columns if column.name not in present]
        if missing:
            raise CommandError(
                f"There is a table {table} already, without the columns {', '.join(missing)}. Nothing was changed. "
                "Rename it in a revision of your own that comes before this one."
            )


# --- down ----------------------------------------------------------------------------------------------------


def downgrade(engine_name: str = BIND) -> None:
    """Forget forwards, their attempts and alerts. What was there before the upgrade stays."""
    if engine_name != BIND:
        return
    check_options()
    made = entries() if op.get_context().as_sql else made_here()
    if is_in_use():
        run_steps(steps_back(made))
        return
    for entry in made:
        if entry.kind == "column":
            op.drop_column(entry.table_name, entry.name, schema=SCHEMA)
    dropped = [entry.name for entry in made if entry.kind == "table"]
    for entry in made:
        if entry.kind == "index" and entry.table_name not in dropped:
            op.drop_index(op.f(entry.name), entry.table_name, schema=SCHEMA)
    for table in dropped:
        op.drop_table(table, schema=SCHEMA)
    drop_record()


def steps_back(made: list[Entry]) -> list[Step]:
    """Return the steps that undo an upgrade beside those who use the tables."""
    dropped = [entry.name for entry in made if entry.kind == "table"]
    found: list[Step] = []
    for kind, name, table in made:
        at = placed(table)
        if kind == "column":
            drop = f"ALTER TABLE {at} DROP COLUMN {quote(name)}"
            found.append(Step(f"drop {name} of {table}", stops("everybody"), partial(politely, drop, table=at)))
        elif kind == "index" and table not in dropped:
            found.append(Step(f"drop the index {name}", stops("nobody"), partial(drop_index, name, at)))
    for table in dropped:
        run = partial(op.drop_table, table, schema=SCHEMA)
        found.append(Step(f"drop {table}", STOPS["nobody"], run))
    return [*found, Step("drop the record", STOPS["nobody"], drop_record)]


def drop_record() -> None:
    op.execute(f"DROP VIEW IF EXISTS {placed(RECORD)}")


def made_here() -> list[Entry]:
    """Return what the upgrade created, as far as it still exists."""
    database = op.get_bind()
    inspector = sa.inspect(database)
    if RECORD not in inspector.get_view_names(schema=SCHEMA):
        log.warning("All stays as it is: there is no record (%s) of what the upgrade did", RECORD)
    made = [entry for entry in read_record() if exists(entry, inspector)]
    columns = [f"{entry.table_name}.{entry.name}" for entry in made if entry.kind == "column"]
    version = database.dialect.server_version_info or ()
    if columns and database.dialect.name == "sqlite" and version < SQLITE_THAT_DROPS_COLUMNS:
        raise CommandError(
            f"SQLite cannot drop {' and '.join(columns)} before its version 3.35, and this is "
            f"{'.'.join(map(str, version))}. Nothing was changed."
        )
    return made


# --- looking at the database ---------------------------------------------------------------------------------


def exists(entry: Entry, inspector: sa.Inspector) -> bool:
    match entry.kind:
        case "column" if inspector.has_table(entry.table_name, schema=SCHEMA):
            return entry.name in {column["name"] for column in inspector.get_columns(entry.table_name, schema=SCHEMA)}
        case "table":
            return inspector.has_table(entry.name, schema=SCHEMA)
    has_table = inspector.has_table(entry.table_name, schema=SCHEMA)
    return has_table and entry.name in valid_indexes(entry.table_name, SCHEMA)


def read_record() -> list[Entry]:
    return [Entry(*row) for row in read_view(RECORD, Entry._fields, SCHEMA)]


def write_record(made: list[Entry]) -> None:
    write_view(RECORD, list(dict.fromkeys(made)), SCHEMA)


def placed(table: str) -> str:
    return placed_in(table, SCHEMA)
