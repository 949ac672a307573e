"""The rules over forwards and their tries."""

from __future__ import annotations

import sqlalchemy as sa

from ..core.promises import Promise
from ..core.state_machine import Verdict
from .audit_rules import AFTER, LAST, Limits, Rule, Rules
from .forwards import DEAD, DELIVERED, WAITING
from .rows import ModelTable

__all__ = ["forward_rules", "try_rules"]


def forward_rules(forwards: ModelTable, tries: ModelTable, deliveries: ModelTable, limits: Limits) -> Rules:
    """Return the rules over forwards.

    Args:
        forwards: the model of forwards.
        tries: the model of their tries.
        deliveries: the host's delivery model.
        limits: the times that rows are compared with.
    """
    f, d, a = forwards.columns, deliveries.columns, tries.columns
    status, due, finished = f["status"], f["next_try_at"], f["finished_at"]
    waits = status == WAITING
    tried = (
        sa.select(
            a["forward_id"].label("forward_id"),
            sa.func.count().label("count"),
            sa.func.max(a["number"]).label("last"),
        )
        .where(a["forward_id"] > AFTER, a["forward_id"] <= LAST)
        .group_by(a["forward_id"])
        .subquery("tried")
    )
    is_missing = sa.and_(d["id"].is_(None), f["created_at"] >= sa.literal(limits.since, f["created_at"].type))
    is_of_another = sa.or_(d["verdict"] != Verdict.PROCESSED.value, d["task_id"] != f["task_id"])
    joined = forwards.table.outerjoin(deliveries.table, d["id"] == f["delivery_id"])
    return Rules(
        table="forward",
        key=f["id"],
        task_id=f["task_id"],
        source=joined.outerjoin(tried, tried.c.forward_id == f["id"]),
        facts={
            "status": status,
            "delivery_id": f["delivery_id"],
            "tried": sa.func.coalesce(tried.c["count"], 0),
            "last": sa.func.coalesce(tried.c["last"], 0),
        },
        rules=(
            Rule(
                Promise.FORWARDED_EVENT,
                sa.or_(is_missing, is_of_another),
                "It forwards delivery {delivery_id}, which is not there, was not processed, or is about another task.",
            ),
            Rule(
                Promise.SENT,
                sa.and_(waits, sa.or_(due.is_(None), due > sa.literal(limits.retry, due.type))),
                "It is {status}, and is never sent.",
            ),
            Rule(
                Promise.CONSISTENT,
                sa.or_(
                    status.not_in([WAITING, DELIVERED, DEAD]),
                    sa.and_(waits, finished.is_not(None)),
                    sa.and_(~waits, sa.or_(due.is_not(None), finished.is_(None))),
                ),
                "It is {status}, which its times contradict.",
            ),
            Rule(
                Promise.ATTEMPTS,
                tried.c["last"] > tried.c["count"],
                "It was tried {last} times, and {tried} of them are there.",
            ),
        ),
    )


def try_rules(forwards: ModelTable, tries: ModelTable) -> Rules:
    """Return the rules over the tries of forwards, which are deleted together with them."""
    f, a = forwards.columns, tries.columns
    return Rules(
        table="try",
        key=a["id"],
        task_id=sa.null().label("task_id"),
        source=tries.table.outerjoin(forwards.table, f["id"] == a["forward_id"]),
        facts={"forward_id": a["forward_id"]},
        rules=(Rule(Promise.POINTS, f["id"].is_(None), "It is a try of forward {forward_id}, which is not there."),),
    )
