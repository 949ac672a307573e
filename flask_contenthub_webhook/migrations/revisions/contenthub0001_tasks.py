"""The task table of flask_contenthub_webhook: create it, or complete an existing one.

The rows and other columns of an existing table stay. Missing columns are added and filled, and shared columns get the
type and the nullability of the extension's models, unless a value would be lost. Statuses get the extension's words:
other systems' words are translated, unknown ones become `failed` with the error code UNKNOWN_STATUS, and the old word
is kept in `previous_status`. Open tasks are polled at once, and time out in half an hour if the service does not know
them. Times without a zone are taken for UTC. Nothing else may write to the table meanwhile.

The downgrade undoes exactly what the upgrade did, which is recorded in the database, in a view that selects constants:
it travels with the database, and no migration tool takes it for a table that the models lack.

With `--sql` the database cannot be looked at. Name the columns that the table has, or say that it is (was) created:

    flask db upgrade -x contenthub_tasks=id,task_id,status,topic --sql
    flask db downgrade -x contenthub_tasks=created --sql

Revision ID: contenthub0001
Revises:
"""

# ruff: noqa: C901, D103, PLR0912 - one self-contained script, which the names of its functions explain
from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations
from alembic.util import CommandError
from sqlalchemy.dialects import mysql
from sqlalchemy.engine.interfaces import ReflectedUniqueConstraint

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
MYSQL = ("mysql", "mariadb")
LONGEST_STATUS = 16
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
NEW_UUID = {
    "postgresql": "CAST(gen_random_uuid() AS VARCHAR)",
    "mysql": "uuid()",
    "sqlite": "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-'"
    " || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))",
}
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

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), *MYSQL)
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), *MYSQL)

log = logging.getLogger("alembic.contenthub")


def task_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column(name("id"), Id, nullable=False),
        sa.Column(name("task_id"), sa.String(36), nullable=False),
        sa.Column(name("creator_task_id"), sa.String(255), nullable=True),
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
        sa.Column(name("status"), sa.String(LONGEST_STATUS), nullable=False),
        sa.Column(name("attempt"), sa.Integer(), nullable=False),
        sa.Column(name("max_retries"), sa.Integer(), nullable=True),
        sa.Column(name("timeout_seconds"), sa.Integer(), nullable=True),
        sa.Column(name("version"), sa.Integer(), nullable=False),
        sa.Column(name("callback_url"), sa.String(2048), nullable=True),
        sa.Column(name("callback_events"), sa.JSON(), nullable=True),
        sa.Column(name("creator_options"), sa.JSON(), nullable=True),
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
    status, next_poll_at = quote(name("status")), quote(name("next_poll_at"))
    return {
        op.f(f"ck_{TABLE}_status"): f"{status} IN ({listed(OPEN + TERMINAL)})",
        op.f(f"ck_{TABLE}_open_is_polled"): f"{status} IN ({listed(TERMINAL)}) OR {next_poll_at} IS NOT NULL",
    }


def index_columns() -> dict[str, str]:
    columns = ("creator_task_id", "next_submit_at", "next_poll_at")
    return {op.f(f"ix_{TABLE}_{column}"): name(column) for column in columns}


def create_index(index: str, column: str) -> None:
    if column == name("creator_task_id"):
        op.create_index(index, TABLE, [column], schema=SCHEMA)
        return
    # Only rows that wait for a time are in it; settled ones, nearly all, are not.
    waiting = sa.text(f"{quote(column)} IS NOT NULL")
    op.create_index(index, TABLE, [column], schema=SCHEMA, postgresql_where=waiting, sqlite_where=waiting)


# --- up ------------------------------------------------------------------------------------------------------


def upgrade(engine_name: str = BIND) -> None:
    if engine_name != BIND:
        return
    existing = existing_columns()
    if existing is None:
        create()
        return
    record = read_record()  # of a first try that broke off, where the database cannot roll back
    plan = Plan(existing, added_before={entry.name for entry in record if entry.kind == "column"})
    with rebuilding():
        write_record([*record, *plan.entries()])
        add_and_widen(plan)
        if name("status") in existing:
            translate_statuses(plan)
        fill(plan)
        tighten(plan)
        for index in plan.indexes:
            create_index(index, index_columns()[index])


