"""The task table of flask_contenthub_webhook: create it, or complete an existing one while it is in use.

The rows and other columns of an existing table stay, and so do types that the models can read: an INTEGER `id`, times
without a zone (which are taken for UTC), a longer `status`. Columns are added with defaults, rows are filled a few at a
time, and constraints are checked without stopping anybody. Statuses get the extension's words: other systems' words are
translated, unknown ones become `failed` with the error code UNKNOWN_STATUS, and the old word is kept in
`previous_status`. Open tasks are polled at once, and time out in half an hour if the service does not know them.

An application that does not know of this may go on meanwhile, and afterwards: a trigger translates the words that it
writes, and fills what it leaves empty. SQLite has no such trigger: it copies the table once, in one transaction.

Every step looks first whether it is done: the same command goes on where it was cut off. The downgrade undoes exactly
what the upgrade did, which is recorded in the database, in a view that selects constants: it travels with the database,
and no migration tool takes it for a table that the models lack.

With `--sql` the database cannot be looked at. Name the columns that the table has, with the types of those that differ
from the models', and NOT NULL where it holds already, or say that the table is (was) created:

    flask db upgrade -x "contenthub_tasks=id:integer,task_id,status:varchar(20) not null,created_at:timestamp" --sql
    flask db downgrade -x contenthub_tasks=created --sql

Revision ID: contenthub0001
Revises:
"""

# ruff: noqa: C901, D103, S608 - one self-contained script, which the names of its functions explain
from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op, util
from alembic.autogenerate import comparators
from alembic.operations import BatchOperations, Operations
from alembic.util import CommandError
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine.interfaces import ReflectedUniqueConstraint

# --- the engine ---
from .engine import (
    MYSQL,
    STOPS,
    Filling,
    Step,
    check_options,
    dialect,
    drop_index,
    execute,
    in_batches,
    index_concurrently,
    log,
    patiently,
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
revision = "contenthub0001"
down_revision: str | None = None
TABLE = "content_generation_tasks"
NAMES: dict[str, str] = {}  # what the host's model calls a column otherwise
OWN: tuple[str, ...] = ()  # columns that the host's model types in its own way: where they exist, they stay as they are
SCHEMA: str | None = None
BIND = ""  # the database, where Flask-Migrate upgrades several
# --- end ---
branch_labels = None
depends_on = None

RECORD = f"{TABLE[:40]}_{revision}"
MAY_NOT_CREATE_TRIGGERS = {1419, 1227, 1142}
LONGEST_STATUS = 16
LONGEST_WORD = 10
OPEN = ("pending", "submitted", "processing")
TERMINAL = ("completed", "failed", "timeout", "cancelled")
TRANSLATIONS = {
    "pending": ("pending", "new", "created", "queued", "waiting", "scheduled"),
    "submitted": ("submitted", "sent", "accepted"),
    "processing": ("processing", "running", "started", "active", "in_progress", "in progress", "generating"),
    "completed": ("completed", "complete", "done", "success", "succeeded", "finished"),
    "failed": ("failed", "failure", "error"),
    "timeout": ("timeout", "timed_out", "timed out", "expired"),
    "cancelled": ("cancelled", "canceled", "aborted"),
}
NOW = {
    "postgresql": "CURRENT_TIMESTAMP",
    "mysql": "utc_timestamp(6)",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now')",
}
IN_HALF_AN_HOUR = {
    "postgresql": "CURRENT_TIMESTAMP + INTERVAL '30 minutes'",
    "mysql": "utc_timestamp(6) + INTERVAL 30 MINUTE",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '+30 minutes')",
}
IN_TWO_MINUTES = {
    "postgresql": "CURRENT_TIMESTAMP + INTERVAL '2 minutes'",
    "mysql": "utc_timestamp(6) + INTERVAL 2 MINUTE",
}
NEW_UUID = {
    "postgresql": "CAST(gen_random_uuid() AS VARCHAR)",
    "mysql": "CAST(uuid() AS CHAR(36))",  # MariaDB's is of the type UUID, which would convert every other value
    "sqlite": "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-'"
    " || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))",
}
CONSTANTS = {
    "earlier_creator_task_ids": "'[]'",
    "priority": "2",
    "auto_approve": "false",
    "status": "'failed'",
    "attempt": "1",
    "version": "1",
    "submit_tries": "0",
    "polls": "0",
    "times_missing": "0",
}
"""The defaults of columns that are never empty; the others of these get a value for each row."""
ZONE_MAY_BE_MISSING = ("created_at", "updated_at", "submitted_at", "finished_at")
"""Times that the models read and write with a zone and without one (PostgreSQL)."""
OURS_TO_WRITE = {"task_id": 36, "creator_task_id": 255, "creator_address": 255, "callback_url": 2048, "error_code": 64}
OURS_TO_WRITE |= {"status": LONGEST_WORD, "previous_status": LONGEST_WORD, "error_message": 1 << 15}
"""Texts that the extension writes, and the length that it needs; the host knows how long the others may be."""
NAMES_OF_OTHERS = ("task_id", "creator_task_id")
CHANGES_COLLATIONS_IN_PLACE = (10, 4, 3)
"""The first MariaDB that does; MySQL copies the table."""
CARRY_CHECKS = ("creator_address", "times_missing")
"""MariaDB checks a new column without reading the rows, but not an old one: these carry the checks of the table."""
GIVEN_BY_THE_HOST = {"topic"}
"""What every task has been given before, and may go on to be given, so that no rebuild is needed to leave it out."""
TYPES: dict[str, type[sa.types.TypeEngine[Any]]] = {
    "BigInteger": sa.BigInteger,
    "SmallInteger": sa.SmallInteger,
    "Integer": sa.Integer,
    "Double": sa.Double,
    "Float": sa.Float,
    "TIMESTAMP": sa.TIMESTAMP,
    "DateTime": sa.DateTime,
    "Text": sa.Text,
    "String": sa.String,
}
TYPES_IN_WORDS: dict[str, sa.types.TypeEngine[Any]] = {
    "bigint": sa.BigInteger(),
    "integer": sa.Integer(),
    "int": sa.Integer(),
    "smallint": sa.SmallInteger(),
    "text": sa.Text(),
    "varchar": sa.String(),
    "character varying": sa.String(),
    "enum": sa.Enum(name="enum"),
    "mediumtext": mysql.MEDIUMTEXT(),
    "longtext": mysql.LONGTEXT(),
    "boolean": sa.Boolean(),
    "tinyint": mysql.TINYINT(),
    "json": sa.JSON(),
    "jsonb": postgresql.JSONB(),
    "numeric": sa.Numeric(),
    "float": sa.Float(),
    "double": sa.Double(),
    "double precision": sa.Double(),
    "date": sa.Date(),
    "timestamp": sa.DateTime(),
    "timestamp without time zone": sa.DateTime(),
    "datetime": sa.DateTime(),
    "timestamptz": sa.DateTime(timezone=True),
    "timestamp with time zone": sa.DateTime(timezone=True),
}

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), *MYSQL)
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), *MYSQL)


