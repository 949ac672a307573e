"""Hand tasks to the creator, outside any transaction, since its call may block until the work is done.

A due task is claimed, the call is recorded in advance, the creator is called, and its answer is applied as an event. A
crash at any point leaves a row that the next sweep finds.
"""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from .. import signals
from ..core.backoff import jittered
from ..core.received import Outcome, ReceivedEvent, Source
from ..core.state_machine import TaskState, Trigger
from ..creators.protocol import Creator, Job, RemoteState, Report
from ..engine.apply import apply_event
from ..errors import (
    CreatorError,
    CreatorRefused,
    CreatorUnreachable,
    DatabaseUnavailable,
    HandlerFailed,
    RequestRefused,
)
from .creator_events import event_of_report, failed_event

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.store import Row

__all__ = ["SubmitReport", "cancel_remotely", "submit_due", "submit_next"]

logger = logging.getLogger(__name__)

_LEASE_MARGIN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class SubmitReport:
    """The outcome of one sweep.

    Args:
        claimed: the number of due tasks that this sweep claimed.
        outcomes: how many of them were ``submitted``, ``refused``, ``unreachable``, ``unclear``,
            ``moved on`` or ``interrupted``.
        paused: True if the creator is left alone because it was down a moment ago.
    """

    claimed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    paused: bool = False


def submit_next(state: WebhookState) -> SubmitReport:
    """Hand over the next task that is due, if there is one."""
    return submit_due(state, limit=1)