def create() -> None:
    checks = (sa.CheckConstraint(condition, name=check) for check, condition in check_constraints().items())
    unique = sa.UniqueConstraint(name("task_id"), name=unique_task_id())
    op.create_table(TABLE, *task_columns(), primary_key(), unique, *checks, schema=SCHEMA, sqlite_autoincrement=True)
    for index, column in index_columns().items():
        create_index(index, column)
    write_record([Entry("table", TABLE)])


def add_and_widen(plan: Plan) -> None:
    def leave_out(copy: sa.Table) -> None:
        for check in [each for each in copy.constraints if isinstance(each, sa.CheckConstraint)]:
            if check.name in plan.status_checks:
                copy.constraints.discard(check)

    with changes(leave_out if plan.status_checks else None) as table:
        for check in plan.status_checks if dialect() != "sqlite" else ():
            table.drop_constraint(op.f(str(check)), type_="check")
        for column in plan.missing:
            table.add_column(sa.Column(column.name, column.type, nullable=True))
        for column in plan.shared:
            old = plan.existing[column.name]
            if column.name in plan.early or column in plan.loose:
                type_ = column.type if column.name in plan.early else None
                alter(table, column.name, old, type_=type_, nullable=column in plan.loose or old.nullable)
    if name("id") in plan.early:
        resize_sequence("bigint")


def translate_statuses(plan: Plan) -> None:
    tasks = task_table()
    status, error_code, previous = (tasks.c[name(key)] for key in ("status", "error_code", "previous_status"))
    word = sa.func.lower(sa.func.trim(status))
    known = [each for words in TRANSLATIONS.values() for each in words]
    is_unknown = sa.or_(word.is_(None), word.not_in(known))
    values: list[tuple[Any, Any]] = [
        (error_code, sa.case((is_unknown, sa.literal("UNKNOWN_STATUS")), else_=error_code)),
        # The last, because MySQL assigns from left to right.
        (status, sa.case(*((word.in_(words), state) for state, words in TRANSLATIONS.items()), else_="failed")),
    ]
    if previous.name in plan.added:
        values.insert(0, (previous, sa.case((sa.func.length(status) <= LONGEST_STATUS, status))))
    op.execute(sa.update(tasks).where(sa.or_(status.is_(None), is_foreign(status))).ordered_values(*values))


def fill(plan: Plan) -> None:
    """Give old rows what the models never leave empty."""
    tasks = task_table()
    now: sa.ColumnElement[Any] = sa.literal_column(NOW[dialect()])
    zero: sa.ColumnElement[Any] = sa.literal_column("0")
    status, created_at, updated_at = (tasks.c[name(key)] for key in ("status", "created_at", "updated_at"))
    finished_at, next_poll_at, deadline_at = (
        tasks.c[name(key)] for key in ("finished_at", "next_poll_at", "deadline_at")
    )
    values: dict[str, sa.ColumnElement[Any]] = {
        "task_id": sa.literal_column(NEW_UUID[dialect()]),
        "earlier_creator_task_ids": sa.literal_column("'[]'"),
        "priority": sa.literal_column("2"),
        "auto_approve": sa.false(),
        "status": sa.literal_column("'failed'"),
        "attempt": sa.literal_column("1"),
        "version": sa.literal_column("1"),
        "submit_tries": zero,
        "polls": zero,
        "times_missing": zero,
        "created_at": sa.func.coalesce(updated_at, now),
        "updated_at": sa.func.coalesce(created_at, now),
    }
    changed = {name(key): value for key, value in values.items() if name(key) not in plan.existing}
    changed |= {
        name(key): sa.func.coalesce(tasks.c[name(key)], value)
        for key, value in values.items()
        if name(key) in {column.name for column in plan.tight}
    }
    if changed:
        op.execute(sa.update(tasks).values(changed))
    if finished_at.name in plan.added:
        finished = sa.update(tasks).where(status.in_(TERMINAL), finished_at.is_(None))
        op.execute(finished.values({finished_at: updated_at}))
    due = sa.func.coalesce(next_poll_at, now)
    deadline = sa.func.coalesce(deadline_at, sa.literal_column(IN_HALF_AN_HOUR[dialect()]))
    op.execute(sa.update(tasks).where(status.in_(OPEN)).values({next_poll_at: due, deadline_at: deadline}))