def Name(length: int) -> sa.String:  # noqa: N802 - a type
    """Names and digests are compared byte for byte; MySQL's usual collations ignore case and accents."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, *MYSQL)


def task_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column(name("id"), Id, nullable=False),
        sa.Column(name("task_id"), Name(36), nullable=False),
        sa.Column(name("creator_task_id"), Name(255), nullable=True),
        sa.Column(name("earlier_creator_task_ids"), sa.JSON(), nullable=False),
        sa.Column(name("creator_name"), sa.String(16), nullable=True),
        sa.Column(name("creator_address"), sa.String(255), nullable=True),
        sa.Column(name("topic"), sa.String(500), nullable=True),
        sa.Column(name("requirements"), sa.Text(), nullable=True),
        sa.Column(name("target_audience"), sa.String(500), nullable=True),
        sa.Column(name("keywords"), sa.JSON(), nullable=True),
        sa.Column(name("tone"), sa.String(100), nullable=True),
        sa.Column(name("priority"), sa.SmallInteger(), nullable=False),
        sa.Column(name("auto_approve"), sa.Boolean(create_constraint=False), nullable=False),
        sa.Column(name("previous_status"), sa.String(LONGEST_STATUS), nullable=True),
        sa.Column(name("status"), Name(LONGEST_STATUS), nullable=False),
        sa.Column(name("attempt"), sa.Integer(), nullable=False),
        sa.Column(name("max_retries"), sa.Integer(), nullable=True),
        sa.Column(name("timeout_seconds"), sa.Integer(), nullable=True),
        sa.Column(name("version"), sa.Integer(), nullable=False),
        sa.Column(name("callback_url"), sa.String(2048), nullable=True),
        sa.Column(name("callback_events"), sa.JSON(), nullable=True),
        sa.Column(name("creator_options"), sa.JSON(), nullable=True),
        sa.Column(name("traceparent"), sa.String(55), nullable=True),
        sa.Column(name("result"), sa.JSON(), nullable=True),
        sa.Column(name("error_code"), sa.String(64), nullable=True),
        sa.Column(name("error_message"), LongText, nullable=True),
        sa.Column(name("progress"), sa.JSON(), nullable=True),
        sa.Column(name("progress_percentage"), sa.Double(), nullable=True),
        sa.Column(name("progress_at"), Moment, nullable=True),
        sa.Column(name("next_submit_at"), Moment, nullable=True),
        sa.Column(name("submitting_since"), Moment, nullable=True),
        sa.Column(name("submit_tries"), sa.Integer(), nullable=False),
        sa.Column(name("submitted_at"), Moment, nullable=True),
        sa.Column(name("next_poll_at"), Moment, nullable=True),
        sa.Column(name("polls"), sa.Integer(), nullable=False),
        sa.Column(name("times_missing"), sa.Integer(), nullable=False),
        sa.Column(name("deadline_at"), Moment, nullable=True),
        sa.Column(name("created_at"), Moment, nullable=False),
        sa.Column(name("updated_at"), Moment, nullable=False),
        sa.Column(name("finished_at"), Moment, nullable=True),
    ]


def primary_key() -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(name("id"), name=op.f(f"pk_{TABLE}"))


def unique_task_id() -> str:
    return op.f(f"uq_{TABLE}_task_id")


def check_constraints() -> dict[str, str]:
    status, next_poll_at = exact(quote(name("status"))), quote(name("next_poll_at"))
    return {
        op.f(f"ck_{TABLE}_status"): f"{status} IN ({listed(OPEN + TERMINAL)})",
        op.f(f"ck_{TABLE}_open_is_polled"): f"{status} IN ({listed(TERMINAL)}) OR {next_poll_at} IS NOT NULL",
    }


def index_columns() -> dict[str, str]:
    columns = ("creator_task_id", "next_submit_at", "next_poll_at")
    return {op.f(f"ix_{TABLE}_{column}"): name(column) for column in columns}


def only_waiting(column: str) -> str | None:
    """Return the condition of a partial index: settled rows, nearly all, do not wait for a time."""
    return None if column == name("creator_task_id") else f"{quote(column)} IS NOT NULL"


def create_index(index: str, column: str) -> None:
    waiting = only_waiting(column)
    where: Any = {} if waiting is None else {f"{each}_where": sa.text(waiting) for each in ("postgresql", "sqlite")}
    op.create_index(index, TABLE, [column], schema=SCHEMA, **where)


# --- up ------------------------------------------------------------------------------------------------------


def upgrade(engine_name: str = BIND) -> None:
    if engine_name != BIND:
        return
    check_options()
    existing = existing_columns()
    if existing is None:
        create()
    elif not op.get_context().as_sql and Entry("table", TABLE) in read_record():
        create_indexes(valid_indexes(TABLE, SCHEMA))  # a first try made the table and broke off
    elif dialect() == "sqlite":
        complete_by_copy(planned(existing))
    else:
        run_steps(steps(planned(existing)))


def plan() -> tuple[list[Step], dict[str, str]]:
    """Return the steps of an upgrade of this database, and what it leaves alone."""
    check_options()
    existing = existing_columns()
    if existing is None:
        return [Step(f"create {TABLE}", stops("nobody yet"), create)], {}
    change = planned(existing)
    if dialect() != "sqlite":
        return steps(change), change.kept
    return [
        Step(f"copy {TABLE} once", stops("all along"), lambda: complete_by_copy(change), work="rewrite")
    ], change.kept


def planned(existing: dict[str, Old]) -> Plan:
    """Return what is left to do, also after a first try that broke off."""
    return Plan(existing, read_record())


def create() -> None:
    write_record([Entry("table", TABLE)])  # first: a try that breaks off may leave the table
    checks = (sa.CheckConstraint(condition, name=check) for check, condition in check_constraints().items())
    unique = sa.UniqueConstraint(name("task_id"), name=unique_task_id())
    op.create_table(
        TABLE,
        *task_columns(),
        primary_key(),
        unique,
        *checks,
        schema=SCHEMA,
        sqlite_autoincrement=True,
        mysql_charset="utf8mb4",
        mariadb_charset="utf8mb4",
    )
    create_indexes(present=set())


def create_indexes(present: set[str]) -> None:
    for index, column in index_columns().items():
        if index not in present:
            create_index(index, column)


def steps(change: Plan) -> list[Step]:
    """Return the steps that complete a table in use, in their order; what must stop others comes before the filling."""
    table, instant = placed(TABLE), stops("everybody")
    postgresql = dialect() == "postgresql"
    found = [Step("record what will be done", STOPS["nobody"], lambda: write_record(change.record))]

    def add(title: str, lock: str, statements: list[str], *, work: str = "instant", long: bool = False) -> None:
        if statements:
            found.append(Step(title, lock, lambda: politely(*statements, table=table, long=long), work))

    columns = ", ".join(column.name for column in change.missing)
    add(f"add {columns}", instant, add_columns(change))
    for column in change.changes:
        title = f"change {column.name} from {change.existing[column.name].type} to {column.type}"
        add(title, stops("all along"), change_type(column, change), work="rewrite", long=True)
    if change.added:
        title = "let a trigger translate and fill what the old application writes"
        found.append(Step(title, stops("writers"), lambda: create_triggers(change)))
    if postgresql:
        add("add the checks, for new rows only", instant, add_checks(change))
        add("take over what keeps task_id unique", instant, take_over_unique(change))
    else:
        add("add the columns that carry the checks", instant, add_checking_columns(change))
    if change.added or change.tight:
        fill = fillings(change)
        title = f"fill {TABLE}"
        run = lambda: in_batches(table, quote(name("id")), fill, title=title)  # noqa: E731
        found.append(Step(f"{title}, a few rows at a time", stops("rows"), run, "fill"))
    if postgresql and (change.checks or change.tight or change.unvalidated):
        found.append(Step("check the old rows", stops("nobody"), lambda: validate(change), "scan"))
        add("forbid NULL", instant, forbid_null(change))
    elif not postgresql:
        changed = (change.loose, [each for each in change.tight if each.name not in change.stays], change.collations)
        title, work = in_place(*changed)
        statements = change_in_place(*changed, change.after_changes())
        add(title, stops("at its end"), statements, work=work, long=True)
        add("take over what keeps task_id unique", instant, take_over_unique(change))
    if change.unique and not change.old_uniques:
        found.append(Step("make task_id unique", stops("nobody"), lambda: make_unique(change), "index"))
    return found + [
        Step(f"make the index {index}", stops("nobody"), partial(make_index, index), "index")
        for index in change.indexes
    ]


def add_columns(change: Plan) -> list[str]:
    """One ALTER for all: a constant default rewrites nothing, and each would have to wait for the lock."""
    table, statements = placed(TABLE), []
    parts = [f"ADD COLUMN {definition(column)}" for column in change.missing if column not in change.checking]
    drops = [f"DROP CONSTRAINT {quote(str(check))}" for check in change.status_checks]
    if dialect() == "postgresql":
        parts = [*drops, *(f"ALTER COLUMN {quote(column.name)} DROP NOT NULL" for column in change.loose), *parts]
    else:
        statements += [f"ALTER TABLE {table} {drop}" for drop in drops]
        parts = [*parts, "ALGORITHM=INSTANT"] if parts else []
    return [*statements, f"ALTER TABLE {table} {', '.join(parts)}"] if parts else statements


def definition(column: sa.Column[Any], check: str = "") -> str:
    """Return the words that add a column."""
    made = new_column(column)
    sa.Table(TABLE, sa.MetaData(), made)
    words = str(sa.schema.CreateColumn(made).compile(dialect=op.get_context().dialect))
    return f"{' '.join(words.split())}{check}"


def new_column(column: sa.Column[Any]) -> sa.Column[Any]:
    """Return a column as it is added: with a constant default, or nullable until it is filled."""
    constant = None if column.nullable else CONSTANTS.get(key_of(column))
    if constant == "false":
        default: Any = sa.false()
    elif constant == "'[]'" and dialect() == "mysql" and not getattr(op.get_context().dialect, "is_mariadb", False):
        default = sa.text("(json_array())")
    else:
        default = None if constant is None else sa.text(constant)
    return sa.Column(column.name, column.type, nullable=column.nullable or constant is None, server_default=default)


def change_type(column: sa.Column[Any], change: Plan) -> list[str]:
    table, q, old = placed(TABLE), quote(column.name), change.existing[column.name]
    type_ = column.type.compile(dialect=op.get_context().dialect)
    if dialect() == "mysql":
        return [f"ALTER TABLE {table} MODIFY {q} {type_}{'' if old.nullable else ' NOT NULL'}"]
    if isinstance(old.type, sa.Enum):  # the default is of the old type
        return [f"ALTER TABLE {table} ALTER {q} DROP DEFAULT, ALTER {q} TYPE {type_} USING {q}::text"]
    return [f"ALTER TABLE {table} ALTER {q} TYPE {type_}"]  # times without a zone are UTC, as this session is


def add_checks(change: Plan) -> list[str]:
    checks = [
        f"ADD CONSTRAINT {quote(check)} CHECK ({check_constraints()[check]}) NOT VALID" for check in change.checks
    ]
    checks += [
        f"ADD CONSTRAINT {quote(given(column))} CHECK ({quote(column.name)} IS NOT NULL) NOT VALID"
        for column in change.tight
        if given(column) not in change.helpers
    ]
    return [f"ALTER TABLE {placed(TABLE)} {', '.join(checks)}"] if checks else []


def add_checking_columns(change: Plan) -> list[str]:
    """Add the columns that carry checks: after the triggers, since the old application's rows would not pass."""
    of_status, is_polled = check_constraints().values()
    given = "".join(f" AND {quote(column.name)} IS NOT NULL" for column in change.tight if column.name in change.stays)
    carried = zip(change.checking, (of_status, f"({is_polled}){given}"), strict=False)
    parts = [f"ADD COLUMN {definition(column, f' CHECK ({check})')}" for column, check in carried]
    return [f"ALTER TABLE {placed(TABLE)} {', '.join(parts)}, ALGORITHM=INSTANT"] if parts else []


