"""Tasks and deliveries in the database: read, changed and claimed.

A callback costs one UPDATE, one INSERT, what the handlers write, and one COMMIT.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..core.received import ReceivedEvent
from ..core.state_machine import TaskState
from .clock import NOW, AgreedClock
from .completion import FIRST, REPEAT, Completion
from .copies import Copies
from .dialect import Capabilities
from .inbox import InboxStore
from .rows import ModelTable, Row, Tx, leaves_columns_to_sqlalchemy
from .task_statements import Claim, Options, Statements

__all__ = ["AlreadySettled", "Capabilities", "Row", "Store", "Written"]


class AlreadySettled(Exception):
    """Another process has settled or parked the delivery in the meantime."""


class Written(NamedTuple):
    """The rows that a ``completed`` changed.

    Args:
        task: attributes of the task; the others load when they are read.
        delivery: attributes of the history row.
        is_repeat: True if the task was completed before.
        has_failed: True if events of the task may wait for another try, or are parked.
    """

    task: Row
    delivery: Row
    is_repeat: bool = False
    has_failed: bool = False


class Store:
    """The statements over tasks and deliveries, run in a transaction of the caller's.

    Args:
        task_model: a model with the columns of ``GenerationTaskMixin``.
        delivery_model: a model with the columns of ``DeliveryMixin``.
        lock_timeout: seconds to wait for a lock, on database servers.
        poll_intervals: time to a task's next query: without callbacks, then after each query; the last one repeats.
        own_intervals: the same for creators that have their own, by ``creator_name``.
        capabilities: what the database can do; detected on the first connection by default.
        clock: the application's and the database's.
    """

    def __init__(
        self,
        task_model: type[Any],
        delivery_model: type[Any],
        *,
        lock_timeout: float,
        poll_intervals: Sequence[timedelta] = (timedelta(seconds=30), timedelta(seconds=600)),
        own_intervals: Mapping[str, Sequence[timedelta]] | None = None,
        capabilities: Capabilities | None = None,
        clock: AgreedClock | None = None,
    ) -> None:
        self.tasks = ModelTable(task_model)
        self.deliveries = ModelTable(delivery_model)
        self.lock_timeout = lock_timeout
        self._options = Options.of(lock_timeout, poll_intervals, own_intervals or {})
        self._features = capabilities
        self._prepared: Statements | None = None
        self.clock = clock or AgreedClock()
        self.copies = Copies(self.deliveries)
        self.inbox = InboxStore(
            self.tasks,
            self.deliveries,
            connect=self.connection_of,
            capabilities=self.capabilities,
            clock=self.clock,
        )

    def now(self, tx: Tx) -> datetime:
        """Return the time by which processes agree; see :class:`.AgreedClock`."""
        return self.clock.now(self.connection_of(tx))

    # --- tasks -----------------------------------------------------------------------------------------------

    def complete(
        self,
        tx: Tx,
        task_id: str,
        creator_task_id: str | None,
        *,
        result: Row,
        now: datetime,
        history: Row,
        delivery_id: int | None = None,
    ) -> Written | None:
        """Complete an open task, or record a repeat for a completed one, without reading it first.

        Args:
            tx: the transaction.
            task_id: our id.
            creator_task_id: if given, the row's ``creator_task_id`` must be this.
            result: the result to keep.
            now: the time of the change.
            history: the history row, except what is decided here.
            delivery_id: the history row that waits already; ``history`` changes it. A repeat then does nothing.

        Returns:
            The written rows; None if there is no such task in such a state, or this database cannot tell.

        Raises:
            AlreadySettled: the history row no longer waits; roll back.
        """
        sql = self._sql(tx)
        parameters = {"at_task_id": task_id, "at_result": result, "at_finished_at": now, "at_updated_at": now}
        if creator_task_id is not None:
            parameters["at_creator_task_id"] = creator_task_id
        complete = sql.complete_open if creator_task_id is None else sql.complete_open_of_creator
        run = self._complete_at_once if complete.records else self._complete_in_steps
        return run(tx, complete, parameters, history, delivery_id)

    def _complete_at_once(
        self, tx: Tx, complete: Completion, parameters: dict[str, Any], history: Row, delivery_id: int | None
    ) -> Written | None:
        keys, bound = tuple(history), _bound(history) | parameters
        if delivery_id is None:
            statement = complete.recording(keys)
        else:
            statement = complete.settling(keys)
            bound["at_id"] = delivery_id
        row = self.connection_of(tx).execute(statement, bound).one_or_none()
        if row is None:
            return None
        *values, has_failed, recorded_id = row
        if recorded_id is None:
            raise AlreadySettled
        returned = dict(zip(self._sql(tx).returned, values, strict=True))
        if returned["id"] is None:
            return _repeat(parameters, history, recorded_id)
        delivery = {**history, **FIRST, "status_before": returned["previous_status"], "id": recorded_id}
        return Written(self._completed(tx, parameters, returned), delivery, has_failed=has_failed)

    def _complete_in_steps(
        self, tx: Tx, complete: Completion, parameters: dict[str, Any], history: Row, delivery_id: int | None
    ) -> Written | None:
        connection, capabilities = self.connection_of(tx), self._sql(tx).capabilities
        outcome = connection.execute(complete.alone, parameters)
        task, has_failed = None, True
        if not capabilities.returning:
            if outcome.rowcount == 1:
                *values, has_failed = connection.execute(complete.changed, _ids(parameters)).one()
                task = self._task_values(values)
        elif (row := outcome.one_or_none()) is not None:
            *values, has_failed = row
            task = self._completed(tx, parameters, dict(zip(self._sql(tx).returned, values, strict=True)))
        if task is not None:
            written = {**history, **FIRST, "status_before": task["previous_status"]}
            if delivery_id is None:
                return Written(task, self.insert_delivery(tx, written), has_failed=has_failed)
            return Written(task, self.settle_delivery(tx, delivery_id, written), has_failed=has_failed)
        if delivery_id is not None or not capabilities.insert_from_select:
            return None
        bound = _bound(history) | _ids(parameters)
        outcome = connection.execute(complete.repeating(tuple(history)), bound)
        return _repeat(parameters, history, outcome.lastrowid) if outcome.rowcount == 1 else None

    def _completed(self, tx: Tx, parameters: Row, returned: Row) -> Row:
        """Return a task as it is now, from what the UPDATE set and what it returned."""
        result, now = parameters["at_result"], parameters["at_finished_at"]
        return {
            "task_id": parameters["at_task_id"],
            "status": TaskState.COMPLETED.value,
            "result": result,
            "finished_at": now,
            "updated_at": now,
            **self._sql(tx).cleared,
            **returned,
        }

    def read_task(self, tx: Tx, task_id: str, *, id_may_be_creators: bool = False, lock: bool = False) -> Row | None:
        """Read a task by our id, or the creator's if allowed; ``lock`` locks the row until the transaction ends."""
        sql = self._sql(tx)
        connection = self.connection_of(tx)
        parameters = {"at_task_id": task_id}
        if lock and sql.lock_by_writing is not None:
            connection.execute(sql.lock_by_writing, parameters)
        row = connection.execute(sql.task_by_id_locked if lock else sql.task_by_id, parameters).one_or_none()
        if row is None and id_may_be_creators:
            row = connection.execute(sql.task_by_creator_id, parameters).first()
        return None if row is None else self._task_values(row)

    def find_tasks(self, tx: Tx, ids: Collection[str]) -> dict[str, Row]:
        """Read tasks by our ids, or by the creator's if none of ours matches."""
        sql, connection = self._sql(tx), self.connection_of(tx)
        tasks: dict[str, Row] = {}
        for key, statement in (("task_id", sql.tasks_by_id), ("creator_task_id", sql.tasks_by_creator_id)):
            missing = [task_id for task_id in ids if task_id not in tasks]
            for row in connection.execute(statement, {"at_task_ids": missing}) if missing else ():
                task = self._task_values(row)
                tasks.setdefault(task[key], task)
        return tasks

    def read_attempts(self, tx: Tx, task_ids: Collection[str]) -> dict[str, tuple[int, str]]:
        """Return the current attempt and the status of tasks, by our ids."""
        found = self.connection_of(tx).execute(self._sql(tx).attempts, {"at_task_ids": list(task_ids)})
        return {task_id: (attempt, status) for task_id, attempt, status in found}

    def task_of(self, session: Session, values: Row) -> Any:
        """Load the object of a task from a row with at least ``task_id``; None if the task is gone."""
        model = self.tasks.model
        if "id" in values:
            return session.get(model, values["id"])
        return session.scalars(sa.select(model).filter_by(task_id=values["task_id"])).one_or_none()

    def compare_and_set(self, tx: Tx, seen: Row, values: Row) -> bool:
        """Change a task unless it was changed since it was read; the row count decides."""
        values = {**values, "version": seen["version"] + 1}
        at = {"at_task_id": seen["task_id"], "at_version": seen["version"]}
        return self._changes(tx, self._sql(tx).compare_and_set, self.tasks, values, at)

    # --- tasks that are due (``without`` some, by ``creator_name``; empty text is none) ---------------------------

    def claim_submissions(self, tx: Tx, *, lease: timedelta, limit: int, without: Sequence[str] = ()) -> list[Row]:
        """Claim due pending tasks for a lease, ``without`` those of creators that rest; the caller commits."""
        times = self.clock.bound(self.connection_of(tx), at_due=NOW, at_until=lease)
        return self._claim_tasks(tx, self._sql(tx).submissions, {**times, "at_limit": limit}, without)

    def claim_polls(self, tx: Tx, *, early: timedelta = NOW, limit: int, without: Sequence[str] = ()) -> list[Row]:
        """Claim open tasks due for a query, and set the time of their next one; the caller commits.

        Only tasks with callbacks and before their deadline are claimed ``early``.
        """
        times = self.clock.bound(self.connection_of(tx), at_now=NOW, at_due=early, **self._options.bound_intervals())
        return self._claim_tasks(tx, self._sql(tx).polls, {**times, "at_limit": limit}, without)

    def renew_submission(self, tx: Tx, task: Row, until: datetime) -> bool:
        """Extend the lease of a submission; False if it was lost, or the task moved on."""
        at = {**_attempt(task), "at_seen": task["next_submit_at"]}
        return self._changes(tx, self._sql(tx).change_claimed, self.tasks, {"next_submit_at": until}, at)

    def mark_submitting(self, tx: Tx, task: Row, now: datetime, *, address: str | None) -> bool:
        """Record that the creator at an address is about to be called; False if the task moved on meanwhile."""
        values = {"submitting_since": now, "creator_address": address, "updated_at": now}
        at = {**_attempt(task), "at_seen": task["next_submit_at"]}
        return self._changes(tx, self._sql(tx).change_claimed, self.tasks, values, at)

    def postpone_submission(self, tx: Tx, task: Row, *, wait: timedelta, may_have_arrived: bool) -> bool:
        """Make the attempt due after a ``wait``, as nobody was reached; query first if a call ``may_have_arrived``."""
        now = self.now(tx)
        due = now + wait
        values: dict[str, Any] = {"submit_tries": task["submit_tries"] + 1, "next_submit_at": due, "updated_at": now}
        if not may_have_arrived:
            values["submitting_since"] = None
        return self._changes(tx, self._sql(tx).change_pending, self.tasks, values, _attempt(task))

    def note_answer(self, tx: Tx, task: Row, values: Row) -> None:
        """Change what is known of the current attempt, whatever became of it."""
        self._changes(tx, self._sql(tx).change_attempt, self.tasks, values, _attempt(task))

    def note_poll(self, tx: Tx, task: Row, values: Row) -> None:
        """Change what a poll found out about a task, such as how often in a row it was missing, if it is still open."""
        self._changes(tx, self._sql(tx).change_open, self.tasks, values, _attempt(task))

    def keep_due(self, tx: Tx, task: Row, due: datetime) -> None:
        """Keep a task due that has just ended, for its job has to be cancelled."""
        self._changes(tx, self._sql(tx).change_ended, self.tasks, {"next_poll_at": due, "polls": 0}, _attempt(task))

    def forget_ended(self, tx: Tx, task: Row) -> None:
        """Let a task that has ended no longer be due."""
        self._changes(tx, self._sql(tx).change_ended, self.tasks, {"next_poll_at": None}, _attempt(task))

    def _claim_tasks(self, tx: Tx, claim: Claim, parameters: dict[str, Any], without: Sequence[str] = ()) -> list[Row]:
        if without:
            claim, parameters = claim.of_others, {**parameters, "at_without": list(without)}
        return [self._task_values(row) for row in claim.run(self.connection_of(tx), parameters)]

    # --- deliveries ------------------------------------------------------------------------------------------

    def insert_delivery(self, tx: Tx, values: Row) -> Row:
        """Write a history row; return its attributes and its new id."""
        row = self.deliveries.new_row(values)
        return {**values, "id": self._sql(tx).insert_delivery(self.connection_of(tx), row)}

    def insert_deliveries(self, tx: Tx, rows: Sequence[Row]) -> list[int]:
        """Write several history rows that have the same attributes; return their ids, in the same order."""
        if not rows:
            return []
        parameters = [self.deliveries.new_row(values) for values in rows]
        sql = self._sql(tx)
        if not sql.capabilities.insert_many:
            return [self.insert_delivery(tx, values)["id"] for values in rows]
        return sorted(self.connection_of(tx).execute(sql.insert_deliveries, parameters).scalars())

    def update_delivery(self, tx: Tx, delivery_id: int, values: Row) -> bool:
        """Change a history row that still waits or is parked; False if it was settled meanwhile."""
        return self._changes(tx, self._sql(tx).update_delivery, self.deliveries, values, {"at_id": delivery_id})

    def settle_delivery(self, tx: Tx, delivery_id: int, values: Row) -> Row:
        """Settle a history row that still waits or is parked, just before its event is applied.

        Raises:
            AlreadySettled: another process did so; roll back.
        """
        if not self.update_delivery(tx, delivery_id, values):
            raise AlreadySettled
        return {**values, "id": delivery_id}

    def add_occurrences(self, tx: Tx, delivery_id: int, count: int, at: datetime) -> bool:
        """Count further refused requests on a row; False if it was purged meanwhile."""
        values, bound = {"processed_at": at}, {"at_id": delivery_id, "at_count": count}
        return self._changes(tx, self._sql(tx).add_occurrences, self.deliveries, values, bound)

    def read_delivery(self, tx: Tx, delivery_id: int) -> Row | None:
        """Read a history row."""
        row = self.connection_of(tx).execute(self._sql(tx).delivery_by_id, {"at_id": delivery_id}).one_or_none()
        return None if row is None else dict(zip(self.deliveries.columns, row, strict=True))

    def was_applied(self, tx: Tx, task: Row, digest: str | None, message_id: str | None) -> bool:
        """Tell whether a message was already applied to the task, or found to belong to an earlier attempt.

        Two messages with different ids are two. One without an id is the same as any with its digest, so that it
        cannot come once more under another scheme. None matches none.
        """
        parameters = {
            "at_task_id": task["task_id"],
            "at_attempt": task["attempt"],
            "at_message_id": message_id,
            "at_digest": digest if message_id is None else None,
            "at_digest_without_id": digest,
        }
        return self.connection_of(tx).execute(self._sql(tx).was_applied, parameters).first() is not None

    def is_waiting(self, tx: Tx, received: ReceivedEvent) -> bool:
        """Tell whether the same event waits for another try already, or is parked and did not come from a sender."""
        parameters = {
            "at_task_id": received.task_id,
            "at_event": received.event.type,
            "at_attempt": received.attempt,
        }
        return self.connection_of(tx).execute(self._sql(tx).is_waiting, parameters).first() is not None

    def capabilities(self, tx: Tx) -> Capabilities:
        """Return what the database can do."""
        return self._sql(tx).capabilities

    # --- plumbing --------------------------------------------------------------------------------------------

    def connection_of(self, tx: Tx) -> sa.Connection:
        """Return the connection to the database of our tables."""
        if isinstance(tx, sa.Connection):
            return tx
        return tx.connection(bind_arguments={"mapper": self.tasks.model})

    def bind_of(self, session: Session) -> sa.Engine | sa.Connection:
        """Return the engine, or the connection, that a session uses for our tables."""
        return session.get_bind(mapper=sa.inspect(self.tasks.model))

    def _sql(self, tx: Tx) -> Statements:
        if self._prepared is None:
            dialect = self.connection_of(tx).dialect
            capabilities = self._features or Capabilities.of(dialect)
            if leaves_columns_to_sqlalchemy(self.tasks, self.deliveries):
                capabilities = capabilities.with_plain_statements()
            self._prepared = Statements(
                self.tasks, self.deliveries, dialect=dialect, capabilities=capabilities, options=self._options
            )
        return self._prepared

    def _changes(self, tx: Tx, statement: sa.Update, model: ModelTable, values: Row, at: Row) -> bool:
        """Set values of a row; False if none matches."""
        return self.connection_of(tx).execute(statement, {**model.parameters(values), **at}).rowcount == 1

    def _task_values(self, row: Sequence[Any]) -> Row:
        return dict(zip(self.tasks.columns, row, strict=True))


def _attempt(task: Row) -> Row:
    return {"at_task_id": task["task_id"], "at_attempt": task["attempt"]}


def _ids(parameters: Row) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key in {"at_task_id", "at_creator_task_id"}}


def _repeat(parameters: Row, history: Row, recorded_id: int) -> Written:
    task = {"task_id": parameters["at_task_id"], "status": TaskState.COMPLETED.value}
    return Written(task, {**history, **REPEAT, "id": recorded_id}, is_repeat=True)


def _bound(history: Row) -> dict[str, Any]:
    return {f"history_{key}": value for key, value in history.items()}
