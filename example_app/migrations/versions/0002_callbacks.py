"""Callbacks: the extension's columns of a task, and the history of deliveries.

Every row is kept. Open tasks are due to be polled at once, because the creator was given no callback URL for them.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TASKS = "content_generation_tasks"
FINISHED = "'completed', 'failed', 'timeout', 'cancelled'"
STATES = f"'pending', 'submitted', 'processing', {FINISHED}"
RENAMED = {"completed_at": "finished_at", "timeout_at": "deadline_at"}
TIMES = {"created_at": False, "updated_at": False, "finished_at": True, "deadline_at": True}
"""Whether they may be NULL."""
COUNTERS = ("attempt", "version", "submit_tries", "polls", "times_missing")

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
PlainMoment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def exact(length: int) -> sa.types.TypeEngine[str]:
    """Return the type of a name: MySQL's texts ignore case and accents."""
    same_bytes = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(same_bytes, "mysql", "mariadb")


def counted() -> bool | None:
    """MySQL must be told again that it counts the rows when the type of `id` changes; elsewhere it is out of place."""
    return True if op.get_context().dialect.name in {"mysql", "mariadb"} else None


def upgrade() -> None:
    add_task_columns()
    fill_task_columns()
    tighten_task_columns()
    create_deliveries()


def add_task_columns() -> None:
    with op.batch_alter_table(TASKS) as tasks:
        for old, new in RENAMED.items():
            tasks.alter_column(old, new_column_name=new, existing_type=PlainMoment, existing_nullable=True)
        tasks.add_column(sa.Column("creator_task_id", exact(255), nullable=True))
        tasks.add_column(sa.Column("creator_name", sa.String(16), nullable=True))
        tasks.add_column(sa.Column("creator_address", sa.String(255), nullable=True))
        tasks.add_column(sa.Column("earlier_creator_task_ids", sa.JSON(), nullable=True))
        tasks.add_column(sa.Column("previous_status", sa.String(16), nullable=True))
        tasks.add_column(sa.Column("attempt", sa.Integer(), nullable=True))
        tasks.add_column(sa.Column("max_retries", sa.Integer(), nullable=True))
        tasks.add_column(sa.Column("timeout_seconds", sa.Integer(), nullable=True))
        tasks.add_column(sa.Column("version", sa.Integer(), nullable=True))
        tasks.add_column(sa.Column("callback_url", sa.String(2048), nullable=True))
        tasks.add_column(sa.Column("callback_events", sa.JSON(), nullable=True))
        tasks.add_column(sa.Column("creator_options", sa.JSON(), nullable=True))
        tasks.add_column(sa.Column("traceparent", sa.String(55), nullable=True))
        tasks.add_column(sa.Column("error_code", sa.String(64), nullable=True))
        tasks.add_column(sa.Column("progress", sa.JSON(), nullable=True))
        tasks.add_column(sa.Column("progress_percentage", sa.Double(), nullable=True))
        tasks.add_column(sa.Column("progress_at", Moment, nullable=True))
        tasks.add_column(sa.Column("next_submit_at", Moment, nullable=True))
        tasks.add_column(sa.Column("submitting_since", Moment, nullable=True))
        tasks.add_column(sa.Column("submit_tries", sa.Integer(), nullable=True))
        tasks.add_column(sa.Column("submitted_at", Moment, nullable=True))
        tasks.add_column(sa.Column("next_poll_at", Moment, nullable=True))
        tasks.add_column(sa.Column("polls", sa.Integer(), nullable=True))
        tasks.add_column(sa.Column("times_missing", sa.Integer(), nullable=True))


def fill_task_columns() -> None:
    op.execute(
        f"UPDATE {TASKS} SET earlier_creator_task_ids = '[]', attempt = retry_count + 1, version = 1, "  # noqa: S608
        "submit_tries = 0, polls = 0, times_missing = 0, updated_at = COALESCE(updated_at, created_at)"
    )
    op.execute(f"UPDATE {TASKS} SET status = 'processing' WHERE status = 'running'")  # noqa: S608 - its old name
    now = "UTC_TIMESTAMP(6)" if op.get_context().dialect.name in {"mysql", "mariadb"} else "CURRENT_TIMESTAMP"
    op.execute(f"UPDATE {TASKS} SET next_poll_at = {now} WHERE status NOT IN ({FINISHED})")  # noqa: S608


def tighten_task_columns() -> None:
    with op.batch_alter_table(TASKS, table_kwargs={"sqlite_autoincrement": True}) as tasks:
        tasks.alter_column(
            "id", existing_type=sa.Integer(), type_=BigId, existing_nullable=False, autoincrement=counted()
        )
        tasks.alter_column("topic", existing_type=sa.String(500), nullable=True)
        tasks.alter_column("priority", existing_type=sa.Integer(), type_=sa.SmallInteger(), existing_nullable=False)
        tasks.alter_column("status", existing_type=sa.String(20), type_=sa.String(16), existing_nullable=False)
        tasks.alter_column("earlier_creator_task_ids", existing_type=sa.JSON(), nullable=False)
        for counter in COUNTERS:
            tasks.alter_column(counter, existing_type=sa.Integer(), nullable=False)
        tasks.alter_column("updated_at", existing_type=PlainMoment, nullable=False)
        for time, nullable in TIMES.items():
            tasks.alter_column(
                time,
                existing_type=PlainMoment,
                existing_nullable=nullable,
                type_=Moment,
                postgresql_using=f"{time} AT TIME ZONE 'UTC'",
            )
        tasks.drop_column("retry_count")
        tasks.create_check_constraint(op.f(f"ck_{TASKS}_status"), f"status IN ({STATES})")
        tasks.create_check_constraint(
            op.f(f"ck_{TASKS}_open_is_polled"), f"status IN ({FINISHED}) OR next_poll_at IS NOT NULL"
        )
    op.create_index(f"ix_{TASKS}_creator_task_id", TASKS, ["creator_task_id"])
    create_waiting_index(TASKS, "next_submit_at")
    create_waiting_index(TASKS, "next_poll_at")
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER SEQUENCE {TASKS}_id_seq AS bigint")