def given(column: sa.Column[Any]) -> str:
    """Return the name of a check that stands in for NOT NULL while the rows are filled."""
    return f"contenthub_{column.name}_given"[:60]


def validate(change: Plan) -> None:
    names = [*change.unvalidated, *change.checks, *(given(column) for column in change.tight)]
    for check in dict.fromkeys(names):
        patiently(f"ALTER TABLE {placed(TABLE)} VALIDATE CONSTRAINT {quote(check)}", table=placed(TABLE))


def forbid_null(change: Plan) -> list[str]:
    """Two statements: in one, the checks would be dropped first, and every row be read under the lock."""
    if not change.tight:
        return []
    table = f"ALTER TABLE {placed(TABLE)}"
    return [
        f"{table} {', '.join(f'ALTER COLUMN {quote(column.name)} SET NOT NULL' for column in change.tight)}",
        f"{table} {', '.join(f'DROP CONSTRAINT {quote(given(column))}' for column in change.tight)}",
    ]


def change_in_place(
    loose: list[sa.Column[Any]], tight: list[sa.Column[Any]], collations: dict[str, str], existing: dict[str, Old]
) -> list[str]:
    """Describe columns again as MySQL has them; one ALTER, since it rebuilds the table beside the writers."""
    nullable = dict.fromkeys(collations) | dict.fromkeys((column.name for column in loose), True)
    nullable |= dict.fromkeys((column.name for column in tight), False)
    columns = {column.name: column for column in task_columns()}
    parts = [
        f"MODIFY {described(columns[each], existing.get(each), nullable=may_be, collation=collations.get(each))}"
        for each, may_be in nullable.items()
    ]
    return [f"ALTER TABLE {placed(TABLE)} {', '.join(parts)}, ALGORITHM=INPLACE, LOCK=NONE"] if parts else []


def in_place(loose: list[Any], tight: list[Any], collations: dict[str, str]) -> tuple[str, str]:
    """Return what :func:`change_in_place` is for, and how it works."""
    words = ["change what may be NULL"] if loose or tight else []
    words += [f"compare {', '.join(collations)} as {', '.join(set(collations.values()))}"] if collations else []
    return " and ".join(words), "rewrite" if loose or tight else "index"


def described(
    column: sa.Column[Any], old: Old | None, *, nullable: bool | None = None, collation: str | None = None
) -> str:
    """Return MySQL's own description of a column, with another nullability or collation."""
    if op.get_context().as_sql:
        type_ = (column.type if old is None else old.type).compile(dialect=op.get_context().dialect)
        return f"{quote(column.name)} {type_}{' NULL' if nullable else ' NOT NULL'}"
    lines = str(op.get_bind().execute(sa.text(f"SHOW CREATE TABLE {placed(TABLE)}")).one()[1]).splitlines()
    (line,) = (line.strip().rstrip(",") for line in lines if line.strip().startswith(f"`{column.name}` "))
    text = line if nullable is None else without_nullability(line)
    match = re.match(r"(`[^`]+` \w+(?:\([^)]*\))?(?: unsigned)?(?: CHARACTER SET \w+)?)( COLLATE \w+)?(.*)", text)
    if match is None:
        raise CommandError(f"{TABLE}.{column.name} is described in a way that is not understood: {line}")
    compared = match[2] or "" if collation is None else f" COLLATE {collation}"
    null = "" if nullable is None else " NULL" if nullable else " NOT NULL"
    return f"{match[1]}{compared}{null}{match[3]}"


def without_nullability(line: str) -> str:
    quoted = re.split(r"('(?:[^']|'')*')", line)  # what is in quotes, a default or a comment, is every second part
    bare = [re.sub(r" NOT NULL| DEFAULT NULL|(?<=timestamp) NULL", "", part) for part in quoted[::2]]
    return "".join(part + (quoted[2 * number + 1 :][:1] or [""])[0] for number, part in enumerate(bare))


def collations() -> dict[str, str]:
    """Return how MySQL compares each text of the table."""
    of_table = "table_name = :table AND table_schema = coalesce(:schema, database()) AND collation_name IS NOT NULL"
    sql = sa.text(f"SELECT column_name, collation_name FROM information_schema.columns WHERE {of_table}")
    return {row[0]: row[1] for row in op.get_bind().execute(sql, {"table": TABLE, "schema": SCHEMA})}


def take_over_unique(change: Plan) -> list[str]:
    return [rename_unique(old, old.name, unique_task_id()) for old in change.old_uniques]


def rename_unique(old: Entry, before: str, after: str, *, back: bool = False) -> str:
    """Take over what keeps `task_id` unique, under our name: foreign keys may depend on it."""
    table, before, after = placed(TABLE), quote(before), quote(after)
    if dialect() == "mysql":
        return f"ALTER TABLE {table} RENAME INDEX {before} TO {after}"
    if old.kind == "old unique index" and not back:
        return f"ALTER TABLE {table} ADD CONSTRAINT {after} UNIQUE USING INDEX {before}"
    return f"ALTER TABLE {table} RENAME CONSTRAINT {before} TO {after}"


def make_unique(change: Plan) -> None:
    table, unique = placed(TABLE), quote(unique_task_id())
    if unique_task_id() not in change.ready:
        index_concurrently(unique, f"({quote(name('task_id'))})", table, unique=True)
    if dialect() == "postgresql":
        politely(f"ALTER TABLE {table} ADD CONSTRAINT {unique} UNIQUE USING INDEX {unique}", table=table)


def make_index(index: str) -> None:
    column = index_columns()[index]
    waiting = only_waiting(column) if dialect() == "postgresql" else None
    where = f" WHERE {waiting}" if waiting else ""
    index_concurrently(quote(index), f"({quote(column)}){where}", placed(TABLE))


# --- the words and values of rows ----------------------------------------------------------------------------


def translated(status: str) -> str:
    """Return the extension's word for a status."""
    word = f"lower(trim({status}))"
    cases = " ".join(f"WHEN {word} IN ({listed(words)}) THEN '{state}'" for state, words in TRANSLATIONS.items())
    return f"CASE {cases} ELSE 'failed' END"


def is_unknown(status: str) -> str:
    known = [word for words in TRANSLATIONS.values() for word in words]
    return f"({status} IS NULL OR lower(trim({status})) NOT IN ({listed(known)}))"


def is_foreign(status: str) -> str:
    """Compare a word with the extension's, exactly."""
    return f"({status} IS NULL OR {exact(status)} NOT IN ({listed(OPEN + TERMINAL)}))"


def exact(status: str) -> str:
    """MySQL's usual collations ignore the case, and spaces at the end."""
    return f"CAST({status} AS BINARY)" if dialect() == "mysql" else status


def short(status: str) -> str:
    length = "char_length" if dialect() == "mysql" else "length"
    return f"CASE WHEN {length}({status}) <= {LONGEST_STATUS} THEN {status} END"


def values_for_null(columns: list[sa.Column[Any]], of: Callable[[str], str]) -> dict[str, str]:
    """Return, by key, what stands for NULL in columns that must not have it."""
    now = NOW[dialect()]
    values = {
        "task_id": NEW_UUID[dialect()],
        **CONSTANTS,
        "created_at": f"coalesce({of('updated_at')}, {now})",
        "updated_at": f"coalesce({of('created_at')}, {now})",
    }
    keys = [key_of(column) for column in columns]
    return {key: values[key] for key in keys if key in values and key != "status"}