def tighten(plan: Plan) -> None:
    def leave_out(copy: sa.Table) -> None:
        for unique in [each for each in copy.constraints if isinstance(each, sa.UniqueConstraint)]:
            if unique.columns.keys() == [name("task_id")]:
                copy.constraints.discard(unique)

    for old in plan.old_uniques:
        if dialect() == "sqlite" and old.kind == "old unique index":
            op.drop_index(op.f(old.name), TABLE, schema=SCHEMA)
    with changes(leave_out if plan.old_uniques else None) as table:
        for column in plan.missing:
            if not column.nullable:
                alter(table, column.name, Old(column.type, nullable=True), nullable=False)
        for column in plan.shared:
            late = column.name in plan.types - plan.early
            if late or column in plan.tight:
                before = plan.existing[column.name]
                if column.name in plan.early:
                    before = before._replace(type=column.type)
                alter(table, column.name, before, type_=column.type if late else None, nullable=False)
        if plan.unique and (dialect() == "sqlite" or not plan.old_uniques):
            table.create_unique_constraint(unique_task_id(), [name("task_id")])
        for check in plan.checks:
            table.create_check_constraint(check, sa.text(check_constraints()[check]))
    for old in plan.old_uniques if dialect() != "sqlite" else ():
        rename_unique(old, old.name, unique_task_id())


# --- down ----------------------------------------------------------------------------------------------------


def downgrade(engine_name: str = BIND) -> None:
    if engine_name != BIND:
        return
    offline = op.get_context().as_sql
    existing = existing_columns(downgrade=True)
    if offline:
        record = [Entry("table", TABLE)] if existing is None else list(Plan(existing).entries())
        existing = {column.name: Old(column.type, bool(column.nullable)) for column in task_columns()}
    else:
        record = read_record()
    if existing is not None and record:
        if Entry("table", TABLE) in record:
            op.drop_table(TABLE, schema=SCHEMA)
        else:
            with rebuilding():
                undo(record, existing)
    elif existing is not None:
        log.warning("%s stays as it is: there is no record (%s) of what the upgrade did", TABLE, RECORD)
    op.execute(f"DROP VIEW IF EXISTS {placed(RECORD)}")


def undo(record: list[Entry], existing: dict[str, Old]) -> None:
    added = [entry.name for entry in record if entry.kind == "column" and entry.name in existing]
    old_uniques = [entry for entry in record if entry.kind.startswith("old unique")]
    in_place = bool(old_uniques) and dialect() != "sqlite"

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
        tasks = task_table()
        status, previous = tasks.c[name("status")], tasks.c[name("previous_status")]
        op.execute(sa.update(tasks).where(is_foreign(previous)).values({status: previous}))
    with changes(put_back if old_uniques else None) as table:
        for entry in record:
            if entry.kind == "unique" and not in_place:
                table.drop_constraint(op.f(entry.name), type_="unique")
        for column in task_columns():
            if column.name in existing and column.name not in added:
                restore(table, column.name, existing[column.name], record)
        for each in added:
            table.drop_column(each)
    for old in old_uniques:
        if in_place:
            rename_unique(old, unique_task_id(), old.name, back=True)
        elif old.kind == "old unique index":
            op.create_index(op.f(old.name), TABLE, [name("task_id")], unique=True, schema=SCHEMA)


