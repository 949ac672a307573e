"""New tasks, each with the URL that its creator calls back."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import select

from .extensions import db, webhook
from .models import Account, GenerationTask

REQUIREMENTS = "An article of about 500 words, with headings."
AUDIENCE = "Everybody"


def has_creator() -> bool:
    """Return whether there is a service to submit tasks to."""
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
    """Order something from the creator, which receives the task right after the commit.

    Args:
        account: the account that it is for, in the session.
        topic: what to write about.
        requirements: how to write it; the creator insists on some.
        target_audience: the readers; the creator insists on some.
        base_url: our address as the creator sees it; by default WEBHOOK_CALLBACK_BASE_URL.
        commit: False leaves the commit to the caller.
        **options: further arguments of `webhook.submit`, such as `auto_approve`.
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
    """Add a task that is not submitted: its creator is anyone who has its URL. The caller commits.

    Args:
        account: the account that it is for, in the session.
        topic: what to write about.
        base_url: our address as the creator sees it; by default WEBHOOK_CALLBACK_BASE_URL.
        **columns: further columns of the task, such as `auto_approve`.
    """
    task_id = str(uuid.uuid4())
    callback_url = webhook.callback_url(task_id, base_url=base_url)
    task = GenerationTask(task_id=task_id, account_id=account.id, topic=topic, callback_url=callback_url, **columns)
    db.session.add(task)
    return task


def account_named(name: str, *, min_quality: float | None = None) -> Account:
    """Return the account with this name, adding it if there is none."""
    account = db.session.scalar(select(Account).where(Account.name == name))
    if account is None:
        account = Account(name=name, min_quality=min_quality)
        db.session.add(account)
        db.session.flush()
    return account
