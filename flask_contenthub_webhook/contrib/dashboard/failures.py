"""What the handlers fail at now, grouped by handler and exception."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ...core.redaction import redacted
from ...core.state_machine import Verdict
from ...storage.delivery_queries import DeliveryFilter
from ...storage.failure_groups import Acknowledgement, digest_of, read_acknowledgements, read_groups
from ...storage.queries import Reading, Row, id_of
from .tries import tries_of
from .windows import EVERYTHING, lane_of

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["FailureGroup", "Failures", "read_failures"]

_FAILED = (Verdict.FAILED.value, Verdict.DEAD.value)
_BRIEF = 500
_MOST_ROWS = 10_000
"""Deliveries of each verdict that a request groups."""
_LOCAL = ".<locals>."


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """The deliveries that wait or are parked since one handler raised one class of exceptions.

    Args:
        failure: the handler and the class, as errors begin.
        digest: what names it in the form that acknowledges it.
        handler: the name of the handler, without that of the function around it; or an empty text.
        error: the class of the exception, or all that is known.
        failed: the number of deliveries that are tried again.
        dead: the number of those that are parked.
        tries: the number of their tries.
        tasks: the number of their tasks; a replay that fails is another delivery of one.
        first: when the first of them was received.
        last: when the last of them was received.
        newest: the id of the newest.
        said: the error of that one.
        traceback: the one of its last try, or an empty text.
        acknowledged: who acknowledged them, if all of them had come by then.
        again_since: who acknowledged some of them, before others came.
    """

    failure: str
    digest: str
    handler: str
    error: str
    failed: int
    dead: int
    tries: int
    tasks: int
    first: datetime
    last: datetime
    newest: int
    said: str
    traceback: str
    acknowledged: Acknowledgement | None
    again_since: Acknowledgement | None

    @property
    def count(self) -> int:
        """The number of its deliveries."""
        return self.failed + self.dead


@dataclass(frozen=True, slots=True)
class Failures:
    """All groups.

    Args:
        groups: those that nobody acknowledged first, then by the newest delivery.
        is_cut: there are more deliveries than a request examines, and these are the newest.
    """

    groups: list[FailureGroup]
    is_cut: bool

    @property
    def count(self) -> int:
        """The number of deliveries in the groups."""
        return sum(group.count for group in self.groups)


def read_failures(read: Reading, state: WebhookState) -> Failures:
    """Group the newest deliveries that failed or are dead, in a fixed number of statements."""
    model = state.delivery_model
    lane = lane_of(read, model, DeliveryFilter(verdicts=_FAILED), down=True)
    start = lane.start(EVERYTHING)
    if start is None:
        return Failures([], is_cut=False)
    window = lane.window(EVERYTHING, start, _MOST_ROWS)
    inside = (model.verdict.in_(_FAILED), id_of(model) >= window.low, id_of(model) <= window.high, *lane.in_common)
    rows = read_groups(read, model, inside)
    failures = [row["failure"] for row in rows]
    newest = _newest(read, model, [row["newest"] for row in rows])
    alert = state.models.alert
    kept = {row["name"]: row for row in read.rows(sa.select(alert.name, alert.changed_at, alert.acknowledged_by))}
    known = read_acknowledgements(kept, failures)
    groups = [_group(row, newest[row["newest"]], known.get(row["failure"])) for row in rows if row["newest"] in newest]
    groups.sort(key=lambda group: (group.acknowledged is not None, -group.newest))
    return Failures(groups, is_cut=lane.start(lane.rest(EVERYTHING, window)) is not None)


def _newest(read: Reading, model: type, ids: list[int]) -> dict[int, Row]:
    columns = (model.id, model.verdict, model.tries, model.processed_at, model.failed_tries)  # type: ignore[attr-defined]
    said = sa.func.substr(sa.func.coalesce(model.error, model.reason, ""), 1, _BRIEF)  # type: ignore[attr-defined]
    query = sa.select(*columns, said.label("said")).where(model.id.in_(ids))  # type: ignore[attr-defined]
    return {row["id"]: redacted(row) for row in read.rows(query)}


def _group(row: Row, newest: Row, known: Acknowledgement | None) -> FailureGroup:
    handler, _, error = row["failure"].partition(": ")
    is_new = known is not None and row["last"] > known.at
    tracebacks = [one.traceback for one in tries_of(newest) if one.traceback]
    return FailureGroup(
        failure=row["failure"],
        digest=digest_of(row["failure"]),
        handler=handler.rpartition(_LOCAL)[2] if error else "",
        error=error or handler,
        failed=row["failed"],
        dead=row["dead"],
        tries=int(row["tries"] or 0),
        tasks=row["tasks"],
        first=row["first"],
        last=row["last"],
        newest=row["newest"],
        said=newest["said"],
        traceback=tracebacks[-1] if tracebacks else "",
        acknowledged=None if is_new else known,
        again_since=known if is_new else None,
    )
