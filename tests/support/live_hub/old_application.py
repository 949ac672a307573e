"""ContentHub before the extension: naive times, its own status words, callbacks by hand."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from flask import Flask, jsonify, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

OPEN = ("pending", "submitted", "processing", "running")


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Task(Base):
    """A row of the table as the old code knows it."""

    __tablename__ = "content_generation_tasks"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str | None] = mapped_column(sa.String(36))
    account_id: Mapped[int]
    topic: Mapped[str] = mapped_column(sa.String(300))
    requirements: Mapped[str | None] = mapped_column(sa.String(2000))
    target_audience: Mapped[str | None] = mapped_column(sa.String(1000))
    keywords: Mapped[Any] = mapped_column(sa.JSON)
    tone: Mapped[str | None] = mapped_column(sa.String(50))
    priority: Mapped[int | None] = mapped_column(server_default="2")
    auto_approve: Mapped[bool]
    status: Mapped[str] = mapped_column(sa.String(20), server_default="pending")
    result: Mapped[Any] = mapped_column(sa.JSON)
    error_message: Mapped[str | None] = mapped_column(sa.Text)
    retry_count: Mapped[int] = mapped_column(default=0)
    score: Mapped[Decimal | None] = mapped_column(sa.Numeric(5, 2))
    created_at: Mapped[datetime | None] = mapped_column(sa.DateTime)
    updated_at: Mapped[datetime | None] = mapped_column(sa.DateTime)
    completed_at: Mapped[datetime | None] = mapped_column(sa.DateTime)


# --- what the old code does to the table, each in a transaction -----------------------------------------------


def insert(session: Session, **values: Any) -> Task:
    """Add a task with what the table requires, and these values."""
    task = Task(account_id=1, topic="New", auto_approve=False, **values)
    session.add(task)
    session.commit()
    return task


def insert_whole(session: Session) -> Task:
    """Add a task with a value in every column that a new one has."""
    now = datetime.now()
    values = {"requirements": "R" * 300, "target_audience": "A", "keywords": ["a"], "tone": "dry", "priority": 1}
    return insert(session, task_id=str(uuid.uuid4()), status="pending", created_at=now, updated_at=now, **values)


def change(session: Session, task: Task, **values: Any) -> Task:
    """Write these values."""
    for name, value in {"updated_at": datetime.now(), **values}.items():
        setattr(task, name, value)
    session.commit()
    return task


def complete(session: Session, task: Task, status: str = "completed") -> Task:
    now = datetime.now()
    return change(session, task, status=status, result={"content": "C" * 100}, completed_at=now, score=Decimal("7.5"))


def delete(session: Session, task: Task) -> Task:
    session.delete(task)
    session.commit()
    return task


INSERTS: Mapping[str, Callable[[Session], Task]] = {
    "a whole pending row": insert_whole,
    "only what the table requires": insert,
    "without a task_id, submitted": lambda session: insert(session, status="submitted"),
    "as running": lambda session: insert(session, status="running", task_id=str(uuid.uuid4())),
    "as COMPLETED": lambda session: insert(session, status="COMPLETED", result={"content": "C"}),
    "as failed": lambda session: insert(session, status="failed", error_message="E", retry_count=3),
    "as archived": lambda session: insert(session, status="archived"),
    "without a priority": lambda session: insert(session, priority=sa.null()),
}
CHANGES: tuple[tuple[str, Callable[[Session, Task], Task]], ...] = (
    ("pending -> submitted", lambda session, task: change(session, task, status="submitted")),
    ("submitted -> processing", lambda session, task: change(session, task, status="processing")),
    ("processing -> running", lambda session, task: change(session, task, status="running")),
    ("a note while it runs", lambda session, task: change(session, task, tone="wet", priority=3)),
    ("running -> failed", lambda session, task: change(session, task, status="failed", error_message="E")),
    ("failed -> pending", lambda session, task: change(session, task, status="pending", retry_count=1)),
    ("pending -> completed", complete),
    ("completed -> COMPLETED", lambda session, task: change(session, task, status="COMPLETED")),
    ("COMPLETED -> archived", lambda session, task: change(session, task, status="archived")),
    ("archived -> running", lambda session, task: change(session, task, status="running")),
    ("running -> COMPLETED", lambda session, task: complete(session, task, "COMPLETED")),
    ("a priority taken away", lambda session, task: change(session, task, priority=None)),
    ("the row", delete),
)
"""In this order, on one task that `insert_whole` has made."""
READS: Mapping[str, sa.Executable] = {
    "by id": sa.select(Task).where(Task.id == 3),
    "by task_id": sa.select(Task).where(Task.task_id == "00000000-0000-4000-8000-000000000003"),
    "the newest of an account": sa.select(Task).where(Task.account_id == 1).order_by(Task.created_at.desc()).limit(20),
    "those that wait": sa.select(Task).where(Task.status.in_(OPEN)).order_by(Task.id.desc()).limit(20),
    "the newest": sa.select(Task).order_by(Task.id.desc()).limit(20),
}


def create_app() -> Flask:
    """Return the application: callbacks and polls."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    db.init_app(app)

    @app.post("/api/v1/content/callback/<task_id>")
    def callback(task_id: str) -> Any:
        task = db.session.scalars(sa.select(Task).where(Task.task_id == task_id)).one_or_none()
        if task is None:
            return jsonify(success=False), 404
        complete(db.session(), task)
        return jsonify(success=True, data=request.get_json()["taskId"])

    @app.get("/tasks/<int:number>")
    def show(number: int) -> Any:
        task = db.session.get(Task, number)
        return jsonify(None if task is None else {"task_id": task.task_id, "status": task.status})

    return app
