"""``flask webhook tasks``: list tasks, and show one with its history."""

from __future__ import annotations

from typing import Any

import click

from ..core.redaction import redacted, redacted_task
from ..core.state_machine import TaskState
from ..creators.registry import Registry
from ..errors import TaskNotFound
from ..runtime.state import get_state
from ..storage.delivery_queries import DeliveryFilter, filter_deliveries
from ..storage.task_queries import read_task, read_tasks
from .commands import AppGroup
from .documents import json_option, print_document
from .listings import DELIVERIES, task_listing
from .parameters import choice_option, limit_option, period_options, wide_option
from .rows import shortened, show_facts
from .terminal import Screen, counted, pretty

__all__ = ["tasks_group"]

_SHOWN_CHARACTERS = 4000
_JSON_COLUMNS = ("creator_options", "progress", "result")


@click.group("tasks", cls=AppGroup, invoke_without_command=True, short_help="List and show tasks.")
@choice_option("--status", "statuses", TaskState, "in this state")
@click.option("--creator", "creators", multiple=True, metavar="NAME", help="Only tasks for this creator. Repeatable.")
@click.option("--text", metavar="TEXT", help="Only with this text in the topic or in the error; case does not matter.")
@period_options("Created")
@wide_option
@limit_option()
@json_option
@click.pass_context
def tasks_group(
    ctx: click.Context, /, *, creators: tuple[str, ...], limit: int, wide: bool, as_json: bool, **criteria: Any
) -> None:
    """List tasks, newest first; `tasks show ID` shows one."""
    if ctx.invoked_subcommand is not None:
        return
    state = get_state()
    columns = _columns_of(state.registry, creators)
    tasks = redacted(read_tasks(state.database, creators=columns, limit=limit, **criteria))
    if as_json:
        print_document({"tasks": tasks})
        return
    screen = Screen(wide=wide)
    screen.listing(task_listing(has_several=not state.registry.is_lone), tasks)
    more = "; there may be more, see --limit" if len(tasks) == limit else ""
    screen.say(f"{counted(len(tasks), 'task', 'tasks')}{more}.")


def _columns_of(registry: Registry, names: tuple[str, ...]) -> list[str]:
    """Return the names that creators have in the rows of their tasks; one that is gone has its own."""
    columns: list[str] = []
    for name in names:
        entry = registry.sender(name)
        columns += [name] if entry is None else registry.columns_of(entry)
    return columns


@tasks_group.command("show")
@click.argument("task_id")
@json_option
def show_command(task_id: str, *, as_json: bool) -> None:
    """Show a task, by our id or the service's, with its history."""
    state = get_state()
    task = read_task(state.database, task_id)
    if task is None:
        raise TaskNotFound(f"There is no task {task_id}.")
    task = redacted_task(task)
    rows = filter_deliveries(state.database, DeliveryFilter(task_id=task["task_id"]))
    history = redacted(rows.page(limit=1000)[::-1])
    if as_json:
        print_document({"task": task, "deliveries": history})
        return
    screen = Screen()
    documents = {name: task.pop(name) for name in _JSON_COLUMNS}
    show_facts(screen, task)
    for name, value in documents.items():
        if value:
            screen.say(f"\n{name}:\n{shortened(pretty(value), _SHOWN_CHARACTERS)}")
    screen.say("")
    screen.listing(DELIVERIES, history, title="History")