def fillings(change: Plan) -> list[Filling]:
    """Return UPDATEs that may be repeated: they change only rows that need it."""

    def of(key: str) -> str:
        return quote(name(key))

    now, in_half_an_hour = NOW[dialect()], IN_HALF_AN_HOUR[dialect()]
    status, state = of("status"), translated(of("status"))
    will_be_open = f"({state}) IN ({listed(OPEN)})"
    words = {
        "error_code": f"CASE WHEN {is_unknown(status)} THEN 'UNKNOWN_STATUS' ELSE {of('error_code')} END",
        "deadline_at": f"CASE WHEN {will_be_open} THEN coalesce({of('deadline_at')}, {in_half_an_hour}) "
        f"ELSE {of('deadline_at')} END",
        "next_poll_at": f"CASE WHEN {will_be_open} THEN coalesce({of('next_poll_at')}, {now}) "
        f"ELSE {of('next_poll_at')} END",
        "status": state,  # the last, because MySQL assigns from left to right
    }
    if name("previous_status") in change.added:
        words = {"previous_status": short(status), **words}
    nulls = {key: f"coalesce({of(key)}, {value})" for key, value in values_for_null(change.tight, of).items()}
    polled = {"deadline_at": f"coalesce({of('deadline_at')}, {in_half_an_hour})", "next_poll_at": now}
    updates: list[tuple[dict[str, str], str]] = [
        (words, is_foreign(status)),
        (nulls, " OR ".join(f"{of(key)} IS NULL" for key in nulls)),
        (polled, f"{status} IN ({listed(OPEN)}) AND {of('next_poll_at')} IS NULL"),
    ]
    if name("finished_at") in change.added:
        finished = f"{status} IN ({listed(TERMINAL)}) AND {of('finished_at')} IS NULL"
        updates.append(({"finished_at": f"coalesce({of('updated_at')}, {now})"}, finished))
    return [filling(values, condition, change) for values, condition in updates if values]


def filling(values: dict[str, str], condition: str, change: Plan) -> Filling:
    """Return an UPDATE; columns that MySQL would set to the time of it are set to what they are."""
    sets = {quote(name(key)): value for key, value in values.items()}
    sets = {quote(column): quote(column) for column in change.touched if quote(column) not in sets} | sets
    return Filling(", ".join(f"{column} = {value}" for column, value in sets.items()), condition)


# --- the old application, which goes on ----------------------------------------------------------------------


def create_triggers(change: Plan) -> None:
    """Translate and fill what is written by an application that does not know of the extension.

    It is told by the `version` of a row, which the extension counts up with every change of the status.
    """
    table = placed(TABLE)
    if dialect() == "mysql":
        create = [
            f"CREATE TRIGGER {placed(trigger(event))} BEFORE {event} ON {table} FOR EACH ROW SET "
            + ", ".join(f"{target} = {value}" for target, value in assignments(event, change))
            for event in ("INSERT", "UPDATE")
            if trigger(event) not in change.ready
        ]
        try:
            for statement in create:
                politely(statement, table=table)
        except sa.exc.DBAPIError as error:
            if not set(getattr(error.orig, "args", ())) & MAY_NOT_CREATE_TRIGGERS:
                raise
            raise CommandError(
                f"{error.orig}. With the binary log on, triggers need SET GLOBAL log_bin_trust_function_creators = 1, "
                "or the privilege SUPER. What is done so far is committed; run the same command again to go on."
            ) from error
        return
    bodies = {
        event: "; ".join(f"{target} := {value}" for target, value in assignments(event, change))
        for event in ("INSERT", "UPDATE")
    }
    execute(
        f"CREATE OR REPLACE FUNCTION {placed(RECORD)}() RETURNS trigger LANGUAGE plpgsql SET timezone = 'UTC' AS "
        f"$contenthub$ BEGIN IF TG_OP = 'INSERT' THEN {bodies['INSERT']}; ELSE {bodies['UPDATE']}; END IF; RETURN NEW; "
        "END $contenthub$"
    )
    missing = [event for event in ("INSERT", "UPDATE") if trigger(event) not in change.ready]
    statements = [
        f"CREATE TRIGGER {quote(trigger(event))} BEFORE {event} ON {table} FOR EACH ROW "
        f"WHEN ({is_by_old_application(event, change)}) EXECUTE FUNCTION {placed(RECORD)}()"
        for event in missing
    ]
    if statements:
        politely(*statements, table=table)


def trigger(event: str) -> str:
    return f"{RECORD}_{event.lower()}"


def of_new(key: str) -> str:
    return f"NEW.{quote(name(key))}"


def of_old(key: str) -> str:
    return f"OLD.{quote(name(key))}"


def has_changed() -> str:
    """The old application has changed the status."""
    new, old = of_new("status"), of_old("status")
    return f"(NOT {is_foreign(old)} AND {new} <> {old} AND {of_new('version')} = {of_old('version')})"


def lacks_poll(event: str) -> str:
    """An open task has never had the time of its next poll."""
    before = "" if event == "INSERT" else f" AND {of_old('next_poll_at')} IS NULL"
    return f"({of_new('status')} IN ({listed(OPEN)}) AND {of_new('next_poll_at')} IS NULL{before})"


def is_by_old_application(event: str, change: Plan) -> str:
    reasons = [is_foreign(of_new("status")), lacks_poll(event)]
    reasons += [f"{of_new(key)} IS NULL" for key in values_for_null(change.strict, of_new)]
    if event == "UPDATE":
        reasons.append(has_changed())
    return " OR ".join(reasons)


def assignments(event: str, change: Plan) -> Iterator[tuple[str, str]]:
    """Yield the assignments of a trigger; each sees what those before it have assigned."""
    status, terminal = of_new("status"), f"{of_new('status')} IN ({listed(TERMINAL)})"
    soon, deadline = IN_TWO_MINUTES[dialect()], IN_HALF_AN_HOUR[dialect()]
    changed = has_changed() if event == "UPDATE" else "FALSE"
    yield of_new("error_code"), f"CASE WHEN {is_unknown(status)} THEN 'UNKNOWN_STATUS' ELSE {of_new('error_code')} END"
    if name("previous_status") in change.added:
        previous = of_new("previous_status")
        before = f" WHEN {changed} THEN {of_old('status')}" if event == "UPDATE" else ""
        yield previous, f"CASE WHEN {is_foreign(status)} THEN {short(status)}{before} ELSE {previous} END"
    yield status, translated(status)
    for key, value in values_for_null(change.strict, of_new).items():
        kept = f"{of_old(key)}, " if event == "UPDATE" else ""
        yield of_new(key), f"coalesce({of_new(key)}, {kept}{value})"
    finished = of_new("finished_at")
    if event == "INSERT":
        yield finished, f"CASE WHEN {terminal} THEN coalesce({finished}, {NOW[dialect()]}) ELSE {finished} END"
    else:
        ended = f"CASE WHEN {terminal} THEN {NOW[dialect()]} END"
        yield finished, f"CASE WHEN {changed} THEN {ended} ELSE {finished} END"
        for key in ("next_submit_at", "submitting_since"):
            yield of_new(key), f"CASE WHEN {changed} AND {terminal} THEN NULL ELSE {of_new(key)} END"
    lacks, due, until = lacks_poll(event), of_new("next_poll_at"), of_new("deadline_at")
    if event == "UPDATE":
        again = f"({changed} AND {of_old('status')} IN ({listed(TERMINAL)}) AND NOT {terminal})"
        yield (
            until,
            f"CASE WHEN {again} THEN {deadline} WHEN {lacks} THEN coalesce({until}, {deadline}) ELSE {until} END",
        )
        ends = f"({changed} AND {terminal})"
        yield due, f"CASE WHEN {ends} THEN NULL WHEN {again} OR {lacks} THEN {soon} ELSE {due} END"
        yield of_new("version"), f"{of_new('version')} + CASE WHEN {changed} THEN 1 ELSE 0 END"
    else:
        yield until, f"CASE WHEN {lacks} THEN coalesce({until}, {deadline}) ELSE {until} END"
        yield due, f"CASE WHEN {lacks} THEN {soon} ELSE {due} END"


# --- SQLite --------------------------------------------------------------------------------------------------


def complete_by_copy(change: Plan) -> None:
    """Complete the table in one transaction, in which SQLite copies it."""
    with rebuilding():
        write_record(change.record)
        add_in_sqlite(change)
        in_batches(placed(TABLE), quote(name("id")), fillings(change), title=f"fill {TABLE}")
        tighten_in_sqlite(change)
        for index in change.indexes:
            create_index(index, index_columns()[index])


def add_in_sqlite(change: Plan) -> None:
    """Add columns; it needs no copy unless a check or a type is in the way of the filling."""

    def leave_out(copy: sa.Table) -> None:
        for check in [each for each in copy.constraints if isinstance(each, sa.CheckConstraint)]:
            if check.name in change.status_checks:
                copy.constraints.discard(check)

    with changes(leave_out if change.status_checks else None) as table:
        for column in change.missing:
            table.add_column(new_column(column))
        for column in change.changes:
            old = change.existing[column.name]
            alter(table, column.name, old, type_=column.type, nullable=old.nullable)


def tighten_in_sqlite(change: Plan) -> None:
    def leave_out(copy: sa.Table) -> None:
        for unique in [each for each in copy.constraints if isinstance(each, sa.UniqueConstraint)]:
            if unique.columns.keys() == [name("task_id")]:
                copy.constraints.discard(unique)

    for old in change.old_uniques:
        if old.kind == "old unique index":
            op.drop_index(op.f(old.name), TABLE, schema=SCHEMA)
    with changes(leave_out if change.old_uniques else None) as table:
        for column in (*change.loose, *change.tight):
            before = change.existing.get(column.name) or Old(column.type, nullable=True)
            if column in change.changes:
                before = before._replace(type=column.type)
            alter(table, column.name, before, nullable=bool(column.nullable))
        if change.unique:
            table.create_unique_constraint(unique_task_id(), [name("task_id")])
        for check in change.checks:
            table.create_check_constraint(check, sa.text(check_constraints()[check]))


