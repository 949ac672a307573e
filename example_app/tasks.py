"""New tasks, each with the URL under which its creator calls back."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import select

from .extensions import db, webhook
from .models import Account, GenerationTask

REQUIREMENTS = "An article of about 500 words, with headings."
AUDIENCE = "Everybody"


def has_creator() -> bool:
    """Whether there is a service that tasks can be submitted to."""
    settings = webhook.settings
    return bool(settings.creator_base_url or settings.creator_cli_path)


def submit_task(
    account: Account,
    topic: str,
    *,
    requirements: str = "",
    target_audience: str = "",
    base_url: str | None = None,
    commit: bool = True,
    **options: Any,
) -> GenerationTask:
    """Order something from the creator; it gets to know of it right after the commit.

    Args:
        account: for whom; already in the session.
        topic: what to write about.
        requirements: how; the creator takes no order without.
        target_audience: for whom; the creator takes no order without.
        base_url: where the creator reaches us; by default WEBHOOK_CALLBACK_BASE_URL.
        commit: False leaves the commit to the caller.
        **options: what else `webhook.submit` takes, such as `auto_approve`.
    """
    task: GenerationTask = webhook.submit(
        topic=topic,
        requirements=requirements or REQUIREMENTS,
        target_audience=target_audience or AUDIENCE,
        callback_url=base_url,
        task_fields={"account_id": account.id},
        commit=commit,
        **options,
    )
    return task


def create_task(account: Account, topic: str, *, base_url: str | None = None, **columns: Any) -> GenerationTask:
    """Write a task that is handed to nobody: whoever has its URL is its creator. The caller commits.

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
