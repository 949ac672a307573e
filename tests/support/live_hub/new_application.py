"""ContentHub after the update: the same table with the extension's columns, callbacks by the extension."""

from __future__ import annotations

import os
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from flask import Flask, jsonify
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_contenthub_webhook import ContentHubWebhook, GenerationTaskMixin


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(100))


class Task(GenerationTaskMixin, Base):
    __tablename__ = "content_generation_tasks"

    target_audience: Mapped[str | None] = mapped_column(sa.String(1000))
    account_id: Mapped[int] = mapped_column(sa.ForeignKey("accounts.id", ondelete="CASCADE"))
    retry_count: Mapped[int] = mapped_column(default=0)
    score: Mapped[Decimal | None] = mapped_column(sa.Numeric(5, 2))
    completed_at: Mapped[datetime | None] = mapped_column(sa.DateTime)


sa.Index("by_account", Task.account_id, Task.created_at)


class Content(Base):
    __tablename__ = "contents"

    id: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str | None] = mapped_column(sa.ForeignKey("content_generation_tasks.task_id", ondelete="CASCADE"))
    body: Mapped[str] = mapped_column(sa.Text)


def create_app() -> Flask:
    """Return the application: callbacks and polls, and `flask db`."""
    app = Flask(__name__)
    app.config.update(SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"], WEBHOOK_ENABLED=True)
    db.init_app(app)
    Migrate(app, db)
    ContentHubWebhook().init_app(app, db, task_model=Task)

    @app.get("/tasks/<int:number>")
    def show(number: int) -> Any:
        task = db.session.get(Task, number)
        return jsonify(None if task is None else {"task_id": task.task_id, "status": str(task.status)})

    return app
