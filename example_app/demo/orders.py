"""The orders of the second act: forty tasks, and what the creator is to do wrong with which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from example_app.extensions import db, webhook
from example_app.models import Account, GenerationTask
from example_app.tasks import submit_task
from flask_contenthub_webhook.testing import Contradiction, Forgery, TaskFaults

ENDS_WITH_THE_CREATOR = 7
"""Seconds that a task may take which nobody will ever finish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some tasks with which the same goes wrong.

    Args:
        name: their topic.
        wrong: what goes wrong, for people.
        why: the reason why it ends well all the same, for people.
        faults: what goes wrong with the first attempt of each, one after the other.
        copies: how many tasks for each of the faults.
        options: what `webhook.submit` is told beside the topic.
        typical: who is expected to settle such a task; one of those is shown.
    """

    name: str
    wrong: str
    why: str
    faults: Sequence[TaskFaults] = (TaskFaults(),)
    copies: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    typical: str = "callback"

    def plans(self) -> Iterator[TaskFaults]:
        for faults in self.faults:
            yield from [faults] * self.copies


@dataclass(frozen=True, slots=True)
class Order:
    """A task that was submitted, and the part that it plays."""

    part: Part
    task_id: str


BEFORE = (
    Part(
        name="fails once",
        wrong="fails at the first attempt",
        why="A failed attempt is handed over again after its backoff, under a new id and a new URL.",
        faults=[TaskFaults(fail="Request failed with status code 400")],
        copies=2,
        typical="retry",
    ),
    Part(
        name="all is well",
        wrong="nothing",
        why="The callback and the answer to the submission bring the same; whichever is second is a duplicate.",
        copies=6,
    ),
    Part(
        name="lost",
        wrong="its callback is never sent",
        why="After two seconds of silence the poller asks. It is told no score, so a person looks at the content.",
        faults=[TaskFaults(lose=True)],
        copies=5,
        typical="poll",
    ),
    Part(
        name="duplicated",
        wrong="its callback comes twice",
        why="One compare-and-set on the task's row decides; whatever comes second changes nothing.",
        faults=[TaskFaults(duplicate=True)],
        copies=3,
    ),
    Part(
        name="forged",
        wrong="a stranger calls back first",
        why="Without this task's token nothing is believed; the real callback finds the task untouched.",
        faults=[TaskFaults(forge=forgery) for forgery in Forgery],
    ),
    Part(
        name="hopeless",
        wrong="fails at every attempt",
        why="It was given one more attempt, and no third.",
        options={"imageSize": "none", "max_retries": 1},
        typical="retry",
    ),
    Part(
        name="refused",
        wrong="is refused: 400",
        why="The creator will never take this order as it is, so nothing is tried again; its reasons are kept.",
        faults=[TaskFaults(refuse=True)],
        typical="answer",
    ),
)
INTERRUPTED = Part(
    name="interrupted",
    wrong="dies with the creator",
    why="To the creator it is “running” for ever. At its deadline it was asked once more, and then given up.",
    copies=3,
    options={"timeout": ENDS_WITH_THE_CREATOR},
    typical="deadline",
)
AWAY = Part(
    name="nobody there",
    wrong="finds no creator",
    why="Nothing was delivered, so it stays in the outbox; a later sweep hands it over, as the same attempt.",
    copies=3,
)
AFTER = (
    Part(
        name="delayed",
        wrong="its callback is late",
        why="Nobody waited for it: the poller was quicker, and the callback that came then is a duplicate.",
        faults=[TaskFaults(delay=True)],
        copies=3,
        typical="poll",
    ),
    Part(
        name="taken back",
        wrong="completed, then failed",
        why="What is completed stays completed.",
        faults=[TaskFaults(contradict=Contradiction.FAILED_AFTER_COMPLETED)],
    ),
    Part(
        name="two versions",
        wrong="completed twice, differently",
        why="The first one counts. Its effects are there, and may have been published.",
        faults=[TaskFaults(contradict=Contradiction.TWO_COMPLETED)],
    ),
    Part(
        name="changed its mind",
        wrong="failed, then completed",
        why="There was no attempt left, so it had failed. A late result counts; a person looks at it first.",
        faults=[TaskFaults(contradict=Contradiction.FAILED_THEN_COMPLETED)],
        options={"max_retries": 0},
        typical="late",
    ),
    Part(
        name="all is well again",
        wrong="nothing, after the crash",
        why="The outbox held it until the creator was back.",
        copies=7,
    ),
)
PARTS = (*BEFORE, INTERRUPTED, AWAY, *AFTER)

OPEN_TASKS = db.select(GenerationTask.task_id).where(GenerationTask.status.in_(("pending", "submitted", "processing")))


def submit(part: Part, plan: TaskFaults, account: Account, url: str, script: dict[str, TaskFaults]) -> Order:
    """Submit a task. What goes wrong with it is in the script before the creator can hear of it."""
    task: GenerationTask = submit_task(
        account, part.name, auto_approve=True, base_url=url, commit=False, **part.options
    )
    script[task.creator_task_id or ""] = plan
    order = Order(part, task.task_id)
    db.session.commit()
    return order


def hire(name: str) -> Account:
    """An account of the play's own."""
    account = Account(name=name, min_quality=8)
    db.session.add(account)
    db.session.commit()
    return account


def open_tasks() -> list[str]:
    """Tasks of whomever that would be handed to the creator, or asked about."""
    return list(db.session.scalars(OPEN_TASKS))


def cancel(task_ids: Sequence[str]) -> None:
    """The end of an act: what it left open is not the next one's."""
    left = list(db.session.scalars(OPEN_TASKS.where(GenerationTask.task_id.in_(task_ids))))
    db.session.rollback()
    for task_id in left:
        webhook.cancel(task_id)
