"""The audit: look at every row of an installation, and name those that break a promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..config.parsers import LONGEST_SECONDS
from ..core.promises import Finding
from ..storage.audit_deliveries import delivery_rules
from ..storage.audit_forwards import forward_rules, try_rules
from ..storage.audit_rules import EVER, Limits, Rules, whole_since
from ..storage.audit_tasks import task_rules
from ..storage.table_size import table_size
from .set_back import longest_wait

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["audit", "count_rows"]

_PAGE = 2_000
"""Rows that one statement looks at: some milliseconds, in which SQLite keeps a writer waiting at most."""
_MARGIN = timedelta(days=1)
"""Settings may have been changed, and clocks set, since a row was written."""
_ROUNDS = 5


def audit(
    state: WebhookState,
    *,
    whole_history: bool = False,
    on_progress: Callable[[int], object] = lambda _: None,
    page: int = _PAGE,
) -> Iterator[Finding]:
    """Yield a finding for each promise that a row breaks; reads page by page, and keeps nothing.

    It takes no locks and writes nothing. Callbacks, purges and other jobs may go on meanwhile.

    Args:
        state: the application's state.
        whole_history: nothing was ever purged, and the extension made every task. By default a task is expected to have
            its history only if that was certainly not purged, and if the row was not as it is when the host made it.
        on_progress: called with the number of rows that each page had.
        page: rows that one statement looks at.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    for table in range(len(_rules(state, _limits(state, EVER)))):
        yield from _Walk(state, table, whole_history=whole_history, page=page).findings(on_progress)


def count_rows(state: WebhookState) -> int:
    """Return about how many rows an audit looks at."""
    tables = (state.store.tasks, state.store.deliveries, state.outbox.forwards, state.outbox.attempts)
    sizes = state.database.ask(lambda tx: [table_size(tx, each.table) for each in tables])
    return sum(size.rows for size in sizes if size is not None)


class _Walk:
    """The walk through one table."""

    def __init__(self, state: WebhookState, table: int, *, whole_history: bool, page: int) -> None:
        self._state, self._table, self._page = state, table, page
        self._whole_history = whole_history
        self._since = EVER if whole_history else state.database.ask(self._whole_since)

    def findings(self, on_progress: Callable[[int], object]) -> Iterator[Finding]:
        after, count = 0, self._page
        while count == self._page:
            last, count = self._state.database.ask(partial(self._end_of_page, after))
            if count:
                yield from self._findings_between(after, last)
                on_progress(count)
                after = last

    def _end_of_page(self, after: int, tx: sa.Connection) -> tuple[int, int]:
        page: tuple[int, int] = tuple(tx.execute(self._rules().end_of_page(self._page), {"at_after": after}).one())
        return page

    def _findings_between(self, after: int, last: int) -> list[Finding]:
        """Return the findings of a page; if a purge went on meanwhile, look again at what must still be there."""
        found: list[Finding] = []
        for _ in range(_ROUNDS):
            found = self._state.database.ask(partial(self._broken, after, last))
            if not found or self._whole_history:
                break
            since = self._state.database.ask(self._whole_since)
            if since == self._since:
                break
            self._since = since
        return found

    def _whole_since(self, tx: sa.Connection) -> datetime:
        return whole_since(tx, self._state.store.deliveries)

    def _broken(self, after: int, last: int, tx: sa.Connection) -> list[Finding]:
        rules = self._rules()
        rows = tx.execute(rules.broken(), {"at_after": after, "at_last": last}).mappings()
        return [finding for row in rows for finding in rules.findings(dict(row))]

    def _rules(self) -> Rules:
        return _rules(self._state, _limits(self._state, self._since))[self._table]


def _rules(state: WebhookState, limits: Limits) -> tuple[Rules, ...]:
    tasks, deliveries = state.store.tasks, state.store.deliveries
    forwards, tries = state.outbox.forwards, state.outbox.attempts
    return (
        task_rules(tasks, deliveries, limits),
        delivery_rules(deliveries, limits),
        forward_rules(forwards, tries, deliveries, limits),
        try_rules(forwards, tries),
    )


def _limits(state: WebhookState, since: datetime) -> Limits:
    """Return the times after which nothing can be due, with a margin for settings and clocks that were changed."""
    now, settings = state.now(), state.settings
    longest_poll = state.registry.longest_poll + longest_wait(settings) + settings.task_timeout
    return Limits(
        since=since,
        poll=now + longest_poll + _MARGIN,
        retry=now + longest_wait(settings) + _MARGIN,
        end=now + timedelta(seconds=LONGEST_SECONDS) + longest_wait(settings) + _MARGIN,
        signed=settings.require_signature,
    )
