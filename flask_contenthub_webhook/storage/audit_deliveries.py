"""The rules over deliveries, each by its row alone."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from ..core.promises import ALLOWED_CHANGES, BUILT_IN_CHANGES, Promise
from ..core.received import Source
from ..core.state_machine import TaskState, Verdict
from .audit_rules import Limits, Rule, Rules
from .rows import ModelTable

__all__ = ["delivery_rules"]

_WAITING = [Verdict.QUEUED.value, Verdict.FAILED.value]


def delivery_rules(deliveries: ModelTable, limits: Limits) -> Rules:
    """Return the rules over deliveries.

    Args:
        deliveries: the host's delivery model.
        limits: the times that rows are compared with.
    """
    d = deliveries.columns
    return Rules(
        table="delivery",
        key=d["id"],
        task_id=d["task_id"],
        source=deliveries.table,
        facts={key: d[key] for key in ("verdict", "event", "source", "status_before", "status_after", "replay_of")},
        rules=(*_of_effects(deliveries, limits), *_of_waiting(deliveries, limits), *_of_replays(deliveries, limits)),
    )


def _of_effects(deliveries: ModelTable, limits: Limits) -> Sequence[Rule]:
    d = deliveries.columns
    before, after, event = d["status_before"], d["status_after"], d["event"]
    is_change = d["verdict"] == Verdict.PROCESSED.value
    change = event + ":" + before + ":" + after
    allowed = [":".join(change) for change in sorted(ALLOWED_CHANGES)]
    is_built_in = event.in_(BUILT_IN_CHANGES)
    is_late = sa.and_(before.in_([TaskState.FAILED.value, TaskState.TIMEOUT.value]), after == TaskState.COMPLETED.value)
    lacks = sa.or_(*(column.is_(None) for column in (d["task_id"], event, before, after)))
    is_unsigned = sa.and_(is_change, d["source"] == Source.WEBHOOK.value, d["scheme"].is_(None))
    return (
        Rule(
            Promise.ALLOWED,
            sa.and_(
                is_change,
                sa.or_(sa.and_(is_built_in, change.not_in(allowed)), sa.and_(~is_built_in, before != after)),
            ),
            "A processed {event} cannot change a task from {status_before} to {status_after}.",
        ),
        Rule(
            Promise.BELIEVED,
            is_unsigned if limits.signed else sa.false(),
            "It was processed without a signature, and WEBHOOK_REQUIRE_SIGNATURE is on.",
        ),
        Rule(
            Promise.CONSISTENT,
            sa.and_(is_change, sa.or_(lacks, d["error"].is_not(None))),
            "It was processed, and does not say what it changed, or has an error.",
        ),
        Rule(
            Promise.CONSISTENT,
            sa.and_(is_change, ~lacks, sa.case((is_late, 1), else_=0) != sa.case((d["late"], 1), else_=0)),
            "It changed the task from {status_before} to {status_after}, and is wrong about being late.",
        ),
    )


def _of_waiting(deliveries: ModelTable, limits: Limits) -> Sequence[Rule]:
    d = deliveries.columns
    verdict, due, claimed = d["verdict"], d["next_retry_at"], d["claimed_until"]
    waits = verdict.in_(_WAITING)
    too_late = due > sa.literal(limits.retry, due.type)
    return (
        Rule(
            Promise.TRIED,
            sa.and_(waits, sa.or_(due.is_(None), sa.and_(too_late, claimed.is_(None)))),
            "It is {verdict}, and is never tried.",
        ),
        Rule(
            Promise.CLAIM_ENDS,
            sa.and_(
                waits,
                sa.or_(
                    claimed > sa.literal(limits.retry, claimed.type),
                    claimed != due,
                    sa.and_(too_late, claimed.is_not(None)),
                ),
            ),
            "It is {verdict}, and is claimed for longer than any worker may take.",
        ),
        Rule(
            Promise.CONSISTENT,
            sa.and_(~waits, sa.or_(due.is_not(None), claimed.is_not(None))),
            "It is {verdict}, and still waits for a try.",
        ),
        Rule(
            Promise.CONSISTENT,
            sa.or_(
                verdict.not_in([each.value for each in Verdict]), d["source"].not_in([each.value for each in Source])
            ),
            "Its verdict '{verdict}' or its source '{source}' is unknown.",
        ),
    )


def _of_replays(deliveries: ModelTable, limits: Limits) -> Sequence[Rule]:
    """Ids of purged rows are legitimate, and each verdict may have a retention of its own."""
    d = deliveries.columns
    other = deliveries.table.alias("other")
    o = {key: other.c[column.key] for key, column in d.items()}
    is_missing = ~sa.exists().where(o["id"] == d["replay_of"])
    was_not_replayed = ~sa.exists().where(o["task_id"] == d["task_id"], o["replay_of"] == d["id"])
    missing: sa.ColumnElement[bool] = sa.false()
    if limits.is_whole:
        missing = sa.or_(
            sa.and_(d["replay_of"].is_not(None), is_missing),
            sa.and_(d["verdict"] == Verdict.REPLAYED.value, was_not_replayed),
        )
    return (
        Rule(
            Promise.POINTS,
            sa.or_(d["replay_of"] >= d["id"], missing),
            "It is {verdict}, a replay of delivery {replay_of}; the original or the replay is missing, or the original "
            "came later.",
        ),
    )
