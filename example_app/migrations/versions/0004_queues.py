"""Queues, forwarding and alerts: two nullable columns, two indexes and three tables.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
Name = sa.String(255).with_variant(mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
"""MySQL's texts ignore case and accents."""


def upgrade() -> None:
    op.add_column("content_generation_tasks", sa.Column("forward_to", sa.JSON(), nullable=True))
    op.add_column("webhook_deliveries", sa.Column("claimed_until", Moment, nullable=True))
    index_deliveries()
    create_forwards()
    create_alerts()


def index_deliveries() -> None:
    waiting, unsettled = sa.text("next_retry_at IS NOT NULL"), sa.text("verdict IN ('queued', 'failed', 'dead')")
    op.create_index(
        "ix_webhook_deliveries_waiting",
        "webhook_deliveries",
        ["task_id", "id"],
        postgresql_where=waiting,
        sqlite_where=waiting,
    )
    op.create_index(
        "ix_webhook_deliveries_unsettled",
        "webhook_deliveries",
        ["verdict", "id"],
        postgresql_where=unsettled,
        sqlite_where=unsettled,
    )
    waited = sa.text("latency_ms >= 60000")
    op.create_index(
        "ix_webhook_deliveries_waited",
        "webhook_deliveries",
        ["processed_at"],
        postgresql_where=waited,
        sqlite_where=waited,
    )


def create_forwards() -> None:
    op.create_table(
        "webhook_forwards",
        sa.Column("id", BigId, nullable=False),
        sa.Column("delivery_id", BigId, nullable=False),
        sa.Column("task_id", Name, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("message_id", Name, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", Moment, nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("finished_at", Moment, nullable=True),
        sa.Column("resent_by", sa.String(255), nullable=True),
        sa.Column("resent_at", Moment, nullable=True),
        sa.Column("traceparent", sa.String(55), nullable=True),
        sa.Column("body", Blob, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_forwards"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhook_forwards_delivery_id", "webhook_forwards", ["delivery_id"])
    waiting = sa.text("next_try_at IS NOT NULL")  # what is delivered or dead, nearly all, is not in the index
    op.create_index(
        "ix_webhook_forwards_next_try_at",
        "webhook_forwards",
        ["next_try_at"],
        postgresql_where=waiting,
        sqlite_where=waiting,
    )
    dead = sa.text("status = 'dead'")
    op.create_index(
        "ix_webhook_forwards_dead", "webhook_forwards", ["status"], postgresql_where=dead, sqlite_where=dead
    )
    op.create_table(
        "webhook_forward_attempts",
        sa.Column("id", BigId, nullable=False),
        sa.Column("forward_id", BigId, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("duration_ms", sa.Double(), nullable=True),
        sa.Column("address", sa.String(64), nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("error", LongText, nullable=True),
        sa.Column("request_headers", sa.JSON(), nullable=True),
        sa.Column("response_headers", sa.JSON(), nullable=True),
        sa.Column("response_body", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_forward_attempts"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhook_forward_attempts_forward_id", "webhook_forward_attempts", ["forward_id", "id"])


def create_alerts() -> None:
    op.create_table(
        "webhook_alerts",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("raised", sa.Boolean(), nullable=False),
        sa.Column("changed_at", Moment, nullable=True),
        sa.Column("checked_at", Moment, nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("acknowledged_by", sa.String(255), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_webhook_alerts"),
    )


def downgrade() -> None:
    """Drop the tables and columns. Events still waiting to be forwarded are lost."""
    op.drop_table("webhook_alerts")
    op.drop_table("webhook_forward_attempts")
    op.drop_table("webhook_forwards")
    op.drop_index("ix_webhook_deliveries_waiting", "webhook_deliveries")
    op.drop_index("ix_webhook_deliveries_unsettled", "webhook_deliveries")
    op.drop_index("ix_webhook_deliveries_waited", "webhook_deliveries")
    op.drop_column("webhook_deliveries", "claimed_until")
    op.drop_column("content_generation_tasks", "forward_to")
