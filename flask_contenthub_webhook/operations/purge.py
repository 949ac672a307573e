"""Delete history that is older than its retention, slowly enough for callbacks (:mod:`.throttled_delete`).

A purge walks along the primary key: it reads a page of rows, without their bodies, and deletes what has expired of
them. Rows by which a message is known again are emptied instead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ..core.state_machine import Verdict
from ..storage.dialect import by_primary_key
from ..storage.failure_log import log_failure
from ..storage.notes import PURGED, keep_note
from .retention import PurgeMemory, Rule, expired, is_remembered, retention_rules, spans
from .throttled_delete import HOLD, MOST, Throttle

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["purge_deliveries", "purge_regularly"]

logger = logging.getLogger(__name__)

_PAGE = 1000
"""Rows that are read by one statement."""


def purge_deliveries(
    state: WebhookState,
    *,
    before: datetime | None = None,
    verdicts: Collection[Verdict | str] = (),
    on_progress: Callable[[int], None] = lambda _: None,
    stop: threading.Event | None = None,
    hold: float = HOLD,
) -> int:
    """Delete old deliveries, except those that are still to be tried again; return their number.

    Any number of processes may do so at once. Without ``verdicts``, forwards that finished before that time (by default
    WEBHOOK_HISTORY_RETENTION_DAYS ago) are deleted as well.

    Args:
        state: the application's state.
        before: delete what was received earlier; the default follows from WEBHOOK_HISTORY_RETENTION_DAYS and
            WEBHOOK_HISTORY_RETENTION_BY_VERDICT.
        verdicts: delete only deliveries with these verdicts; any by default.
        on_progress: called with the number of deliveries that each batch deleted.
        stop: ends the purge after the current batch, once it is set.
        hold: seconds that the statements of one batch should take.
    """
    only = [Verdict(verdict) for verdict in verdicts]
    rules = retention_rules(state.settings, state.now(), only, before=before)
    throttle = Throttle(state.database, stop, hold=hold)
    walk = _Walk(state, rules, throttle, on_progress)
    with _noted(state, walk):
        if walk.through(_spans(state, rules, None)) and not only:
            _purge_forwards(state, before, throttle)
    return walk.deleted


def purge_regularly(state: WebhookState) -> int:
    """Purge for the scheduler: look only at what has expired since the last time, and end early when it is stopped."""
    jobs = state.jobs.value
    now, memory, throttle = state.waited(), jobs.purge_memory, Throttle(state.database, jobs.stopping)
    rules = retention_rules(state.settings, state.now())
    walk = _Walk(state, rules, throttle)
    with _noted(state, walk):
        if walk.through(_spans(state, rules, None if memory is None else memory.time_since(now))):
            jobs.purge_memory = PurgeMemory.after(memory, now)
            _purge_forwards(state, None, throttle)
    return walk.deleted


class _Walk:
    def __init__(
        self,
        state: WebhookState,
        rules: Sequence[Rule],
        throttle: Throttle,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._state, self._throttle, self._on_progress = state, throttle, on_progress
        self._model = state.delivery_model
        self._table = sa.inspect(self._model).local_table
        self._bind: dict[str, Any] = {"mapper": sa.inspect(self._model)}
        has_expired, remembered = expired(self._model, rules), is_remembered(state.database)
        self._goes = sa.and_(has_expired, ~remembered)
        self._is_emptied = sa.and_(has_expired, self._model.headers.is_not(None), remembered)
        self.deleted = 0

    def through(self, ranges: Sequence[tuple[int, int]]) -> bool:
        """Walk through half-open ranges of ids; False if it was stopped."""
        pages = (page for first, end in ranges for page in self._pages(first, end))
        return all(
            self._throttle.delete(go, self._delete) and self._throttle.delete(stay, self._empty) for go, stay in pages
        )

    def _pages(self, first: int, end: int) -> Iterator[tuple[list[int], ...]]:
        """Yield the ids of rows to delete and of rows to empty; a page that has begun is read beyond the end, too."""
        row_id = self._model.id
        fate = sa.case((self._goes, "delete"), (self._is_emptied, "empty"))
        query = sa.select(row_id, fate).order_by(row_id).limit(_PAGE)
        while first < end:
            with self._state.database.session() as session:
                page = list(session.execute(query.where(row_id >= first), bind_arguments=self._bind))
            yield tuple([found for found, fate in page if fate == wanted] for wanted in ("delete", "empty"))
            first = page[-1][0] + 1 if len(page) == _PAGE else end

    def _delete(self, session: Session, ids: Sequence[int]) -> None:
        """Delete what has expired between the first and the last of these ids."""
        deleted = self._run(session, sa.delete(self._table), self._goes, ids)
        self.deleted += deleted
        self._on_progress(deleted)

    def _empty(self, session: Session, ids: Sequence[int]) -> None:
        """Keep of each row what identifies its message."""
        nothing = {"body": b"", "headers": sa.null(), "failed_tries": sa.null(), "remote_addr": None, "reason": None}
        values = {getattr(self._model, name): value for name, value in nothing.items()}
        self._run(session, sa.update(self._table).values(values), self._is_emptied, ids)

    def _run(self, session: Session, change: Any, condition: sa.ColumnElement[bool], ids: Sequence[int]) -> int:
        """Change what is free between the first and the last of these ids, and still meets the condition."""
        row_id = self._model.id
        chosen = (row_id >= ids[0], row_id <= ids[-1], condition)
        capabilities = self._state.store.capabilities(session)
        connection = session.connection(bind_arguments=self._bind)
        statement = change.where(*chosen)
        if capabilities.skip_locked:
            free = sa.select(row_id.label("id")).where(*chosen).limit(MOST).with_for_update(skip_locked=True)
            if capabilities.locks_first:
                ids = connection.execute(free).scalars().all()
                statement = by_primary_key(change, connection.dialect).where(row_id.in_(ids), condition)
            else:
                statement = change.where(row_id.in_(sa.select(free.subquery("free").c.id)))
        return int(connection.execute(statement).rowcount)


@contextmanager
def _noted(state: WebhookState, walk: _Walk) -> Iterator[None]:
    """Note for all processes that deliveries were deleted, also where the purge is cut short."""
    try:
        yield
    finally:
        if walk.deleted:
            try:
                keep_note(state.database, state.models.alert, PURGED)
            except SQLAlchemyError as error:
                message = "A purge could not be noted; the history pages may count what it has deleted."
                log_failure(state.database, logger, message, error)


def _purge_forwards_before(state: WebhookState, before: datetime, throttle: Throttle) -> None:
    """Delete forwards that finished earlier, and their tries.

    Ids grow with time, so the walk begins at the oldest row and ends at the first that is too young.
    """
    after = 0
    while True:
        with state.database.session() as session:
            oldest = state.outbox.oldest(session, after=after, limit=_PAGE)
        expired = [row["id"] for row in oldest if row["finished_at"] is not None and row["finished_at"] < before]
        if not throttle.delete(expired, partial(state.outbox.delete, finished_before=before)):
            return
        if len(oldest) < _PAGE or oldest[-1]["created_at"] >= before:
            return
        after = oldest[-1]["id"]


def _purge_forwards(state: WebhookState, before: datetime | None, throttle: Throttle) -> None:
    """Delete forwards at the age that holds for most deliveries, since they have no verdicts."""
    if before is not None:
        _purge_forwards_before(state, before, throttle)
    elif state.settings.history_retention:
        _purge_forwards_before(state, state.now() - state.settings.history_retention, throttle)


def _spans(state: WebhookState, rules: Sequence[Rule], since: timedelta | None) -> list[tuple[int, int]]:
    with state.database.session() as session:
        return spans(session, state.delivery_model, rules, since=since)
