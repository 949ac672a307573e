"""The rules over tasks: by the row alone, and by the row and its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ..core.events import EVENT_TYPES
from ..core.promises import Promise
from ..core.state_machine import OPEN_STATES, TERMINAL_STATES, TaskState, Trigger, Verdict
from .audit_rules import AFTER, LAST, Limits, Rule, Rules
from .queries import count_where
from .rows import ModelTable

__all__ = ["task_rules"]

_OF_ONE_ATTEMPT = [name for name, event in EVENT_TYPES.items() if event.one_attempt] + [
    Trigger.TIMED_OUT.value,
    Trigger.SUBMITTED.value,
]
_COUNTED = ("changes", "completions", "at_completed", "renewals", "last_attempt")


def task_rules(tasks: ModelTable, deliveries: ModelTable, limits: Limits) -> Rules:
    """Return the rules over tasks.

    Args:
        tasks: the host's task model.
        deliveries: the host's delivery model.
        limits: the times that rows are compared with.
    """
    t = tasks.columns
    history = _history(tasks, deliveries)
    counted = {name: sa.func.coalesce(history.c[name], 0) for name in _COUNTED}
    return Rules(
        table="task",
        key=t["id"],
        task_id=t["task_id"],
        source=tasks.table.outerjoin(history, history.c.id == t["id"]),
        facts={"status": t["status"], "attempt": t["attempt"], "version": t["version"], **counted},
        rules=(*_by_history(tasks, history, limits), *_by_row(tasks, history, limits)),
    )


def _history(tasks: ModelTable, deliveries: ModelTable) -> sa.Subquery:
    """Return what the history says of each task of a page, in numbers that do not depend on its order.

    It has the ids of the rows: MariaDB makes no index of long texts, and would compare each task with every other.
    """
    t, d = tasks.columns, deliveries.columns
    before, after, event = d["status_before"], d["status_after"], d["event"]
    is_change = d["verdict"] == Verdict.PROCESSED.value
    completed = TaskState.COMPLETED.value
    is_renewal = sa.and_(is_change, after == TaskState.PENDING.value, event.in_(["failed", Trigger.RETRY.value]))
    is_of_attempt = sa.and_(is_change, event.in_(_OF_ONE_ATTEMPT))
    counted = {
        "changes": count_where(is_change),
        "completions": count_where(sa.and_(is_change, after == completed, before != completed)),
        "reached": count_where(sa.and_(is_change, after == t["status"])),
        "arrivals": count_where(sa.and_(is_change, after == t["status"], before != t["status"])),
        "at_completed": count_where(after == completed),
        "renewals": count_where(is_renewal),
        "last_attempt": sa.func.max(sa.case((is_of_attempt, d["attempt"]))),
    }
    # How often a state was entered more often than left.
    balance = {
        f"in_{state.value}": count_where(sa.and_(is_change, after == state.value))
        - count_where(sa.and_(is_change, before == state.value))
        for state in TaskState
    }
    return (
        sa.select(t["id"].label("id"), *(n.label(name) for name, n in (counted | balance).items()))
        .select_from(tasks.table.join(deliveries.table, d["task_id"] == t["task_id"]))
        .where(t["id"] > AFTER, t["id"] <= LAST)
        .group_by(t["id"])
        .subquery("history")
    )


def _by_history(tasks: ModelTable, history: sa.Subquery, limits: Limits) -> Sequence[Rule]:
    t, h = tasks.columns, {name: sa.func.coalesce(history.c[name], 0) for name in history.c.keys()}  # noqa: SIM118
    status, completed = t["status"], TaskState.COMPLETED.value
    # As the host made it, such as imported, is a row of version 1, and one of which every change is in the history.
    lacks_change: sa.ColumnElement[bool] = t["version"] - 1 > h["changes"]
    is_whole = sa.and_(t["version"] > 1, t["created_at"] >= _since(limits, t["created_at"]))
    has_end = sa.and_(lacks_change, t["finished_at"] >= _since(limits, t["finished_at"]))
    if limits.is_whole:
        is_whole = has_end = sa.true()
    has_ended = status.in_([state.value for state in TERMINAL_STATES])
    return (
        Rule(
            Promise.COMPLETED_ONCE,
            sa.or_(h["completions"] > 1, sa.and_(status == completed, h["completions"] == 0, has_end)),
            "It is {status}, and {completions} processed deliveries completed it.",
        ),
        Rule(
            Promise.FINAL,
            sa.and_(h["at_completed"] > 0, status != completed),
            "It is {status}, though it was completed when {at_completed} of its deliveries were decided.",
        ),
        Rule(
            Promise.EXPLAINED,
            sa.or_(
                sa.and_(is_whole, ~_leads_to(status, h)),
                sa.and_(has_ended, h["reached"] == 0, has_end, status != completed),
            ),
            "It is {status}, and its {changes} processed deliveries do not lead there.",
        ),
        Rule(
            Promise.ATTEMPTS,
            sa.or_(
                t["attempt"] < 1,
                h["renewals"] > t["attempt"] - 1,
                h["last_attempt"] > t["attempt"],
                sa.and_(is_whole, h["renewals"] < t["attempt"] - 1),
            ),
            "It is at attempt {attempt}; its history shows {renewals} further attempts, the highest being "
            "{last_attempt}.",
        ),
        Rule(
            Promise.ONE_TRANSACTION,
            h["changes"] > t["version"] - 1,
            "It has version {version}, though {changes} processed deliveries say that they changed it.",
        ),
    )


def _since(limits: Limits, column: sa.Column[object]) -> sa.ColumnElement[object]:
    return sa.literal(limits.since, column.type)


def _leads_to(status: sa.Column[str], history: Mapping[str, sa.ColumnElement[Any]]) -> sa.ColumnElement[bool]:
    """Return the condition that the changes, in some order, are a way to the status from where it began.

    Such a way enters its end once more than it leaves it, leaves its beginning once more than it enters it, and enters
    every other state as often as it leaves it; if it ends where it began, that holds for all states.
    """
    balance = {state.value: history[f"in_{state.value}"] for state in TaskState}
    squares = sum((n * n for n in balance.values()), sa.literal_column("0"))
    at_end = sa.case(*((status == name, n) for name, n in balance.items()), else_=0)
    nothing_happened = sa.and_(history["changes"] == 0, status.in_([state.value for state in OPEN_STATES]))
    is_circle = sa.and_(squares == 0, history["reached"] > 0)
    return sa.or_(nothing_happened, is_circle, sa.and_(squares == 2, at_end == 1))  # noqa: PLR2004


def _by_row(tasks: ModelTable, history: sa.Subquery, limits: Limits) -> Sequence[Rule]:
    t = tasks.columns
    status, poll, deadline = t["status"], t["next_poll_at"], t["deadline_at"]
    is_open = status.in_([state.value for state in OPEN_STATES])
    has_ended = status.in_([state.value for state in TERMINAL_STATES])
    is_completed, has_failed = status == TaskState.COMPLETED.value, status == TaskState.FAILED.value
    is_ours = sa.true() if limits.is_whole else history.c["arrivals"] > 0
    too_late = sa.and_(poll > sa.literal(limits.poll, poll.type), sa.or_(deadline.is_(None), poll > deadline))
    has_no_time = sa.and_(deadline.is_(None), t["created_at"].is_(None))
    never_submitted = sa.and_(
        status == TaskState.PENDING.value,
        t["next_submit_at"] > sa.literal(limits.end, t["next_submit_at"].type),
    )
    return (
        Rule(
            Promise.ASKED,
            sa.and_(is_open, sa.or_(poll.is_(None), too_late)),
            "It is {status}, and will never be polled: its next poll is missing, or too far in the future.",
        ),
        Rule(
            Promise.ENDS,
            sa.and_(is_open, sa.or_(has_no_time, deadline > sa.literal(limits.end, deadline.type), never_submitted)),
            "It is {status}, and has no deadline, or one that never comes.",
        ),
        Rule(Promise.CONSISTENT, ~sa.or_(is_open, has_ended), "Its status '{status}' is unknown."),
        Rule(
            Promise.CONSISTENT,
            sa.and_(has_ended, t["next_submit_at"].is_not(None)),
            "It is {status}, and is to be submitted.",
        ),
        Rule(
            Promise.CONSISTENT,
            sa.and_(is_ours, has_ended, t["finished_at"].is_(None)),
            "It is {status}, and never finished.",
        ),
        Rule(
            Promise.CONSISTENT,
            sa.and_(is_ours, is_open, t["finished_at"].is_not(None)),
            "It is {status}, and has finished.",
        ),
        Rule(
            Promise.CONSISTENT,
            sa.and_(is_ours, is_completed, sa.or_(t["result"].is_(sa.null()), t["error_code"].is_not(None))),
            "It is {status}, and has no result, or an error.",
        ),
        Rule(
            Promise.CONSISTENT,
            sa.and_(is_ours, has_failed, t["error_message"].is_(None)),
            "It is {status}, and has no error.",
        ),
    )
