"""Everything that this application does because of a callback.

Each handler runs in the transaction that changes the task: what it adds to `db.session` is committed together with the
new status. If the handler raises, nothing is committed, and the event is tried again later. So no handler has to check
whether it has run before, and none commits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flask import Flask

from flask_contenthub_webhook import task_cancelled, task_completed, task_failed, task_progress, task_timed_out

from .extensions import db
from .models import Account, AccountNote, Content, GenerationTask
from .review import put_into_pool

MAX_SCORE = 10
MAX_WORDS = 10_000_000

logger = logging.getLogger(__name__)


def connect_handlers(app: Flask) -> None:
    """Connect the handlers to the signals of this application; without `sender` they would receive every app's."""
    task_completed.connect(keep_content, sender=app)
    task_failed.connect(tell_account, sender=app)
    task_timed_out.connect(tell_account_of_timeout, sender=app)
    task_cancelled.connect(tell_account_of_cancellation, sender=app)
    task_progress.connect(log_progress, sender=app)


def keep_content(_app: Flask, *, task: GenerationTask, result: Mapping[str, Any], late: bool, **_extra: Any) -> None:
    """Store the result as a content: approved and in the publish pool, or waiting for a reviewer."""
    content = Content(
        task_id=task.task_id,
        account_id=task.account_id,
        title=title_of(result["content"]) or task.topic or "Untitled",
        body=result["content"],
        images=result.get("images") or [],
        quality_score=plausible(result.get("qualityScore"), MAX_SCORE),
        word_count=plausible(result.get("wordCount"), MAX_WORDS),
    )
    db.session.add(content)
    if is_good_enough(task, content) and not late:  # a person looks first at what we had given up on
        put_into_pool(content)


def tell_account(
    _app: Flask, *, task: GenerationTask, error: Mapping[str, Any], will_retry: bool, **_extra: Any
) -> None:
    """Note a failed attempt for the account."""
    outlook = f"Attempt {task.attempt} follows." if will_retry else "There will be no other attempt."
    note(task, f"“{task.topic}” failed: {error['message']}. {outlook}")


def tell_account_of_timeout(_app: Flask, *, task: GenerationTask, **_extra: Any) -> None:
    note(task, f"“{task.topic}” took too long; we stopped waiting. Should it still come, you will find it in review.")


def tell_account_of_cancellation(_app: Flask, *, task: GenerationTask, **_extra: Any) -> None:
    note(task, f"“{task.topic}” was cancelled.")


def log_progress(_app: Flask, *, task: GenerationTask, progress: Mapping[str, Any], **_extra: Any) -> None:
    """Log the progress, which the extension has already stored in the task's row."""
    logger.info("Task %s is at %s %%", task.task_id, progress["percentage"])


def is_good_enough(task: GenerationTask, content: Content) -> bool:
    """Return whether a content may be published unseen: its task says so, and it scores what the account demands."""
    if not task.auto_approve:
        return False
    demanded = db.session.get_one(Account, task.account_id).min_quality
    return demanded is None or (content.quality_score is not None and content.quality_score >= demanded)


def plausible(number: float | None, maximum: int) -> float | None:
    """Return the number, or None if it is out of range; the column could not store every number."""
    return number if number is not None and 0 <= number <= maximum else None


def title_of(markdown: str) -> str:
    """Return the first heading, or an empty string."""
    headings = (line.lstrip("#").strip() for line in markdown.splitlines() if line.startswith("#"))
    return next(headings, "")[:500]


def note(task: GenerationTask, text: str) -> None:
    db.session.add(AccountNote(account_id=task.account_id, task_id=task.task_id, text=text))
