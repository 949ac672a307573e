"""All SQL of the extension, over the host's two models.

Statements are built once and executed through Core: a callback costs one UPDATE, one INSERT, what the handlers write,
and one COMMIT. ``RETURNING``, ``FOR UPDATE`` and ``SKIP LOCKED`` are used where the database has them; everything
works without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session, make_transient_to_detached

from .transitions import OPEN_STATES, TaskState, Verdict

__all__ = ["Entities", "Features", "Store"]

Row = Mapping[str, Any]


class Features(NamedTuple):
    """What a database can do beyond the common ground."""

    returning: bool
    """UPDATE ... RETURNING"""
    skip_locked: bool
    """SELECT ... FOR UPDATE SKIP LOCKED"""

    @classmethod
    def of(cls, dialect: sa.Dialect) -> Features:
        """The features of a connected database."""
        version = getattr(dialect, "server_version_info", None) or ()
        match dialect.name:
            case "postgresql":
                skip_locked = True
            case "mysql":
                skip_locked = version >= ((10, 6) if getattr(dialect, "is_mariadb", False) else (8, 0, 1))
            case "mariadb":
                skip_locked = version >= (10, 6)
            case _:
                skip_locked = False
        return cls(returning=bool(dialect.update_returning), skip_locked=skip_locked)


class Entities:
    """Makes persistent ORM objects from column values that are already at hand.

    Handlers get a real ``task`` and ``delivery`` that way, without another SELECT.
    A model that watches its loading (``reconstructor``, mutable columns, inheritance) is loaded by the ORM instead.
    """

    def __init__(self, model: type[Any]) -> None:
        mapper = sa.inspect(model)
        self.model = model
        self.table: sa.Table = mapper.local_table
        self.columns: dict[str, sa.Column[Any]] = {attr.key: attr.columns[0] for attr in mapper.column_attrs}
        self._primary_key = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        self._renamed = any(key != column.key for key, column in self.columns.items())
        self._manager = mapper.class_manager
        self._mapper = mapper

    @cached_property
    def _is_plain(self) -> bool:
        return self._mapper.polymorphic_on is None and len(self._mapper.tables) == 1 and not self._manager.dispatch.load

    def parameters(self, values: Row) -> dict[str, Any]:
        """The values under the names of their columns, which a host may have mapped to other attribute names."""
        if not self._renamed:
            return dict(values)
        return {self.columns[key].key: value for key, value in values.items()}

    def persistent(self, session: Session, values: Row) -> Any:
        """The object of a row, as if this session had loaded it.

        Args:
            session: a session that does not hold the object yet.
            values: the value of every attribute that is known; others load when they are asked for.
        """
        if not self._is_plain:
            return session.get(self.model, tuple(values[key] for key in self._primary_key))
        instance = self._manager.new_instance()
        instance.__dict__.update(values)
        make_transient_to_detached(instance)
        session.add(instance)
        return instance


class Store:
    """The statements.

    Args:
        task_model: a model with the columns of ``GenerationTaskMixin``.
        delivery_model: a model with the columns of ``DeliveryMixin``.
        lock_timeout: seconds to wait for a row lock, on databases that have such a setting per transaction.
        features: what the database can do; by default found out when it is first connected.
    """

    def __init__(
        self,
        task_model: type[Any],
        delivery_model: type[Any],
        *,
        lock_timeout: float,
        features: Features | None = None,
    ) -> None:
        self.tasks = Entities(task_model)
        self.deliveries = Entities(delivery_model)
        self._lock_timeout = f"{max(1, round(lock_timeout * 1000))}ms"
        self._features = features
        self._prepared: _Statements | None = None

    # --- tasks -----------------------------------------------------------------------------------------------

    def complete_open(
        self, session: Session, task_id: str, creator_task_id: str | None, *, result: Row, now: datetime
    ) -> Row | None:
        """Complete a task that is open, in one statement and without reading it first.

        Args:
            session: the transaction.
            task_id: our id.
            creator_task_id: where given, the row's own ``creator_task_id`` must be this.
            result: the result to keep.
            now: the time of the change.

        Returns:
            Every attribute of the row as it is now, or None where no such task was open.
        """
        sql, connection = self._sql(session), self._connection(session)
        changed = {"status": TaskState.COMPLETED.value, "result": result, "finished_at": now, "updated_at": now}
        parameters = {**self.tasks.parameters(changed), "at_task_id": task_id}
        if creator_task_id is None:
            outcome = connection.execute(sql.complete_open, parameters)
        else:
            outcome = connection.execute(
                sql.complete_open_of_creator, {**parameters, "at_creator_task_id": creator_task_id}
            )
        if not sql.features.returning:
            return self.read_task(session, task_id) if outcome.rowcount == 1 else None
        row = outcome.one_or_none()
        if row is None:
            return None
        return {**changed, **sql.cleared, **dict(zip(sql.returned, row, strict=True))}

    def read_task(self, session: Session, task_id: str, *, by_any_id: bool = False, lock: bool = False) -> Row | None:
        """Every attribute of a task.

        Args:
            session: the transaction.
            task_id: our id.
            by_any_id: the id may also be the creator's.
            lock: keep every other writer of the row away until the transaction ends.
        """
        sql = self._sql(session)
        connection = self._connection(session)
        parameters = {"at_task_id": task_id}
        if lock and sql.lock_by_writing is not None:
            connection.execute(sql.lock_by_writing, parameters)
        statement = sql.task_by_id_locked if lock else sql.task_by_id
        row = connection.execute(statement, parameters).one_or_none()
        if row is None and by_any_id:
            row = connection.execute(sql.task_by_creator_id, parameters).first()
        return None if row is None else self._task_values(row)

    def compare_and_set(self, session: Session, seen: Row, values: Row) -> bool:
        """Change a task if, and only if, nobody changed it since it was read; the row count decides."""
        changed = self.tasks.parameters({**values, "version": seen["version"] + 1})
        result = self._connection(session).execute(
            self._sql(session).compare_and_set,
            {**changed, "at_task_id": seen["task_id"], "at_version": seen["version"]},
        )
        return bool(result.rowcount == 1)

    # --- deliveries ------------------------------------------------------------------------------------------

    def insert_delivery(self, session: Session, values: Row) -> Row:
        """Write a history row and give back its attributes, the new id among them."""
        parameters = self.deliveries.parameters(values)
        result = self._connection(session).execute(self._sql(session).insert_delivery, parameters)
        key = result.inserted_primary_key
        return {**values, "id": key[0] if key is not None else None}

    def update_delivery(self, session: Session, delivery_id: int, values: Row) -> None:
        """Change a history row."""
        changed = self.deliveries.parameters(values)
        self._connection(session).execute(self._sql(session).update_delivery, {**changed, "at_id": delivery_id})

    def add_occurrences(self, session: Session, delivery_id: int, count: int, at: datetime) -> bool:
        """Count further refused requests on a row; False where it was purged meanwhile."""
        result = self._connection(session).execute(
            self._sql(session).add_occurrences,
            {**self.deliveries.parameters({"processed_at": at}), "at_id": delivery_id, "at_count": count},
        )
        return bool(result.rowcount)

    def read_delivery(self, session: Session, delivery_id: int) -> Row | None:
        """Every attribute of a history row."""
        row = self._connection(session).execute(self._sql(session).delivery_by_id, {"at_id": delivery_id}).one_or_none()
        return None if row is None else dict(zip(self.deliveries.columns, row, strict=True))

    def was_applied(self, session: Session, task_id: str, digest: str, message_id: str | None) -> bool:
        """Whether an event with this body, or this message id, was already applied to the task."""
        found = self._connection(session).execute(
            self._sql(session).was_applied,
            {"at_task_id": task_id, "at_digest": digest, "at_message_id": message_id},
        )
        return found.first() is not None

    def claim_retries(self, session: Session, *, now: datetime, until: datetime, limit: int) -> list[int]:
        """Claim failed deliveries that are due, and keep them from others until the lease ends.

        Args:
            session: the transaction; the caller commits.
            now: deliveries due by then.
            until: the end of the lease; where the work never ends, somebody claims again after it.
            limit: how many at the most.
        """
        sql, connection = self._sql(session), self._connection(session)
        window = {"at_now": now, "at_limit": limit}
        lease = self.deliveries.parameters({"next_retry_at": until})
        if sql.features.returning:
            return sorted(connection.execute(sql.claim_due, {**window, **lease}).scalars())
        due = connection.execute(sql.due_retries, window).all()
        return [
            delivery_id
            for delivery_id, seen in due
            if connection.execute(sql.claim_one, {**lease, "at_id": delivery_id, "at_seen": seen}).rowcount == 1
        ]

    # --- plumbing --------------------------------------------------------------------------------------------

    def _connection(self, session: Session) -> sa.Connection:
        return session.connection(bind_arguments={"mapper": self.tasks.model})

    def _sql(self, session: Session) -> _Statements:
        if self._prepared is None:
            dialect = self._connection(session).dialect
            features = self._features or Features.of(dialect)
            self._prepared = _Statements(self.tasks, self.deliveries, dialect, features, self._lock_timeout)
        return self._prepared

    def _task_values(self, row: sa.Row[Any]) -> Row:
        return dict(zip(self.tasks.columns, row, strict=True))


class _Statements:
    """Every statement, for one kind of database. Bound parameters beside column names begin with ``at_``."""

    def __init__(
        self, tasks: Entities, deliveries: Entities, dialect: sa.Dialect, features: Features, lock_timeout: str
    ) -> None:
        t, d = tasks.columns, deliveries.columns
        self.features = features
        wait = _lock_timeout_clause(dialect, lock_timeout)
        by_task_id = t["task_id"] == sa.bindparam("at_task_id")
        by_delivery_id = d["id"] == sa.bindparam("at_id")

        self.cleared = dict.fromkeys(("error_code", "error_message", "next_poll_at", "next_submit_at"))
        complete = (
            sa.update(tasks.table)
            .where(by_task_id, sa.or_(*(t["status"] == state.value for state in OPEN_STATES)), *wait)
            .values({t["previous_status"]: t["status"], t["version"]: t["version"] + 1})
            .values({t[key]: sa.null() for key in self.cleared})
        )
        known = {"status", "result", "finished_at", "updated_at", *self.cleared}
        self.returned = [key for key in tasks.columns if key not in known]
        if features.returning:
            complete = complete.returning(*(t[key] for key in self.returned))
        self.complete_open = complete
        self.complete_open_of_creator = complete.where(t["creator_task_id"] == sa.bindparam("at_creator_task_id"))

        select_task = sa.select(*t.values())
        self.task_by_id = select_task.where(by_task_id)
        self.task_by_id_locked = self.task_by_id.where(*wait).with_for_update()
        self.task_by_creator_id = select_task.where(t["creator_task_id"] == sa.bindparam("at_task_id")).limit(1)
        self.lock_by_writing = (
            sa.update(tasks.table).where(by_task_id).values({t["version"]: t["version"]})
            if dialect.name == "sqlite"
            else None
        )
        self.compare_and_set = (
            sa.update(tasks.table)
            .where(by_task_id, t["version"] == sa.bindparam("at_version"), *wait)
            .values({t["previous_status"]: t["status"]})
        )

        self.insert_delivery = sa.insert(deliveries.table)
        self.update_delivery = sa.update(deliveries.table).where(by_delivery_id)
        self.add_occurrences = (
            sa.update(deliveries.table)
            .where(by_delivery_id)
            .values({d["occurrences"]: d["occurrences"] + sa.bindparam("at_count")})
        )
        self.delivery_by_id = sa.select(*d.values()).where(by_delivery_id)
        self.was_applied = (
            sa.select(d["id"])
            .where(
                d["task_id"] == sa.bindparam("at_task_id"),
                d["verdict"] == Verdict.PROCESSED.value,
                sa.or_(d["body_digest"] == sa.bindparam("at_digest"), d["message_id"] == sa.bindparam("at_message_id")),
            )
            .limit(1)
        )
        at_now = sa.bindparam("at_now", type_=d["next_retry_at"].type)
        self.due_retries = (
            sa.select(d["id"], d["next_retry_at"])
            .where(d["next_retry_at"] <= at_now)
            .order_by(d["next_retry_at"])
            .limit(sa.bindparam("at_limit", type_=sa.Integer()))
        )
        candidates = self.due_retries.with_only_columns(d["id"])
        if features.skip_locked:
            candidates = candidates.with_for_update(skip_locked=True)
        self.claim_due = (
            sa.update(deliveries.table)
            .where(d["id"].in_(candidates.scalar_subquery()), d["next_retry_at"] <= at_now)
            .returning(d["id"])
        )
        self.claim_one = sa.update(deliveries.table).where(
            by_delivery_id, d["next_retry_at"] == sa.bindparam("at_seen", type_=d["next_retry_at"].type)
        )


def _lock_timeout_clause(dialect: sa.Dialect, lock_timeout: str) -> Sequence[sa.ColumnElement[bool]]:
    """A condition that is always true and bounds the waiting for locks until the transaction ends.

    PostgreSQL evaluates the subquery once, before it touches a row; a SET LOCAL would cost a round trip of its own.
    """
    if dialect.name != "postgresql":
        return ()
    setting = sa.select(sa.func.set_config("lock_timeout", lock_timeout, sa.true()))
    return (setting.scalar_subquery().is_not(None),)
