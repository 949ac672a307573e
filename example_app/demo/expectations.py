"""The tasks as the database holds them, and the checks that they must pass in the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from example_app.demo.requests import Answer
from example_app.extensions import db, webhook
from example_app.models import AccountNote, Content, Delivery, GenerationTask, PublishPoolEntry
from flask_contenthub_webhook.testing import FORGED_CONTENT, CreatorSimulator, TaskRecord

OPEN = ("pending", "submitted", "processing")
SETTLED = ("completed", "failed", "timeout")
SETTLERS = ("callback", "late", "poll", "answer", "retry", "deadline")
"""What can settle a task: `late` is a callback after we had given up, `answer` the answer to the submission, `retry`
any of them for an attempt after the first."""
ACKNOWLEDGED = {"processed", "duplicate", "ignored", "stale"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A task with its deliveries and contents, oldest first."""

    task: GenerationTask
    deliveries: Sequence[Delivery] = ()
    contents: Sequence[Content] = ()

    def __str__(self) -> str:
        task = self.task
        words: str = task.status
        if task.attempt > 1:
            words += f", attempt {task.attempt}"
        if task.progress_percentage is not None:
            words += f", {task.progress_percentage:g} %"
        return f"{words} ({task.error_code})" if task.status == "failed" else words

    @property
    def is_settled(self) -> bool:
        return self.task.status not in OPEN

    @property
    def settling(self) -> list[Delivery]:
        """The deliveries that brought the task into its final state: exactly one, if all is well."""
        if not self.is_settled:
            return []
        return [it for it in self.deliveries if it.verdict == "processed" and it.status_after == self.task.status]

    @property
    def settled_by(self) -> str | None:
        """One of SETTLERS, or None if nothing settled it."""
        if not self.settling:
            return None
        last = self.settling[-1]
        if last.event == "timed_out":
            return "deadline"
        if self.task.attempt > 1:
            return "retry"
        return "late" if last.late else source_of(last)

    @property
    def attempts(self) -> tuple[str, ...]:
        """The creator's ids of all attempts, the current one last."""
        return (*self.task.earlier_creator_task_ids, self.task.creator_task_id or "")


class Check(NamedTuple):
    """A promise, what was found in the database, and whether the two agree."""

    promise: str
    found: str
    kept: bool


class Part(NamedTuple):
    """A part of the demo that has run.

    Args:
        story: what was tried, in a sentence.
        outcome: what became of it, in a sentence.
        checks: the promises.
        failures: what was not as expected.
    """

    story: str
    outcome: str
    checks: Sequence[Check] = ()
    failures: Sequence[str] = ()


def source_of(delivery: Delivery) -> str:
    return {"webhook": "callback", "response": "answer"}.get(delivery.source, delivery.source)


def load_outcomes(task_ids: Sequence[str]) -> list[Outcome]:
    """Read the tasks in a transaction of its own, in the order of their ids."""
    with Session(db.engine) as session:
        tasks, deliveries, contents = (
            _by_task(session, model, task_ids) for model in (GenerationTask, Delivery, Content)
        )
    return [Outcome(tasks[task_id][0], deliveries[task_id], contents[task_id]) for task_id in task_ids]


def callback_checks(task_ids: Sequence[str], answers: Sequence[Answer]) -> Iterator[Check]:
    """Compare the database with what the server answered."""
    yield from _effect_checks(task_ids)
    history = select(Delivery).where(Delivery.task_id.in_(task_ids), Delivery.verdict.in_(ACKNOWLEDGED))
    failures = _count(history.where(Delivery.verdict == "processed", Delivery.status_after.in_(("failed", "pending"))))
    notes = _count(select(AccountNote).where(AccountNote.task_id.in_(task_ids)))
    yield Check("Every failure was counted and noted, once", f"{failures} failures, {notes} notes", failures == notes)
    acknowledged = sum(word in ACKNOWLEDGED for answer in answers for word in answer.words)
    recorded = _count(history)
    yield Check(
        "Every acknowledged event is in the history",
        f"{acknowledged} acknowledged, {recorded} recorded",
        acknowledged == recorded,
    )
    errors = sum(answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR for answer in answers)
    yield Check("No input caused a server error", f"{len(answers)} requests, {errors} answers of 5xx", errors == 0)


