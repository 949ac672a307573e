"""Counts of the history, remembered for blocks of ids in which hardly anything changes any more.

A block is counted once, and again if one of its deliveries has been settled since, or after a purge. So a period of
any length is exact, and quick from the second look on: what changes are the newest block and the unsettled deliveries,
which an index finds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from flask import Flask

from ...core.state_machine import UNSETTLED
from ...storage.notes import PURGED
from ...storage.queries import Reading, Row, id_of
from .windows import Span, has_unsettled_index, is_unsettled

__all__ = ["Counted", "Counts", "Grouped", "counts_of", "read_counts"]

BLOCK = 4096
"""Ids of a block."""
MOST_BLOCKS = 64
"""Blocks that a request counts anew if it is asked to count further."""
FIRST_BLOCKS = 2
"""Blocks that any other request counts anew."""
_MOST_REMEMBERED = 8192
_SETTLED_AFTER = timedelta(hours=2)
"""By then refusals are counted no further, and transactions that took an id have ended."""


class Grouped(Protocol):
    """A query that counts the rows that meet conditions by further expressions: their ``oldest`` and ``newest``."""

    def __call__(
        self, conditions: Iterable[sa.ColumnElement[bool]], by: Mapping[str, sa.ColumnElement[Any]]
    ) -> sa.Select[Any]:
        """Make the query."""
        ...


@dataclass(frozen=True, slots=True)
class _Block:
    """The groups of a block's settled deliveries, and the number of the others when it was counted."""

    groups: list[Row]
    unsettled: int


@dataclass(slots=True)
class Counts:
    """What is remembered of one application, as it was after a purge."""

    blocks: dict[int, _Block] = field(default_factory=dict)
    purged_at: datetime | None = None
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True, slots=True)
class Counted:
    """The groups of a period, of deliveries from ``low`` to ``high``.

    Args:
        groups: of deliveries.
        low: the first one that was counted, or could have been.
        high: the last one.
        is_cut: the period began earlier.
        goes_on: a further request counts more, since what was counted is remembered.
    """

    groups: list[Row]
    low: int
    high: int
    is_cut: bool = False
    goes_on: bool = False


_COUNTS: WeakKeyDictionary[Flask, Counts] = WeakKeyDictionary()


def counts_of(app: Flask) -> Counts:
    """Return what is remembered of an application."""
    return _COUNTS.setdefault(app, Counts())


def read_counts(
    read: Reading,
    model: Any,
    alert: Any,
    counts: Counts,
    span: Span,
    *,
    since: datetime | None,
    until: datetime | None,
    now: datetime,
    further: bool,
    grouped: Grouped,
) -> Counted:
    """Count the deliveries of a period in three statements, and remember what will not change.

    Args:
        read: the transaction.
        model: the delivery model.
        alert: the model that has the time of the last purge.
        counts: what is remembered.
        span: the ids that deliveries of the period can have.
        since: the beginning of the period, or None.
        until: its end, or None.
        now: the current time.
        further: somebody waits for older deliveries, so more than a page's usual share may be counted.
        grouped: the query.
    """
    inside = [id_of(model) >= span.low, id_of(model) <= span.high]
    purged = sa.select(alert.changed_at).where(alert.name == PURGED).scalar_subquery()
    # Apart, since SQLite takes both ends from the index only if each is asked for alone.
    ends = [sa.select(end(model.id)).where(*inside).scalar_subquery() for end in (sa.func.min, sa.func.max)]
    first, last, purged_at = read.first(sa.select(*ends, purged)) or (None, None, None)
    if first is None or last is None:
        return Counted([], 0, 0)
    by = {"block": model.id - model.id % BLOCK, "in_period": _in_period(model, since, until)}
    unsettled: dict[int, list[Row]] = defaultdict(list)
    has_index = has_unsettled_index(model)
    if has_index:
        for group in read.rows(grouped([*inside, is_unsettled(model)], by)):
            unsettled[group["block"]].append(group)
    with counts.lock:
        if counts.purged_at != purged_at or len(counts.blocks) > _MOST_REMEMBERED:
            counts.blocks.clear()
            counts.purged_at = purged_at
        known = dict(counts.blocks) if has_index else {}
    blocks = range(first - first % BLOCK, last + 1, BLOCK)
    usable = {
        block: known[block]
        for block in blocks
        if block in known
        and known[block].unsettled == _number(unsettled[block])
        and _lies_within(known[block].groups, since, until)
    }
    missing = [block for block in blocks if block not in usable]
    most = MOST_BLOCKS if further and has_index else FIRST_BLOCKS
    is_cut = len(missing) > most
    anew = missing[-most:]
    low = anew[0] if is_cut else blocks.start
    fresh: dict[int, list[Row]] = defaultdict(list)
    if anew:
        for group in read.rows(grouped([sa.or_(*_ranges(model, anew, span))], by)):
            fresh[group["block"]].append(group)
    if has_index:
        _remember(counts, fresh, anew, span, last=last, now=now, purged_at=purged_at)
    groups = [group for block in anew for group in fresh[block] if group["in_period"]]
    for block, remembered in usable.items():
        if block >= low:
            groups += [*remembered.groups, *(group for group in unsettled[block] if group["in_period"])]
    return Counted(groups, max(low, first), last, is_cut, goes_on=is_cut and has_index)


def _in_period(model: Any, since: datetime | None, until: datetime | None) -> sa.ColumnElement[Any]:
    conditions = [sa.true()]
    conditions += [] if since is None else [model.received_at >= since]
    conditions += [] if until is None else [model.received_at < until]
    return sa.case((sa.and_(*conditions), 1), else_=0)


def _lies_within(groups: list[Row], since: datetime | None, until: datetime | None) -> bool:
    return all(
        (since is None or group["oldest"] >= since) and (until is None or group["newest"] < until) for group in groups
    )


def _number(groups: list[Row]) -> int:
    return sum(int(group["deliveries"]) for group in groups)


def _ranges(model: Any, blocks: list[int], span: Span) -> list[sa.ColumnElement[bool]]:
    """Return the conditions for the ids of blocks; neighbours are one range."""
    ranges: list[list[int]] = []
    for block in blocks:
        if ranges and ranges[-1][1] == block:
            ranges[-1][1] = block + BLOCK
        else:
            ranges.append([block, block + BLOCK])
    return [
        sa.and_(id_of(model) >= max(low, span.low), id_of(model) <= min(behind - 1, span.high))
        for low, behind in ranges
    ]


def _remember(
    counts: Counts,
    fresh: Mapping[int, list[Row]],
    anew: list[int],
    span: Span,
    *,
    last: int,
    now: datetime,
    purged_at: datetime | None,
) -> None:
    """Keep the blocks that are whole and old."""
    kept = {}
    for block in anew:
        groups = fresh.get(block, [])
        is_whole = span.low <= block and block + BLOCK - 1 <= min(span.high, last)
        if is_whole and all(group["newest"] < now - _SETTLED_AFTER for group in groups):
            settled = [group for group in groups if group["verdict"] not in UNSETTLED]
            kept[block] = _Block(settled, _number(groups) - _number(settled))
    with counts.lock:
        if counts.purged_at == purged_at:
            counts.blocks.update(kept)
