"""Notes for an account, written when its tasks fail.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Moment = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.create_table(
        "account_notes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.String(36), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account_notes"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_account_notes_account_id"),
        sa.ForeignKeyConstraint(["task_id"], ["content_generation_tasks.task_id"], name="fk_account_notes_task_id"),
    )
    op.create_index("ix_account_notes_account_id", "account_notes", ["account_id"])


def downgrade() -> None:
    op.drop_table("account_notes")