def loop_checks(outcomes: Sequence[Outcome], creator: CreatorSimulator) -> Iterator[Check]:
    """Compare the database with the creator's own records, which know nothing of what reached us."""
    tasks, refused = creator.tasks, set(creator.refused)
    wrong = [
        f"{outcome.task.topic}: {outcome.task.status}, not {true}"
        for outcome in outcomes
        if outcome.task.status != (true := _true_state(outcome, tasks, refused))
    ]
    yield Check(
        "Every task is in the state that the creator's own records imply",
        f"{len(outcomes)} tasks, {len(wrong)} differ{_listed(wrong)}",
        not wrong,
    )
    yield from _effect_checks([outcome.task.task_id for outcome in outcomes])
    forged = [callback for callback in creator.callbacks if callback.forged]
    accepted = sum(callback.delivered for callback in forged)
    foreign = [outcome for outcome in outcomes if not _is_genuine(outcome, tasks)]
    yield Check(
        "No forged callback was accepted, and every content is the creator's own",
        f"{len(forged)} tried, {accepted} accepted, {len(foreign)} foreign contents",
        bool(forged) and not accepted and not foreign,
    )
    unclear = [f"{outcome.task.topic}" for outcome in outcomes if len(outcome.settling) != 1]
    settled = Counter(outcome.settled_by for outcome in outcomes if outcome.settled_by)
    yield Check(
        "Every task was settled once, and the history says by what",
        f"{', '.join(f'{settler} {number}' for settler, number in settled.most_common())}{_listed(unclear)}",
        not unclear,
    )
    submissions, attempts = creator.requests["POST /api/tasks"], len(tasks) + len(refused)
    yield Check(
        "No attempt was submitted twice",
        f"{submissions} submissions, {attempts} attempts, {creator.deaths} crash",
        submissions == attempts and creator.deaths == 1,
    )
    findings = [finding.message for finding in webhook.audit()]
    yield Check(
        "An audit finds no row that breaks a promise", f"{len(findings)} found{_listed(findings)}", not findings
    )


def _effect_checks(task_ids: Sequence[str]) -> Iterator[Check]:
    """Check that every effect of the callbacks is in the database exactly once."""
    tasks, contents = GenerationTask.task_id.in_(task_ids), Content.task_id.in_(task_ids)
    completed = set(
        db.session.scalars(select(GenerationTask.task_id).where(tasks, GenerationTask.status == "completed"))
    )
    with_content = list(db.session.scalars(select(Content.task_id).where(contents)))
    yield Check(
        "Every completed task has one content, no other has any",
        f"{len(completed)} completed, {len(with_content)} contents",
        len(with_content) == len(completed) and set(with_content) == completed,
    )
    approved = _count(select(Content).where(contents, Content.review_status == "approved"))
    pooled = _count(select(PublishPoolEntry).join(Content).where(contents))
    yield Check(
        "Every approved content is in the publish pool, once",
        f"{approved} approved, {pooled} in the pool",
        approved == pooled,
    )


def _true_state(outcome: Outcome, tasks: dict[str, TaskRecord], refused: set[str]) -> str:
    """Return the state a task must be in, whatever reached us: one completed attempt is enough."""
    last = outcome.attempts[-1]
    if any(tasks[it].state == "completed" for it in outcome.attempts if it in tasks):
        return "completed"
    if last in refused:
        return "failed"
    if last not in tasks:
        return "pending"
    if tasks[last].state == "failed":
        return "failed"
    return "timeout" if tasks[last].orphaned else "submitted"


def _is_genuine(outcome: Outcome, tasks: dict[str, TaskRecord]) -> bool:
    records = [tasks[it] for it in outcome.attempts if it in tasks]
    written = {result["content"] for record in records for result in (record.result, record.other_result) if result}
    return all(content.body in written and content.body != FORGED_CONTENT for content in outcome.contents)


def _by_task(session: Session, model: Any, task_ids: Sequence[str]) -> Mapping[str, list[Any]]:
    rows = defaultdict(list)
    for row in session.scalars(select(model).where(model.task_id.in_(task_ids)).order_by(model.id)):
        rows[row.task_id].append(row)
    return rows


def _count(rows: Select[Any]) -> int:
    return db.session.scalar(select(func.count()).select_from(rows.subquery())) or 0


def _listed(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""
