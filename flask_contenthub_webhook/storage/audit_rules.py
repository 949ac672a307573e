"""Rules over the rows of a table, and the statements that look for rows that break one.

The database itself looks: of each page of primary keys it returns the rows that break a rule, and no others. A page is
one statement, so that all it compares is of one moment, and no lock is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from ..core.promises import Finding, Promise
from ..core.state_machine import Verdict
from .rows import ModelTable

__all__ = ["AFTER", "EVER", "LAST", "Limits", "Rule", "Rules", "whole_since"]

AFTER: sa.BindParameter[int] = sa.bindparam("at_after", type_=sa.BigInteger())
LAST: sa.BindParameter[int] = sa.bindparam("at_last", type_=sa.BigInteger())
"""The primary keys of a page are greater than the one, and at most the other."""

EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Before everything: the history is whole, and no task came from elsewhere."""
_NEVER = datetime(9000, 1, 1, tzinfo=UTC)
_MARGIN = timedelta(minutes=5)
"""Greatest disorder of ids and times, and the longest time from an event's arrival to its verdict that is usual."""


class Limits(NamedTuple):
    """The times that rows are compared with.

    Attributes:
        since: from here on nothing was purged of the deliveries that had an effect.
        poll: the latest time for which a poll can be due.
        retry: the same for a try of an event or of a forward.
        end: the latest time of a deadline, or of a submission.
        signed: True if nothing unsigned may change a task.
    """

    since: datetime
    poll: datetime
    retry: datetime
    end: datetime
    signed: bool

    @property
    def is_whole(self) -> bool:
        """True if nothing was ever purged, and every task was made by the extension."""
        return self.since == EVER


class Rule(NamedTuple):
    """A promise of a row.

    Attributes:
        promise: which.
        is_broken: the condition.
        words: what is wrong, with the names of facts in braces.
    """

    promise: Promise
    is_broken: sa.ColumnElement[bool]
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules over one table.

    Args:
        table: its name in findings.
        key: its primary key.
        task_id: the expression of the task's id.
        source: what the rows are read from.
        facts: what the sentences name.
        rules: in the order in which they are reported.
    """

    table: str
    key: sa.ColumnElement[int]
    task_id: sa.ColumnElement[Any]
    source: sa.FromClause
    facts: Mapping[str, sa.ColumnElement[Any]]
    rules: Sequence[Rule]

    def end_of_page(self, size: int) -> Any:
        """Return the statement for the last key of a page, and the number of its rows."""
        keys = sa.select(self.key.label("key")).where(self.key > AFTER).order_by(self.key).limit(size).subquery("page")
        return sa.select(sa.func.max(keys.c.key), sa.func.count())

    def broken(self) -> sa.Select[Any]:
        """Return the statement for the rows of a page that break a rule."""
        broken = [sa.case((rule.is_broken, 1), else_=0).label(f"rule_{n}") for n, rule in enumerate(self.rules)]
        facts = [fact.label(name) for name, fact in self.facts.items()]
        return (
            sa.select(self.key.label("key"), self.task_id.label("task_id"), *facts, *broken)
            .select_from(self.source)
            .where(self.key > AFTER, self.key <= LAST, sa.or_(*(rule.is_broken for rule in self.rules)))
            .order_by(self.key)
        )

    def findings(self, row: Mapping[str, Any]) -> Iterator[Finding]:
        """Yield what is wrong with a row."""
        for n, rule in enumerate(self.rules):
            if row[f"rule_{n}"]:
                yield Finding(
                    promise=rule.promise,
                    table=self.table,
                    id=row["key"],
                    task_id=row["task_id"],
                    message=rule.words.format_map(row),
                )


def whole_since(connection: sa.Connection, deliveries: ModelTable) -> datetime:
    """Return the time from which on no delivery was purged that had an effect.

    A purge deletes or empties everything that came before a time, whatever that time was. So nothing is missing of what
    came after the oldest delivery that is still there, with its headers, and that was decided when it came.
    """
    d = deliveries.columns
    prompt = sa.or_(d["latency_ms"].is_(None), d["latency_ms"] < _MARGIN / timedelta(milliseconds=1))
    oldest = (
        sa.select(d["id"], d["received_at"])
        .where(d["verdict"] == Verdict.PROCESSED.value, d["headers"].is_not(sa.null()), prompt)
        .order_by(d["id"])
        .limit(1)
    )
    row = connection.execute(oldest).one_or_none()
    if row is None:
        return _NEVER
    row_id, received_at = row
    since: datetime = received_at - _MARGIN if row_id == 1 else received_at + _MARGIN
    return since
