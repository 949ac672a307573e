"""The decisions that people make about contents, and the pool of contents to publish.

Two people may click at the same moment, so each decision is one UPDATE that names the state it starts from: one of
them wins, and the other is told.
"""

from __future__ import annotations

from sqlalchemy import update

from .extensions import db
from .models import Content, PublishPoolEntry, ReviewStatus, now


class AlreadyDecidedError(Exception):
    """Someone else has already decided, or there is no such content."""


def put_into_pool(content: Content) -> None:
    """Approve a content that is about to be written, or was just claimed by `approve`."""
    content.review_status = ReviewStatus.APPROVED
    content.reviewed_at = now()
    db.session.add(PublishPoolEntry(content=content))


def approve(content_id: int) -> Content:
    """Approve a content that is waiting for review.

    Raises:
        AlreadyDecidedError: it is not waiting for review.
    """
    content = _move(content_id, ReviewStatus.PENDING_REVIEW, ReviewStatus.APPROVED)
    put_into_pool(content)
    db.session.commit()
    return content


def reject(content_id: int) -> Content:
    """Reject a content that is waiting for review; raises as `approve` does."""
    content = _move(content_id, ReviewStatus.PENDING_REVIEW, ReviewStatus.REJECTED)
    content.reviewed_at = now()
    db.session.commit()
    return content


def publish(entry_id: int) -> Content:
    """Publish an entry of the pool; raises as `approve` does."""
    entry = db.session.get(PublishPoolEntry, entry_id)
    if entry is None:
        raise AlreadyDecidedError
    content = _move(entry.content_id, ReviewStatus.APPROVED, ReviewStatus.PUBLISHED)
    entry.published_at = now()
    db.session.commit()
    return content


def _move(content_id: int, old: ReviewStatus, new: ReviewStatus) -> Content:
    moved = db.session.execute(
        update(Content).where(Content.id == content_id, Content.review_status == old).values(review_status=new)
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        db.session.rollback()
        raise AlreadyDecidedError
    return db.session.get_one(Content, content_id, populate_existing=True)