# --- down ----------------------------------------------------------------------------------------------------


def downgrade(engine_name: str = BIND) -> None:
    if engine_name != BIND:
        return
    check_options()
    existing = existing_columns(downgrade=True)
    if op.get_context().as_sql:
        record = [Entry("table", TABLE)] if existing is None else Plan(existing, []).record
        existing = as_upgraded(existing or {})
    else:
        record = read_record()
    if existing is None:
        drop_record()  # of a first try that broke off
        return
    if not record:
        log.warning("%s stays as it is: there is no record (%s) of what the upgrade did", TABLE, RECORD)
        return
    if Entry("table", TABLE) in record:
        op.drop_table(TABLE, schema=SCHEMA)
        drop_record()
    elif dialect() == "sqlite":
        with rebuilding():
            undo_by_copy(record, existing)
            drop_record()
    else:
        run_steps(steps_back(record, existing))


def as_upgraded(before: dict[str, Old]) -> dict[str, Old]:
    """Return the columns of ours after the upgrade; those that were there before with the types of then."""
    columns = task_columns()
    return {
        each.name: (before.get(each.name) or Old(each.type, True))._replace(nullable=bool(each.nullable))
        for each in columns
    }


def drop_record() -> None:
    execute(f"DROP VIEW IF EXISTS {placed(RECORD)}")


def steps_back(record: list[Entry], existing: dict[str, Old]) -> list[Step]:
    """Return the steps that undo an upgrade, without those that are done already."""
    table, instant, present = placed(TABLE), stops("everybody"), Present.found(record)
    postgresql = dialect() == "postgresql"
    added = [entry.name for entry in record if entry.kind == "column" and entry.name in existing]
    old_uniques = [entry for entry in record if entry.kind.startswith("old unique")]
    back = Restored(record, {column: old for column, old in existing.items() if column not in added})
    found: list[Step] = []

    def add(title: str, lock: str, statements: list[str], *, work: str = "instant") -> None:
        if statements:
            found.append(Step(title, lock, lambda: politely(*statements, table=table, long=work != "instant"), work))

    add("drop the triggers", instant, drop_triggers(present))
    indexes = [index for index in index_columns() if index in present.indexes and Entry("index", index) in record]
    found += [Step(f"drop the index {index}", stops("nobody"), partial(drop_index, index, table)) for index in indexes]
    checks = [each.name for each in record if each.kind == "check" and each.name in present.checks]
    drops = [f"DROP CONSTRAINT {quote(check)}" for check in checks]
    if not postgresql:
        carrying = [name(key) for key in CARRY_CHECKS if name(key) in added]
        drops += [f"DROP COLUMN {quote(column)}" for column in carrying]
        added = [column for column in added if column not in carrying]
    if postgresql:
        drops += [f"ALTER COLUMN {quote(column)} DROP NOT NULL" for column in back.loose]
    add("drop the checks", instant, [f"ALTER TABLE {table} {', '.join(drops)}"] if drops else [])
    if name("previous_status") in added and name("status") not in added:
        words = lambda: in_batches(table, quote(name("id")), [old_words()], title="old words")  # noqa: E731
        found.append(Step("give the old words back, a few rows at a time", stops("rows"), words, "fill"))
    for column, type_ in back.types.items():
        statements = [f"ALTER TABLE {table} {retyped(column, type_, existing[column])}"]
        add(f"change {column} back to {type_}", stops("all along"), statements, work="rewrite")
    if postgresql and back.tight:
        strict = Plan.of_nulls(back.tight, present)
        add("forbid NULL, for new rows only", instant, add_checks(strict))
        found.append(Step("check the old rows", stops("nobody"), lambda: validate(strict), "scan"))
        add("forbid NULL", instant, forbid_null(strict))
    elif not postgresql:
        columns = {column.name: column for column in task_columns()}
        loose, tight = ([columns[column] for column in names] for names in (back.loose, back.tight))
        title, work = in_place(loose, tight, back.collations)
        add(title, stops("at its end"), change_in_place(loose, tight, back.collations, existing), work=work)
    if present.unique:
        statements = [rename_unique(old, unique_task_id(), old.name, back=True) for old in old_uniques]
        drop = f"DROP {'CONSTRAINT' if postgresql else 'INDEX'} {quote(unique_task_id())}"
        mine = Entry("unique", unique_task_id()) in record
        add(
            "give up what keeps task_id unique",
            instant,
            statements or ([f"ALTER TABLE {table} {drop}"] if mine else []),
        )
    drops = [f"DROP COLUMN {quote(column)}" for column in added]
    add(f"drop {', '.join(added)}", instant, [f"ALTER TABLE {table} {', '.join(drops)}"] if drops else [])
    return [*found, Step("drop the record", STOPS["nobody"], drop_record)]


def drop_triggers(present: Present) -> list[str]:
    triggers = [trigger(event) for event in ("INSERT", "UPDATE") if trigger(event) in present.triggers]
    if dialect() == "mysql":
        return [f"DROP TRIGGER IF EXISTS {placed(each)}" for each in triggers]
    drops = [f"DROP TRIGGER IF EXISTS {quote(each)} ON {placed(TABLE)}" for each in triggers]
    return [*drops, f"DROP FUNCTION IF EXISTS {placed(RECORD)}()"]


def old_words() -> Filling:
    """Give rows their old words back, unless the status has changed since."""
    previous = quote(name("previous_status"))
    status = quote(name("status"))
    differs = f"({status} IS NULL OR {exact(status)} <> {exact(previous)})"
    is_old = f"{previous} IS NOT NULL AND {is_foreign(previous)} AND {differs}"
    return Filling(f"{status} = {previous}", is_old)


def retyped(column: str, type_: sa.types.TypeEngine[Any], old: Old) -> str:
    words, q = type_.compile(dialect=op.get_context().dialect), quote(column)
    if dialect() == "mysql":
        return f"MODIFY {q} {words}{'' if old.nullable else ' NOT NULL'}"
    return f"ALTER {q} TYPE {words}"


def undo_by_copy(record: list[Entry], existing: dict[str, Old]) -> None:
    added = [entry.name for entry in record if entry.kind == "column" and entry.name in existing]
    old_uniques = [entry for entry in record if entry.kind.startswith("old unique")]
    shared = {column: old for column, old in existing.items() if column not in added}

    def put_back(copy: sa.Table) -> None:
        for old in old_uniques:
            if old.kind == "old unique constraint":
                copy.append_constraint(sa.UniqueConstraint(name("task_id"), name=op.f(old.name) if old.name else None))

    for entry in record:
        if entry.kind == "index":
            op.drop_index(op.f(entry.name), TABLE, schema=SCHEMA)
    with changes() as table:
        for entry in record:
            if entry.kind == "check":
                table.drop_constraint(op.f(entry.name), type_="check")
    if name("previous_status") in added and name("status") not in added:
        in_batches(placed(TABLE), quote(name("id")), [old_words()], title="old words")
    back = Restored(record, shared)
    with changes(put_back if old_uniques else None) as table:
        for entry in record:
            if entry.kind == "unique":
                table.drop_constraint(op.f(entry.name), type_="unique")
        for column in {*back.types, *back.loose, *back.tight}:
            nullable = column in back.loose or (existing[column].nullable and column not in back.tight)
            alter(table, column, existing[column], type_=back.types.get(column), nullable=nullable)
        for each in added:
            table.drop_column(each)
    for old in old_uniques:
        if old.kind == "old unique index":
            op.create_index(op.f(old.name), TABLE, [name("task_id")], unique=True, schema=SCHEMA)


class Restored:
    """The old types and nullabilities, without those that would lose a value of today."""

    def __init__(self, record: list[Entry], shared: dict[str, Old]) -> None:
        self.types: dict[str, sa.types.TypeEngine[Any]] = {}
        self.loose: list[str] = []
        self.tight: list[str] = []
        self.collations: dict[str, str] = {}
        for column, now in shared.items():
            before = {entry.kind: entry.was for entry in record if entry.name == column}
            if "collation" in before:
                self._compare_as(column, before["collation"])
            type_ = type_of(before.get("type", ""))
            if type_ is not None and not values_fit(column, type_):
                log.warning("%s.%s stays %s: its values need that", TABLE, column, now.type)
            elif type_ is not None:
                self.types[column] = type_
            if "null" in before and not now.nullable:
                self.loose.append(column)
            if "not null" in before and now.nullable:
                if has_rows(sa.column(column).is_(None)):
                    log.warning("%s.%s stays nullable: there are rows without a value", TABLE, column)
                else:
                    self.tight.append(column)

    def _compare_as(self, column: str, collation: str) -> None:
        if collations().get(column) == collation:
            return
        value = sa.collate(sa.column(column), collation)
        same = sa.select(value).select_from(sa.table(TABLE, schema=SCHEMA)).where(value.is_not(None)).group_by(value)
        if op.get_bind().execute(same.having(sa.func.count() > 1).limit(1)).first():
            log.warning("%s.%s is still compared byte for byte: some values would be the same otherwise", TABLE, column)
        elif column in columns_in_foreign_keys():
            log.warning("%s.%s is still compared byte for byte: a foreign key uses it", TABLE, column)
        else:
            self.collations[column] = collation