def restore(table: BatchOperations, column: str, now: Old, record: list[Entry]) -> None:
    """Give a column its old type and nullability again, unless a value of today would be lost by it."""
    before = {entry.kind: entry.was for entry in record if entry.name == column}
    type_ = type_of(before.get("type", ""))
    nullable = ("null" in before or now.nullable) and "not null" not in before
    if type_ is not None and not values_fit(column, type_):
        log.warning("%s.%s stays %s: its values need that", TABLE, column, now.type)
        type_ = None
    if not nullable and has_rows(sa.column(column).is_(None)):
        log.warning("%s.%s stays nullable: there are rows without a value", TABLE, column)
        nullable = True
    if type_ is not None or nullable != now.nullable:
        alter(table, column, now, type_=type_, nullable=nullable)
        if type_ is not None and column == name("id"):
            resize_sequence("integer")


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
    environment = op.get_context().environment_context
    arguments = {} if environment is None else environment.get_x_argument(as_dictionary=True)
    said = str(arguments.get("contenthub_tasks", ""))
    if downgrade and not said:
        raise CommandError(
            f"Whether {TABLE} was created or was there before cannot be seen with --sql. Add -x contenthub_tasks="
            "created (it will be dropped) or -x contenthub_tasks=id,... with the columns that it had before."
        )
    if said in {"", "created"}:
        return None
    if dialect() == "sqlite":
        raise CommandError(f"SQLite changes {TABLE} by copying it, which --sql cannot do. Run it on the database.")
    types = {column.name: column.type for column in task_columns()}
    columns = (column.strip() for column in said.split(","))
    return {each: Old(types.get(each, sa.types.NullType()), nullable=each != name("id")) for each in columns}


class Plan:
    """The changes that an existing table needs; complete before the first of them is made.

    Args:
        existing: the columns of the table.
        added_before: those of them that are this revision's work.

    Raises:
        CommandError: the table cannot be used.
    """

    def __init__(self, existing: dict[str, Old], added_before: set[str] | None = None) -> None:
        own = {name(key) for key in OWN}
        columns = task_columns()
        self.existing = existing
        self.missing = [column for column in columns if column.name not in existing]
        self.added = {column.name for column in self.missing} | (added_before or set())
        self.shared = [column for column in columns if column.name in existing and column.name not in own]
        self.loose = [column for column in self.shared if column.nullable and not existing[column.name].nullable]
        self.tight = [column for column in self.shared if not column.nullable and existing[column.name].nullable]
        self.types: set[str] = set()
        self.early: set[str] = set()
        """Types to change before the rows are: all but those that only fit afterwards."""
        self.indexes = list(index_columns())
        self.checks = list(check_constraints())
        self.status_checks: list[str | None] = []
        self.unique = True
        self.old_uniques: list[Entry] = []
        self.wrong: list[str] = []
        if not op.get_context().as_sql:
            with without_warnings():
                self._inspect(sa.inspect(op.get_bind()))
        if self.wrong:
            raise CommandError(
                f"The table {TABLE} cannot become the task table of flask_contenthub_webhook: {'; '.join(self.wrong)}. "
                "Nothing was changed. Rename or convert this in a revision of your own that comes before this one."
            )
        log.info("%s: adding %s", TABLE, ", ".join(column.name for column in self.missing) or "no column")

    def entries(self) -> Iterator[Entry]:
        """Yield the planned changes, for the record."""
        yield Entry("adopted", TABLE)
        yield from (Entry("column", column.name) for column in self.missing)
        yield from (Entry("type", column, token(self.existing[column].type)) for column in sorted(self.types))
        yield from (Entry("not null", column.name) for column in self.loose)
        yield from (Entry("null", column.name) for column in self.tight)
        yield from (Entry("index", index) for index in self.indexes)
        yield from (Entry("check", check) for check in self.checks)
        if self.unique:
            yield Entry("unique", unique_task_id())
        yield from self.old_uniques

    def _inspect(self, inspector: sa.Inspector) -> None:
        key = inspector.get_pk_constraint(TABLE, schema=SCHEMA)["constrained_columns"]
        if key != [name("id")]:
            self.wrong.append(f"its primary key is {', '.join(key) or 'missing'} and not {name('id')}")
        referred = referred_columns()
        for column in self.shared:
            self._compare(column, self.existing[column.name].type, referred)
        present = {index["name"] for index in inspector.get_indexes(TABLE, schema=SCHEMA)}
        self.indexes = [index for index in self.indexes if index not in present]
        checks = {check["name"]: check["sqltext"] for check in inspector.get_check_constraints(TABLE, schema=SCHEMA)}
        self.checks = [check for check in self.checks if check not in checks]
        self.status_checks = [
            check["name"]
            for check in inspector.get_check_constraints(TABLE, schema=SCHEMA)
            if check["name"] not in check_constraints() and self._only_about_status(check["sqltext"])
        ]
        if self.status_checks:
            log.warning("%s: its own CHECK of the status is dropped: %s", TABLE, self.status_checks)
        if name("task_id") in self.existing:
            self._inspect_unique(inspector)

    def _compare(self, column: sa.Column[Any], have: sa.types.TypeEngine[Any], referred: set[str]) -> None:
        is_status = column.name == name("status")
        match fit(column.type, have, translated=is_status):
            case "same":
                return
            case "wrong":
                self.wrong.append(f"{column.name} is {have!r} and not {column.type!r}")
                return
            case "narrow" if is_status:
                self.types.add(column.name)
                return
            case "narrow" if not values_fit(column.name, column.type):
                log.warning("%s.%s stays %s: its values need that", TABLE, column.name, have)
                return
        if dialect() == "mysql" and column.name in referred:
            log.warning("%s.%s stays %s: a foreign key refers to it", TABLE, column.name, have)
            return
        self.types.add(column.name)
        self.early.add(column.name)

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
        ]
        self.unique = unique_task_id() not in taken
        if self.unique and "task_id" not in OWN:
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


