"""The tables of ContentHub.

`GenerationTask` and `Delivery` take their columns from the extension; everything else is ours alone.

There is deliberately no unique constraint on `contents.task_id`: the extension promises exactly one content for each
task, however often its callback comes, and a constraint would hide a broken promise.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, CheckConstraint, DateTime, Double, ForeignKey, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column, relationship

from flask_contenthub_webhook import DeliveryMixin, GenerationTaskMixin

from .extensions import Base, db

if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model


LongText = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
"""A plain TEXT of MySQL ends at 64 KiB, which an article may exceed."""
Moment = DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def now() -> datetime:
    return datetime.now(UTC)


class ReviewStatus(StrEnum):
    PENDING_REVIEW = "pending_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    PUBLISHED = "published"


class Account(Model):
    """A customer for whom contents are written."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    min_quality: Mapped[float | None] = mapped_column(Double)
    """Contents that score less are reviewed by a person, even with `auto_approve`; 1 to 10, None accepts any score."""
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)


class GenerationTask(GenerationTaskMixin, Model):
    """A job for the creator: the extension's columns, and the account that it is for."""

    __tablename__ = "content_generation_tasks"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)


class Delivery(DeliveryMixin, Model):
    """The history of callbacks. All its columns are the extension's; a model of our own makes it easy to query."""

    __tablename__ = "webhook_deliveries"


class Content(Model):
    """The result of a task."""

    __tablename__ = "contents"
    __table_args__ = (
        CheckConstraint(
            f"review_status IN ({', '.join(repr(status.value) for status in ReviewStatus)})", name="review_status"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("content_generation_tasks.task_id"), index=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    title: Mapped[str] = mapped_column(String(500))
    body: Mapped[str] = mapped_column(LongText)
    images: Mapped[list[Any]] = mapped_column(JSON, default=list)
    quality_score: Mapped[float | None] = mapped_column(Double)
    word_count: Mapped[int | None]
    review_status: Mapped[str] = mapped_column(String(20), default=ReviewStatus.PENDING_REVIEW.value)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)
    reviewed_at: Mapped[datetime | None] = mapped_column(Moment)


class PublishPoolEntry(Model):
    """An approved content that is waiting to be published."""

    __tablename__ = "publish_pool"

    id: Mapped[int] = mapped_column(primary_key=True)
    content_id: Mapped[int] = mapped_column(ForeignKey("contents.id"), index=True)
    added_at: Mapped[datetime] = mapped_column(Moment, default=now)
    published_at: Mapped[datetime | None] = mapped_column(Moment)

    content: Mapped[Content] = relationship()


class AccountNote(Model):
    """A message for the people behind an account."""

    __tablename__ = "account_notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("content_generation_tasks.task_id"))
    text: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(Moment, default=now)


ALL = (Account, GenerationTask, Delivery, Content, PublishPoolEntry, AccountNote)
