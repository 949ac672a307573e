"""Reconciliation: claim due tasks, query the creator, apply its answers.

Any number of processes may run passes at once: a claim moves the time of the next query forward in the same statement,
so no task is queried twice. No transaction is open during a call. Calls run concurrently in bounded number, and one
that hangs does not delay other tasks.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from .. import signals
from ..core.events import BUG_IN_CREATOR
from ..core.logs import get_logger
from ..core.received import ReceivedEvent, Source
from ..core.state_machine import TERMINAL_STATES, TaskState, Trigger, Verdict
from ..core.stopping import DaemonThreads, is_stopping
from ..creators.guarded import GuardedCreator, job_name_trouble
from ..creators.protocol import Job, RemoteState, Report
from ..engine.stray_jobs import all_names, give_up_after_a_day, not_told_lately, stop_strays
from ..engine.task_changes import has_time_left
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
from ..runtime.tracing import traced
from ..storage.failure_log import describe_briefly, log_failure, log_unexpected
from .creator_events import apply_report, event_of_report, lost_event, unanswered_event
from .handover import look_once_more

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.store import Row

__all__ = ["ReconcileReport", "reconcile"]

logger = get_logger(__name__)
_AskMany = Callable[..., Mapping[str, Report]]

_LONG = 1.0
"""Seconds of asking in which tasks may well have gone on; to find out costs a statement."""
_MOST_IDS = 500
_MISSING_LIMIT = 3
"""Consecutive answers without a task before it counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """The outcome of one pass, in numbers of tasks.

    Args:
        claimed: were due, and claimed by this pass.
        asked: the creator was queried for them.
        asked_alone: those of them that needed a query each, since the list lacked them.
        applied: an answer settled or moved them, by the verdict of the event.
        still_open: the creator is still working on them.
        missing: the creator did not know them.
        timed_out: ran out of time.
        errors: could not be queried, or their answer could not be applied; they are due again.
        trouble: the database's error, in a line, if it stopped the claiming.
        paused: True if the creator is left alone because it was down a moment ago.
        seconds: the duration of the pass.
    """

    claimed: int = 0
    asked: int = 0
    asked_alone: int = 0
    applied: Mapping[str, int] = field(default_factory=dict)
    still_open: int = 0
    missing: int = 0
    timed_out: int = 0
    errors: int = 0
    trouble: str = ""
    paused: bool = False
    seconds: float = 0.0


def reconcile(state: WebhookState, *, limit: int = 10_000) -> ReconcileReport:
    """Run one pass over at most ``limit`` tasks."""
    try:
        report = _Pass(state).run(limit)
    finally:
        state.release_turns()
    signals.send_quietly(signals.reconcile_finished, state.app, report=report)
    return report