def create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", BigId, nullable=False),
        sa.Column("task_id", exact(255), nullable=True),
        sa.Column("event", sa.String(64), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("scheme", sa.String(16), nullable=True),
        sa.Column("message_id", exact(255), nullable=True),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", LongText, nullable=True),
        sa.Column("failed_tries", sa.JSON(), nullable=True),
        sa.Column("status_before", sa.String(16), nullable=True),
        sa.Column("status_after", sa.String(16), nullable=True),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_retry_at", Moment, nullable=True),
        sa.Column("occurrences", sa.Integer(), nullable=False),
        sa.Column("replay_of", BigId, nullable=True),
        sa.Column("replayed_by", sa.String(255), nullable=True),
        sa.Column("occurred_at", Moment, nullable=True),
        sa.Column("received_at", Moment, nullable=False),
        sa.Column("processed_at", Moment, nullable=True),
        sa.Column("latency_ms", sa.Double(), nullable=True),
        sa.Column("answer_status", sa.Integer(), nullable=True),
        sa.Column("remote_addr", sa.String(64), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=True),
        sa.Column("traceparent", sa.String(55), nullable=True),
        sa.Column("body", Blob, nullable=True),
        sa.Column("body_digest", exact(64), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhook_deliveries_task_id", "webhook_deliveries", ["task_id", "id"])
    create_waiting_index("webhook_deliveries", "next_retry_at")


def create_waiting_index(table: str, column: str) -> None:
    """Create an index of the rows that are due at some time; settled rows, nearly all of them, are not in it."""
    waiting = sa.text(f"{column} IS NOT NULL")
    op.create_index(f"ix_{table}_{column}", table, [column], postgresql_where=waiting, sqlite_where=waiting)


def downgrade() -> None:
    """Go back to polling alone. The tasks stay; the history and all that only callbacks needed are lost."""
    op.drop_table("webhook_deliveries")
    for column in ("creator_task_id", "next_submit_at", "next_poll_at"):
        op.drop_index(f"ix_{TASKS}_{column}", TASKS)
    with op.batch_alter_table(TASKS) as tasks:
        tasks.drop_constraint(op.f(f"ck_{TASKS}_open_is_polled"), type_="check")
        tasks.drop_constraint(op.f(f"ck_{TASKS}_status"), type_="check")
        tasks.add_column(sa.Column("retry_count", sa.Integer(), nullable=True))
    op.execute(f"UPDATE {TASKS} SET retry_count = attempt - 1, topic = COALESCE(topic, '')")  # noqa: S608
    op.execute(f"UPDATE {TASKS} SET status = 'running' WHERE status = 'processing'")  # noqa: S608
    with op.batch_alter_table(TASKS) as tasks:
        tasks.alter_column("retry_count", existing_type=sa.Integer(), nullable=False)
        for time, nullable in TIMES.items():
            tasks.alter_column(
                time,
                existing_type=Moment,
                existing_nullable=nullable,
                type_=PlainMoment,
                postgresql_using=f"{time} AT TIME ZONE 'UTC'",
            )
        tasks.alter_column("updated_at", existing_type=PlainMoment, nullable=True)
        tasks.alter_column("status", existing_type=sa.String(16), type_=sa.String(20), existing_nullable=False)
        tasks.alter_column("priority", existing_type=sa.SmallInteger(), type_=sa.Integer(), existing_nullable=False)
        tasks.alter_column("topic", existing_type=sa.String(500), nullable=False)
        tasks.alter_column(
            "id", existing_type=BigId, type_=sa.Integer(), existing_nullable=False, autoincrement=counted()
        )
        for column in (
            "creator_task_id",
            "creator_name",
            "creator_address",
            "earlier_creator_task_ids",
            "previous_status",
            "attempt",
            "max_retries",
            "timeout_seconds",
            "version",
            "callback_url",
            "callback_events",
            "creator_options",
            "traceparent",
            "error_code",
            "progress",
            "progress_percentage",
            "progress_at",
            "next_submit_at",
            "submitting_since",
            "submit_tries",
            "submitted_at",
            "next_poll_at",
            "polls",
            "times_missing",
        ):
            tasks.drop_column(column)
    with op.batch_alter_table(TASKS) as tasks:
        for old, new in RENAMED.items():
            tasks.alter_column(new, new_column_name=old, existing_type=PlainMoment, existing_nullable=True)
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"ALTER SEQUENCE {TASKS}_id_seq AS integer")
