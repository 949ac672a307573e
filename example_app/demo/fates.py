"""What became of the tasks of the second act, as our database tells it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from example_app.demo.orders import Order
from example_app.extensions import db
from example_app.models import Content, Delivery, GenerationTask

OPEN = ("pending", "submitted", "processing")
OVER = ("completed", "failed", "timeout")
SETTLERS = ("callback", "late", "poll", "answer", "retry", "deadline")
"""What may have the last word about a task; `late` is a callback after we had
given up, `answer` that to the submission, `retry` any of them about an attempt after the first."""
SOURCES = {"webhook": "callback", "poll": "poll", "response": "answer", "host": "host"}


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event that reached us, and what it did."""

    event: str | None
    source: str
    verdict: str
    status_after: str | None
    late: bool
    error: str | None

    @property
    def settler(self) -> str:
        if self.event == "timed_out":
            return "deadline"
        return "late" if self.late else self.source

    def __str__(self) -> str:
        if self.event == "timed_out":
            return "deadline: given up"
        if self.verdict == "rejected":
            return f"stranger: {self.error}"
        return f"{self.source} {self.event}: {self.verdict}{', late' if self.late else ''}"


@dataclass(frozen=True, slots=True)
class Fate:
    """How one task stands, and how it came to that."""

    order: Order
    status: str
    attempt: int
    error_code: str | None
    creator_ids: tuple[str, ...]
    """The creator's names of all attempts."""
    arrivals: tuple[Arrival, ...]
    contents: tuple[tuple[str, str], ...]
    """Review status and text of each content."""

    @property
    def is_settled(self) -> bool:
        return self.status not in OPEN

    @property
    def settling(self) -> list[Arrival]:
        """What brought the task into the state in which it ended: one event, if all is well."""
        if not self.is_settled:
            return []
        return [it for it in self.arrivals if it.verdict == "processed" and it.status_after == self.status]

    @property
    def settled_by(self) -> str | None:
        if not self.settling:
            return None
        settler = self.settling[-1].settler
        return "retry" if self.attempt > 1 and settler != "deadline" else settler


def fates_of(orders: Sequence[Order]) -> list[Fate]:
    """Look everything up, in the order in which the tasks were submitted."""
    ids = [order.task_id for order in orders]
    found = db.session.scalars(select(GenerationTask).where(GenerationTask.task_id.in_(ids)))
    tasks = {task.task_id: task for task in found}
    arrivals, contents = _arrivals_of(ids), _contents_of(ids)
    fates = [_fate(order, tasks[order.task_id], arrivals, contents) for order in orders]
    db.session.rollback()  # the next look is a new one
    return fates


def _fate(
    order: Order,
    task: GenerationTask,
    arrivals: Mapping[str, Sequence[Arrival]],
    contents: Mapping[str, Sequence[tuple[str, str]]],
) -> Fate:
    return Fate(
        order=order,
        status=task.status,
        attempt=task.attempt,
        error_code=task.error_code,
        creator_ids=(*task.earlier_creator_task_ids, task.creator_task_id or ""),
        arrivals=tuple(arrivals.get(task.task_id, ())),
        contents=tuple(contents.get(task.task_id, ())),
    )


def _arrivals_of(ids: Sequence[str]) -> Mapping[str, Sequence[Arrival]]:
    columns = (Delivery.event, Delivery.source, Delivery.verdict, Delivery.status_after, Delivery.late, Delivery.error)
    history = select(Delivery.task_id, *columns).where(Delivery.task_id.in_(ids)).order_by(Delivery.id)
    arrivals: dict[str, list[Arrival]] = defaultdict(list)
    for task_id, event, source, verdict, status_after, late, error in db.session.execute(history):
        arrivals[str(task_id)].append(Arrival(event, SOURCES.get(source, source), verdict, status_after, late, error))
    return arrivals


def _contents_of(ids: Sequence[str]) -> Mapping[str, Sequence[tuple[str, str]]]:
    written = select(Content.task_id, Content.review_status, Content.body).where(Content.task_id.in_(ids))
    contents: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for task_id, status, body in db.session.execute(written.order_by(Content.id)):
        contents[task_id].append((status, body))
    return contents
