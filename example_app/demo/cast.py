"""The tasks of the play, and how they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from example_app.extensions import db
from example_app.models import Account, Content, GenerationTask, now
from example_app.tasks import create_task

TASKS: dict[str, dict[str, Any]] = {
    "article": {"auto_approve": True},
    "essay": {},
    "retried": {},
    "flaky": {"auto_approve": True},
    "hopeless": {"max_retries": 0},
    "contradicted": {"auto_approve": True},
    "turned": {"auto_approve": True, "max_retries": 0},
    "timed out": {"auto_approve": True, "status": "timeout", "next_poll_at": None},
    "empty-handed": {"auto_approve": True},
    "target": {"auto_approve": True},
    "batch 1": {},
    "batch 2": {},
    "batch 3": {},
    "batch 4": {},
    "crowd": {"auto_approve": True},
}
"""Each task's topic, and what is special about it. Only a row that is made may be given a status: from then on it is
the extension's."""


@dataclass(frozen=True, slots=True)
class Role:
    """A task of the play: our id, and the URL that its creator was given."""

    topic: str
    task_id: str
    url: str


Cast = dict[str, Role]


def engage(base_url: str) -> Cast:
    """Write the tasks, for an account of their own."""
    account = Account(name=f"Demo of {now():%Y-%m-%d %H:%M:%S.%f}", min_quality=8)
    db.session.add(account)
    db.session.flush()
    cast = {}
    for topic, columns in TASKS.items():
        task = create_task(account, topic, base_url=base_url, **columns)
        cast[topic] = Role(topic, task.task_id, task.callback_url or "")
    db.session.commit()
    return cast


def states_of(roles: Sequence[Role]) -> list[str]:
    """How the tasks stand in the database, in words."""
    found = db.session.scalars(select(GenerationTask).where(GenerationTask.task_id.in_(ids(roles)))).all()
    tasks = {task.task_id: task for task in found}
    return [_in_words(tasks[role.task_id]) for role in roles]


def contents_of(roles: Sequence[Role]) -> list[str]:
    """The review statuses of the contents that the tasks have, in the order in which they were written."""
    statuses = select(Content.review_status).where(Content.task_id.in_(ids(roles))).order_by(Content.id)
    return list(db.session.scalars(statuses))


def ids(roles: Sequence[Role]) -> list[str]:
    return [role.task_id for role in roles]


def _in_words(task: GenerationTask) -> str:
    words: str = task.status
    if task.attempt > 1:
        words += f", attempt {task.attempt}"
    if task.progress_percentage is not None:
        words += f", {task.progress_percentage:g} %"
    if task.status == "failed":
        words += f" ({task.error_code})"
    return words
