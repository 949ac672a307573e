"""Reconciliation: claim due tasks, query the creator, apply its answers.

Any number of processes may run passes at once: a claim moves the time of the next query forward in the same statement,
so no task is queried twice. No transaction is open during a call. Calls run concurrently in bounded number, and one
that hangs does not delay other tasks.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from .. import signals
from ..core.received import ReceivedEvent, Source
from ..core.state_machine import TaskState, Trigger, Verdict
from ..creators.protocol import Creator, RemoteState, Report
from ..engine.apply import apply_event
from ..errors import (
    CreatorError,
    CreatorRefused,
    CreatorUnreachable,
    DatabaseUnavailable,
    HandlerFailed,
    RequestRefused,
)
from .creator_events import event_of_report, lost_event

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.store import Row

__all__ = ["ReconcileReport", "reconcile"]

logger = logging.getLogger(__name__)

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
    paused: bool = False
    seconds: float = 0.0


def reconcile(state: WebhookState, *, limit: int = 10_000) -> ReconcileReport:
    """Run one pass over at most ``limit`` tasks."""
    report = _Pass(state).run(limit)
    signals.send_quietly(signals.reconcile_finished, state.app, report=report)
    return report


class _Pass:
    def __init__(self, state: WebhookState) -> None:
        self.state = state
        self.now = state.clock()
        self.applied: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def run(self, limit: int) -> ReconcileReport:
        started = time.monotonic()
        creator = self.state.creator
        if creator is not None and self.state.creator_pause.is_on(self.now):
            return ReconcileReport(paused=True)  # nothing is claimed, so it stays due
        claimed = self._claim(limit)
        askable = [task for task in claimed if _can_be_asked_about(task)]
        unsettled, unasked = (askable, []) if creator is None else self._ask(creator, askable)
        unsettled += [task for task in claimed if not _can_be_asked_about(task)]
        self._time_out(unsettled, unasked)
        return ReconcileReport(
            claimed=len(claimed),
            asked=0 if creator is None else len(askable),
            asked_alone=self.counts["asked alone"],
            applied=dict(self.applied),
            still_open=self.counts["still open"],
            missing=self.counts["missing"],
            timed_out=self.counts["timed out"],
            errors=len(unasked),
            seconds=time.monotonic() - started,
        )

    # --- claiming --------------------------------------------------------------------------------------------

    def _claim(self, limit: int) -> list[Row]:
        """Claim all due tasks, batch by batch, so that few requests suffice for all of them.

        If any are due, those due a little later are claimed as well; otherwise a steady stream of tasks would cost a
        walk through the creator's list at nearly every pass.
        """
        claimed: list[Row] = []
        batch, due_by = self.state.settings.poll_batch, self.now
        try:
            while len(claimed) < limit:
                with self.state.database.session() as session:
                    rows = self.state.store.claim_polls(
                        session, now=self.now, due_by=due_by, limit=min(batch, limit - len(claimed))
                    )
                    session.commit()
                claimed += rows
                if len(rows) < batch:
                    if due_by > self.now or not claimed:
                        break
                    due_by = self.now + self.state.settings.poll_lookahead
        except SQLAlchemyError as error:
            logger.warning("Due tasks could not be claimed; the next pass tries again.", exc_info=error)
        return claimed

    # --- asking ----------------------------------------------------------------------------------------------

    def _ask(self, creator: Creator, tasks: list[Row]) -> tuple[list[Row], list[Row]]:
        """Apply the answers; return the tasks that the creator has not settled, and those that could not be queried."""
        if not tasks:
            return [], []
        reports = self._ask_together(creator, tasks)
        if reports is None:
            return [], tasks
        still_open, work = [], []
        with ThreadPoolExecutor(self.state.settings.poll_concurrency, "contenthub-reconcile") as pool:
            for task in tasks:
                report = reports.get(task["creator_task_id"])
                self.counts["asked alone"] += report is None
                if report is not None and report.state is RemoteState.OPEN and not task["times_missing"]:
                    still_open.append(task)
                else:
                    work.append((task, pool.submit(self._settle, creator, task, report)))
        by_outcome: dict[str, list[Row]] = {"open": still_open, "missing": [], "error": []}
        for task, future in work:
            by_outcome.setdefault(future.result(), []).append(task)
        open_, missing, unasked = by_outcome.pop("open"), by_outcome.pop("missing"), by_outcome.pop("error")
        self.counts.update({"still open": len(open_), "missing": len(missing)})
        self.applied.update({verdict: len(settled) for verdict, settled in by_outcome.items()})
        return open_ + missing, unasked

    def _ask_together(self, creator: Creator, tasks: list[Row]) -> Mapping[str, Report] | None:
        """Query many tasks in few requests; None if the creator is down, empty if it cannot do that."""
        waited = timedelta(seconds=self.state.settings.creator_submit_wait)
        since = min(task["submitted_at"] or task["created_at"] for task in tasks) - waited
        try:
            reports = creator.statuses([task["creator_task_id"] for task in tasks], since=since)
        except (CreatorUnreachable, CreatorRefused) as error:
            logger.warning("The creator is down, or does not want to be asked; the poller pauses: %s", error.message)
            self.state.creator_pause.failed(self.now)
            return None
        except CreatorError as error:
            logger.warning("The creator could not be asked about many tasks at once: %s", error.message)
            return {}
        self.state.creator_pause.succeeded()
        return reports

    def _settle(self, creator: Creator, task: Row, report: Report | None) -> str:
        """Settle one task: return ``open``, ``missing``, ``error``, or the verdict of the applied event."""
        try:
            return self._ask_and_apply(creator, task, report)
        except Exception:  # a creator of the host's own may raise anything; the others' tasks must not wait for it
            logger.exception("A task could not be reconciled.", extra={"task_id": task["task_id"]})
            return "error"

    def _ask_and_apply(self, creator: Creator, task: Row, report: Report | None) -> str:
        try:
            if report is None:
                report = creator.status(task["creator_task_id"])
            if report.state is RemoteState.COMPLETED and report.result is None:
                report = creator.result(task["creator_task_id"])
        except CreatorError as error:
            logger.warning("A task could not be asked about: %s", error.message, extra={"task_id": task["task_id"]})
            return "error"
        if report.state is RemoteState.MISSING and task["times_missing"] + 1 >= _MISSING_LIMIT:
            return self._apply(lost_event(self.state, task))
        if report.state is RemoteState.MISSING:
            self._count_missing(task, task["times_missing"] + 1)
            return "missing"
        received = event_of_report(self.state, task, report, Source.POLL)
        if received is None:
            self._count_missing(task, 0)
            return "open"
        return self._apply(received)

    def _count_missing(self, task: Row, times: int) -> None:
        if times == task["times_missing"]:
            return
        try:
            with self.state.database.session() as session:
                self.state.store.set_times_missing(session, task, times)
                session.commit()
        except SQLAlchemyError as error:
            logger.warning("A missing task was not counted.", exc_info=error, extra={"task_id": task["task_id"]})

    # --- applying --------------------------------------------------------------------------------------------

    def _time_out(self, unsettled: list[Row], unasked: list[Row]) -> None:
        """Give up overdue tasks, after one more query, or after the creator could not be queried for a long time."""
        patience = self.state.settings.poll_max_interval
        given_up = [task for task in unsettled if _is_overdue(task, self.now)]
        given_up += [task for task in unasked if _is_overdue(task, self.now - patience)]
        for task in given_up:
            verdict = self._apply(
                ReceivedEvent.internal(Trigger.TIMED_OUT, task["task_id"], Source.POLL, self.now, task["attempt"])
            )
            self.counts["timed out"] += verdict == Verdict.PROCESSED

    def _apply(self, received: ReceivedEvent) -> str:
        try:
            return apply_event(self.state, received).verdict.value
        except (HandlerFailed, DatabaseUnavailable):
            return "error"  # logged where it happened; the delivery or the next pass tries again
        except RequestRefused as refusal:
            logger.warning("An answer was not applied: %s", refusal.message, extra={"task_id": received.task_id})
            return "error"


def _can_be_asked_about(task: Row) -> bool:
    return task["status"] != TaskState.PENDING and task["creator_task_id"] is not None


def _is_overdue(task: Row, now: datetime) -> bool:
    return task["deadline_at"] is not None and task["deadline_at"] <= now
