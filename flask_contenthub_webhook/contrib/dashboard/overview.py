"""The numbers of the overview: deliveries, verdicts and backlog, in a fixed number of statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ...core.received import Source
from ...core.state_machine import OPEN_STATES, UNSETTLED, TaskState, Verdict
from ...models.columns import UTCDateTime
from ...storage.delivery_queries import latency_summary
from ...storage.inbox_statements import due_since
from ...storage.queries import Reading, Row
from .counts import counts_of, read_counts
from .tasks import count_overdue
from .windows import MOST_ROWS, has_unsettled_index, is_unsettled, shifted, span_of

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["ARRIVED", "EMPTY", "KINDS", "VERDICTS", "Hour", "Overview", "next_runs", "read_backlog", "read_overview"]

KINDS = ("accepted", "duplicates", "rejected", "failed", "dead")
_KIND_OF = {
    Verdict.DUPLICATE: "duplicates",
    Verdict.REJECTED: "rejected",
    Verdict.FAILED: "failed",
    Verdict.DEAD: "dead",
}
VERDICTS = {
    kind: tuple(verdict.value for verdict in Verdict if _KIND_OF.get(verdict, "accepted") == kind) for kind in KINDS
}
"""The verdicts that count as each kind."""
ARRIVED = tuple(source.value for source in Source if source is not Source.HOST)
"""The sources that are counted: not the events that the host caused itself."""
_SHARES = (0.5, 0.9, 0.95, 0.99)
_WAYS = ("webhook", "late webhook", "poll", "response", "replay")
_MOST_BARS = 48
_WIDTHS = tuple(timedelta(hours=hours) for hours in (1, 3, 6, 12, 24, 72, 168, 720, 2160, 8760))
_MOST_COUNTED = 10_000
_INSTANT = timedelta(microseconds=1)


@dataclass(slots=True)
class Hour:
    """The deliveries of one bar of the chart: an hour, or longer if there would be too many bars.

    Args:
        start: its beginning.
        counts: by kind; rejected requests are counted one by one.
    """

    start: datetime
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Overview:
    """The deliveries of a period.

    Args:
        hours: from the oldest to the newest, without gaps.
        width: the length of each of them.
        deliveries: the number of deliveries.
        since: the time of the oldest; None if there are none.
        is_cut: the period began earlier, and only its newest deliveries were counted.
        goes_on: a further request counts more of it.
        success_rate: the share of accepted events, of those that were tried, at which no handler failed; or None.
        ways: the number of completed tasks by source.
        latency: of applied callbacks, in ms: ``count``, ``p0.5`` and so on, ``max``.
        newest_of: the number of the newest deliveries that the latency is of; None for all.
    """

    hours: list[Hour]
    width: timedelta
    deliveries: int
    since: datetime | None
    is_cut: bool
    success_rate: float | None
    ways: dict[str, int]
    latency: Row
    newest_of: int | None = None
    goes_on: bool = False

    @property
    def totals(self) -> Counter[str]:
        """The counts of all hours."""
        return sum((hour.counts for hour in self.hours), Counter())


_NO_LATENCY: Row = {"count": 0, "max": None} | dict.fromkeys((f"p{share:g}" for share in _SHARES), None)
EMPTY = Overview([], _WIDTHS[0], 0, None, False, None, dict.fromkeys(_WAYS, 0), _NO_LATENCY)
"""No deliveries."""


def read_overview(
    read: Reading,
    state: WebhookState,
    since: datetime | None,
    until: datetime | None,
    now: datetime,
    *,
    further: bool = False,
) -> Overview:
    """Count the deliveries of a period, or as many of its newest as a request may count.

    Args:
        read: the transaction.
        state: the application's state.
        since: the beginning of the period, or None.
        until: its end, or None.
        now: the end of a period that has none, for the last bar of the chart.
        further: count as many as a request may at most, since somebody waits for older ones.
    """
    model = state.delivery_model
    counted = read_counts(
        read,
        model,
        state.models.alert,
        counts_of(state.app),
        span_of(read, model, since, until),
        since=since,
        until=until,
        now=now,
        further=further,
        grouped=partial(_counts, read, model),
    )
    groups, is_cut = counted.groups, counted.is_cut
    oldest = min((group["oldest"] for group in groups), default=None)
    begins = since if oldest is not None and since is not None and not is_cut else oldest
    hours, width = _hours(groups, begins, oldest, now if until is None else min(shifted(until, -_INSTANT), now))
    inside = [model.id >= max(counted.low, counted.high - MOST_ROWS + 1), model.id <= counted.high]
    inside += [] if since is None else [model.received_at >= since]
    inside += [] if until is None else [model.received_at < until]
    return Overview(
        hours=hours,
        width=width,
        deliveries=sum(group["deliveries"] for group in groups),
        since=oldest,
        is_cut=is_cut,
        goes_on=counted.goes_on,
        success_rate=_success_rate(groups),
        ways=_ways(groups),
        newest_of=MOST_ROWS if counted.high - counted.low >= MOST_ROWS else None,
        latency=read.rows(latency_summary(model, *inside, shares=_SHARES))[0],
    )


# --- by hour -------------------------------------------------------------------------------------------------


def _counts(
    read: Reading, model: Any, inside: Iterable[sa.ColumnElement[bool]], by: Mapping[str, sa.ColumnElement[Any]]
) -> sa.Select[Any]:
    """Count by further expressions, hour, verdict, source and effect, without the events that the host caused."""
    completes = sa.and_(
        model.verdict == Verdict.PROCESSED.value,
        model.status_after == TaskState.COMPLETED.value,
        model.status_before != TaskState.COMPLETED.value,
    )
    groups = [
        *(expression.label(name) for name, expression in by.items()),
        _hour_of(model.received_at, read.dialect).label("hour"),
        model.verdict.label("verdict"),
        model.source.label("source"),
        sa.case((completes, 1), else_=0).label("completes"),
        sa.case((model.late, 1), else_=0).label("late"),
    ]
    return (
        sa.select(
            *groups,
            sa.func.count().label("deliveries"),
            sa.func.sum(model.occurrences).label("occurrences"),
            sa.func.min(model.received_at).label("oldest"),
            sa.func.max(model.received_at).label("newest"),
        )
        .where(*inside, model.source != Source.HOST.value)
        .group_by(*(sa.literal_column(str(number)) for number in range(1, len(groups) + 1)))
    )


def _hour_of(at: Any, dialect: str) -> sa.ColumnElement[Any]:
    if dialect == "postgresql":
        return sa.func.date_trunc("hour", at, "UTC", type_=UTCDateTime())
    return sa.func.substr(sa.cast(at, sa.Text()), 1, len("2026-11-24 08"))


def _hours(
    groups: list[Row], since: datetime | None, oldest: datetime | None, end: datetime
) -> tuple[list[Hour], timedelta]:
    if since is None or oldest is None:
        return [], _WIDTHS[0]
    end = max([end, *(_moment(group["hour"]) for group in groups)])
    if (end - since) / _WIDTHS[-1] >= _MOST_BARS:
        since = oldest
    width = next((width for width in _WIDTHS if (end - since) / width < _MOST_BARS), _WIDTHS[-1])
    bars = list(_bars(since, end, width))
    for group in groups:
        place = (_moment(group["hour"]) - bars[0].start) // width
        if 0 <= place < len(bars):
            kind = _KIND_OF.get(group["verdict"], "accepted")
            bars[place].counts[kind] += int(group["occurrences" if kind == "rejected" else "deliveries"])
    return bars, width


def _bars(since: datetime, end: datetime, width: timedelta) -> Iterator[Hour]:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    start = epoch + (since - epoch) // width * width
    while start <= end:
        yield Hour(start)
        start += width


def _moment(hour: datetime | str) -> datetime:
    return hour if isinstance(hour, datetime) else datetime.fromisoformat(hour).replace(tzinfo=UTC)


def _success_rate(groups: list[Row]) -> float | None:
    tried = Counter[str]()
    for group in groups:
        if group["verdict"] not in {Verdict.REJECTED, Verdict.QUEUED}:
            tried["bad" if group["verdict"] in {Verdict.FAILED, Verdict.DEAD} else "good"] += group["deliveries"]
    return tried["good"] / tried.total() if tried else None


def _ways(groups: list[Row]) -> dict[str, int]:
    ways = Counter[str]()
    for group in groups:
        if group["completes"]:
            is_late_webhook = group["late"] and group["source"] == Source.WEBHOOK
            ways["late webhook" if is_late_webhook else group["source"]] += group["deliveries"]
    return {way: ways[way] for way in _WAYS}


# --- the backlog ---------------------------------------------------------------------------------------------


def read_backlog(read: Reading, state: WebhookState) -> Row:
    """Read the lengths of the queues, and their next due times; each from an index, and counted up to a limit.

    ``queued``, ``failed`` and ``dead`` are None if the host's own table lacks the index for them.
    """
    task, delivery, forward = state.task_model, state.delivery_model, state.models.forward
    figures: dict[str, Any] = {
        "retries": _count(delivery.next_retry_at.is_not(None)),
        "next_retry_at": _soonest(delivery.next_retry_at, due_since(delivery.next_retry_at, delivery.received_at)),
        "open_tasks": _count(task.next_poll_at.is_not(None), task.status.in_([state.value for state in OPEN_STATES])),
        "next_poll_at": _soonest(task.next_poll_at),
        "overdue": count_overdue(state, state.now()),
        "submissions": _count(task.next_submit_at.is_not(None)),
        "next_submit_at": _soonest(task.next_submit_at),
        "forwards": _count(forward.next_try_at.is_not(None)),
        "next_try_at": _soonest(forward.next_try_at),
        "dead_forwards": _count(
            forward.status == "dead", forward.id > sa.select(sa.func.max(forward.id)).scalar_subquery() - MOST_ROWS
        ),
    }
    has_index = has_unsettled_index(delivery)
    for verdict in UNSETTLED:
        unsettled = _count(delivery.verdict == verdict.value, is_unsettled(delivery))
        figures[verdict.value] = unsettled if has_index else sa.null()
    return read.rows(sa.select(*(figure.label(name) for name, figure in figures.items())))[0]


def _count(*conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    """Count to at most :data:`_MOST_COUNTED` plus 1, which means "more"."""
    rows = sa.select(sa.literal_column("1")).where(*conditions).limit(_MOST_COUNTED + 1).subquery()
    return sa.select(sa.func.count()).select_from(rows).scalar_subquery()


def _soonest(at: Any, shown: Any = None) -> sa.ScalarSelect[Any]:
    return sa.select(at if shown is None else shown).where(at.is_not(None)).order_by(at).limit(1).scalar_subquery()


def next_runs(state: WebhookState) -> list[tuple[str, datetime | None]]:
    """Return the periodic jobs of this process with their next times; empty if another process runs them."""
    scheduler = state.jobs.value.scheduler
    if scheduler is None or not scheduler.running:
        return []
    return sorted((str(job.id), job.next_run_time) for job in scheduler.get_jobs())
