"""The pages of tasks: the list, one task, and its retry and cancellation by a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response as AnyResponse

from ...core.received import Outcome
from ...errors import RequestRefused, TaskNotFound, WebhookError
from ...runtime.state import WebhookState, get_state
from ...storage.queries import reading
from ...tasks.submit import cancel, retry
from .details import read_task_details, timeline
from .filters import cursor
from .forms import check_form
from .rendering import page
from .tasks import SHOWN, TaskFilter, actions_of, place_of, read_open_tasks, read_tasks, service_names, services_of

__all__ = ["add_task_views"]

_ACTIONS: dict[str, Callable[[WebhookState, str], Outcome]] = {"retry": retry, "cancel": cancel}
_ACTION = f"<any({', '.join(_ACTIONS)}):action>"


def add_task_views(blueprint: Blueprint) -> None:
    """Add the pages of tasks to a blueprint."""
    for rule, view, method in (
        ("/tasks", tasks, "GET"),
        ("/task", task, "GET"),
        (f"/task/{_ACTION}", confirm, "GET"),
        (f"/task/{_ACTION}", act, "POST"),
    ):
        blueprint.add_url_rule(rule, view_func=view, methods=[method])


def tasks() -> Response:
    """List tasks: what is open by its next step, the others from the newest on."""
    state, shown, service = get_state(), request.args.get("show", "open"), request.args.get("service", "")
    services = services_of(state.registry, service) if service else ()
    if shown not in SHOWN or services is None:
        raise BadRequest("There is no such choice.")
    criteria, now = TaskFilter(shown, services), state.now()
    opened, listed = None, None
    with reading(state.database) as read:
        if shown in {"open", "overdue"}:
            opened = read_open_tasks(read, state, criteria, now, place_of(request.args.get("from", "")))
        else:
            before, after = cursor(request.args, "before"), cursor(request.args, "after")
            listed = read_tasks(read, state, criteria, now, before=before, after=after)
    return page(
        "tasks.html",
        opened=opened,
        page=listed,
        rows=opened.rows if opened else listed.rows if listed else [],
        actions_of=actions_of,
        shown=SHOWN,
        selected=shown,
        service=service,
        services=service_names(state.registry),
        is_first="from" not in request.args,
        given={"show": shown, **({"service": service} if service else {})},
    )


def task(any_id: str | None = None, *, status: int = 200, problem: str = "") -> Response:
    """Show a task with its timeline, by either of its ids, and a problem with what a person wanted of it."""
    state, any_id = get_state(), request.args.get("id", "") if any_id is None else any_id
    if "\0" in any_id:
        raise NotFound("There is no such task.")
    with reading(state.database) as read:
        details = read_task_details(read, state, any_id)
        steps, steps_page = timeline(
            read,
            state,
            any_id if details is None else details.row["task_id"],
            before=cursor(request.args, "before"),
            after=cursor(request.args, "after"),
        )
    if details is None and not steps:
        raise NotFound(f"There is no task {any_id[:255]}, and no delivery names one.")
    done = request.args.get("done", "")
    return page(
        "task.html",
        status=status,
        problem=problem,
        done=done if done in _ACTIONS else "",
        task_id=any_id if details is None else details.row["task_id"],
        details=details,
        actions=() if details is None else actions_of(details.row),
        steps=steps,
        page=steps_page,
    )


def confirm(action: str) -> Response:
    """Ask before a task is retried or cancelled."""
    state, task_id = get_state(), request.args.get("id", "")
    row: dict[str, Any] | None = None
    if "\0" not in task_id:
        with reading(state.database) as read:
            model = state.task_model
            keys = ("task_id", "topic", "status", "attempt")
            query = state.database.db.select(*(getattr(model, key).label(key) for key in keys))
            row = read.row(query.where(model.task_id == task_id))
    if row is None:
        raise NotFound("There is no such task.")
    possible = action in actions_of(row)
    return page("confirm.html", status=200 if possible else 409, action=action, row=row, possible=possible)


def act(action: str) -> AnyResponse:
    """Retry or cancel a task, as the API does."""
    check_form()
    task_id = request.form.get("id", "")
    if "\0" in task_id:
        raise NotFound("There is no such task.")
    try:
        _ACTIONS[action](get_state(), task_id)
    except TaskNotFound as error:
        raise NotFound(error.message) from error
    except WebhookError as error:
        return task(task_id, status=error.status if isinstance(error, RequestRefused) else 409, problem=error.message)
    return redirect(url_for(".task", id=task_id, done=action), 303)
