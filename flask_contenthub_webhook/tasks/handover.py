"""Hand tasks to the creator, outside any transaction, since its call may block until the work is done.

A due task is claimed, the call is recorded in advance, the creator is called, and its answer is applied as an event. A
crash at any point leaves a row that the next sweep finds.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from .. import signals
from ..core.backoff import jittered
from ..core.events import BUG_IN_CREATOR
from ..core.logs import get_logger
from ..core.received import Outcome, ReceivedEvent, Source
from ..core.state_machine import OPEN_STATES, Trigger
from ..core.stopping import DaemonThreads, is_stopping
from ..creators.guarded import GuardedCreator, job_name_trouble
from ..creators.http_answers import ConnectionCut, NoAnswer
from ..creators.protocol import Job, RemoteState, Report
from ..engine.stray_jobs import earlier_names, is_owned, remember_name, stop_strays
from ..engine.task_changes import submission_lease
from ..errors import (
    CreatorAway,
    CreatorBug,
    CreatorError,
    CreatorRefused,
    CreatorUnclear,
    CreatorUnreachable,
    DatabaseUnavailable,
    HandlerFailed,
    RequestRefused,
)
from ..runtime.leases import renewed
from ..runtime.tracing import note, traced
from ..storage.failure_log import describe_briefly, log_failure
from .creator_events import apply_report, event_of_report, failed_event

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.store import Row

__all__ = ["SubmitReport", "look_once_more", "submit_due", "submit_next"]

logger = get_logger(__name__)

_PATIENCE_WITH_EARLIER = 3
"""Times that an attempt waits because the one before it could not be cancelled."""
_UNANSWERED = CreatorUnclear("The process ended during the call.")
_NOWHERE = Report(state=RemoteState.MISSING)


@dataclass(frozen=True, slots=True)
class SubmitReport:
    """The outcome of one sweep.

    Args:
        claimed: the number of due tasks that this sweep claimed.
        outcomes: how many of them were ``submitted``, ``refused``, ``unreachable``, ``unclear``,
            ``moved on`` or ``interrupted``.
        trouble: the database's error, in a line, if no task could be claimed.
        paused: True if the creator is left alone because it was down a moment ago.
    """

    claimed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    trouble: str = ""
    paused: bool = False


def submit_next(state: WebhookState) -> SubmitReport:
    """Hand over the next task that is due, if there is one."""
    return submit_due(state, limit=1)


def submit_due(state: WebhookState, *, limit: int = 100) -> SubmitReport:
    """Hand over due tasks, several at a time and at most ``limit``; any number of processes may do so at once."""
    if state.creator is None:
        return SubmitReport()
    try:
        return _sweep(state, limit)
    finally:
        state.release_turns()


def _sweep(state: WebhookState, limit: int) -> SubmitReport:
    resting = state.resting(at_once=True)
    if state.are_all_in(resting):
        return SubmitReport(paused=True)
    first = _claim_one(state, resting)
    if isinstance(first, str):
        return SubmitReport(trouble=first)
    if first is None:
        return SubmitReport()
    outcomes = [_hand_over(state, first)]
    left = limit - 1
    if left and not is_stopping():
        threads = min(left, state.settings.poll_concurrency)
        shares = [left // threads + (number < left % threads) for number in range(threads)]
        with DaemonThreads(threads, "contenthub-submit") as pool:
            for more in pool.map(lambda share: _hand_over_some(state, share), shares):
                outcomes += more
    return SubmitReport(len(outcomes), Counter(outcomes), paused=state.are_all_in(state.resting()))


def _hand_over_some(state: WebhookState, most: int) -> list[str]:
    """Hand over one thread's share of a sweep; if every creator is away, it ends."""
    outcomes: list[str] = []
    while len(outcomes) < most and not is_stopping():
        resting = state.resting()
        task = None if state.are_all_in(resting) else _claim_one(state, resting)
        if task is None or isinstance(task, str):
            break
        outcomes.append(_hand_over(state, task))
    return outcomes


