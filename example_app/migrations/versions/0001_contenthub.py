"""ContentHub as it was before callbacks.

The creator was polled, and a task was named by nothing that the creator knew. Times of tasks had no time zone.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
"""MySQL's plain TEXT ends at 64 KiB."""
Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
"""MySQL's plain DATETIME has whole seconds."""
PlainMoment = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("min_quality", sa.Double(), nullable=True),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
    )
    op.create_table(
        "content_generation_tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.String(36), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("topic", sa.String(500), nullable=False),
        sa.Column("requirements", sa.Text(), nullable=True),
        sa.Column("target_audience", sa.String(500), nullable=True),
        sa.Column("keywords", sa.JSON(), nullable=True),
        sa.Column("tone", sa.String(100), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("auto_approve", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error_message", LongText, nullable=True),
        sa.Column("retry_count", sa.Integer(), nullable=False),
        sa.Column("created_at", PlainMoment, nullable=False),
        sa.Column("updated_at", PlainMoment, nullable=True),
        sa.Column("completed_at", PlainMoment, nullable=True),
        sa.Column("timeout_at", PlainMoment, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_content_generation_tasks"),
        sa.UniqueConstraint("task_id", name="uq_content_generation_tasks_task_id"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_content_generation_tasks_account_id"),
    )
    op.create_index("ix_content_generation_tasks_account_id", "content_generation_tasks", ["account_id"])
    op.create_table(
        "contents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.String(36), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(500), nullable=False),
        sa.Column("body", LongText, nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("quality_score", sa.Double(), nullable=True),
        sa.Column("word_count", sa.Integer(), nullable=True),
        sa.Column("review_status", sa.String(20), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("reviewed_at", Moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_contents"),
        sa.ForeignKeyConstraint(["task_id"], ["content_generation_tasks.task_id"], name="fk_contents_task_id"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_contents_account_id"),
        sa.CheckConstraint(
            "review_status IN ('pending_review', 'approved', 'rejected', 'published')",
            name=op.f("ck_contents_review_status"),
        ),
    )
    op.create_index("ix_contents_task_id", "contents", ["task_id"])
    op.create_table(
        "publish_pool",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("content_id", sa.Integer(), nullable=False),
        sa.Column("added_at", Moment, nullable=False),
        sa.Column("published_at", Moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_publish_pool"),
        sa.ForeignKeyConstraint(["content_id"], ["contents.id"], name="fk_publish_pool_content_id"),
    )
    op.create_index("ix_publish_pool_content_id", "publish_pool", ["content_id"])


def downgrade() -> None:
    op.drop_table("publish_pool")
    op.drop_table("contents")
    op.drop_table("content_generation_tasks")
    op.drop_table("accounts")
