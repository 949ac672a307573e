"""``flask webhook tasks``: which there are, and everything about one."""

from __future__ import annotations

from datetime import datetime

import click

from ..core.callback_urls import without_secrets
from ..core.state_machine import TaskState
from ..errors import TaskNotFound
from ..runtime.state import get_state
from ..storage.delivery_queries import DeliveryFilter, read_deliveries
from ..storage.queries import Row
from ..storage.task_queries import read_task, read_tasks
from .commands import AppGroup
from .deliveries import delivery_cells, delivery_columns
from .documents import json_option, print_document
from .parameters import read_moment
from .terminal import Screen, counted, moment, pretty

__all__ = ["tasks_group"]

_SHOWN_CHARACTERS = 4000
_JSON_COLUMNS = ("creator_options", "progress", "result")


@click.group("tasks", cls=AppGroup, invoke_without_command=True, short_help="List and show tasks.")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice([s.value for s in TaskState]), help="Repeatable."
)
@click.option("--since", type=read_moment, metavar="TIME", help="Created since: 30m, 2h, 7d (ago) or a date and time.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@click.pass_context
def tasks_group(
    ctx: click.Context, statuses: tuple[str, ...], since: datetime | None, limit: int, *, as_json: bool
) -> None:
    """List tasks, newest first; `tasks show ID` shows one."""
    if ctx.invoked_subcommand is not None:
        return
    screen = None if as_json else Screen()
    tasks = read_tasks(get_state().database, statuses=statuses, since=since, limit=limit)
    if screen is None:
        print_document({"tasks": tasks})
        return
    screen.table(
        ["!task", "!status", ">attempt", "topic", "!created", "!updated", "!deadline", "error"],
        [
            (
                task["task_id"],
                task["status"],
                task["attempt"],
                task["topic"],
                moment(task["created_at"]),
                moment(task["updated_at"]),
                moment(task["deadline_at"]),
                " ".join(filter(None, (task["error_code"], task["error_message"]))),
            )
            for task in tasks
        ],
    )
    screen.say(
        f"{counted(len(tasks), 'task', 'tasks')}{'; there may be more, see --limit' if len(tasks) == limit else ''}."
    )


@tasks_group.command("show")
@click.argument("task_id")
@json_option
def show_command(task_id: str, *, as_json: bool) -> None:
    """Show one task, by our id or the creator's, with its history."""
    screen = None if as_json else Screen()
    state = get_state()
    task = read_task(state.database, task_id)
    if task is None:
        raise TaskNotFound(f"There is no task {task_id}.")
    if task["callback_url"] is not None:
        task["callback_url"] = without_secrets(task["callback_url"])
    history = read_deliveries(state.database, DeliveryFilter(task_id=task["task_id"]), limit=1000)[::-1]
    if screen is None:
        print_document({"task": task, "deliveries": history})
        return
    screen.facts((name, _shown(value)) for name, value in _in_order(task))
    for name in _JSON_COLUMNS:
        if task[name]:
            text = pretty(task[name])
            more = f"\n... ({len(text)} characters; all of them with --json)" if len(text) > _SHOWN_CHARACTERS else ""
            screen.say(f"\n{name}:\n{text[:_SHOWN_CHARACTERS]}{more}")
    screen.say("")
    screen.table(delivery_columns(), [delivery_cells(delivery) for delivery in history], title="History")


def _in_order(task: Row) -> list[tuple[str, object]]:
    return [(name, value) for name, value in task.items() if name not in _JSON_COLUMNS]


def _shown(value: object) -> object:
    if isinstance(value, datetime):
        return moment(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else value