def _claim_one(state: WebhookState, resting: Sequence[str]) -> Row | str | None:
    """Claim the next task, if one is due; what the database says against it is a text."""
    try:
        claimed = state.database.write(
            lambda tx: state.store.claim_submissions(tx, lease=_lease(state), limit=1, without=resting)
        )
        return claimed[0] if claimed else None
    except SQLAlchemyError as error:
        message = "No task could be claimed for submission; the next sweep tries again."
        log_failure(state.database, logger, message, error)
        return describe_briefly(error)


def _lease(state: WebhookState) -> timedelta:
    return submission_lease(state.settings)


def _hand_over(state: WebhookState, task: Row) -> str:
    """Hand over one task; if the database fails, it is found again when the lease ends."""
    claim, creator = _Claim(state, task), state.service_for(task)
    try:
        if creator is None:
            gone = CreatorUnreachable(f"There is no creator named {task['creator_name']}; init_app was given others.")
            return _postpone(state, task, gone, may_have_arrived=task["submitting_since"] is not None)
        facts = {"task_id": task["task_id"], "attempt": task["attempt"]}
        with (
            traced(state.tracing, "hand over task", "consumer", origin=task["traceparent"], **facts),
            renewed(claim.renew, every=_lease(state) / 3),
        ):
            outcome = _call(state, creator, claim)
            note(state.tracing, outcome=outcome)
            return outcome
    except SQLAlchemyError as error:
        facts = {"task_id": task["task_id"]}
        log_failure(state.database, logger, "A submission was left to the next sweep.", error, extra=facts)
        return "interrupted"


class _Claim:
    """The claim on one task, whose lease another thread renews."""

    def __init__(self, state: WebhookState, task: Row) -> None:
        self._state = state
        self._lock = threading.Lock()
        self.task = dict(task)

    def renew(self) -> bool:
        """Extend the lease; False if it was lost, or the task moved on."""
        with self._lock:
            store = self._state.store
            until = self._state.now() + _lease(self._state)
            renewed_ = self._state.database.write(lambda tx: store.renew_submission(tx, self.task, until))
            if renewed_:
                self.task["next_submit_at"] = until
            return renewed_

    def mark_submitting(self, address: str | None) -> bool:
        """Record that the creator is about to be called; False if the claim was lost, or the task moved on."""
        store, now = self._state.store, self._state.now()
        with self._lock:
            return self._state.database.write(lambda tx: store.mark_submitting(tx, self.task, now, address=address))


def _call(state: WebhookState, creator: GuardedCreator, claim: _Claim) -> str:
    task = claim.task
    if not creator.is_idempotent:
        settled = _look_for_it(state, task)
        if settled is not None:
            return settled
    names = earlier_names(task)
    if names and not stop_strays(state, task, names):
        is_away = any(service.pause.is_on() for service in state.services_for(task))
        if is_away or task["submit_tries"] < _PATIENCE_WITH_EARLIER:
            waits = CreatorUnclear("A job of an earlier attempt could not be cancelled.")
            return _postpone(state, task, waits, may_have_arrived=task["submitting_since"] is not None)
    if not claim.mark_submitting(creator.address):
        return "moved on"
    try:
        report = creator.submit(Job.of(task), wait=state.settings.creator_submit_wait)
    except CreatorUnreachable as error:  # which says nothing of an earlier call, whose answer was lost
        return _postpone(state, task, error, may_have_arrived=task["submitting_since"] is not None)
    except CreatorRefused as error:
        return _refused(state, task, error)
    except CreatorError as error:
        return _unclear(state, creator, task, error)
    if trouble := job_name_trouble(report.creator_task_id):
        return _misnamed(state, task, report, trouble)
    _accepted(state, task, report)
    return "submitted"


