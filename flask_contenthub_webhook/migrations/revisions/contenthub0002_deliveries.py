"""The history table of flask_contenthub_webhook: one row for each event that reached the application.

If the table exists and is complete, nothing is done; the downgrade drops it only if the upgrade created it, which is
recorded in the database, in a view that selects a constant.

Revision ID: contenthub0002
Revises:
"""

# ruff: noqa: D103 - one self-contained script, which the names of its functions explain
from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError
from sqlalchemy.dialects import mysql

# --- the engine ---
from .engine import MYSQL, STOPS, Step, check_options, log, quote, read_view, valid_indexes, write_view

# --- end of the engine ---

# --- filled in by `flask webhook migrations install` ---
revision = "contenthub0002"
down_revision: str | None = None
TABLE = "webhook_deliveries"
NAMES: dict[str, str] = {}  # what the host's model calls a column otherwise
SCHEMA: str | None = None
BIND = ""  # the database, where Flask-Migrate upgrades several
# --- end ---
branch_labels = None
depends_on = None

RECORD = f"{TABLE[:40]}_{revision}"

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), *MYSQL)
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), *MYSQL)
Blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), *MYSQL)


def Name(length: int) -> sa.String:  # noqa: N802 - a type
    """Names and digests are compared byte for byte; MySQL's usual collations ignore case and accents."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, *MYSQL)


def delivery_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column(name("id"), Id, nullable=False),
        sa.Column(name("task_id"), Name(255), nullable=True),
        sa.Column(name("event"), sa.String(64), nullable=True),
        sa.Column(name("attempt"), sa.Integer(), nullable=True),
        sa.Column(name("source"), sa.String(16), nullable=False),
        sa.Column(name("scheme"), sa.String(16), nullable=True),
        sa.Column(name("message_id"), Name(255), nullable=True),
        sa.Column(name("verdict"), sa.String(16), nullable=False),
        sa.Column(name("reason"), sa.Text(), nullable=True),
        sa.Column(name("error"), LongText, nullable=True),
        sa.Column(name("failed_tries"), sa.JSON(), nullable=True),
        sa.Column(name("status_before"), sa.String(16), nullable=True),
        sa.Column(name("status_after"), sa.String(16), nullable=True),
        sa.Column(name("late"), sa.Boolean(create_constraint=False), nullable=False),
        sa.Column(name("tries"), sa.Integer(), nullable=False),
        sa.Column(name("next_retry_at"), Moment, nullable=True),
        sa.Column(name("occurrences"), sa.Integer(), nullable=False),
        sa.Column(name("replay_of"), Id, nullable=True),
        sa.Column(name("replayed_by"), sa.String(255), nullable=True),
        sa.Column(name("occurred_at"), Moment, nullable=True),
        sa.Column(name("received_at"), Moment, nullable=False),
        sa.Column(name("processed_at"), Moment, nullable=True),
        sa.Column(name("latency_ms"), sa.Double(), nullable=True),
        sa.Column(name("answer_status"), sa.Integer(), nullable=True),
        sa.Column(name("remote_addr"), sa.String(64), nullable=True),
        sa.Column(name("headers"), sa.JSON(), nullable=True),
        sa.Column(name("traceparent"), sa.String(55), nullable=True),
        sa.Column(name("body"), Blob, nullable=True),
        sa.Column(name("body_digest"), Name(64), nullable=True),
    ]


class Entry(NamedTuple):
    """What the upgrade makes."""

    kind: str
    name: str


def upgrade(engine_name: str = BIND) -> None:
    if engine_name != BIND:
        return
    check_options()
    offline = op.get_context().as_sql
    present: set[str] = set()
    if not offline and sa.inspect(op.get_bind()).has_table(TABLE, schema=SCHEMA):
        keep()
        if not is_ours():
            return
        present = valid_indexes(TABLE, SCHEMA)  # of a first try that broke off, where the database cannot roll back
    else:
        write_view(RECORD, [Entry("table", TABLE)], SCHEMA)
        key = sa.PrimaryKeyConstraint(name("id"), name=op.f(f"pk_{TABLE}"))
        op.create_table(
            TABLE,
            *delivery_columns(),
            key,
            schema=SCHEMA,
            sqlite_autoincrement=True,
            mysql_charset="utf8mb4",
            mariadb_charset="utf8mb4",
        )
    if f"ix_{TABLE}_task_id" not in present:
        op.create_index(op.f(f"ix_{TABLE}_task_id"), TABLE, [name("task_id"), name("id")], schema=SCHEMA)
    if f"ix_{TABLE}_next_retry_at" not in present:
        # Only rows that wait for a time are in it; settled ones, nearly all, are not.
        waiting = sa.text(f"{quote(name('next_retry_at'))} IS NOT NULL")
        op.create_index(
            op.f(f"ix_{TABLE}_next_retry_at"),
            TABLE,
            [name("next_retry_at")],
            schema=SCHEMA,
            postgresql_where=waiting,
            sqlite_where=waiting,
        )


def is_ours() -> bool:
    """Tell whether the upgrade has made the table."""
    return bool(read_view(RECORD, Entry._fields, SCHEMA))


def plan() -> tuple[list[Step], dict[str, str]]:
    """Return the steps of an upgrade of this database, and what it leaves alone."""
    if sa.inspect(op.get_bind()).has_table(TABLE, schema=SCHEMA):
        keep()
        return [], {}
    return [Step(f"make the table {TABLE}", STOPS["nobody yet"], upgrade)], {}


def keep() -> None:
    """The host's own migrations made the table, or a first try of this one did."""
    present = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(TABLE, schema=SCHEMA)}
    missing = [column.name for column in delivery_columns() if column.name not in present]
    if missing:
        raise CommandError(
            f"There is a table {TABLE} already, without the columns {', '.join(missing)}. Nothing was changed. Rename "
            "it in a revision of your own that comes before this one, or give your delivery model another "
            "__tablename__ and install the revision again."
        )
    log.info("%s is there already and stays as it is", TABLE)


def downgrade(engine_name: str = BIND) -> None:
    """Forget the history. A table that was there before the upgrade stays."""
    if engine_name != BIND:
        return
    check_options()
    offline = op.get_context().as_sql
    if not offline and not is_ours():
        log.warning("%s stays as it is: there is no record (%s) that the upgrade made it", TABLE, RECORD)
        return
    if offline or sa.inspect(op.get_bind()).has_table(TABLE, schema=SCHEMA):
        op.drop_table(TABLE, schema=SCHEMA)
    write_view(RECORD, [], SCHEMA)


def name(key: str) -> str:
    """Return the name of a column in this host's table."""
    return NAMES.get(key, key)
