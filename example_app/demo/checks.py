"""What must be true in the database when the play is over, whatever the single answers were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from sqlalchemy import Select, func, select

from example_app.demo.captures import Answer
from example_app.demo.cast import Role, ids
from example_app.extensions import db
from example_app.models import AccountNote, Content, Delivery, GenerationTask, PublishPoolEntry

BELIEVED = {"processed", "duplicate", "ignored", "stale"}


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, and whether it was kept."""

    promise: str
    found: str
    kept: bool


def checks(roles: Sequence[Role], answers: Sequence[Answer]) -> Iterator[Check]:
    """Compare the database with what was promised and answered."""
    tasks = ids(roles)
    yield from effects(tasks)
    history = select(Delivery).where(Delivery.task_id.in_(tasks), Delivery.verdict.in_(BELIEVED))
    failures = count(history.where(Delivery.verdict == "processed", Delivery.status_after.in_(("failed", "pending"))))
    notes = count(select(AccountNote).where(AccountNote.task_id.in_(tasks)))
    yield Check("Every failure was counted and noted, once", f"{failures} failures, {notes} notes", failures == notes)
    acknowledged = sum(word in BELIEVED for answer in answers for word in answer.words)
    recorded = count(history)
    yield Check(
        "Every acknowledged event is in the history",
        f"{acknowledged} acknowledged, {recorded} recorded",
        acknowledged == recorded,
    )
    errors = sum(answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR for answer in answers)
    yield Check("No input made a server error", f"{len(answers)} requests, {errors} answers of 5xx", errors == 0)


def effects(tasks: Sequence[str]) -> Iterator[Check]:
    """What callbacks brought is there once, of whatever tasks."""
    of_ours = GenerationTask.task_id.in_(tasks)
    completed = set(
        db.session.scalars(select(GenerationTask.task_id).where(of_ours, GenerationTask.status == "completed"))
    )
    contents = list(db.session.scalars(select(Content.task_id).where(Content.task_id.in_(tasks))))
    yield Check(
        "Every completed task has one content, no other has any",
        f"{len(completed)} completed, {len(contents)} contents",
        len(contents) == len(completed) and set(contents) == completed,
    )
    approved = count(select(Content).where(Content.task_id.in_(tasks), Content.review_status == "approved"))
    pooled = count(select(PublishPoolEntry).join(Content).where(Content.task_id.in_(tasks)))
    yield Check(
        "Every approved content is in the publish pool, once",
        f"{approved} approved, {pooled} in the pool",
        approved == pooled,
    )


def count(rows: Select[Any]) -> int:
    return db.session.scalar(select(func.count()).select_from(rows.subquery())) or 0