def _look_for_it(state: WebhookState, task: Row) -> str | None:
    """Settle a task that may have been submitted already; return None if it certainly was not.

    Its submission may have been interrupted. A further attempt may be from the time after a restored backup.
    """
    was_interrupted = task["submitting_since"] is not None
    if not was_interrupted and task["attempt"] == 1:
        return None
    address, since = task["creator_address"], state.submitted_since(task)
    services = state.services_for(task)
    asked = [service for service in services if service.can_find]
    cannot_tell = len(asked) < len(services) or address not in {None, *(service.address for service in asked)}
    for service in asked:
        try:
            found = service.find(Job.of(task), since=since)
        except CreatorError as error:
            if was_interrupted or isinstance(error, CreatorUnreachable | CreatorAway):
                return _postpone(state, task, error, may_have_arrived=True)
            found = None
        if found is None:
            cannot_tell = True
        elif found.state is not RemoteState.MISSING:
            _accepted(state, task, found, address=service.address)
            return "submitted"
    if was_interrupted and cannot_tell:
        _accepted(state, task, None)
        return "unclear"
    return None


def look_once_more(state: WebhookState, task: Row) -> bool | None:
    """Look for the job of a hand-over that was interrupted, and that no sweep has taken up, before it is given up.

    Returns:
        True if the service has it, which is applied; None if that cannot be told now; else False.
    """
    since, cannot_tell = state.submitted_since(task), False
    for service in state.services_for(task):
        try:
            found = service.find(Job.of(task), since=since) if service.can_find else _NOWHERE
            if found is not None and found.state is not RemoteState.MISSING:
                _accepted(state, task, found, address=service.address)
                return True
        except CreatorError as error:
            logger.warning("A task could not be asked about: %s", error.message, extra={"task_id": task["task_id"]})
            found = None
        except SQLAlchemyError as error:
            log_failure(state.database, logger, "An answer was not applied.", error, extra={"task_id": task["task_id"]})
            return None
        cannot_tell = cannot_tell or found is None
    return None if cannot_tell else False


def _unclear(state: WebhookState, creator: GuardedCreator, task: Row, error: CreatorError) -> str:
    """Leave it to the poller whether the creator has the job: calling again could start the work twice.

    After a gateway's answer it is more likely that it has nothing. Such a job is looked for before the next call.
    """
    level = logging.INFO if isinstance(error, NoAnswer) else logging.WARNING
    logger.log(level, "The answer to a submission is missing: %s", error.message, extra={"task_id": task["task_id"]})
    is_gateways = isinstance(error, CreatorAway) and not isinstance(error, ConnectionCut)
    if not isinstance(error, CreatorBug) and (creator.is_idempotent or (is_gateways and creator.can_find)):
        return _postpone(state, task, error, may_have_arrived=True)
    _accepted(state, task, None, error)
    return "unclear"


def _misnamed(state: WebhookState, task: Row, report: Report, trouble: str) -> str:
    """Fail a task whose job could never be asked about, and cancel the job."""
    if isinstance(report.creator_task_id, str):
        stop_strays(state, task, [report.creator_task_id])
    message = f"The service's own name for the job {trouble}. Such a job cannot be followed; it was cancelled."
    return _refused(state, task, CreatorRefused(message, reason="INVALID_JOB_NAME"))


