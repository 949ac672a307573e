"""Retention: the deliveries that have expired, and the ranges of the history in which a purge looks for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..config.settings import Settings
from ..core.events import BUILT_IN_EVENTS
from ..core.received import Source
from ..core.state_machine import HEARD, TaskState, Verdict
from ..storage.id_search import DISORDER, first_id_since
from ..storage.queries import reading
from ..storage.transactions import Database

__all__ = ["PurgeMemory", "Rule", "count_expired", "expired", "is_remembered", "retention_rules", "spans"]

_FULL_WALK_EVERY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rule:
    """Deliveries with these verdicts that were received before this time have expired."""

    before: datetime
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class PurgeMemory:
    """When this process last walked through everything, and last purged, so that it skips what it has walked through.

    All of it by a clock that is never set.
    """

    walked_at: timedelta
    purged_at: timedelta

    def time_since(self, now: timedelta) -> timedelta | None:
        """Return the time since the last purge, or None if all of the history is to be looked at, once a day.

        A delivery expires not only by getting older: a replay changes its verdict.
        """
        return None if now - self.walked_at >= _FULL_WALK_EVERY else now - self.purged_at

    @classmethod
    def after(cls, memory: PurgeMemory | None, now: timedelta) -> PurgeMemory:
        """Return the memory of a purge that looked at as much as ``memory`` required."""
        if memory is None or memory.time_since(now) is None:
            return cls(now, now)
        return cls(memory.walked_at, now)


def retention_rules(
    settings: Settings, now: datetime, verdicts: Collection[Verdict] = (), *, before: datetime | None = None
) -> list[Rule]:
    """Return the rules, the longest retention first.

    Args:
        settings: the configuration.
        now: the time.
        verdicts: only for these; for all by default.
        before: overrides the configuration: what was received earlier has expired.
    """
    if before is not None:
        return [Rule(before, tuple(verdicts or Verdict))]
    by_age: dict[timedelta, list[Verdict]] = {}
    for verdict in verdicts or Verdict:
        age = settings.history_retention_by_verdict.get(verdict, settings.history_retention)
        if age:
            by_age.setdefault(age, []).append(verdict)
    return [Rule(now - age, tuple(group)) for age, group in sorted(by_age.items(), reverse=True)]


def expired(model: type[Any], rules: Iterable[Rule]) -> sa.ColumnElement[bool]:
    """Return the condition that a delivery has expired; one that is still to be tried again never has."""
    by_rule = (
        sa.and_(model.verdict.in_([verdict.value for verdict in rule.verdicts]), model.received_at < rule.before)
        for rule in rules
    )
    return sa.and_(model.next_retry_at.is_(None), sa.or_(sa.false(), *by_rule))


def is_remembered(database: Database) -> sa.ColumnElement[bool]:
    """Return the condition that a delivery's signed message could have an effect if it came again and nothing knew it.

    That is so while its task exists: for good with custom events, and for the others until the task is completed. A
    purge keeps the row, which identifies the message, and empties it. A URL token does not cover the message: anyone
    who has it can send a new one.
    """
    delivery, task = database.delivery_model, database.task_model
    may_change = sa.or_(task.status != TaskState.COMPLETED.value, delivery.event.not_in(BUILT_IN_EVENTS))
    return sa.and_(
        delivery.verdict.in_([verdict.value for verdict in HEARD]),
        delivery.source.in_([Source.WEBHOOK.value, Source.REPLAY.value]),
        delivery.scheme.is_not(None),
        delivery.scheme != "url",
        sa.exists().where(task.task_id == delivery.task_id, may_change),
    )


def count_expired(database: Database, rules: Sequence[Rule]) -> int:
    """Count the deliveries that a purge would delete."""
    gone = (expired(database.delivery_model, rules), ~is_remembered(database))
    query = sa.select(sa.func.count().label("n")).where(*gone)
    with reading(database) as read:
        return int(read.rows(query)[0]["n"])


def spans(
    session: Session, model: type[Any], rules: Iterable[Rule], *, since: timedelta | None
) -> list[tuple[int, int]]:
    """Return the half-open ranges of ids in which deliveries can have expired, in order.

    If the rules were applied ``since`` ago, only what has crossed their times since then is left: a short piece of the
    history for each rule. None means that they never were.
    """
    merged: list[tuple[int, int]] = []
    for rule in sorted(rules, key=lambda rule: rule.before):
        begin = 0 if since is None else first_id_since(session, model, rule.before - since - DISORDER)
        end = first_id_since(session, model, rule.before + DISORDER)
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