# --- what an existing table needs ----------------------------------------------------------------------------


class Old(NamedTuple):
    """A column as the database has it."""

    type: sa.types.TypeEngine[Any]
    nullable: bool
    default: str | None = None


class Entry(NamedTuple):
    """Something that is done to the table, and what was there before."""

    kind: str
    name: str
    was: str = ""


class Present(NamedTuple):
    """The parts of ours that a table has."""

    triggers: set[str]
    indexes: set[str]
    checks: set[str]
    unvalidated: set[str]
    unique: bool

    @classmethod
    def found(cls, record: list[Entry]) -> Present:
        """Look, or with `--sql` believe what the record would say."""
        checks = {entry.name for entry in record if entry.kind == "check"}
        if op.get_context().as_sql:
            indexes = {entry.name for entry in record if entry.kind == "index"}
            return cls({trigger("INSERT"), trigger("UPDATE")}, indexes, checks, set(), unique=True)
        bind = op.get_bind()
        inspector = sa.inspect(bind)
        with without_warnings():
            checks = {str(check["name"]) for check in inspector.get_check_constraints(TABLE, schema=SCHEMA)}
            indexes = valid_indexes(TABLE, SCHEMA)
            uniques = {str(unique["name"]) for unique in unique_constraints(inspector)}
        triggers: set[str] = set()
        unvalidated: set[str] = set()
        if dialect() == "postgresql":
            of = "= to_regclass(:table)"
            at = {"table": placed(TABLE)}
            triggers = set(bind.scalars(sa.text(f"SELECT tgname FROM pg_trigger WHERE tgrelid {of}"), at))
            not_valid = f"SELECT conname FROM pg_constraint WHERE conrelid {of} AND NOT convalidated"
            unvalidated = set(bind.scalars(sa.text(not_valid), at))
        elif dialect() == "mysql":
            of_table = "event_object_table = :table AND event_object_schema = coalesce(:schema, database())"
            sql = sa.text(f"SELECT trigger_name FROM information_schema.triggers WHERE {of_table}")
            triggers = set(bind.scalars(sql, {"table": TABLE, "schema": SCHEMA}))
        return cls(triggers, indexes, checks, unvalidated, unique_task_id() in uniques)


def existing_columns(*, downgrade: bool = False) -> dict[str, Old] | None:
    """Return the columns of the table, or None if there is no table."""
    if op.get_context().as_sql:
        return columns_on_the_command_line(downgrade=downgrade)
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table(TABLE, schema=SCHEMA):
        return None
    return {
        column["name"]: Old(column["type"], column["nullable"], column["default"])
        for column in inspector.get_columns(TABLE, schema=SCHEMA)
    }


def columns_on_the_command_line(*, downgrade: bool) -> dict[str, Old] | None:
    said = x_arguments().get("tasks")
    if downgrade and said is None:
        raise CommandError(
            f"Whether {TABLE} was created or was there before cannot be seen with --sql. Add -x contenthub_tasks="
            "created (it will be dropped) or -x contenthub_tasks=id,... with the columns that it had before."
        )
    if said in {None, "created"}:
        return None
    if dialect() == "sqlite":
        raise CommandError(f"SQLite changes {TABLE} by copying it, which --sql cannot do. Run it on the database.")
    types = {column.name: column.type for column in task_columns()}
    columns: dict[str, Old] = {}
    for part in re.split(r",(?![^(]*\))", str(said)):
        match = re.fullmatch(
            r"([^:]+?)(?:\s*:\s*(?P<type>[^:]+?))??(?P<strict>\s+not null)?", part.strip(), re.IGNORECASE
        )
        if match is None or match[1] in columns:
            raise CommandError(
                f"{part.strip()!r} in -x contenthub_tasks is not understood. Name each column of {TABLE} once, as in "
                "id:integer,task_id,status:varchar(20) not null,created_at:timestamp."
            )
        type_ = type_in_words(match["type"]) if match["type"] else types.get(match[1], sa.types.NullType())
        if type(type_) is sa.String:  # whose collation is not the model's
            type_ = sa.String(type_.length)
        columns[match[1]] = Old(type_, nullable=not match["strict"] and match[1] != name("id"))
    if name("id") not in columns:
        raise CommandError(f"-x contenthub_tasks names no column {name('id')}, the primary key that {TABLE} must have.")
    return columns


def type_in_words(words: str) -> sa.types.TypeEngine[Any]:
    match = re.fullmatch(r"([a-z ]+?)\s*(?:\(\s*(\d{1,9})\s*(?:,\s*\d+\s*)?\))?", words.lower())
    kind, length = (match[1], match[2]) if match else ("", None)
    if dialect() == "mysql" and kind in {"datetime", "timestamp"}:
        moment = mysql.DATETIME if kind == "datetime" else mysql.TIMESTAMP
        return moment(fsp=int(length) if length else None)
    type_ = TYPES_IN_WORDS.get(kind)
    is_text = type(type_) is sa.String
    if type_ is None or (dialect() == "mysql" and is_text and not length):
        known = ", ".join(TYPES_IN_WORDS)
        raise CommandError(f"{words!r} in -x contenthub_tasks is not a type that is known here: {known}; varchar(20).")
    return sa.String(int(length)) if is_text and length else type_