def _accepted(
    state: WebhookState,
    task: Row,
    report: Report | None,
    lost: CreatorError = _UNANSWERED,
    *,
    address: str | None = None,
) -> None:
    """Apply that the creator accepted the job, and the outcome if it came with the answer.

    Args:
        state: the application's state.
        task: the row as it was claimed.
        report: the answer; None if it was lost, and the job may exist or not.
        lost: why there is no answer.
        address: of the service at which the job was found, if it was not submitted just now.
    """
    name = task["creator_task_id"] if report is None or report.creator_task_id is None else report.creator_task_id
    facts = {"creator_task_id": name} if report is not None else _facts_of_loss(lost)
    if address is not None:
        facts["creator_address"] = address
    submitted = ReceivedEvent.internal(
        Trigger.SUBMITTED, task["task_id"], Source.RESPONSE, state.clock(), task["attempt"], **facts
    )
    applied = _apply_or_log(state, submitted)
    with state.database.session() as session:
        values = state.store.read_task(session, task["task_id"])
        if applied is not None and values is not None and signals.task_submitted.receivers:
            entity = state.store.tasks.object_from_row(session, values)
            signals.send_quietly(
                signals.task_submitted, state.app, clean_up=session.rollback, task=entity, attempt=task["attempt"]
            )
    if report is not None and values is not None and _waits_for_its_name(values, task):
        values = {**values, "creator_task_id": name, "submitting_since": None}
        confirmed = {"creator_task_id": name, "submitting_since": None}
        state.database.write(lambda tx: state.store.note_answer(tx, task, confirmed))
    may_run = report is None or report.state is RemoteState.OPEN
    if may_run and applied is not None and not is_owned(values, attempt=task["attempt"], name=name):
        if report is not None:  # the task has ended meanwhile, and its job is known all the same
            state.database.write(lambda tx: state.store.note_answer(tx, task, {"submitting_since": None}))
        remember_name(state, values, task, name)
        is_last = values is not None and values["attempt"] == task["attempt"]
        stop_strays(state, task, [name], current=is_last)
    if report is None:
        return
    if report.state is RemoteState.COMPLETED and report.result is None:
        report = _result_of(state, {**task, "creator_address": address}, report)
    if (outcome := event_of_report(state, task, report, Source.RESPONSE)) is not None:
        _apply_or_log(state, outcome)


def _waits_for_its_name(now: Row, task: Row) -> bool:
    """Return True if another process has meanwhile counted this submission as unanswered."""
    is_same = now["attempt"] == task["attempt"] and now["status"] in OPEN_STATES
    return is_same and now["submitting_since"] is not None and now["submitted_at"] is not None


def _facts_of_loss(lost: CreatorError) -> dict[str, str]:
    """Return what the history, and for a bug the task, say of an answer that did not come."""
    facts = {"reason": f"The answer was lost, and the job may exist or not: {lost.message}"}
    return (
        {**facts, "error_code": BUG_IN_CREATOR, "error_message": lost.message}
        if isinstance(lost, CreatorBug)
        else facts
    )


def _result_of(state: WebhookState, task: Row, report: Report) -> Report:
    """Fetch the result of a job that was done at once; if that fails, the poller does it."""
    service = state.service_of(task)
    if service is None:
        return report
    try:
        return service.result(report.creator_task_id or task["creator_task_id"])
    except CreatorError as error:
        logger.warning("A result is left to the poller: %s", error.message, extra={"task_id": task["task_id"]})
        return Report(state=RemoteState.OPEN)


def _refused(state: WebhookState, task: Row, refusal: CreatorRefused) -> str:
    """Fail the task with the creator's own words, since another attempt would be refused as well."""
    code, message, details = refusal.reason or "REFUSED", refusal.message, refusal.details
    event = failed_event(state, task, code=code, message=message, details=details, source=Source.RESPONSE)
    _apply_or_log(state, event)
    return "refused"


def _postpone(state: WebhookState, task: Row, error: CreatorError, *, may_have_arrived: bool) -> str:
    backoff = state.settings.retry_backoff
    wait = jittered(backoff[min(task["submit_tries"], len(backoff) - 1)])
    logger.warning("The creator was not reached: %s", error.message, extra={"task_id": task["task_id"]})
    postpone = partial(state.store.postpone_submission, task=task, wait=wait, may_have_arrived=may_have_arrived)
    state.database.write(postpone)
    return "unreachable"


def _apply_or_log(state: WebhookState, received: ReceivedEvent) -> Outcome | None:
    """Apply an event; no caller waits, so a failure is left to the next sweep or poll."""
    try:
        return apply_report(state, received)
    except (HandlerFailed, DatabaseUnavailable):
        return None  # logged where it happened, and due for another try
    except RequestRefused as refusal:
        logger.warning("An answer of the creator was not applied: %s", refusal.message)
        return None