def fit(want: sa.types.TypeEngine[Any], have: sa.types.TypeEngine[Any], *, translated: bool = False) -> str:
    """Compare a column's type with the one wanted: `same`, `widen`, `narrow` (if the values allow it), or `wrong`."""
    mysql_ = dialect() == "mysql"
    match want:
        case sa.Boolean() if isinstance(have, sa.Boolean | mysql.TINYINT):
            return "same"
        case sa.Integer() if isinstance(have, sa.Integer):
            return compare(bits(want), bits(have))
        case sa.Double() if isinstance(have, sa.Double):
            return "same"
        case sa.Double() if isinstance(have, sa.Float | sa.Numeric | sa.Integer):
            return "widen"
        case sa.DateTime() if isinstance(have, sa.DateTime):
            naive = dialect() == "postgresql" and not have.timezone
            coarse = mysql_ and isinstance(have, mysql.DATETIME) and not have.fsp
            otherwise_called = dialect() == "sqlite" and isinstance(have, sa.TIMESTAMP)
            return "widen" if naive or coarse or otherwise_called else "same"
        case sa.JSON() if isinstance(have, sa.JSON) or (mysql_ and isinstance(have, mysql.LONGTEXT)):
            return "same"  # MariaDB's JSON is a LONGTEXT
        case sa.String() if isinstance(have, sa.Enum):
            return "widen" if translated else "wrong"
        case sa.Text() if isinstance(have, sa.Text):
            return "widen" if mysql_ and want is LongText and isinstance(have, mysql.TEXT | mysql.TINYTEXT) else "same"
        case sa.Text() if isinstance(have, sa.String):
            return "widen"
        case sa.String() if isinstance(have, sa.String):
            return compare(want.length or 0, have.length or 1 << 31)
    return "wrong"


def compare(want: int, have: int) -> str:
    return "same" if want == have else "widen" if want > have else "narrow"


def bits(type_: sa.types.TypeEngine[Any]) -> int:
    if type_ is Id and dialect() == "sqlite":
        return 32
    return 64 if isinstance(type_, sa.BigInteger) else 16 if isinstance(type_, sa.SmallInteger) else 32


def values_fit(column: str, type_: sa.types.TypeEngine[Any]) -> bool:
    """Return True if a column can become this type without losing a value."""
    value: sa.ColumnElement[Any] = sa.column(column)
    match type_:
        case sa.Text():
            return True
        case sa.String():
            return not has_rows(sa.func.length(value) > type_.length)
        case sa.Integer():
            most = (1 << (bits(type_) - 1)) - 1
            return not has_rows(sa.or_(value > most, value < -most))
    return True