class Plan:
    """The changes that an existing table needs; complete before the first of them is made.

    Args:
        existing: the columns of the table.
        before: the record of a first try that broke off.

    Raises:
        CommandError: the table cannot be used.
    """

    def __init__(self, existing: dict[str, Old], before: list[Entry]) -> None:
        own = {name(key) for key in OWN}
        columns = task_columns()
        self.existing = existing
        self.missing = [column for column in columns if column.name not in existing]
        self.added = {column.name for column in self.missing} | {each.name for each in before if each.kind == "column"}
        shared = [column for column in columns if column.name in existing and column.name not in own]
        self.loose = [column for column in shared if column.nullable and not existing[column.name].nullable]
        self.tight = [column for column in shared if not column.nullable and existing[column.name].nullable]
        self.tight += [column for column in self.missing if not column.nullable and key_of(column) not in CONSTANTS]
        done = {entry.name for entry in before if entry.kind in {"null", "stays"}}
        done |= {column.name for column in self.tight}
        strict = [column for column in columns if column.name in done and not column.nullable]
        self.strict = sorted(strict, key=lambda column: column.name in self.added)
        """All that must not be NULL in the end; a first try may have forbidden it already."""
        carry = [column for column in self.missing if key_of(column) in CARRY_CHECKS]
        self.checking = carry if is_mariadb() and len(carry) == len(CARRY_CHECKS) else []
        self.stays = {each.name for each in before if each.kind == "stays"}
        """What may be NULL is left alone here, since MariaDB would rebuild the table; a check forbids what must not."""
        if self.checking:
            self.stays |= {column.name for column in self.tight}
            self.stays |= {column.name for column in self.loose if key_of(column) in GIVEN_BY_THE_HOST}
        self.loose = [column for column in self.loose if column.name not in self.stays]
        self.changes: list[sa.Column[Any]] = []
        self.kept: dict[str, str] = {}
        self.indexes = list(index_columns())
        self.checks = [] if dialect() == "mysql" else list(check_constraints())
        self.helpers: set[str] = set()
        self.unvalidated: list[str] = []
        self.ready: set[str] = set()
        self.touched: list[str] = []
        self.collations: dict[str, str] = {}
        """By column, how names will be compared."""
        self.status_checks: list[str | None] = []
        self.unique = True
        self.old_uniques: list[Entry] = []
        self.wrong: list[str] = []
        for column in shared:
            self._compare(column, existing[column.name])
        if not op.get_context().as_sql:
            with without_warnings():
                self._inspect(sa.inspect(op.get_bind()))
        if self.wrong:
            raise CommandError(
                f"The table {TABLE} cannot become the task table of flask_contenthub_webhook: {'; '.join(self.wrong)}. "
                "Nothing was changed. Rename or convert this in a revision of your own that comes before this one."
            )
        self.record = [*before, *self._entries()]
        log.info("%s: adding %s", TABLE, ", ".join(column.name for column in self.missing) or "no column")

    @classmethod
    def of_nulls(cls, tight: list[str], present: Present) -> Plan:
        """Return a plan that does nothing but forbid NULL."""
        plan = cls.__new__(cls)
        plan.tight = [column for column in task_columns() if column.name in tight]
        plan.checks, plan.unvalidated, plan.helpers = [], [], present.checks
        return plan

    def _entries(self) -> Iterator[Entry]:
        """Yield the planned changes, for the record."""
        yield Entry("adopted", TABLE)
        yield from (Entry("column", column.name) for column in self.missing)
        yield from (Entry("type", column.name, token(self.existing[column.name].type)) for column in self.changes)
        yield from (Entry("not null", column.name) for column in self.loose)
        yield from (Entry("null", column.name) for column in self.tight if column.name not in self.stays)
        yield from (Entry("stays", column) for column in sorted(self.stays))
        yield from (Entry("collation", column, self.compared[column]) for column in self.collations)
        yield from (Entry("index", index) for index in self.indexes)
        yield from (Entry("check", check) for check in self.checks)
        if self.unique:
            yield Entry("unique", unique_task_id())
        yield from self.old_uniques

    def _compare(self, column: sa.Column[Any], old: Old) -> None:
        found = fit(key_of(column), column.type, old.type)
        if found == "wrong":
            self.wrong.append(f"{column.name} is {old.type!r} and not {column.type!r}")
        elif found == "change":
            self.changes.append(column)
        elif found == "keep" or column.name in self.stays:
            may_be = ", and may be NULL for the database, which a check forbids" if old.nullable else ", and NOT NULL"
            self.kept[column.name] = f"{old.type}{may_be if column.name in self.stays else ''}"

    def _inspect(self, inspector: sa.Inspector) -> None:
        key = inspector.get_pk_constraint(TABLE, schema=SCHEMA)["constrained_columns"]
        if key != [name("id")]:
            self.wrong.append(f"its primary key is {', '.join(key) or 'missing'} and not {name('id')}")
        present = Present.found([])
        self.ready = present.triggers | present.indexes
        self.helpers = present.checks
        self.indexes = [index for index in self.indexes if index not in present.indexes]
        self.unvalidated = [check for check in self.checks if check in present.unvalidated]
        self.checks = [check for check in self.checks if check not in present.checks]
        self.status_checks = [
            check["name"]
            for check in inspector.get_check_constraints(TABLE, schema=SCHEMA)
            if check["name"] not in check_constraints() and not str(check["name"]).startswith("contenthub_")
            if self._only_about_status(check["sqltext"])
        ]
        if self.status_checks:
            log.warning("%s: its own CHECK of the status is dropped: %s", TABLE, self.status_checks)
        if dialect() == "mysql":
            lines = str(op.get_bind().execute(sa.text(f"SHOW CREATE TABLE {placed(TABLE)}")).one()[1]).splitlines()
            self.touched = [line.split("`")[1] for line in lines if " ON UPDATE " in line and line.startswith("  `")]
            used = columns_in_foreign_keys()
            for column in [each for each in self.changes if each.name in used]:
                self.changes.remove(column)
                self.kept[column.name] = f"{self.existing[column.name].type}, since a foreign key uses it"
            self._inspect_collations(used)
        if name("task_id") in self.existing:
            self._inspect_unique(inspector)

    def _inspect_collations(self, used: set[str]) -> None:
        """Compare names byte for byte, in their character set, where that neither copies nor stops."""
        self.compared = collations()
        own, changed = {name(key) for key in OWN}, {column.name for column in self.changes}
        for column in [name(key) for key in NAMES_OF_OTHERS]:
            have = self.compared.get(column, "_bin")
            if have.endswith("_bin") or column in own | changed:
                continue
            if column in used:
                self.kept[column] = f"{self.existing[column].type}, compared by {have}, since a foreign key uses it"
            elif is_mariadb() and (op.get_context().dialect.server_version_info or ()) >= CHANGES_COLLATIONS_IN_PLACE:
                self.collations[column] = f"{have.partition('_')[0]}_bin"

    def after_changes(self) -> dict[str, Old]:
        """Return the columns that were there before, with the types that they have got."""
        return self.existing | {each.name: self.existing[each.name]._replace(type=each.type) for each in self.changes}

    def _only_about_status(self, condition: str) -> bool:
        words = set(re.findall(r"\w+", re.sub(r"'[^']*'", "", condition)))
        return words & set(self.existing) == {name("status")}

    def _inspect_unique(self, inspector: sa.Inspector) -> None:
        column = name("task_id")
        constraints = [
            Entry("old unique constraint", constraint["name"] or "")
            for constraint in unique_constraints(inspector)
            if constraint["column_names"] == [column]
        ]
        taken = {entry.name for entry in constraints}
        indexes = [
            Entry("old unique index", str(index["name"]))
            for index in inspector.get_indexes(TABLE, schema=SCHEMA)
            if index["unique"] and index["column_names"] == [column] and index["name"] not in taken
            if not any(option.endswith("_where") for option in index.get("dialect_options", {}))
            if index["name"] != unique_task_id() and (dialect() != "postgresql" or index["name"] in self.ready)
        ]
        self.unique = unique_task_id() not in taken
        if self.unique and "task_id" not in OWN and unique_task_id() not in self.ready:
            self.old_uniques = constraints + indexes if dialect() == "sqlite" else (constraints + indexes)[:1]
        if self.unique and not constraints + indexes:
            task_id: sa.ColumnElement[Any] = sa.column(column)
            several = (
                sa.select(task_id)
                .select_from(sa.table(TABLE, schema=SCHEMA))
                .where(task_id.is_not(None))
                .group_by(task_id)
            )
            if op.get_bind().execute(several.having(sa.func.count() > 1).limit(1)).first():
                self.wrong.append(f"{column} is the same in several rows")


def fit(key: str, want: sa.types.TypeEngine[Any], have: sa.types.TypeEngine[Any]) -> str:
    """Compare a column's type with the model's: `same`, `keep` (it serves as well), `change`, or `wrong`."""
    match want:
        case sa.Boolean() if isinstance(have, sa.Boolean | mysql.TINYINT):
            return "same"
        case sa.Integer() if isinstance(have, sa.Integer):
            return "same" if bits(want) == bits(have) else "keep"
        case sa.Double() if isinstance(have, sa.Double):
            return "same"
        case sa.Double() if isinstance(have, sa.Float | sa.Numeric | sa.Integer):
            return "change"
        case sa.DateTime() if isinstance(have, sa.DateTime):
            if dialect() == "postgresql" and not have.timezone:
                return "keep" if key in ZONE_MAY_BE_MISSING else "change"
            coarse = dialect() == "mysql" and isinstance(have, mysql.DATETIME) and not have.fsp
            otherwise_called = dialect() == "sqlite" and isinstance(have, sa.TIMESTAMP)
            return "keep" if coarse or otherwise_called else "same"
        case sa.JSON() if isinstance(have, sa.JSON) or (dialect() == "mysql" and isinstance(have, mysql.LONGTEXT)):
            return "same"  # MariaDB's JSON is a LONGTEXT
        case sa.String() if isinstance(have, sa.Enum):
            return "change" if key == "status" else "wrong"
        case sa.String() if isinstance(have, sa.String):
            return fit_of_text(key, want, have)
    return "wrong"


def fit_of_text(key: str, want: sa.String, have: sa.String) -> str:
    unlimited = 1 << 31
    has, wants = (unlimited if isinstance(each, sa.Text) else each.length or unlimited for each in (have, want))
    if has < OURS_TO_WRITE.get(key, 0):
        return "change"
    compared_by = {getattr(have, "charset", None) or "utf8mb4", getattr(have, "collation", None) or "utf8mb4_bin"}
    if dialect() == "mysql" and key in {*NAMES_OF_OTHERS, "status"} and compared_by != {"utf8mb4", "utf8mb4_bin"}:
        return "keep"
    if dialect() == "mysql" and want is LongText and not isinstance(have, mysql.MEDIUMTEXT | mysql.LONGTEXT):
        return "keep"
    return "same" if has == wants and isinstance(have, sa.Text) is isinstance(want, sa.Text) else "keep"


def bits(type_: sa.types.TypeEngine[Any]) -> int:
    if type_ is Id and dialect() == "sqlite":
        return 32
    return 64 if isinstance(type_, sa.BigInteger) else 16 if isinstance(type_, sa.SmallInteger) else 32


def values_fit(column: str, type_: sa.types.TypeEngine[Any]) -> bool:
    """Return True if a column can become this type without losing a value."""
    value: sa.ColumnElement[Any] = sa.column(column)
    if isinstance(type_, sa.String) and type_.length:
        return not has_rows(sa.func.length(value) > type_.length)
    return True


