"""The rule for jobs that no open task wants: what learns of one cancels it.

A job is a stray once its task has ended without it, or has gone on to another attempt. It shows itself by an event of
its own, by the answer to its submission, or because the task ends while it runs. A task that ended like that keeps its
``next_poll_at`` until the service has been told, so that a crash in between forgets nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from ..core.events import LOST_BY_CREATOR, SUBMISSION_UNANSWERED, Progress
from ..core.logs import get_logger
from ..core.received import ReceivedEvent, Row
from ..core.state_machine import OPEN_STATES, Decision, TaskState, Trigger, Verdict
from ..creators.holds import LeftAlone
from ..creators.protocol import Job, RemoteState
from ..errors import CreatorError, CreatorRefused
from ..storage.failure_log import log_failure
from .task_changes import attempt_timeout, due_at

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..creators.guarded import GuardedCreator
    from ..runtime.state import WebhookState

__all__ = [
    "Strays",
    "all_names",
    "earlier_names",
    "give_up_after_a_day",
    "is_owned",
    "names_of_strays",
    "not_told_lately",
    "remember_name",
    "stop_strays",
    "until_over",
    "until_told",
]

logger = get_logger(__name__)

_MOST_EARLIER = 3
_PATIENCE = timedelta(days=1)
_ENDED_BY_US = {Trigger.CANCELLED, Trigger.TIMED_OUT}


class Strays(NamedTuple):
    """Jobs that the service is to be told of once the transaction has ended."""

    task: Row
    names: Sequence[str]
    current: bool

    def stop_soon(self, state: WebhookState) -> None:
        """Cancel them, in another thread where there is one."""
        state.submit_threads.submit_or_run(partial(stop_strays, state, self.task, self.names, current=self.current))


def names_of_strays(received: ReceivedEvent, decision: Decision, task: Row, attempt: int | None) -> Sequence[str]:
    """Return the names of the jobs that an event shows to be strays, as the service knows them.

    Args:
        received: the event.
        decision: its effect.
        task: the task's row after it.
        attempt: the attempt that the event belongs to; None means the current one.
    """
    if decision.verdict is Verdict.DUPLICATE:
        return ()
    if attempt is not None and attempt > task["attempt"]:
        return ()  # the row is older than the world, from a restored backup
    is_current = attempt is None or attempt == task["attempt"]
    if isinstance(received.event, Progress):
        is_wanted = is_current and task["status"] in {*OPEN_STATES, TaskState.COMPLETED}
        return () if is_wanted else _names(received, task, attempt)
    if decision.verdict is not Verdict.PROCESSED or decision.to is None or decision.to in OPEN_STATES:
        return ()
    if received.trigger in _ENDED_BY_US:
        may_run = task["submitted_at"] is not None or task["previous_status"] == TaskState.PROCESSING
        if may_run and task["creator_task_id"]:
            return (task["creator_task_id"],)
        return earlier_names(task) if task["submitting_since"] is None else ()
    ended_by_another = not is_current and task["previous_status"] in OPEN_STATES
    return (task["creator_task_id"],) if ended_by_another and task["creator_task_id"] else ()


def until_told(trigger: Trigger, task: Row, settings: Settings, now: datetime) -> Mapping[str, Any]:
    """Return the columns that keep a task due, when it ends by our decision, until the service has been told.

    Args:
        trigger: the cause of the end.
        task: the row before it.
        settings: the application's configuration.
        now: the time of the change.
    """
    was_handed_over = (
        task["submitted_at"] is not None
        or task["submitting_since"] is not None
        or task["status"] == TaskState.PROCESSING
    )
    if trigger not in _ENDED_BY_US or not (was_handed_over or earlier_names(task)):
        return {}
    end_of_call = task["next_submit_at"] or now
    return {"next_poll_at": max(now, end_of_call) + settings.poll_grace, "polls": 0}


def until_over(trigger: Trigger, task: Row, settings: Settings, now: datetime) -> Mapping[str, Any]:
    """Return the columns that let the host's next attempt wait for a job that may run, and that cannot be looked up.

    Args:
        trigger: the cause of the attempt.
        task: the row before it.
        settings: the application's configuration.
        now: the time of the change.
    """
    if trigger is not Trigger.RETRY or task["submitting_since"] is None:
        return {}
    return due_at(max(now, task["submitting_since"] + attempt_timeout(task, settings)), task, settings)


def is_owned(task: Row | None, *, attempt: int, name: str) -> bool:
    """Tell whether a job that was just accepted is the current one of an open task, or has ended.

    Args:
        task: the row as it is now; None if the task is gone.
        attempt: the attempt that was submitted.
        name: the service's name of the job.
    """
    if task is None or task["attempt"] != attempt:
        return False
    if task["status"] in OPEN_STATES:
        return bool(task["creator_task_id"] == name)
    if task["status"] == TaskState.FAILED:  # by the service's own word, or since its answer took too long
        return bool(task["error_code"] != SUBMISSION_UNANSWERED)
    # Of a second attempt the first may have completed the task meanwhile.
    return bool(task["status"] == TaskState.COMPLETED and attempt == 1)


def stop_strays(state: WebhookState, task: Row, names: Sequence[str], *, current: bool = False) -> bool:
    """Cancel jobs at the service, which may go on and report all the same; call it outside transactions.

    Args:
        state: the application's state.
        task: the task that they were submitted for.
        names: the service's names of them.
        current: one of them is that of the task's last attempt, so that the task need no longer be due.

    Returns:
        True if the service was told of all of them; the log has the rest.
    """
    service = state.service_for(task)
    if current and service is not None and service.pause.is_on():
        return False  # the poller tells it later
    told = [_stop(state, task, name) for name in dict.fromkeys(names)]
    if current and all(told):
        _forget(state, task)
    return all(told)


def give_up_after_a_day(state: WebhookState, task: Row, now: datetime) -> None:
    """Stop trying to tell the service of a job whose task ended a day ago."""
    if task["finished_at"] is None or now - task["finished_at"] > _PATIENCE:
        logger.error("The service was never told that a job is no longer wanted.", extra={"task_id": task["task_id"]})
        _forget(state, task)


def not_told_lately(state: WebhookState, names: Sequence[str]) -> Sequence[str]:
    """Return the names of which the service was not told by this process a moment ago: a stray may report often."""
    now = state.waited()
    due = [name for name in names if not state.strays_told.remaining(name, now)]
    for name in due:
        state.strays_told.failed(name, now)
    return due


def all_names(task: Row) -> Sequence[str]:
    """Return every name under which a job of a task may still run."""
    return [name for name in (task["creator_task_id"], *earlier_names(task)) if name]


def remember_name(state: WebhookState, seen: Row | None, task: Row, name: str) -> None:
    """Keep the service's own name of a job that nobody wants, so that whoever cancels it later finds it.

    Args:
        state: the application's state.
        seen: the task's row as it is now.
        task: the row as it was when the job was submitted.
        name: what the service calls the job.
    """
    ours = task["creator_task_id"]
    if seen is None or name == ours:
        return
    if seen["attempt"] == task["attempt"]:
        state.database.write(lambda tx: state.store.note_answer(tx, task, {"creator_task_id": name}))
        return
    earlier = [name if known == ours else known for known in seen["earlier_creator_task_ids"] or ()]
    news = {"earlier_creator_task_ids": earlier, **_need_wait_no_longer(state, seen)}
    state.database.write(lambda tx: state.store.compare_and_set(tx, seen, news))


def _need_wait_no_longer(state: WebhookState, task: Row) -> Mapping[str, Any]:
    """Return the columns of an attempt that :func:`until_over` let wait for the job that is known now."""
    if task["status"] != TaskState.PENDING or task["submitting_since"] is not None or task["next_submit_at"] is None:
        return {}
    settings = state.settings_for(task)
    due = state.now() + max(settings.retry_backoff)
    return due_at(due, task, settings) if due < task["next_submit_at"] else {}


def earlier_names(task: Row) -> Sequence[str]:
    """Return the names under which earlier attempts of a task may still run, the last one first."""
    return list(reversed((task["earlier_creator_task_ids"] or ())[-_MOST_EARLIER:]))


def _stop(state: WebhookState, task: Row, name: str) -> bool:
    facts = {"task_id": task["task_id"], "creator_task_id": name}
    told = True
    for service in state.services_for(task):
        try:
            _cancel(state, service, task, name)
        except CreatorRefused as refusal:  # it has ended, or is not known there
            logger.info("The service did not cancel a job that is no longer wanted: %s", refusal.message, extra=facts)
        except CreatorError as error:
            told = False
            state.strays_told.succeeded(name)
            level = logging.DEBUG if isinstance(error, LeftAlone) else logging.WARNING  # of a hold the log has a line
            logger.log(level, "The service was not told that a job is no longer wanted: %s", error.message, extra=facts)
        except SQLAlchemyError as error:
            told = False
            log_failure(state.database, logger, "The service was not told of a job.", error, extra=facts)
        else:
            logger.info("The service was told that a job is no longer wanted.", extra=facts)
    return told


def _cancel(state: WebhookState, service: GuardedCreator, task: Row, name: str) -> None:
    """Cancel a job, under the name that the service gave it if the answer that had it was lost.

    A job whose name it has not confirmed is looked up first: a query for it could crash the service.
    """
    row = state.database.ask(lambda tx: state.store.read_task(tx, task["task_id"])) or task
    if service.can_find and not (service.keeps_names and _is_confirmed(row, name)):
        found = service.find(Job.of(row, creator_task_id=name))
        if found is not None and found.state not in {RemoteState.OPEN, RemoteState.MISSING}:
            return
        if found is not None and found.state is RemoteState.MISSING and service.keeps_names:
            return
        if found is not None and found.creator_task_id is not None:
            name = found.creator_task_id
    service.cancel(name)


def _is_confirmed(row: Row, name: str) -> bool:
    """Return False if the service may never have had the job of that name, or has it no longer."""
    if name == row["creator_task_id"]:
        return row["submitting_since"] is None
    is_last = name in (row["earlier_creator_task_ids"] or ())[-1:]
    return not (is_last and row["error_code"] in {SUBMISSION_UNANSWERED, LOST_BY_CREATOR})


def _forget(state: WebhookState, task: Row) -> None:
    """Let a task that has ended no longer be due; if that fails, the service is told twice."""
    try:
        state.database.write(lambda tx: state.store.forget_ended(tx, task))
    except SQLAlchemyError as error:
        log_failure(
            state.database, logger, "A task stays due after its end.", error, extra={"task_id": task["task_id"]}
        )


def _names(received: ReceivedEvent, task: Row, attempt: int | None) -> Sequence[str]:
    """Return the recorded name of the event's attempt, and the sender's if that is another one."""
    earlier, named = list(task["earlier_creator_task_ids"] or ()), received.event.task_id
    if named in {*earlier, task["creator_task_id"]}:
        return (named,)
    names = [] if named == task["task_id"] else [named]
    back = 0 if attempt is None else task["attempt"] - attempt
    if back == 0 and task["creator_task_id"]:
        names.append(task["creator_task_id"])
    elif 0 < back <= len(earlier):
        names.append(earlier[-back])
    return names
