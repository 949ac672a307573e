"""ContentHub as it was before the extension: its tables, its rows, and its models of today."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import mapped_column

from flask_contenthub_webhook import GenerationTaskMixin
from tests.migration.hosts import MigratingHost

STATUSES = ("pending", "submitted", "processing", "running", "completed", "COMPLETED", "failed", "archived")
TRANSLATED = {"running": "processing", "COMPLETED": "completed", "archived": "failed"}

CREATE = """
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
    )
    op.create_table(
        "content_generation_tasks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("task_id", sa.String(36), nullable=True, unique=True, index=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("topic", sa.String(300), nullable=False),
        sa.Column("requirements", sa.String(2000)),
        sa.Column("target_audience", sa.String(1000)),
        sa.Column("keywords", sa.JSON),
        sa.Column("tone", sa.String(50)),
        sa.Column("priority", sa.Integer, server_default="2"),
        sa.Column("auto_approve", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(20), nullable=False, server_default="pending"),
        sa.Column("result", sa.JSON),
        sa.Column("error_message", sa.Text),
        sa.Column("retry_count", sa.Integer, nullable=False),
        sa.Column("score", sa.Numeric(5, 2)),
        sa.Column("created_at", sa.DateTime),
        sa.Column("updated_at", sa.DateTime),
        sa.Column("completed_at", sa.DateTime),
        sa.CheckConstraint("retry_count >= 0", name="retries_are_counted"),
    )
    op.create_index("by_account", "content_generation_tasks", ["account_id", "created_at"])
    op.create_table(
        "contents",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("task", sa.String(36), sa.ForeignKey("content_generation_tasks.task_id", ondelete="CASCADE")),
        sa.Column("body", sa.Text, nullable=False),
    )
"""
DROP = """
    op.drop_table("contents")
    op.drop_table("content_generation_tasks")
    op.drop_table("accounts")
"""


def models(db: SQLAlchemy) -> Mapping[str, type[Any]]:
    """The shared columns from the mixin, the others as they were."""
    type(
        "Account",
        (db.Model,),
        {
            "__tablename__": "accounts",
            "id": mapped_column(sa.Integer, primary_key=True),
            "name": mapped_column(sa.String(100), nullable=False),
        },
    )
    task: Any = type(
        "Task",
        (GenerationTaskMixin, db.Model),
        {
            "__tablename__": "content_generation_tasks",
            "target_audience": mapped_column(sa.String(1000)),
            "account_id": mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
            "retry_count": mapped_column(sa.Integer, nullable=False, default=0),
            "score": mapped_column(sa.Numeric(5, 2)),
            "completed_at": mapped_column(sa.DateTime),
        },
    )
    sa.Index("by_account", task.account_id, task.created_at)
    type(
        "OldContent",
        (db.Model,),
        {
            "__tablename__": "contents",
            "id": mapped_column(sa.Integer, primary_key=True),
            "task": mapped_column(sa.ForeignKey("content_generation_tasks.task_id", ondelete="CASCADE")),
            "body": mapped_column(sa.Text, nullable=False),
        },
    )
    return {"task_model": task}


def fill(host: MigratingHost, count: int) -> None:
    """`count` tasks in all statuses, every tenth without a task_id, every second completed one with a content."""
    old = sa.MetaData()
    json = (sa.Column("keywords", sa.JSON(none_as_null=True)), sa.Column("result", sa.JSON(none_as_null=True)))
    sa.Table("content_generation_tasks", old, *json, autoload_with=host.engine)  # MariaDB's JSON is a LONGTEXT
    old.reflect(host.engine)
    tasks, contents, accounts = (old.tables[name] for name in ("content_generation_tasks", "contents", "accounts"))
    start = datetime(2025, 3, 1, 12)
    rows = [
        {
            "id": number,
            "task_id": None if number % 10 == 0 else str(uuid.UUID(int=number, version=4)),
            "account_id": 1 + number % 2,
            "topic": f"主题 {number}",
            "requirements": "R" * 50,
            "target_audience": "A" * (700 if number == 1 else 20),
            "keywords": ["a", "键"] if number % 3 else None,
            "tone": "dry",
            "priority": None if number % 7 == 0 else 1 + number % 4,
            "auto_approve": number % 2 == 0,
            "status": STATUSES[number % len(STATUSES)],
            "result": {"content": "C" * 100, "n": number} if "omplet" in STATUSES[number % len(STATUSES)] else None,
            "error_message": None,
            "retry_count": number % 3,
            "score": number % 100 / 4,
            "created_at": None if number % 11 == 0 else start + timedelta(seconds=number),
            "updated_at": start + timedelta(days=1, seconds=number) if number % 5 else None,
            "completed_at": start if number % 2 else None,
        }
        for number in range(1, count + 1)
    ]
    with host.engine.begin() as connection:
        connection.execute(accounts.insert(), [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}])
        connection.execute(tasks.insert(), rows)
        connection.execute(
            contents.insert(),
            [{"task": row["task_id"], "body": "B"} for row in rows if row["status"] == "completed" and row["task_id"]],
        )
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT setval('content_generation_tasks_id_seq', :count)"), {"count": count})
