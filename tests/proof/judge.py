"""What must hold of a task after anything: read from its rows, by somebody who took no part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import sqlalchemy as sa

from flask_contenthub_webhook.core.state_machine import (
    OPEN_STATES,
    TaskState,
    TaskView,
    Trigger,
    decide,
)
from tests.support.host import Host

from .effects import CUSTOM

__all__ = ["Found", "allowed", "audited", "broken", "find"]

_EFFECTS = {
    "completed": "completed",
    "failed": "failed",
    "progress": "progress",
    "cancelled": "cancelled",
    "timed_out": "timed_out",
    CUSTOM: CUSTOM,
}
"""The effect of a processed event, by its type; others have none."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the database holds of a task.

    Args:
        task: its row.
        deliveries: its history, in the order of the ids.
        effects: what its handlers left.
    """

    task: Mapping[str, Any]
    deliveries: Sequence[Mapping[str, Any]]
    effects: Sequence[str]

    @property
    def outcome(self) -> tuple[Any, ...]:
        """What a host sees of it, however it came to be."""
        result = (self.task["result"] or {}).get("content")
        return self.task["status"], self.task["attempt"], result, tuple(sorted(self.effects))

    @property
    def lines(self) -> Iterator[str]:
        """Describe it for a story."""
        task = self.task
        yield f"task: {task['status']}, attempt {task['attempt']}, next poll at {task['next_poll_at']}"
        for row in self.deliveries:
            change = f"{row['status_before']} -> {row['status_after']}"
            yield f"delivery {row['id']}: {row['source']} {row['event']} is {row['verdict']}, {change}"
        yield f"effects: {', '.join(self.effects) or 'none'}"


def find(host: Host, task_id: str) -> Found:
    """Read what there is of a task."""
    tasks = host.state.task_model.__table__
    deliveries, contents = host.state.delivery_model.__table__, host.Content.__table__
    with host.engine.connect() as connection:
        task = connection.execute(sa.select(tasks).where(tasks.c.task_id == task_id)).mappings().one()
        rows = sa.select(deliveries).where(deliveries.c.task_id == task_id).order_by(deliveries.c.id)
        history = connection.execute(rows).mappings().all()
        bodies = sa.select(contents.c.body).where(contents.c.task_id == task_id).order_by(contents.c.id)
        return Found(task, history, connection.execute(bodies).scalars().all())


def broken(found: Found, before: str) -> Iterator[str]:
    """Name the promises that are broken.

    Args:
        found: what there is now.
        before: the status of the task when its history began, or at a moment from which ``found`` has all of it.
    """
    task, status = found.task, TaskState(found.task["status"])
    processed = [row for row in found.deliveries if row["verdict"] == "processed"]
    kinds = Counter(effect.partition(":")[0] for effect in found.effects)
    wanted = Counter(_EFFECTS[row["event"]] for row in processed if row["event"] in _EFFECTS)
    if kinds != wanted:
        yield f"the history tells of the effects {dict(wanted)}, and there are {dict(kinds)}"
    if kinds["completed"] > 1:
        yield f"a task was completed {kinds['completed']} times"
    twice = [effect for effect, count in Counter(found.effects).items() if count > 1]
    if twice:
        yield f"effects were had twice: {', '.join(twice)}"
    if (status is TaskState.COMPLETED) != bool(kinds["completed"]):
        yield f"the task is {status}, and {kinds['completed']} completions had their effect"
    if status is TaskState.COMPLETED and (task["result"] or {}).get("content") not in found.effects:
        yield f"the result {task['result']} is not the one that had its effect"
    if status in OPEN_STATES and task["next_poll_at"] is None:
        yield f"the task is {status}, and nobody will ever ask about it"
    if status is TaskState.PENDING and task["next_submit_at"] is None:
        yield "the task is pending, and nobody will ever submit it"
    if not _explains(processed, before, status):
        changes = [f"{row['status_before']} -> {row['status_after']}" for row in processed]
        yield f"the history ({', '.join(changes)}) does not lead from {before} to {status}"
    for row in found.deliveries:
        if row["verdict"] == "queued" and row["next_retry_at"] is None:
            yield f"delivery {row['id']} waits, and nobody will ever apply it"


def _explains(processed: Sequence[Mapping[str, Any]], before: str, after: str) -> bool:
    """Tell whether some order of the applied events leads from one state to the other, each from the one before."""

    def leads(rows: frozenset[int], state: str) -> bool:
        if not rows:
            return state == after
        return any(
            processed[number]["status_before"] == state and leads(rows - {number}, processed[number]["status_after"])
            for number in rows
        )

    return leads(frozenset(range(len(processed))), before)


def audited(host: Host, *, whole_history: bool = True) -> Iterator[str]:
    """Name what `flask webhook audit` finds in the whole database."""
    with host.app.app_context():
        for finding in host.webhook.audit(whole_history=whole_history):
            yield f"the audit finds {finding}"


def allowed(before: Mapping[str, Any], triggers: Sequence[Trigger], *, max_retries: int) -> set[tuple[str, int]]:
    """Return each status and attempt that the state table allows after these events, in one order or another.

    Args:
        before: the row of the task.
        triggers: the events; callbacks and time-outs are of the first attempt.
        max_retries: of the task.
    """
    ends = set()
    for order in permutations(triggers):
        status, attempt = TaskState(before["status"]), int(before["attempt"])
        for trigger in order:
            view = TaskView(status=status, attempt=attempt, max_retries=max_retries)
            is_current = trigger in {Trigger.CANCELLED, Trigger.RETRY, Trigger.SUBMITTED}
            decision = decide(trigger, view, attempt=None if is_current else 1, percentage=50.0)
            if decision.to is not None and not decision.refused:
                status = decision.to
                attempt += decision.will_retry or trigger is Trigger.RETRY
        ends.add((status.value, attempt))
    return ends
