"""After a restored backup: every open task is due for a question, and none for a submission that nobody asked about."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from ..core.state_machine import TaskState
from .transactions import Database

__all__ = ["Recovered", "ask_about_open_tasks"]


class Recovered(NamedTuple):
    """Numbers of open tasks.

    Args:
        waiting: waited for their submission; the service is asked first, since it may have their jobs.
        submitted: were submitted before the backup; the poller asks about them at once.
    """

    waiting: int
    submitted: int


def ask_about_open_tasks(database: Database, *, since: datetime, now: datetime, time_to_answer: timedelta) -> Recovered:
    """Make the rows of all open tasks say that what they hold may be out of date.

    Args:
        database: the application's database.
        since: the time of the backup; jobs may have been submitted from then on.
        now: the present time, at which everything becomes due.
        time_to_answer: no task is past its deadline before this.
    """
    task = database.task_model
    deadline = sa.case((task.deadline_at < now + time_to_answer, now + time_to_answer), else_=task.deadline_at)
    common = {task.deadline_at: deadline, task.times_missing: 0, task.polls: 0, task.updated_at: now}
    waits = sa.and_(task.status == TaskState.PENDING.value, task.next_submit_at.is_not(None))
    waiting = (
        sa.update(task)
        .where(waits)
        .values({**common, task.submitting_since: sa.func.coalesce(task.submitting_since, since)})
        .values({task.next_submit_at: now, task.submit_tries: 0, task.next_poll_at: now + time_to_answer})
    )
    is_with_service = task.status.in_([TaskState.SUBMITTED.value, TaskState.PROCESSING.value])
    submitted = sa.update(task).where(is_with_service).values({**common, task.next_poll_at: now})

    def write(tx: sa.Connection) -> Recovered:
        return Recovered(tx.execute(waiting).rowcount, tx.execute(submitted).rowcount)

    return database.write(write)
