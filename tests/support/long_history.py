"""A long history, written by the database itself: a million deliveries take a minute."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from tests.support.host import Host

__all__ = ["DEAD_EVERY", "DELIVERIES_PER_TASK", "FORWARD_EVERY", "task_id_of", "write_history"]

DELIVERIES_PER_TASK = 4
DEAD_EVERY = 50_000
"""One delivery in so many is dead, the first one always."""
FORWARD_EVERY = 10
_FILLER = "word " * 200
_BODY = """'{"event": "completed", "number": "n' || i || '", "content": "' || :filler
    || CASE WHEN i % 100 = 0 THEN replace(:filler, 'word', substr(:filler, 1, 80)) ELSE '' END || '"}'"""
_AT_A_TIME = 50_000


def write_history(host: Host, count: int, *, lasting: timedelta = timedelta(days=30)) -> None:
    """Write deliveries evenly over a time that ends now, with a task for every four of them.

    They are numbered from 1. Most are completed callbacks that were processed; every 10th is a duplicate, and was sent
    on; every 25th was rejected, every 40th came from a poll; every 1,000th is failed and waits for a retry; the body of
    every 100th is long.

    Args:
        host: an application with empty tables.
        count: how many deliveries.
        lasting: from the first to the last.
    """
    start, step = host.clock() - lasting, lasting / count
    with host.engine.connect() as connection:
        kind = connection.dialect.name
        if kind == "mysql":
            connection.execute(sa.text("SET sql_mode = concat(@@sql_mode, ',PIPES_AS_CONCAT')"))
        statements = _WRITERS[kind](start, step).statements()
        for first in range(1, count + 1, _AT_A_TIME):
            last = min(first + _AT_A_TIME - 1, count)
            for statement in statements:
                connection.execute(sa.text(statement), {"first": first, "last": last, "filler": _FILLER})
            connection.commit()
        if kind == "mysql":
            connection.execute(sa.text("ANALYZE TABLE webhook_deliveries, content_generation_tasks, webhook_forwards"))
            connection.invalidate()  # its mode must not come back from the pool
        if kind == "postgresql":
            for table in ("webhook_deliveries", "content_generation_tasks", "webhook_forwards"):
                connection.execute(sa.text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {count + 1})"))
            connection.commit()
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("VACUUM ANALYZE"))


def task_id_of(delivery_id: int) -> str:
    """The task that a delivery is about."""
    return f"task-{(delivery_id - 1) // DELIVERIES_PER_TASK:010d}"


class _Writer:
    """The statements, but for what the databases spell differently."""

    numbers: str
    as_bytes: str
    no: str
    divided_by = "/"

    def __init__(self, start: datetime, step: timedelta) -> None:
        self.start = start
        self.step = step

    def at(self, number: str) -> str:
        """The time of the delivery with this number."""
        raise NotImplementedError

    def padded(self, number: str) -> str:
        """A number with ten digits."""
        raise NotImplementedError

    def statements(self) -> tuple[str, ...]:
        """For the rows whose numbers are from ``first`` to ``last``."""
        task = f"'task-' || {self.padded(f'(i - 1) {self.divided_by} {DELIVERIES_PER_TASK}')}"
        failed = "i % 1000 = 0"
        deliveries = f"""
            INSERT INTO webhook_deliveries (id, task_id, event, attempt, source, scheme, verdict, reason, error,
                status_before, status_after, late, tries, next_retry_at, occurrences, received_at, processed_at,
                latency_ms, remote_addr, headers, body, body_digest)
            {self.numbers}
            SELECT i, {task}, CASE WHEN i % 5 = 0 THEN 'progress' ELSE 'completed' END, 1,
                CASE WHEN i % 40 = 0 THEN 'poll' ELSE 'webhook' END, 'url',
                CASE WHEN i % {DEAD_EVERY} = 1 THEN 'dead' WHEN {failed} THEN 'failed' WHEN i % 25 = 0 THEN 'rejected'
                    WHEN i % 10 = 0 THEN 'duplicate' ELSE 'processed' END,
                CASE WHEN i % 10 = 0 THEN 'The task is already completed.' END,
                CASE WHEN {failed} THEN 'publish: RuntimeError: no' END,
                'submitted', 'completed', {self.no}, 1,
                CASE WHEN {failed} THEN {self.at("i + 1000000")} END,
                1, {self.at("i")}, {self.at("i")}, i % 97, '127.0.0.1',
                '{{"Content-Type": "application/json"}}',
                {self.as_bytes.format(_BODY)},
                'digest'
            FROM numbers"""
        tasks = f"""
            INSERT INTO content_generation_tasks (id, task_id, earlier_creator_task_ids, priority, auto_approve, topic,
                previous_status, status, attempt, version, submit_tries, polls, times_missing, created_at, updated_at,
                next_poll_at)
            {self.numbers}
            SELECT i, {task}, '[]', 2, {self.no}, 'Tea', 'submitted',
                CASE WHEN i % 1000 = 1 THEN 'submitted' ELSE 'completed' END, 1, 1, 0, 0, 0, {self.at("i")},
                {self.at("i")}, CASE WHEN i % 1000 = 1 THEN {self.at("i + 1000")} END
            FROM numbers WHERE i % {DELIVERIES_PER_TASK} = 1"""
        forwards = f"""
            INSERT INTO webhook_forwards (id, delivery_id, task_id, event, url, message_id, body, status, tries,
                next_try_at, created_at)
            {self.numbers}
            SELECT i, i, {task}, 'completed', 'https://receiver' || (i % 7) || '.example/hook', 'msg_' || i,
                {self.as_bytes.format(_BODY)},
                CASE WHEN i % 500 = 0 THEN 'dead' WHEN i % 300 = 0 THEN 'waiting' ELSE 'delivered' END, 1,
                CASE WHEN i % 500 <> 0 AND i % 300 = 0 THEN {self.at("i + 1000000")} END, {self.at("i")}
            FROM numbers WHERE i % {FORWARD_EVERY} = 0"""
        return deliveries, tasks, forwards


class _SQLite(_Writer):
    numbers = "WITH RECURSIVE numbers(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM numbers WHERE i < :last)"
    as_bytes = "CAST({} AS BLOB)"
    no = "0"

    def at(self, number: str) -> str:
        seconds = f"{self.start.timestamp():f} + ({number}) * {self.step.total_seconds():f}"
        return f"strftime('%Y-%m-%d %H:%M:%f', {seconds}, 'unixepoch') || '000'"

    def padded(self, number: str) -> str:
        return f"printf('%010d', {number})"


class _PostgreSQL(_Writer):
    numbers = "WITH numbers AS (SELECT generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS i)"
    as_bytes = "convert_to({}, 'UTF8')"
    no = "false"

    def at(self, number: str) -> str:
        return f"to_timestamp({self.start.timestamp():f} + ({number}) * {self.step.total_seconds():f})"

    def padded(self, number: str) -> str:
        return f"lpad(({number})::text, 10, '0')"


class _MariaDB(_Writer):
    numbers = "WITH RECURSIVE numbers(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM numbers WHERE i < :last)"
    as_bytes = "{}"
    no = "0"
    divided_by = "DIV"

    def at(self, number: str) -> str:
        seconds = f"{self.start.timestamp():f} + ({number}) * {self.step.total_seconds():f}"
        return f"(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ({seconds}) SECOND)"  # from_unixtime ends in 2038

    def padded(self, number: str) -> str:
        return f"lpad({number}, 10, '0')"


_WRITERS = {"sqlite": _SQLite, "postgresql": _PostgreSQL, "mysql": _MariaDB}
