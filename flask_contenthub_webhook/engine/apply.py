"""The one function that applies an event to a task.

Every event is applied in one transaction: a compare-and-set on the task's row, which decides; a history row; the host's
handlers; the commit. If a handler fails, everything is rolled back, and :mod:`.failures` writes the history row alone.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from .. import signals
from ..core.events import Completed, Failed, Internal, Progress, error_of
from ..core.logs import get_logger
from ..core.received import Outcome, ReceivedEvent, Row, attempt_of, check_belongs
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
from ..errors import DatabaseUnavailable, TaskNotFound, TransitionRefused, ends_process
from ..forwarding.write import write_forwards
from ..runtime.state import WebhookState
from ..storage.database_errors import Trouble, is_commit_refused, row_refusal, trouble_of, unavailable
from ..storage.delivery_rows import SETTLED, decision_values, delivery_values, processing_times, with_notes
from ..storage.failure_log import log_failure
from ..storage.transactions import Transaction
from .belonging import check_sender
from .failures import keep_failure
from .handlers import HandlerError, call_handlers, handlers_of, say_if_unheard
from .history import settle_copies
from .last_failures import denied
from .spans import apply_in_span, link_to_submission
from .stray_jobs import Strays, names_of_strays, not_told_lately, until_over, until_told
from .task_changes import changes_of, stored_result

__all__ = ["apply_event"]

logger = get_logger(__name__)

_ROUNDS = 3
"""Tries of one transaction that lost a race; from the second on it locks the row before it reads."""


class _LostRace(Exception):
    """Another transaction changed the row between our read and our write."""


def apply_event(state: WebhookState, received: ReceivedEvent, *, kept: Row | None = None) -> Outcome:
    """Apply one event to its task, exactly once.

    Args:
        state: the application's state.
        received: the event; it must have been verified by the caller.
        kept: the history row that waits for this event; by default a new one is written.

    Raises:
        TaskNotFound: there is no such task; nothing was written.
        TaskMismatch: the payload names another task; nothing was written.
        TransitionRefused: the host asked for a change that the task's state does not allow; nothing was written.
        HandlerFailed: a handler raised; the history row has the error and the time of the next try.
        EventNotStorable: the database can never store it; nothing was written.
        DatabaseUnavailable: the database is down, or the row stays locked; nothing was written.
        AlreadySettled: the history row no longer waits; nothing was written.
    """
    if state.tracing is not None and received.traceparent is None:
        return apply_in_span(state, received, kept, partial(apply_event, state, received, kept=kept))
    for number in range(_ROUNDS):
        try:
            outcome, strays = _apply_once(state, received, kept, lock=number > 0)
        except _LostRace:
            continue
        except HandlerError as error:
            cause = error.__cause__
            trouble = trouble_of(cause) if isinstance(cause, SQLAlchemyError) else Trouble.STATEMENT
            if trouble is Trouble.RETRY and number + 1 < _ROUNDS:
                continue
            # Any other error counts as the event's own; recording it shows whether the database is down.
            raise keep_failure(state, received, error, kept) from cause
        except SQLAlchemyError as error:
            if trouble_of(error) is Trouble.RETRY and number + 1 < _ROUNDS:
                continue
            log_failure(state.database, logger, "The database did not take an event.", error)
            raise unavailable(error) from error
        else:
            if strays is not None:
                strays.stop_soon(state)
            return outcome
    raise DatabaseUnavailable("Other requests keep changing the task; send the event again.")


def _apply_once(
    state: WebhookState, received: ReceivedEvent, kept: Row | None, *, lock: bool
) -> tuple[Outcome, Strays | None]:
    failure: HandlerError | None = None
    one: _EventTransaction | None = None
    try:
        with state.database.transaction() as transaction:
            try:
                one = _EventTransaction(state, transaction, received, kept)
                return one.apply(lock=lock), one.strays
            except HandlerError as error:
                failure = error
                raise
    except SQLAlchemyError as error:
        if one is not None and one.outcome is not None:
            message = "The database went away after an event was applied; receivers may not have heard of it."
            log_failure(state.database, logger, message, error)
            return one.outcome, one.strays
        if failure is None:
            raise
        raise failure from failure.__cause__  # the rollback failed, too: the handler broke the connection


class _EventTransaction:
    """The transaction in which one event is applied."""

    outcome: Outcome | None = None
    """Set once it is committed."""

    def __init__(
        self, state: WebhookState, transaction: Transaction, received: ReceivedEvent, kept: Row | None
    ) -> None:
        self.state = state
        self.store = state.store
        self.transaction = transaction
        self.tx = transaction.connection
        self.received = received
        self.event = received.event
        self.trigger = received.trigger
        self.kept = kept
        self.attempt = received.attempt
        self.seen: Row | None = None
        self.strays: Strays | None = None
        self.may_have_copies = False
        self.now, self.ahead = self.store.clock.now_and_ahead(self.tx)

    def apply(self, *, lock: bool) -> Outcome:
        try:
            task, decision, delivery = self._complete_at_once(lock=lock) or self._decide_and_change(lock=lock)
            if self.received.traceparent is not None:
                link_to_submission(self.state, self.tx, task)
            if self.may_have_copies or self.received.replay_of is not None:
                row = {"id": delivery["id"], "task_id": task["task_id"]}
                settle_copies(self.store.copies, self.tx, self.received, decision, row, attempt=self.attempt)
            if self.state.creator is not None:
                self._find_strays(task, decision)
            if decision.verdict is Verdict.PROCESSED:
                self._queue_forwards(task, decision, delivery)
            if self.trigger is Trigger.RETRY and not self.state.settings.submit_threads:
                self.store.inbox.notify(self.tx)  # a scheduler will hand it over
        except SQLAlchemyError as error:
            self._blame_the_event(error)
            raise
        try:
            if decision.verdict is Verdict.PROCESSED:
                self._call_handlers(task, decision, delivery)
            self._commit()
        except HandlerError as error:
            error.task_id, error.attempt = task["task_id"], self._attempt_that_came(task, decision)
            raise
        self.outcome = outcome = Outcome.of(decision, task, delivery)
        self._announce(task, delivery, outcome)
        return outcome

    # --- the task --------------------------------------------------------------------------------------------

    def _complete_at_once(self, *, lock: bool) -> tuple[Row, Decision, Row] | None:
        """Complete an open task, or record a repeat, without reading first, as for nearly every callback."""
        if self.trigger is not Trigger.COMPLETED or lock or self.event.notes:
            return None
        if self.state.registry.has_readers and self.received.came_by_callback:  # the task says whose it is
            return None
        ours = self.received.task_id
        named = None if self.received.task_is_authenticated or self.event.task_id == ours else self.event.task_id
        written = self.store.complete(
            self.tx,
            ours,
            named,
            result=stored_result(self.event, self.state.settings),
            now=self.now,
            history=self._arrival(ours),
            delivery_id=None if self.kept is None else self.kept["id"],
        )
        if written is None:
            return None
        self.may_have_copies = written.has_failed
        decision = COMPLETED_BEFORE if written.is_repeat else COMPLETED_NOW
        return written.task, decision, {**(self.kept or SETTLED), **written.delivery}

    def _decide_and_change(self, *, lock: bool) -> tuple[Row, Decision, Row]:
        """Read the task, decide, and change it unless it changed in between."""
        seen = self.store.read_task(
            self.tx, self.received.task_id, id_may_be_creators=self.received.id_may_be_creators, lock=lock
        )
        if seen is None:
            raise TaskNotFound
        self.seen = seen
        check_belongs(self.received, seen)
        check_sender(self.state, self.received, seen)
        self.attempt = attempt_of(self.received, seen)
        self.may_have_copies = self.trigger is not Trigger.PROGRESS or (self.kept or {}).get("tries", 0) > 0
        decision = self._decide(seen)
        if decision.refused:
            raise TransitionRefused(decision.reason)
        task = seen
        if decision.verdict is Verdict.PROCESSED:
            settings, sender = self.state.settings_for(seen), self.state.url_name_for(seen)
            values = changes_of(self.received, decision, seen, settings=settings, now=self.now, sender=sender)
            if (service := self.state.service_for(seen)) is not None:
                values |= until_told(self.trigger, seen, settings, self.now)
                values |= {} if service.can_find else until_over(self.trigger, seen, settings, self.now)
                if service.keeps_names and self.trigger is Trigger.PROGRESS:
                    values.pop("creator_task_id", None)
            if not self.store.compare_and_set(self.tx, seen, values):
                raise _LostRace
            task = {**seen, "previous_status": seen["status"], "version": seen["version"] + 1, **values}
        decided = decision_values(decision, task["status"])
        decided |= {"attempt": self.attempt, "status_before": seen["status"]}
        history = {**self._arrival(seen["task_id"]), **decided}
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
        decision = decide(
            self.trigger,
            view,
            attempt=self.attempt,
            seen_before=self._was_applied(task),
            retryable=not isinstance(event, Failed) or event.retryable,
            percentage=event.percentage if isinstance(event, Progress) else None,
            occurred_at=event.occurred_at,
            has_time_left=task["deadline_at"] is not None and task["deadline_at"] > self.now,
        )
        if isinstance(event, Internal) and not decision.reason:
            return replace(decision, reason=event.payload.get("reason", ""))
        return with_notes(denied(say_if_unheard(self.state, event, decision), self.received), event.notes)

    def _was_applied(self, task: Row) -> bool:
        """Ask the history if neither a state nor an attempt number distinguishes a copy from a new event."""
        received = self.received
        if self.trigger is Trigger.COMPLETED or isinstance(self.event, Internal):
            return False
        attempt_tells = (
            received.attempt is not None and received.attempt_is_authenticated and self.trigger is not Trigger.CUSTOM
        )
        digest = None if attempt_tells else received.digest
        if digest is None and received.message_id is None:
            return False
        return self.store.was_applied(self.tx, task, digest, received.message_id)

    def _find_strays(self, task: Row, decision: Decision) -> None:
        """Note the jobs that nobody wants any longer; a task that ends before its own stays due until that is told."""
        names = names_of_strays(self.received, decision, task, self.attempt)
        is_ending = decision.verdict is Verdict.PROCESSED
        if not is_ending and names:
            names = not_told_lately(self.state, names)
        if not names:
            return
        if is_ending and task["next_poll_at"] is None:
            self.store.keep_due(self.tx, task, self.now + self.state.settings.poll_grace)
        if "creator_name" not in task:  # it was completed without reading it
            task = {**(self.store.read_task(self.tx, task["task_id"]) or {"creator_name": None}), **task}
        self.strays = Strays(task, names, current=is_ending)

    # --- the history -----------------------------------------------------------------------------------------

    def _arrival(self, task_id: str) -> dict[str, Any]:
        """Return the history row's columns that do not depend on the decision; for a waiting row, the changed ones."""
        if self.kept is None:
            return delivery_values(self.received, task_id, self.now, ahead=self.ahead)
        changed = {"event": self.event.type, "tries": self.kept["tries"] + 1}  # what it is may be known only now
        return {**processing_times(self.received.received_at, self.now), **SETTLED, **changed}

    def _write_history(self, values: Row) -> Row:
        """Write a new row, or bring the row of an earlier try up to date."""
        if self.kept is None:
            return self.store.insert_delivery(self.tx, values)
        return {**self.kept, **self.store.settle_delivery(self.tx, self.kept["id"], values)}

    def _blame_the_event(self, error: SQLAlchemyError) -> None:
        """Count it as this event's failure if a constraint or a trigger refuses its rows; others may pass."""
        if (refusal := row_refusal(error)) is None:
            return
        failure = HandlerError("a statement of the extension")
        failure.task_id, failure.attempt = self.received.task_id, self.attempt
        if self.seen is not None:
            failure.task_id = self.seen["task_id"]
            failure.attempt = self.seen["attempt"] if self.attempt is None else self.attempt
        raise failure from refusal

    # --- the host --------------------------------------------------------------------------------------------

    def _queue_forwards(self, task: Row, decision: Decision, delivery: Row) -> None:
        if task["forward_to"] or self.state.settings.forward_to:
            session = self.transaction.session()
            write_forwards(self.state, session, self.event, decision, task=task, delivery=delivery)

    def _call_handlers(self, task: Row, decision: Decision, delivery: Row) -> None:
        calls = handlers_of(self.state, self.event, decision, self._arguments(decision))
        if not calls:
            return
        session = self.transaction.session()
        call_handlers(
            self.state.app,
            self.transaction,
            calls,
            task=self.store.tasks.object_from_row(session, task),
            delivery=self.store.deliveries.object_from_row(session, delivery),
            tracing=self.state.tracing,
        )

    def _arguments(self, decision: Decision) -> dict[str, Any]:
        """Return the arguments of the signal, except the task and the delivery."""
        match self.event:
            case Completed(result=result) if decision.to is TaskState.COMPLETED:
                return {"result": result, "late": decision.late}
            case Progress(progress=progress):
                return {"progress": progress}
            case Failed() | Completed():
                return {"error": error_of(self.event), "will_retry": decision.will_retry}
            case _:
                return {}

    def _commit(self) -> None:
        """Commit; a deferred constraint or a session event of the host may still refuse what handlers wrote."""
        try:
            self.transaction.commit()
        except BaseException as error:
            if _is_surroundings(error):
                raise
            raise HandlerError("commit") from error

    def _attempt_that_came(self, task: Row, decision: Decision) -> int:
        """Return the attempt of this event, so that a later try does not apply it to a later attempt."""
        if self.attempt is not None:
            return self.attempt
        return int(task["attempt"]) - 1 if decision.will_retry else int(task["attempt"])

    def _announce(self, task: Row, delivery: Row, outcome: Outcome) -> None:
        applied = self.state.applied  # which a worker that ends takes away, whatever its last thread is doing
        level = logging.INFO if applied is None else applied.level_of(self.event.type, outcome)
        if logger.isEnabledFor(level):
            logger.log(
                level,
                "Event %s: %s%s",
                self.event.type,
                outcome.verdict,
                f" ({outcome.reason})" if outcome.reason else "",
                extra={
                    "task_id": outcome.task_id,
                    "attempt": delivery.get("attempt"),
                    "remote_addr": self.received.remote_addr,
                    "delivery_id": outcome.delivery_id,
                    "source": self.received.source.value,
                    "status": outcome.status.value,
                    "late": outcome.late,
                },
            )
        arrived_at = self.received.received_at if self.kept is None else self.received.received_at - self.ahead
        facts: dict[str, Any] = {"received": self.received, "verdict": outcome.verdict, "arrived_at": arrived_at}
        signals.send_quietly(signals.event_handled, self.state.app, **facts)
        if signals.delivery_processed.receivers:
            session = self.transaction.session()
            signals.send_quietly(
                signals.delivery_processed,
                self.state.app,
                clean_up=session.rollback,
                delivery=session.get(self.store.deliveries.model, delivery["id"]),
                task=self.store.task_of(session, task),
                outcome=outcome.verdict.value,
            )


def _is_surroundings(error: BaseException) -> bool:
    """Return True if the process or the database caused an error at the COMMIT, rather than what was written."""
    about_database = isinstance(error, SQLAlchemyError) and not is_commit_refused(error)
    return about_database or ends_process(error)
