"""The one function that applies an event to a task.

Whatever brings an event, it takes the same way in one transaction: one compare-and-set on the task's row, which
decides; one history row; the host's handlers; the commit. If a handler fails, everything is rolled back, and the
history row alone is written again, with the error and the time of the next try.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from .. import signals
from ..core.events import Completed, Failed, Internal, Progress
from ..core.identity import attempt_spoken_for, check_belongs
from ..core.received import Applied, Inbound
from ..core.state_machine import (
    COMPLETED_BEFORE,
    COMPLETED_NOW,
    Decision,
    TaskState,
    TaskView,
    Trigger,
    Verdict,
    decide,
)
from ..errors import DatabaseUnavailable, HandlerFailed, TaskNotFound, TransitionRefused
from ..forwarding.write import write_forwards
from ..runtime.observers import tell_of_event
from ..storage.history import (
    SETTLED,
    decision_values,
    delivery_values,
    processing_times,
    record_failure,
)
from ..storage.transactions import Transaction, Trouble, transaction, trouble_of, unit_of_work
from .handlers import HandlerError, call_handlers, handlers_of
from .task_changes import changes_of, error_of, stored_result

if TYPE_CHECKING:
    from ..runtime.state import WebhookState
    from ..storage.store import Row

__all__ = ["apply_event"]

logger = logging.getLogger(__name__)

_ROUNDS = 3
"""Tries of one transaction that lost a race; from the second on it locks the row before it reads."""


class _LostRace(Exception):
    """Somebody changed the row between our reading and our writing."""


def apply_event(state: WebhookState, inbound: Inbound, *, kept: Row | None = None) -> Applied:
    """Apply one event to its task, exactly once.

    Args:
        state: the application's state.
        inbound: the event; it must have been verified by the caller.
        kept: the history row that waits for this event's effect; by default a new one is written.

    Raises:
        TaskNotFound: there is no such task; nothing was written.
        TaskMismatch: the payload names another task; nothing was written.
        TransitionRefused: a request of the host that the task's state does not allow; nothing was written.
        HandlerFailed: a handler raised; the history row has the error and the time of the next try.
        DatabaseUnavailable: the database is away, or somebody holds the row; nothing was written.
        AlreadySettled: the history row does not wait any more; nothing was written.
    """
    for attempt in range(_ROUNDS):
        try:
            with transaction(state) as begun:
                return _Application(state, begun, inbound, kept).run(lock=attempt > 0)
        except _LostRace:
            continue
        except HandlerError as error:
            cause = error.__cause__
            trouble = trouble_of(cause) if isinstance(cause, SQLAlchemyError) else Trouble.STATEMENT
            if trouble is Trouble.RETRY and attempt + 1 < _ROUNDS:
                continue
            if trouble is Trouble.BUSY:
                logger.warning("A handler waited too long for the database.", exc_info=cause)
                raise DatabaseUnavailable from cause
            # A handler may have a database of its own, so whether ours is away is seen when the failure is written.
            raise _keep_failure(state, inbound, error, kept) from cause
        except SQLAlchemyError as error:
            if trouble_of(error) is Trouble.RETRY and attempt + 1 < _ROUNDS:
                continue
            logger.warning("The database did not take an event: %s", type(error).__name__, exc_info=error)
            raise DatabaseUnavailable from error
    raise DatabaseUnavailable("The task is changed by others all the time; send the event again.")


def _keep_failure(
    state: WebhookState, inbound: Inbound, error: HandlerError, kept: Row | None
) -> HandlerFailed | DatabaseUnavailable:
    """The transaction is gone; write the history row alone, so that the event is tried again."""
    cause = error.__cause__
    logger.error(
        "A handler failed; the event is kept and tried again.",
        exc_info=cause,
        extra={"task_id": error.task_id, "event": inbound.event.type, "handler": error.handler},
    )
    try:
        delivery_id, verdict = record_failure(
            state, inbound, _words_of(error), kept, task_id=error.task_id, attempt=error.attempt
        )
    except SQLAlchemyError as trouble:
        logger.warning("The failure could not be recorded; the sender must come again.", exc_info=trouble)
        return DatabaseUnavailable()
    tell_of_event(state, inbound, verdict)
    _tell_of_failure(state, delivery_id)
    failed = HandlerFailed()
    failed.delivery_id = delivery_id
    return failed


def _tell_of_failure(state: WebhookState, delivery_id: int) -> None:
    if not signals.delivery_processed.receivers:
        return
    with unit_of_work(state) as session:
        delivery = session.get(state.delivery_model, delivery_id)
        if delivery is None:
            return
        values = state.store.read_task(session, delivery.task_id)
        signals.send_quietly(
            signals.delivery_processed,
            state.app,
            clean_up=session.rollback,
            delivery=delivery,
            task=None if values is None else state.store.tasks.persistent(session, values),
            outcome=delivery.verdict,
        )


def _words_of(error: HandlerError) -> str:
    """Which handler raised what; an error whose own words fail is named by its class."""
    cause = error.__cause__
    try:
        words = str(cause)
    except Exception:  # noqa: BLE001 - a host's error may do anything
        words = "(its message cannot be read)"
    return f"{error.handler}: {type(cause).__name__}: {words}"


class _Application:
    """One event in one transaction."""

    def __init__(self, state: WebhookState, transaction: Transaction, inbound: Inbound, kept: Row | None) -> None:
        self.state = state
        self.transaction = transaction
        self.unit = transaction.connection
        self.inbound = inbound
        self.event = inbound.event
        self.trigger = inbound.trigger
        self.kept = kept
        self.spoken_for = inbound.attempt
        self.now = state.clock()

    def run(self, *, lock: bool) -> Applied:
        done = None
        if self.trigger is Trigger.COMPLETED and not lock:
            done = self._complete()
        task, decision, delivery = done or self._decide_and_change(lock=lock)
        applied = Applied(
            verdict=decision.verdict,
            delivery_id=delivery["id"],
            task_id=task["task_id"],
            status=TaskState(task["status"]),
            late=decision.late,
            will_retry=decision.will_retry,
            reason=decision.reason,
        )
        self._call_handlers(task, delivery, decision)
        self._tell_afterwards(task, delivery, applied)
        return applied

    # --- the task --------------------------------------------------------------------------------------------

    def _complete(self) -> tuple[Row, Decision, Row] | None:
        """Nearly every callback completes an open task, and most others repeat it: both without reading it first."""
        ours = self.inbound.task_id
        named = None if self.inbound.bound_to_task or self.event.task_id == ours else self.event.task_id
        written = self.state.store.complete(
            self.unit,
            ours,
            named,
            result=stored_result(self.event, self.state.settings),
            now=self.now,
            history=self._arrival(ours),
            delivery_id=None if self.kept is None else self.kept["id"],
        )
        if written is None:
            return None
        decision = COMPLETED_BEFORE if written.is_repeat else COMPLETED_NOW
        return written.task, decision, {**(self.kept or SETTLED), **written.delivery}

    def _decide_and_change(self, *, lock: bool) -> tuple[Row, Decision, Row]:
        """Read the task, decide, and change it if nobody else did meanwhile."""
        store = self.state.store
        seen = store.read_task(self.unit, self.inbound.task_id, by_any_id=self.inbound.by_any_id, lock=lock)
        if seen is None:
            raise TaskNotFound
        check_belongs(self.inbound, seen)
        self.spoken_for = attempt_spoken_for(self.inbound, seen)
        decision = self._decide(seen)
        if decision.refused:
            raise TransitionRefused(decision.reason)
        task = seen
        if decision.verdict is Verdict.PROCESSED:
            values = changes_of(self.inbound, decision, seen, settings=self.state.settings, now=self.now)
            if not store.compare_and_set(self.unit, seen, values):
                raise _LostRace
            task = {**seen, "previous_status": seen["status"], "version": seen["version"] + 1, **values}
        told = decision_values(decision, task["status"])
        history = {**self._arrival(seen["task_id"]), **told, "status_before": seen["status"]}
        return task, decision, self._write_history(history)

    def _decide(self, task: Row) -> Decision:
        settings, event = self.state.settings, self.event
        view = TaskView(
            status=TaskState(task["status"]),
            attempt=task["attempt"],
            max_retries=settings.max_retries if task["max_retries"] is None else task["max_retries"],
            percentage=task["progress_percentage"],
            progress_at=task["progress_at"],
        )
        return decide(
            self.trigger,
            view,
            attempt=self.spoken_for,
            seen_before=self._was_applied(task),
            retryable=not isinstance(event, Failed) or event.retryable,
            percentage=event.percentage if isinstance(event, Progress) else None,
            occurred_at=event.occurred_at,
            has_time_left=task["deadline_at"] is not None and task["deadline_at"] > self.now,
        )

    def _was_applied(self, task: Row) -> bool:
        """Where neither a state nor an attempt number tells a copy from a new event, the history does."""
        inbound = self.inbound
        if self.trigger is Trigger.COMPLETED or isinstance(self.event, Internal):
            return False
        told_by_attempt = (
            inbound.attempt is not None and inbound.is_attempt_vouched and self.trigger is not Trigger.CUSTOM
        )
        digest = None if told_by_attempt else inbound.digest
        if digest is None and inbound.message_id is None:
            return False
        return self.state.store.was_applied(self.unit, task["task_id"], digest, inbound.message_id)

    # --- the history, the handlers, the commit ---------------------------------------------------------------

    def _arrival(self, task_id: str) -> dict[str, Any]:
        """The history row, but for what is decided; of one that waits, what changes."""
        if self.kept is None:
            return delivery_values(self.inbound, task_id, self.now)
        return {**processing_times(self.inbound, self.now), **SETTLED}

    def _write_history(self, values: Row) -> Row:
        """A new row, or the row of an earlier try brought up to date."""
        store = self.state.store
        if self.kept is None:
            return store.insert_delivery(self.unit, values)
        return {**self.kept, **store.settle_delivery(self.unit, self.kept["id"], values)}

    def _call_handlers(self, task: Row, delivery: Row, decision: Decision) -> None:
        """The host's handlers, then the commit."""
        if decision.verdict is not Verdict.PROCESSED:
            self.transaction.commit()
            return
        if task["forward_to"] or self.state.settings.forward_to:
            write_forwards(self.state, self.transaction.session(), self.event, decision, task=task, delivery=delivery)
        calls = handlers_of(self.state, self.event, decision, self._arguments(decision))
        if not calls:
            self.transaction.commit()
            return
        store = self.state.store
        attempt = self.spoken_for
        if attempt is None:
            attempt = task["attempt"] - 1 if decision.will_retry else task["attempt"]
        session = self.transaction.session()
        try:
            call_handlers(
                self.state.app,
                self.transaction,
                calls,
                task=store.tasks.persistent(session, task),
                delivery=store.deliveries.persistent(session, delivery),
            )
            self.transaction.commit()
        except HandlerError as error:
            error.task_id, error.attempt = task["task_id"], attempt
            raise
        except IntegrityError as error:  # a deferred constraint of the host's
            late = HandlerError("commit")
            late.task_id, late.attempt = task["task_id"], attempt
            raise late from error

    def _arguments(self, decision: Decision) -> dict[str, Any]:
        """What the signal of this change tells beside the task and the delivery."""
        match self.event:
            case Completed(result=result) if decision.to is TaskState.COMPLETED:
                return {"result": result, "late": decision.late}
            case Progress(progress=progress):
                return {"progress": progress}
            case Failed() | Completed():
                return {"error": error_of(self.event), "will_retry": decision.will_retry}
            case _:
                return {}

    def _tell_afterwards(self, task: Row, delivery: Row, applied: Applied) -> None:
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "Event %s: %s",
                self.event.type,
                applied.verdict,
                extra={
                    "task_id": applied.task_id,
                    "delivery_id": applied.delivery_id,
                    "source": self.inbound.source.value,
                    "status": applied.status.value,
                    "late": applied.late,
                },
            )
        tell_of_event(self.state, self.inbound, applied.verdict)
        if signals.delivery_processed.receivers:
            store, session = self.state.store, self.transaction.session()
            signals.send_quietly(
                signals.delivery_processed,
                self.state.app,
                clean_up=session.rollback,
                delivery=session.get(store.deliveries.model, delivery["id"]),
                task=store.task_of(session, task),
                outcome=applied.verdict.value,
            )