class _Pass:
    def __init__(self, state: WebhookState) -> None:
        self.state = state
        self.now = state.now()
        self.applied: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.confirmed: set[str] = set()
        self.trouble = ""

    def run(self, limit: int) -> ReconcileReport:
        started = time.monotonic()
        state = self.state
        resting = state.resting(at_once=True)
        if state.are_all_in(resting):
            return ReconcileReport(paused=True)  # nothing is claimed, so it stays due
        claimed = self._claim(limit, resting)
        self._stop_ended([task for task in claimed if task["status"] in TERMINAL_STATES])
        unsettled: list[Row] = []
        unasked: list[Row] = []
        askable: dict[tuple[str, str | None], tuple[GuardedCreator, list[Row]]] = {}
        for task in claimed:
            service = state.service_of(task)
            if task["status"] in TERMINAL_STATES:
                continue
            if service is None or not _can_be_asked_about(task, service):
                unsettled.append(task)
            else:
                askable.setdefault((service.name, service.address), (service, []))[1].append(task)
        for answered, failed in self._ask_each(list(askable.values())):
            unsettled += answered
            unasked += failed
        self._time_out(unsettled, unasked)
        return ReconcileReport(
            claimed=len(claimed),
            asked=sum(len(tasks) for _, tasks in askable.values()),
            asked_alone=self.counts["asked alone"],
            applied=dict(self.applied),
            still_open=self.counts["still open"],
            missing=self.counts["missing"],
            timed_out=self.counts["timed out"],
            errors=len(unasked),
            trouble=self.trouble,
            seconds=time.monotonic() - started,
        )

    # --- claiming --------------------------------------------------------------------------------------------

    def _claim(self, limit: int, resting: Sequence[str]) -> list[Row]:
        """Claim all due tasks, batch by batch, so that few requests suffice for all of them.

        If any are due, those due a little later are claimed as well; otherwise a steady stream of tasks would cost a
        walk through the creator's list at nearly every pass.
        """
        claimed: list[Row] = []
        batch, early = self.state.settings.poll_batch, timedelta()
        try:
            while len(claimed) < limit and not is_stopping():
                most = min(batch, limit - len(claimed))
                claim = partial(self.state.store.claim_polls, early=early, limit=most, without=resting)
                rows = self.state.database.write(claim)
                claimed += rows
                if len(rows) < batch:
                    if early or not claimed:
                        break
                    early = self.state.registry.poll_lookahead
        except SQLAlchemyError as error:
            message = "Due tasks could not be claimed; the next pass tries again."
            log_failure(self.state.database, logger, message, error)
            self.trouble = describe_briefly(error)
        return claimed

    # --- asking ----------------------------------------------------------------------------------------------

    def _ask_each(self, askable: Sequence[tuple[GuardedCreator, list[Row]]]) -> Sequence[tuple[list[Row], list[Row]]]:
        """Ask every service about its tasks, all at once, so that one that hangs does not delay the others."""
        if len(askable) < 2:  # noqa: PLR2004
            return [self._ask(service, tasks) for service, tasks in askable]
        with DaemonThreads(len(askable), "contenthub-services") as pool:
            return list(pool.map(lambda one: self._ask(*one), askable))

    def _ask(self, service: GuardedCreator, tasks: list[Row]) -> tuple[list[Row], list[Row]]:
        """Apply the answers; return the tasks that the service has not settled, and those that could not be queried."""
        if is_stopping():
            return [], tasks
        began = time.monotonic()
        reports = self._ask_together(service.statuses, [task for task in tasks if _goes_by_name(task, service)])
        if reports is None:
            return [], tasks
        unconfirmed = [task for task in tasks if service.can_find_many and not _goes_by_name(task, service)]
        found = self._ask_together(service.find_many, unconfirmed)
        reports = {**reports, **(found or {})}
        looked_for = {task["task_id"] for task in unconfirmed}
        still_open, work = [], []
        with DaemonThreads(self.state.settings.poll_concurrency, "contenthub-reconcile") as pool:
            for task in tasks:
                report = reports.get(task["creator_task_id"])
                is_unknown = task["task_id"] in looked_for or not _is_at_home(task, service)
                if report is None and is_unknown:
                    if found is not None or task["task_id"] not in looked_for:
                        still_open.append(task)
                    continue
                self.counts["asked alone"] += report is None
                if report is not None and report.state is RemoteState.OPEN and not _news_of(task):
                    still_open.append(task)
                else:
                    work.append((task, pool.submit(self._settle, service, task, report)))
        by_outcome: dict[str, list[Row]] = {"open": still_open, "missing": [], "error": []}
        for task, future in work:
            by_outcome.setdefault(future.result(), []).append(task)
        open_, missing, unasked = by_outcome.pop("open"), by_outcome.pop("missing"), by_outcome.pop("error")
        self.counts.update({"still open": len(open_), "missing": len(missing)})
        if time.monotonic() - began >= _LONG:
            self._stop_what_went_on(open_)
        self.applied.update({verdict: len(settled) for verdict, settled in by_outcome.items()})
        return open_ + missing, unasked if found is not None else unasked + unconfirmed

    def _ask_together(self, ask: _AskMany, tasks: list[Row]) -> Mapping[str, Report] | None:
        """Query many tasks in few requests; None if the service is away, empty if it cannot do that."""
        if not tasks:
            return {}
        try:
            return ask([task["creator_task_id"] for task in tasks], since=self.state.submitted_since(*tasks))
        except (CreatorUnreachable, CreatorAway, CreatorRefused) as error:
            logger.warning("The creator is away, or does not want to be asked; the poller pauses: %s", error.message)
            return None
        except CreatorError as error:
            logger.warning("The creator could not be asked about many tasks at once: %s", error.message)
            return {}

    def _settle(self, service: GuardedCreator, task: Row, report: Report | None) -> str:
        """Settle one task: return ``open``, ``missing``, ``error``, or the verdict of the applied event."""
        facts = {"task_id": task["task_id"]}
        try:
            with traced(self.state.tracing, "poll task", "internal", origin=task["traceparent"], **facts):
                return self._ask_and_apply(service, task, report)
        except Exception as error:  # noqa: BLE001 - one task's trouble is its own
            log_unexpected(self.state.database, logger, "A task could not be reconciled.", error, extra=facts)
            return "error"

    def _ask_and_apply(self, service: GuardedCreator, task: Row, report: Report | None) -> str:
        if is_stopping() and (report is None or (report.state is RemoteState.COMPLETED and report.result is None)):
            return "error"  # due again later; an answer that is complete is applied
        try:
            if report is None:
                report = self._ask_alone(service, task)
            if report.state is RemoteState.COMPLETED and report.result is None:
                report = service.result(report.creator_task_id or task["creator_task_id"])
        except CreatorError as error:
            logger.warning("A task could not be asked about: %s", error.message, extra={"task_id": task["task_id"]})
            if isinstance(error, CreatorBug) and task["error_message"] != error.message:
                self._note(task, {"error_code": BUG_IN_CREATOR, "error_message": error.message})
            return "error"
        if report.state is RemoteState.MISSING and not _is_at_home(task, service):
            return "missing"  # it never knew this name
        if report.state is RemoteState.MISSING and task["times_missing"] + 1 >= _MISSING_LIMIT:
            is_unanswered = task["submitting_since"] is not None  # a name counts as lost once it was confirmed
            event = (
                unanswered_event(self.state, task, is_missing=True) if is_unanswered else lost_event(self.state, task)
            )
            return self._apply(event)
        if report.state is RemoteState.MISSING:
            self._note(task, {"times_missing": task["times_missing"] + 1})
            return "missing"
        received = event_of_report(self.state, task, report, Source.POLL)
        if received is None:
            self._confirm(task, report)
            return "open"
        return self._apply(received)

    def _ask_alone(self, service: GuardedCreator, task: Row) -> Report:
        if _goes_by_name(task, service):
            return service.status(task["creator_task_id"])
        found = service.find(Job.of(task), since=self.state.submitted_since(task))
        if found is None:
            raise CreatorUnclear("The creator cannot tell whether it has the job.")
        return found

    def _confirm(self, task: Row, report: Report) -> None:
        """Record that the service has the job, and the name that it gave it."""
        self.confirmed.add(task["task_id"])
        values = _news_of(task)
        named = report.creator_task_id
        if task["submitting_since"] is not None and named is not None and job_name_trouble(named) is None:
            values |= {"creator_task_id": named}
        if values:
            self._note(task, values)

    def _note(self, task: Row, values: Row) -> None:
        try:
            self.state.database.write(lambda tx: self.state.store.note_poll(tx, task, values))
        except SQLAlchemyError as error:
            facts = {"task_id": task["task_id"]}
            log_failure(self.state.database, logger, "An answer was not noted.", error, extra=facts)

    # --- applying --------------------------------------------------------------------------------------------

    def _stop_ended(self, ended: list[Row]) -> None:
        """Tell the service once more of jobs that are no longer wanted, of which it could not be told at once."""
        end = time.monotonic() + 2 * self.state.settings.creator_timeout  # a service that hangs keeps no pass for long

        def stop(task: Row) -> None:
            if is_stopping() or time.monotonic() > end:
                return
            if not stop_strays(self.state, task, all_names(task), current=True):
                give_up_after_a_day(self.state, task, self.now)

        if ended:
            with DaemonThreads(self.state.settings.poll_concurrency, "contenthub-reconcile") as pool:
                list(pool.map(stop, ended))

    def _stop_what_went_on(self, open_: list[Row]) -> None:
        """Cancel jobs that the service still has open, although their tasks have gone on while it was asked."""
        for start in range(0, len(open_), _MOST_IDS):
            some = open_[start : start + _MOST_IDS]
            try:
                store, ids = self.state.store, [task["task_id"] for task in some]
                now = self.state.database.ask(lambda tx: store.read_attempts(tx, ids))  # noqa: B023 - called at once
            except SQLAlchemyError as error:
                log_failure(self.state.database, logger, "Open jobs were not compared with their tasks.", error)
                return
            for task in some:
                attempt, status = now.get(task["task_id"], (0, TaskState.CANCELLED))
                if attempt != task["attempt"] or status in {TaskState.CANCELLED, TaskState.TIMEOUT}:
                    stop_strays(self.state, task, not_told_lately(self.state, [task["creator_task_id"]]))

    def _time_out(self, unsettled: list[Row], unasked: list[Row]) -> None:
        """Give up overdue tasks, after one more query, or after the creator could not be queried for a long time."""
        given_up = [task for task in unsettled if not has_time_left(task, self.state.settings, self.now)]
        for task in unasked:
            settings = self.state.settings_for(task)
            if not has_time_left(task, settings, self.now - settings.poll_max_interval):
                given_up.append(task)
        if given_up:
            with DaemonThreads(self.state.settings.poll_concurrency, "contenthub-reconcile") as pool:
                self.counts["timed out"] += sum(pool.map(self._give_up, given_up))

    def _give_up(self, task: Row) -> bool:
        """End a task whose time is over, after a last look for a job that may be there; return True if it timed out."""
        if is_stopping():
            return False
        if task["submitting_since"] is None or task["task_id"] in self.confirmed:
            timed_out = ReceivedEvent.internal(
                Trigger.TIMED_OUT, task["task_id"], Source.POLL, self.state.clock(), task["attempt"]
            )
            return self._apply(timed_out) == Verdict.PROCESSED
        if task["status"] == TaskState.PENDING and (found := look_once_more(self.state, task)) is not False:
            settings = self.state.settings_for(task)
            if found or has_time_left(task, settings, self.now - settings.poll_max_interval):
                return False
        self._apply(unanswered_event(self.state, task))
        return False

    def _apply(self, received: ReceivedEvent) -> str:
        try:
            if self.state.database.ask(lambda tx: self.state.store.is_waiting(tx, received)):
                return "error"  # the same event failed before: it has its tries, and then waits for a person
            return apply_report(self.state, received).verdict.value
        except (HandlerFailed, DatabaseUnavailable):
            return "error"  # logged where it happened; the delivery or the next pass tries again
        except SQLAlchemyError as error:
            facts = {"task_id": received.task_id}
            log_failure(self.state.database, logger, "An answer was not applied.", error, extra=facts)
            return "error"
        except RequestRefused as refusal:
            logger.warning("An answer was not applied: %s", refusal.message, extra={"task_id": received.task_id})
            return "error"


def _news_of(task: Row) -> dict[str, Any]:
    """Return the columns that change when the service says that it has the job, and that it is open."""
    news: dict[str, Any] = {"times_missing": 0} if task["times_missing"] else {}
    if task["submitting_since"] is not None:
        news |= {"submitting_since": None}
    if task["error_code"] == BUG_IN_CREATOR:
        news |= {"error_code": None, "error_message": None}  # it is mended
    return news


def _can_be_asked_about(task: Row, service: GuardedCreator) -> bool:
    is_confirmed = task["submitting_since"] is None
    return (
        task["status"] != TaskState.PENDING
        and task["creator_task_id"] is not None
        and (is_confirmed or service.can_find)
    )


def _goes_by_name(task: Row, service: GuardedCreator) -> bool:
    """Return True if the service has confirmed the name of the job, or can be asked only by it."""
    return task["submitting_since"] is None or not service.finds


def _is_at_home(task: Row, service: GuardedCreator) -> bool:
    """Return False if the job was submitted at another address: that this service does not know it says nothing."""
    return task["creator_address"] in {None, service.address}