def without_a_migration(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Let `op` be there for a hook that `compare_metadata` calls, which a host's own test may do after an upgrade."""

    @wraps(hook)
    def hook_with_op(context: Any, *arguments: Any) -> Any:
        try:
            op.get_context()
        except (NameError, AttributeError):  # as Alembic has it before the first migration, and after it
            with Operations.context(context.migration_context):
                return hook(context, *arguments)
        return hook(context, *arguments)

    return hook_with_op


@without_a_migration
def leave_types(
    _context: Any, change: Any, schema: str | None, table: str, _name: str, column: Any, wanted: Any
) -> Any:
    """Let `flask db check` and `migrate` leave alone what the upgrade has left alone."""
    key = {column_.name: key_of(column_) for column_ in task_columns()}.get(wanted.name)
    if (schema, table) != (SCHEMA, TABLE) or key is None or key in OWN:
        return None
    types = {column_.name: column_.type for column_ in task_columns()}
    if fit(key, types[wanted.name], column.type) != "keep":
        return None
    change.modify_type = None
    return getattr(util, "PriorityDispatchResult", None) and util.PriorityDispatchResult.STOP


@without_a_migration
def leave_nulls(
    _context: Any, change: Any, schema: str | None, table: str, _name: str, column: Any, wanted: Any
) -> Any:
    """Let `flask db check` and `migrate` leave alone where the upgrade has left alone what may be NULL."""
    if (schema, table) != (SCHEMA, TABLE) or column.nullable is wanted.nullable:
        return None
    if Entry("stays", wanted.name) not in read_record():
        return None
    change.existing_nullable, change.modify_nullable = column.nullable, None
    return getattr(util, "PriorityDispatchResult", None) and util.PriorityDispatchResult.STOP


# --- SQLite's copies -----------------------------------------------------------------------------------------


@contextmanager
def rebuilding() -> Iterator[None]:
    """Make it safe that SQLite changes a table by copying it and dropping the old one.

    With foreign keys on, the drop would delete, or be refused for, the rows that refer to it; a crash before the copy
    is renamed would leave no table.
    """
    if dialect() != "sqlite":
        yield
        return
    sqlite = op.get_bind()
    enforced = sqlite.exec_driver_sql("PRAGMA foreign_keys").scalar()
    sqlite.exec_driver_sql("PRAGMA foreign_keys = OFF")
    if sqlite.exec_driver_sql("PRAGMA foreign_keys").scalar() and columns_in_foreign_keys(referring=False):
        raise CommandError(
            f"Foreign keys refer to {TABLE}, and SQLite cannot switch them off inside the transaction that migrations/"
            "env.py has begun. Nothing was changed. Let env.py execute PRAGMA foreign_keys = OFF before that."
        )
    atomic = not getattr(sqlite.connection.dbapi_connection, "in_transaction", True)
    sqlite.exec_driver_sql("PRAGMA legacy_alter_table = ON")  # or views that name the table forbid to rename the copy
    if atomic:
        sqlite.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if atomic:
            sqlite.exec_driver_sql("ROLLBACK")
        raise
    else:
        if atomic:
            sqlite.exec_driver_sql("COMMIT")
    finally:
        sqlite.exec_driver_sql("PRAGMA legacy_alter_table = OFF")
        if enforced:
            sqlite.exec_driver_sql("PRAGMA foreign_keys = ON")


@contextmanager
def changes(edit: Callable[[sa.Table], None] | None = None) -> Iterator[BatchOperations]:
    """Changes of the table, which SQLite makes all in one copy; indexes and triggers are put onto the copy again.

    Args:
        edit: changes what SQLite is to copy, before the other changes.
    """
    if dialect() != "sqlite":
        with op.batch_alter_table(TABLE, schema=SCHEMA) as table:
            yield table
        return
    attached = attached_to_table()
    with without_warnings():
        copy = reflected()
    if edit is not None:
        edit(copy)
    with op.batch_alter_table(TABLE, copy_from=copy, recreate="auto" if edit is None else "always") as table:
        yield table
    for lost in sorted(attached.keys() - attached_to_table().keys()):
        op.get_bind().exec_driver_sql(attached[lost])


def reflected() -> sa.Table:
    """The table as it is in SQLite, with what SQLAlchemy does not see of it."""
    sqlite = op.get_bind()
    table = sa.Table(TABLE, sa.MetaData(), autoload_with=sqlite, resolve_fks=False)
    master = sa.table("sqlite_master", sa.column("name"), sa.column("sql", sa.String))
    sql = sqlite.scalar(sa.select(master.c.sql).where(master.c.name == TABLE)) or ""
    table.dialect_options["sqlite"]["autoincrement"] = "AUTOINCREMENT" in sql.upper()
    for constraint in unique_constraints(sa.inspect(sqlite)):
        if not any(
            isinstance(each, sa.UniqueConstraint) and each.columns.keys() == constraint["column_names"]
            for each in table.constraints
        ):
            table.append_constraint(sa.UniqueConstraint(*constraint["column_names"]))
    for row in sqlite.exec_driver_sql(f"PRAGMA foreign_key_list({quote(TABLE)})").mappings():
        for key in table.foreign_key_constraints:
            if row["from"] in key.column_keys:
                key.ondelete, key.onupdate = (
                    None if row[when] == "NO ACTION" else row[when] for when in ("on_delete", "on_update")
                )
    return table


def attached_to_table() -> dict[str, str]:
    """Indexes and triggers of the table, in SQLite's own words."""
    master = sa.table("sqlite_master", *(sa.column(each, sa.String) for each in ("name", "sql", "type", "tbl_name")))
    mine = sa.select(master.c.name, master.c.sql).where(master.c.tbl_name == TABLE, master.c.sql.is_not(None))
    rows = op.get_bind().execute(mine.where(master.c.type.in_(("index", "trigger"))))
    return {row.name: row.sql for row in rows}


def alter(
    table: BatchOperations,
    column: str,
    old: Old,
    *,
    nullable: bool,
    type_: sa.types.TypeEngine[Any] | None = None,
) -> None:
    options: dict[str, Any] = {} if type_ is None else {"type_": type_}
    table.alter_column(column, existing_type=old.type, existing_nullable=old.nullable, nullable=nullable, **options)


# --- looking at the database ---------------------------------------------------------------------------------


def read_record() -> list[Entry]:
    return [Entry(*row) for row in read_view(RECORD, Entry._fields, SCHEMA)]


def write_record(entries: list[Entry]) -> None:
    first = {(entry.kind, entry.name): entry for entry in reversed(entries)}
    write_view(RECORD, list(reversed(first.values())), SCHEMA)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Of indexes of expressions, which SQLAlchemy does not see; they are none of ours, and put back as they were."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        yield


def columns_in_foreign_keys(*, referring: bool = True) -> set[str]:
    """Return the columns of the table that foreign keys refer to, and those of its own foreign keys."""
    found: set[str] = set()
    for (_, table), keys in sa.inspect(op.get_bind()).get_multi_foreign_keys(schema=SCHEMA).items():
        for key in keys:
            found.update(key["referred_columns"] if key["referred_table"] == TABLE else ())
            found.update(key["constrained_columns"] if referring and table == TABLE else ())
    return found


def unique_constraints(inspector: sa.Inspector) -> list[ReflectedUniqueConstraint]:
    """Those of the table, with the ones that SQLAlchemy does not see in SQLite: `name VARCHAR(36) UNIQUE`."""
    found = list(inspector.get_unique_constraints(TABLE, schema=SCHEMA))
    if dialect() == "sqlite":
        sqlite = op.get_bind()
        for index in sqlite.exec_driver_sql(f"PRAGMA index_list({quote(TABLE)})").mappings().all():
            info = sqlite.exec_driver_sql(f"PRAGMA index_info({quote(index['name'])})").mappings()
            columns = [row["name"] for row in info]
            if index["origin"] == "u" and columns not in [each["column_names"] for each in found]:
                found.append({"name": None, "column_names": columns})
    return found


def has_rows(condition: sa.ColumnElement[bool]) -> bool:
    if op.get_context().as_sql:
        return False
    found = sa.select(sa.literal(1)).select_from(sa.table(TABLE, schema=SCHEMA)).where(condition).limit(1)
    return op.get_bind().execute(found).first() is not None


# --- words ---------------------------------------------------------------------------------------------------


def name(key: str) -> str:
    """Return the name of a column in this host's table."""
    return NAMES.get(key, key)


def key_of(column: sa.Column[Any]) -> str:
    """Return the extension's word for a column."""
    return {host: key for key, host in NAMES.items()}.get(column.name, column.name)


def token(type_: sa.types.TypeEngine[Any]) -> str:
    """Return a type as one word; empty if it could not be restored from that."""
    kind = next((kind for kind, class_ in TYPES.items() if isinstance(type_, class_)), "")
    if kind == "String":
        return "" if isinstance(type_, sa.Enum) else f"String {getattr(type_, 'length', None) or ''}".strip()
    return kind


def type_of(token: str) -> sa.types.TypeEngine[Any] | None:
    kind, _, length = token.partition(" ")
    if not kind:
        return None
    return sa.String(int(length)) if length else TYPES[kind]()


def is_mariadb() -> bool:
    return bool(getattr(op.get_context().dialect, "is_mariadb", False))


def placed(table: str) -> str:
    """Return the quoted name of a table or view, with its schema."""
    return placed_in(table, SCHEMA)


def listed(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


if "subgroup" in inspect.signature(comparators.dispatch_for).parameters:
    comparators.dispatch_for("column", subgroup="types")(leave_types)
    comparators.dispatch_for("column", subgroup="nullable", priority=util.DispatchPriority.FIRST)(leave_nulls)
else:  # Alembic before 1.18
    comparators.dispatch_for("column")(leave_types)
    comparators.dispatch_for("column")(leave_nulls)
