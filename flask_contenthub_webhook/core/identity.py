"""Whose event it is: does it belong to the task that it was sent to, and for which attempt does it speak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import TaskMismatch
from .received import Inbound

if TYPE_CHECKING:
    from ..storage.rows import Row

__all__ = ["attempt_spoken_for", "check_belongs"]


def check_belongs(inbound: Inbound, task: Row) -> None:
    """Where nothing but the payload says whose event it is, the payload must name the task.

    Raises:
        TaskMismatch: it names another.
    """
    if inbound.bound_to_task:
        return
    names = {task["task_id"], task["creator_task_id"], *(task["earlier_creator_task_ids"] or ())}
    if inbound.event.task_id not in names:
        raise TaskMismatch


def attempt_spoken_for(inbound: Inbound, task: Row) -> int | None:
    """The attempt that the event speaks for; None speaks for the current one.

    The ``attempt`` of a URL is vouched for by its token alone. Where a signature vouches for the body, a creator's
    name of an attempt in it counts, and an old body cannot be made to speak for a newer attempt.
    """
    earlier = list(task["earlier_creator_task_ids"] or ())
    if inbound.bound_to_task or inbound.event.task_id not in {task["creator_task_id"], *earlier}:
        return inbound.attempt
    if inbound.event.task_id == task["creator_task_id"]:
        return int(task["attempt"])
    return int(task["attempt"]) - len(earlier) + earlier.index(inbound.event.task_id)
