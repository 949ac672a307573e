"""New tasks, each with the URL under which its creator calls back."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import select

from .extensions import db, webhook
from .models import Account, GenerationTask


def create_task(account: Account, topic: str, *, base_url: str | None = None, **columns: Any) -> GenerationTask:
    """Write a pending task; the caller commits.

    Args:
        account: for whom; already in the session.
        topic: what to write about.
        base_url: where the creator reaches us; by default WEBHOOK_CALLBACK_BASE_URL.
        **columns: more columns of the task, such as `auto_approve`.
    """
    task_id = str(uuid.uuid4())
    callback_url = webhook.callback_url(task_id, base_url=base_url)
    task = GenerationTask(task_id=task_id, account_id=account.id, topic=topic, callback_url=callback_url, **columns)
    db.session.add(task)
    return task


def account_named(name: str, *, min_quality: float | None = None) -> Account:
    """The account with this name, made where there is none."""
    account = db.session.scalar(select(Account).where(Account.name == name))
    if account is None:
        account = Account(name=name, min_quality=min_quality)
        db.session.add(account)
        db.session.flush()
    return account