def submit_due(state: WebhookState, *, limit: int = 100) -> SubmitReport:
    """Hand over due tasks, several at a time and at most ``limit``; any number of processes may do so at once."""
    creator = state.creator
    if creator is None:
        return SubmitReport()
    if state.creator_pause.is_on(state.clock()):
        return SubmitReport(paused=True)
    first = _claim_one(state)
    if first is None:
        return SubmitReport()
    outcomes = [_hand_over(state, creator, first)]
    left = limit - 1
    if left and not state.creator_pause.is_on(state.clock()):
        threads = min(left, state.settings.poll_concurrency)
        shares = [left // threads + (number < left % threads) for number in range(threads)]
        with ThreadPoolExecutor(threads, "contenthub-submit") as pool:
            for more in pool.map(lambda share: _hand_over_some(state, creator, share), shares):
                outcomes += more
    return SubmitReport(len(outcomes), Counter(outcomes), state.creator_pause.is_on(state.clock()))


def _hand_over_some(state: WebhookState, creator: Creator, most: int) -> list[str]:
    """Hand over one thread's share of a sweep; a creator that is down ends it."""
    outcomes: list[str] = []
    while len(outcomes) < most and not state.creator_pause.is_on(state.clock()):
        task = _claim_one(state)
        if task is None:
            break
        outcomes.append(_hand_over(state, creator, task))
    return outcomes


def _claim_one(state: WebhookState) -> Row | None:
    settings, now = state.settings, state.clock()
    longest = timedelta(seconds=settings.creator_submit_wait + 2 * settings.creator_timeout)
    try:
        with state.database.session() as session:
            claimed = state.store.claim_submissions(session, now=now, until=now + longest + _LEASE_MARGIN, limit=1)
            session.commit()
    except SQLAlchemyError as error:
        logger.warning("No task could be claimed for submission; the next sweep tries again.", exc_info=error)
        return None
    return claimed[0] if claimed else None


def _hand_over(state: WebhookState, creator: Creator, task: Row) -> str:
    """Hand over one task; if the database fails, it is found again when the lease ends."""
    try:
        return _call(state, creator, task)
    except SQLAlchemyError as error:
        logger.warning("A submission was left to the next sweep.", exc_info=error, extra={"task_id": task["task_id"]})
        return "interrupted"


def _call(state: WebhookState, creator: Creator, task: Row) -> str:
    if task["submitting_since"] is not None:
        try:
            arrived = _has_arrived(creator, task)
        except CreatorError as error:
            return _postpone(state, task, error, may_have_arrived=True)
        if arrived is not False:
            _accepted(state, task, None)
            return "submitted" if arrived else "unclear"
    with state.database.session() as session:
        still_ours = state.store.mark_submitting(session, task, state.clock())
        session.commit()
    if not still_ours:
        return "moved on"
    try:
        report = creator.submit(_job(task), wait=state.settings.creator_submit_wait)
    except CreatorUnreachable as error:
        return _postpone(state, task, error)
    except CreatorRefused as error:
        state.creator_pause.succeeded()
        return _refused(state, task, error)
    except CreatorError as error:
        # It may have the job or not; the poller finds out. Calling again could start the work twice.
        logger.warning("The answer to a submission is missing: %s", error.message, extra={"task_id": task["task_id"]})
        _accepted(state, task, None)
        return "unclear"
    state.creator_pause.succeeded()
    _accepted(state, task, report)
    return "submitted"


def _has_arrived(creator: Creator, task: Row) -> bool | None:
    """Tell whether an earlier call, interrupted by a crash, had reached the creator.

    Returns:
        None if the creator cannot tell: the task then counts as handed over, and the poller finds out.
    """
    creator_task_id = task["creator_task_id"]
    report = creator.statuses([creator_task_id], since=task["submitting_since"]).get(creator_task_id)
    return None if report is None else report.state is not RemoteState.MISSING


def _accepted(state: WebhookState, task: Row, report: Report | None) -> None:
    """Apply that the creator accepted the job, and the outcome if it came with the answer."""
    name = task["creator_task_id"] if report is None or report.creator_task_id is None else report.creator_task_id
    submitted = ReceivedEvent.internal(
        Trigger.SUBMITTED, task["task_id"], Source.RESPONSE, state.clock(), task["attempt"], creator_task_id=name
    )
    applied = _apply_or_log(state, submitted)
    with state.database.session() as session:
        values = state.store.read_task(session, task["task_id"])
        if applied is not None and values is not None and signals.task_submitted.receivers:
            entity = state.store.tasks.object_from_row(session, values)
            signals.send_quietly(
                signals.task_submitted, state.app, clean_up=session.rollback, task=entity, attempt=task["attempt"]
            )
    if values is not None and values["status"] == TaskState.CANCELLED:  # while the creator was being called
        _stop(state, task)
    if report is None:
        return
    if report.state is RemoteState.COMPLETED and report.result is None:
        report = _result_of(state, task, report)
    if (outcome := event_of_report(state, task, report, Source.RESPONSE)) is not None:
        _apply_or_log(state, outcome)


def _result_of(state: WebhookState, task: Row, report: Report) -> Report:
    """Fetch the result of a job that was done at once; if that fails, the poller does it."""
    if state.creator is None:
        return report
    try:
        return state.creator.result(report.creator_task_id or task["creator_task_id"])
    except CreatorError as error:
        logger.warning("A result is left to the poller: %s", error.message, extra={"task_id": task["task_id"]})
        return Report(state=RemoteState.OPEN)


def _refused(state: WebhookState, task: Row, refusal: CreatorRefused) -> str:
    """Fail the task with the creator's own words, since another attempt would be refused as well."""
    code, message, details = refusal.reason or "REFUSED", refusal.message, refusal.details
    event = failed_event(state, task, code=code, message=message, details=details, source=Source.RESPONSE)
    _apply_or_log(state, event)
    return "refused"


def _postpone(state: WebhookState, task: Row, error: CreatorError, *, may_have_arrived: bool = False) -> str:
    now, backoff = state.clock(), state.settings.retry_backoff
    state.creator_pause.failed(now)
    due = now + jittered(backoff[min(task["submit_tries"], len(backoff) - 1)])
    logger.warning("The creator was not reached: %s", error.message, extra={"task_id": task["task_id"]})
    with state.database.session() as session:
        state.store.postpone_submission(session, task, now=now, due=due, may_have_arrived=may_have_arrived)
        session.commit()
    return "unreachable"


def cancel_remotely(state: WebhookState, task_id: str) -> None:
    """Tell the creator of a cancellation, if it has the job; a hand-over under way checks for it afterwards."""
    with state.database.session() as session:
        task = state.store.read_task(session, task_id)
    if task is not None and task["submitted_at"] is not None:
        _stop(state, task)


def _stop(state: WebhookState, task: Row) -> None:
    if state.creator is None or task["creator_task_id"] is None:
        return
    try:
        state.creator.cancel(task["creator_task_id"])
    except CreatorError as error:
        logger.warning(
            "The creator was not told of a cancellation: %s", error.message, extra={"task_id": task["task_id"]}
        )


def _apply_or_log(state: WebhookState, received: ReceivedEvent) -> Outcome | None:
    """Apply an event; no caller waits, so a failure is left to the next sweep or poll."""
    try:
        return apply_event(state, received)
    except (HandlerFailed, DatabaseUnavailable):
        return None  # logged where it happened, and due for another try
    except RequestRefused as refusal:
        logger.warning("An answer of the creator was not applied: %s", refusal.message)
        return None


def _job(task: Row) -> Job:
    return Job(
        creator_task_id=task["creator_task_id"],
        topic=task["topic"],
        requirements=task["requirements"],
        target_audience=task["target_audience"],
        keywords=tuple(task["keywords"] or ()),
        tone=task["tone"],
        priority=task["priority"],
        callback_url=task["callback_url"],
        callback_events=tuple(task["callback_events"] or ()),
        options=task["creator_options"] or {},
    )
