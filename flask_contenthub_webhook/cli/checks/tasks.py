"""Open tasks that need a person: submitted elsewhere, handed to nobody, or met by a bug of the creator."""

from __future__ import annotations

from collections.abc import Iterator

from ...storage.task_queries import sum_open_tasks
from ..terminal import counted
from .findings import DoctorContext, Finding, check, fail, ok, warn

__all__ = ["check_tasks"]


@check("open tasks", needs_schema=True)
def check_tasks(context: DoctorContext) -> Iterator[Finding]:
    """Count the open tasks that will not end by themselves in a good way."""
    state = context.state
    rows = sum_open_tasks(state.database)
    entries = state.registry.entries
    known = [service.address for service in state.services]
    before_a_move = known[len(entries) :]
    for row in rows:
        tasks = counted(row["tasks"], "open task", "open tasks")
        if row["creator"] is not None and state.registry.of(row["creator"]) is None:
            yield warn(
                f"For the creator {row['creator']}, which is no longer configured: {tasks}.",
                "Pass it to init_app again, under this name, until none is left. Otherwise deadlines end them.",
            )
        elif row["address"] is not None and row["address"] not in known:
            yield warn(
                f"Submitted at {row['address']}, which is no longer configured: {tasks}.",
                "If that service still runs, set CREATOR_API_PREVIOUS_URL to its address. If it is the present one "
                "under another name, nothing is to be done. Otherwise callbacks or deadlines end them.",
            )
        elif row["address"] is not None and row["address"] in before_a_move:
            yield ok(f"Still at {row['address']}: {tasks}. Keep CREATOR_API_PREVIOUS_URL until none is left.")
    if bugs := sum(row["bugs"] for row in rows):
        words = next(row["bug"] for row in rows if row["bug"])
        yield fail(
            f"The creator has a bug, met by {counted(bugs, 'open task', 'open tasks')}: {words}",
            "The log has the traceback. Correct the class; the tasks end by a callback or at their deadline.",
        )
    if orphans := sum(row["handed_to_nobody"] for row in rows):
        yield warn(
            f"{counted(orphans, 'pending task was', 'pending tasks were')} made by hand or before a migration: the "
            "extension hands them to no service, and they end by a callback or at their deadline.",
            "If your code hands them over itself, nothing is to be done. To have one handed over, call "
            "webhook.cancel(task_id) and webhook.retry(task_id).",
        )
    if not rows:
        yield ok("There are no open tasks.")
    elif not bugs and not orphans and all(row["address"] in {None, *known[: len(entries)]} for row in rows):
        tasks = counted(sum(row["tasks"] for row in rows), "open task", "open tasks")
        yield ok(f"{tasks}, all with {'this service' if len(entries) == 1 else 'these services'}.")