# --- changing the table --------------------------------------------------------------------------------------


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
    if sqlite.exec_driver_sql("PRAGMA foreign_keys").scalar() and referred_columns():
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
    using = None
    options: dict[str, Any] = {"existing_type": old.type, "existing_nullable": old.nullable}
    if dialect() == "mysql":  # it describes the whole column again
        options["existing_server_default"] = None if old.default is None else sa.text(old.default)
        options["existing_autoincrement"] = column == name("id")
    elif dialect() == "postgresql" and isinstance(old.type, sa.Enum):
        using = f"{quote(column)}::text"
        table.alter_column(column, server_default=None)  # it is of the old type
    elif dialect() == "postgresql" and isinstance(type_, sa.DateTime):
        using = f"{quote(column)} AT TIME ZONE 'UTC'"
    if type_ is not None:
        options |= {"type_": type_, "postgresql_using": using}
    table.alter_column(column, nullable=nullable, **options)


def rename_unique(old: Entry, before: str, after: str, *, back: bool = False) -> None:
    """Take over what keeps `task_id` unique, under our name: foreign keys may depend on it."""
    table, before, after = placed(TABLE), quote(before), quote(after)
    if dialect() == "mysql":
        op.execute(f"ALTER TABLE {table} RENAME INDEX {before} TO {after}")
    elif old.kind == "old unique index" and not back:
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {after} UNIQUE USING INDEX {before}")
    else:
        op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {before} TO {after}")


def resize_sequence(type_: str) -> None:
    if dialect() != "postgresql" or op.get_context().as_sql:
        return
    sequence = op.get_bind().scalar(sa.select(sa.func.pg_get_serial_sequence(placed(TABLE), name("id"))))
    if sequence is not None:
        op.execute(f"ALTER SEQUENCE {sequence} AS {type_}")


# --- looking at the database ---------------------------------------------------------------------------------


def read_record() -> list[Entry]:
    if op.get_context().as_sql or RECORD not in sa.inspect(op.get_bind()).get_view_names(schema=SCHEMA):
        return []
    record = sa.table(RECORD, *(sa.column(field) for field in Entry._fields), schema=SCHEMA)
    return [Entry(*row) for row in op.get_bind().execute(sa.select(*record.c))]


def write_record(entries: list[Entry]) -> None:
    first = {(entry.kind, entry.name): entry for entry in reversed(entries)}
    rows = (
        sa.select(*(sa.literal(value, sa.String).label(field) for field, value in entry._asdict().items()))
        for entry in reversed(first.values())
    )
    constants = sa.union_all(*rows).compile(dialect=op.get_context().dialect, compile_kwargs={"literal_binds": True})
    op.execute(f"DROP VIEW IF EXISTS {placed(RECORD)}")
    op.execute(f"CREATE VIEW {placed(RECORD)} AS {constants}")


@contextmanager
def without_warnings() -> Iterator[None]:
    """Of indexes of expressions, which SQLAlchemy does not see; they are none of ours, and put back as they were."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        yield


def referred_columns() -> set[str]:
    """Columns of the table that foreign keys refer to."""
    foreign_keys = sa.inspect(op.get_bind()).get_multi_foreign_keys(schema=SCHEMA)
    return {
        column
        for keys in foreign_keys.values()
        for key in keys
        if key["referred_table"] == TABLE
        for column in key["referred_columns"]
    }


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
    """The name of a column in this host's table."""
    return NAMES.get(key, key)


def task_table() -> sa.TableClause:
    return sa.table(TABLE, *(sa.column(column.name, column.type) for column in task_columns()), schema=SCHEMA)


def is_foreign(status: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """A word that is not exactly one of the extension's; MySQL's usual collations would not tell the case."""
    exact = sa.type_coerce(sa.cast(status, sa.LargeBinary), sa.String) if dialect() == "mysql" else status
    return exact.not_in(OPEN + TERMINAL)


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


def dialect() -> str:
    found: str = op.get_context().dialect.name
    return "mysql" if found in MYSQL else found


def quote(identifier: str) -> str:
    return op.get_context().dialect.identifier_preparer.quote(identifier)


def placed(table: str) -> str:
    """The quoted name of a table or view, with its schema."""
    return quote(table) if SCHEMA is None else f"{quote(SCHEMA)}.{quote(table)}"


def listed(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)
