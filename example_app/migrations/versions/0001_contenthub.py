"""ContentHub as it was before callbacks.

The creator was polled, and a task was named by nothing that the creator knew. Times of tasks had no time zone.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("min_quality", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
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
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("retry_count", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=True),
        sa.Column("completed_at", sa.DateTime(), nullable=True),
        sa.Column("timeout_at", sa.DateTime(), nullable=True),
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
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("quality_score", sa.Double(), nullable=True),
        sa.Column("word_count", sa.Integer(), nullable=True),
        sa.Column("review_status", sa.String(20), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reviewed_at", sa.DateTime(timezone=True), nullable=True),
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
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_publish_pool"),
        sa.ForeignKeyConstraint(["content_id"], ["contents.id"], name="fk_publish_pool_content_id"),
    )
    op.create_index("ix_publish_pool_content_id", "publish_pool", ["content_id"])


def downgrade() -> None:
    op.drop_table("publish_pool")
    op.drop_table("contents")
    op.drop_table("content_generation_tasks")
    op.drop_table("accounts")
