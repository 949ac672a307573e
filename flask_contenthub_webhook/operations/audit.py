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
"""Rows that one statement looks at, in some milliseconds; SQLite without WAL keeps writers waiting for so long."""
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
    since = EVER if whole_history else state.database.ask(partial(_whole_since, state))
    for table in range(len(_rules(state, since))):
        yield from _Walk(state, table, since, page).findings(on_progress)


def count_rows(state: WebhookState) -> int:
    """Return about how many rows an audit looks at."""
    tables = (state.store.tasks, state.store.deliveries, state.outbox.forwards, state.outbox.attempts)
    sizes = state.database.ask(lambda tx: [table_size(tx, each.table) for each in tables])
    return sum(size.rows for size in sizes if size is not None)


class _Walk:
    """The walk through one table."""

    def __init__(self, state: WebhookState, table: int, since: datetime, page: int) -> None:
        self._state, self._table, self._page = state, table, page
        self._expect(since)

    def _expect(self, since: datetime) -> None:
        """Expect the history from a time on; the statements are built once, since that takes as long as a page."""
        self._since, self._rules = since, _rules(self._state, since)[self._table]
        self._end, self._broken = self._rules.end_of_page(self._page), self._rules.broken()

    def findings(self, on_progress: Callable[[int], object]) -> Iterator[Finding]:
        """Yield what is found, page by page."""
        after, count = 0, self._page
        while count == self._page:
            last, count = self._state.database.ask(partial(self._end_of_page, after))
            if count:
                yield from self._findings_between(after, last)
                on_progress(count)
                after = last

    def _end_of_page(self, after: int, tx: sa.Connection) -> tuple[int, int]:
        page: tuple[int, int] = tuple(tx.execute(self._end, {"at_after": after}).one())
        return page

    def _findings_between(self, after: int, last: int) -> list[Finding]:
        """Return the findings of a page; if a purge went on meanwhile, look again at what must still be there."""
        found: list[Finding] = []
        for _ in range(_ROUNDS):
            found = self._state.database.ask(partial(self._look, after, last))
            if not found or self._since == EVER:
                break
            since = self._state.database.ask(partial(_whole_since, self._state))
            if since == self._since:
                break
            self._expect(since)
        return found

    def _look(self, after: int, last: int, tx: sa.Connection) -> list[Finding]:
        rows = tx.execute(self._broken, {"at_after": after, "at_last": last}).mappings()
        return [finding for row in rows for finding in self._rules.findings(dict(row))]


def _whole_since(state: WebhookState, tx: sa.Connection) -> datetime:
    return whole_since(tx, state.store.deliveries)


def _rules(state: WebhookState, since: datetime) -> tuple[Rules, ...]:
    limits = _limits(state, since)
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
