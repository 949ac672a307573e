"""The promises that hold in every state, and at every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from flask_contenthub_webhook.core.state_machine import (
    OPEN_STATES,
    UNSETTLED,
    Verdict,
)
from flask_contenthub_webhook.creators import RemoteState

from .machine import Hub, State, text_of

__all__ = ["broken"]

_GOES_ON = {
    "completed": set[str](),
    "failed": {"completed", "pending"},
    "timeout": {"completed", "failed", "pending"},
    "cancelled": {"pending"},
}
"""The states to which one that has ended may go: a late result, a late reason, or what the host wants."""

_OPEN = {"pending", "submitted", "processing"}
_TAKES_EFFECT = {
    "completed": {*_OPEN, "failed", "timeout"},
    "failed": {*_OPEN, "timeout"},
    "progress": _OPEN,
    "timed_out": _OPEN,
    "cancelled": _OPEN,
    "submitted": {"pending", "processing"},
    "retry": {"failed", "timeout", "cancelled"},
}
"""The states in which an event has its effect; written by hand, so that the shipped table is not its own judge."""
_ASKED = "The service was asked"
"""Begins the reason of a failure that is not believed."""


def broken(hub: Hub, before: State, after: State) -> Iterator[str]:
    """Yield each promise that a step broke, in words."""
    yield from after.world.wrongs[len(before.world.wrongs) :]
    if after.rows is before.rows and after.processes and after.world is before.world:
        return
    was, task, deliveries = hub.task(before), hub.task(after), hub.deliveries(after)
    yield from _no_regress(was, task)
    yield from _in_time(hub, before, after, was, task)
    yield from _one_effect(hub, after, task, deliveries)
    yield from _nothing_forgotten(task, deliveries)
    yield from _nothing_lost(after, deliveries, task)
    if not after.world.is_purged:
        yield from _history_leads_to(task, deliveries)
    yield from _one_job(hub, after, task)


def _no_regress(was: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[str]:
    if was["status"] in _GOES_ON and task["status"] not in {was["status"], *_GOES_ON[was["status"]]}:
        yield f"The task goes back from {was['status']} to {task['status']}."
    if task["attempt"] < was["attempt"]:
        yield f"The task goes back from attempt {was['attempt']} to {task['attempt']}."


def _in_time(hub: Hub, before: State, after: State, was: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[str]:
    """Nothing is given up before its time, and what a process claimed is no longer due for others."""
    now = text_of(after.now)
    if task["status"] == "timeout" != was["status"] and was["deadline_at"] > now:
        yield f"The task is given up at {now}, before its deadline at {was['deadline_at']}."
    for process in after.processes:
        table = "webhook_deliveries" if process.does.kind == "worker" else "content_generation_tasks"
        claims = [step for step in process.steps if step.said.startswith(f"commits a change of {table}")]
        if process in before.processes or len(claims) != 1 or claims[0] is not process.steps[-1]:
            continue
        is_due = {
            "sweep": [task["next_submit_at"]] if task["status"] == "pending" else [],
            "poll": [task["next_poll_at"]],
            "worker": [row["next_retry_at"] for row in hub.deliveries(after) if row["claimed_until"]],
        }.get(process.does.kind, [])
        if any(due and due <= now for due in is_due):
            yield f"The {process.does.kind} has claimed what is due, and it is still due for others."


def _one_effect(hub: Hub, state: State, task: Mapping[str, Any], deliveries: list[dict[str, Any]]) -> Iterator[str]:
    effects = Counter(
        (row["kind"], None if row["kind"] == "completed" else row["attempt"], row["detail"])
        for row in hub.table(state, "effects")
    )
    yield from (f"'{kind}' had {count} effects." for (kind, _, _), count in effects.items() if count > 1)
    has_completed = any(kind == "completed" for kind, _, _ in effects)
    if has_completed != (task["status"] == "completed"):
        yield f"The task is {task['status']}, and 'completed' had {'an' if has_completed else 'no'} effect."
    if not state.world.is_purged:
        processed = Counter(row["event"] for row in deliveries if row["verdict"] == Verdict.PROCESSED)
        for event in ("completed", "failed", "timed_out", "cancelled"):
            had = sum(count for (kind, _, _), count in effects.items() if kind == event)
            if had != processed[event]:
                yield f"'{event}' had {had} effects, and the history has {processed[event]} processed deliveries of it."
    allowed = 1 + hub.setting.retries + hub.setting.budget.retries
    if task["attempt"] > allowed:
        yield f"The task has attempt {task['attempt']}, and may have {allowed}."


_MOST_TRIES = 3
"""Further tries of a delivery whose handlers failed."""


def _nothing_forgotten(task: Mapping[str, Any], deliveries: list[dict[str, Any]]) -> Iterator[str]:
    if task["status"] in OPEN_STATES and task["next_poll_at"] is None:
        yield f"The task is {task['status']}, and nobody will ever ask about it."
    if task["status"] == "pending" and task["next_submit_at"] is None and task["submitted_at"] is None:
        yield "The task is pending, and nobody will ever submit it."
    for row in deliveries:
        if row["verdict"] in {Verdict.QUEUED, Verdict.FAILED} and row["next_retry_at"] is None:
            yield f"Delivery {row['id']} is {row['verdict']}, and nobody will ever try it."
        if row["verdict"] == Verdict.DEAD and row["tries"] <= _MOST_TRIES:
            yield f"Delivery {row['id']} is parked after {row['tries']} tries."
        if row["verdict"] not in UNSETTLED and (row["next_retry_at"] or row["claimed_until"]):
            yield f"Delivery {row['id']} is {row['verdict']}, and will be tried again."


def _nothing_lost(state: State, deliveries: list[dict[str, Any]], task: Mapping[str, Any]) -> Iterator[str]:
    if "forged" in (task["result"] or ""):
        yield "The result is a forged one."
    bodies = {bytes(row["body"]) for row in deliveries if row["body"] is not None}
    for body in state.world.acknowledged:
        if body.encode() not in bodies:
            yield f"A message was acknowledged, and is in no row: {body}"


def _history_leads_to(task: Mapping[str, Any], deliveries: list[dict[str, Any]]) -> Iterator[str]:
    """The processed deliveries are a way from pending to the task's state, and no other one should be a part of it."""
    ends = Counter({"pending": 1})
    ends.subtract([task["status"]])
    for row in deliveries:
        before, takes_effect = row["status_before"], row["status_before"] in _TAKES_EFFECT.get(row["event"], ())
        if row["verdict"] != Verdict.PROCESSED:
            if takes_effect and _is_left_out(row):
                yield f"Delivery {row['id']} ({row['event']}) is {row['verdict']}; it came while the task was {before}."
            continue
        if not takes_effect:
            yield f"Delivery {row['id']} ({row['event']}) was processed while the task was {before}."
        if bool(row["late"]) != (row["event"] == "completed" and before in {"failed", "timeout"}):
            yield f"Delivery {row['id']} came while the task was {before}, and is{'' if row['late'] else ' not'} late."
        ends[row["status_after"]] += 1
        ends[row["status_before"]] -= 1
    if any(ends.values()):
        ways = [(row["event"], row["status_before"], row["status_after"]) for row in deliveries]
        yield f"The history does not lead to {task['status']}: {ways}"


def _is_left_out(row: Mapping[str, Any]) -> bool:
    """Tell whether an event was decided to have no effect, and neither is a copy nor was found to be wrong."""
    if row["event"] == "completed":
        return row["verdict"] in {Verdict.IGNORED, Verdict.DUPLICATE, Verdict.STALE}
    return row["event"] == "failed" and row["verdict"] == Verdict.IGNORED and not row["reason"].startswith(_ASKED)


def _one_job(hub: Hub, state: State, task: Mapping[str, Any]) -> Iterator[str]:
    """A job that no open task owns will be cancelled by somebody, or nobody can know of it."""
    if state.processes or task["status"] == "pending" or task["next_poll_at"] is not None:
        is_watched = task["status"] == "pending" or task["status"] not in OPEN_STATES or state.processes
        if is_watched:
            return
    for job in state.world.jobs:
        is_owned = job.attempt == task["attempt"] and task["status"] in OPEN_STATES
        if job.state is RemoteState.OPEN and not is_owned and hub.service.can_find_out(job, task):
            yield f"Job {job.number} runs, its task is {task['status']} (attempt {task['attempt']}): nobody stops it."
