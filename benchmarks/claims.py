"""Claims of events that wait, and of tasks that are due, against the statements that somebody would write by hand.

Both lock the rows that nobody else has (SKIP LOCKED) where the database can, change them, read them, and commit. By
hand, nobody keeps the order of a task's events, and the database's clock is not asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from flask_contenthub_webhook.runtime.state import WebhookState, get_state

from .callbacks import new_task_ids
from .contestants import CONTESTANTS
from .databases import Database
from .hosts import deliveries, tasks
from .in_process import build, engine_of

__all__ = ["Claims", "measure_claims"]

_BATCH = 20
_WAITING = 400
_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
_LEASE = timedelta(minutes=10)


@dataclass(slots=True)
class Claims:
    """The times of claims of one kind, in seconds, and the statements of one claim."""

    name: str
    ours: list[float] = field(default_factory=list)
    by_hand: list[float] = field(default_factory=list)
    statements: int = 0
    statements_by_hand: int = 0


def measure_claims(database: Database, *, rounds: int) -> list[Claims]:
    """Claim in turns with those by hand, out of the same rows, which are given back after each claim."""
    task_ids = new_task_ids(_WAITING)
    database.fill(task_ids, status="processing")
    app = build(next(one for one in CONTESTANTS if one.kind == "acceptance" and one.is_extension), database)
    engine = engine_of(app)
    try:
        with app.app_context():
            state = get_state()
        _let_wait(engine, task_ids)
        return [
            _compare(
                engine,
                f"{_BATCH} events",
                rounds,
                ours=lambda: _events(state),
                by_hand=_events_by_hand,
                free=_free_events,
            ),
            _compare(
                engine,
                f"{_BATCH} tasks to poll",
                rounds,
                ours=lambda: _polls(state),
                by_hand=_polls_by_hand,
                free=_free_tasks,
            ),
        ]
    finally:
        engine.dispose()


def _compare(
    engine: sa.Engine,
    name: str,
    rounds: int,
    *,
    ours: Callable[[], int],
    by_hand: Callable[[sa.Engine], int],
    free: Callable[[sa.Connection], None],
) -> Claims:
    """Claim by hand, and give back, through an engine of their own; in one pool sessions change their settings."""
    claims, other = Claims(name), sa.create_engine(engine.url)
    sides: list[tuple[Callable[[], int], list[float]]] = [
        (ours, claims.ours),
        (lambda: by_hand(other), claims.by_hand),
    ]
    for number in range(rounds + 3):
        for claim, times in sides if number % 2 else sides[::-1]:
            with other.begin() as connection:
                free(connection)
            started = time.perf_counter()
            count = claim()
            took = time.perf_counter() - started
            if count != _BATCH:
                raise RuntimeError(f"{name}: {count} were claimed.")
            if number >= 3:  # after what is compiled and prepared first
                times.append(took)
    for claim, key, watched in (
        (ours, "statements", engine),
        (lambda: by_hand(other), "statements_by_hand", other),
    ):
        with other.begin() as connection:
            free(connection)
        with _counted(watched) as count_of:
            claim()
        setattr(claims, key, len(count_of))
    other.dispose()
    return claims


@contextmanager
def _counted(engine: sa.Engine) -> Iterator[list[str]]:
    seen: list[str] = []

    def before(*arguments: Any) -> None:
        seen.append(arguments[2])

    sa.event.listen(engine, "before_cursor_execute", before)
    yield seen
    sa.event.remove(engine, "before_cursor_execute", before)


# --- events --------------------------------------------------------------------------------------------------


def _let_wait(engine: sa.Engine, task_ids: list[str]) -> None:
    now = datetime.now(UTC)
    rows = [
        {
            "task_id": task_id,
            "event": "completed",
            "source": "webhook",
            "verdict": "queued",
            "tries": 0,
            "next_retry_at": _AT_ONCE,
            "received_at": now,
            "status_before": "processing",
            "headers": {},
            "body": b"{}" * 1500,
        }
        for task_id in task_ids
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(deliveries), rows)
        connection.execute(sa.update(tasks).values(next_poll_at=now - timedelta(seconds=5)))


def _events(state: WebhookState) -> int:
    return len(state.database.write(lambda tx: state.store.inbox.claim(tx, lease=_LEASE, limit=_BATCH)))


def _events_by_hand(engine: sa.Engine) -> int:
    d = deliveries.c
    return _by_hand(
        engine,
        deliveries,
        d.next_retry_at,
        {"next_retry_at": datetime.now(UTC) + _LEASE, "claimed_until": datetime.now(UTC) + _LEASE},
    )


def _free_events(connection: sa.Connection) -> None:
    claimed = sa.update(deliveries).where(deliveries.c.claimed_until.is_not(None))
    connection.execute(claimed.values(next_retry_at=_AT_ONCE, claimed_until=None, tries=0, error=None))


# --- tasks ---------------------------------------------------------------------------------------------------


def _polls(state: WebhookState) -> int:
    return len(state.database.write(lambda tx: state.store.claim_polls(tx, limit=_BATCH)))


def _polls_by_hand(engine: sa.Engine) -> int:
    t = tasks.c
    return _by_hand(engine, tasks, t.next_poll_at, {"next_poll_at": datetime.now(UTC) + _LEASE, "polls": t.polls + 1})


def _free_tasks(connection: sa.Connection) -> None:
    """Give back what was claimed; if all rows were written anew, claims would wade through what InnoDB has to purge."""
    claimed = sa.update(tasks).where(tasks.c.polls > 0)
    connection.execute(claimed.values(next_poll_at=datetime.now(UTC) - timedelta(seconds=5), polls=0))


def _by_hand(engine: sa.Engine, table: sa.Table, due: sa.Column[Any], taken: dict[str, Any]) -> int:
    first = sa.select(table.c.id).where(due <= datetime.now(UTC)).order_by(due).limit(_BATCH)
    first = first.with_for_update(skip_locked=True)
    with engine.begin() as connection:
        if connection.dialect.update_returning:
            claim = sa.update(table).where(table.c.id.in_(first)).values(taken).returning(*table.c)
            return len(connection.execute(claim).all())
        ids = list(connection.scalars(first))
        connection.execute(sa.update(table).where(table.c.id.in_(ids)).values(taken))
        return len(connection.execute(sa.select(table).where(table.c.id.in_(ids))).all())
