"""``flask webhook forwards``: list, show and replay forwarded events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from ..core.redaction import redacted, redacted_body
from ..engine.replay import BulkReplay
from ..errors import DatabaseUnavailable, ForwardNotFound, WebhookError
from ..forwarding.replay import replay_forward
from ..runtime.state import get_state
from ..storage.forward_queries import ForwardFilter, filter_forwards, read_tries
from ..storage.forwards import DEAD, DELIVERED, WAITING
from ..storage.queries import Row, read_by_id
from .commands import AppGroup
from .documents import json_option, print_document
from .listings import FORWARDS
from .parameters import choice_option, period_options, with_options
from .replay import replay_rows
from .rows import Noun, list_rows, page_options, show_facts
from .terminal import Screen, moment, pretty, user_of_terminal

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["forwards_group"]

_NOUN = Noun("forward", "forwards")
_TRY_COLUMNS = [">try", "at", ">ms", "address", ">status", "error"]

filter_options = with_options(
    click.option("--task", "task_id", metavar="TASK_ID", help="Only this task's."),
    click.option("--delivery", "delivery_id", type=click.IntRange(1), metavar="ID", help="Only this delivery's."),
    click.option("--event", "events", multiple=True, metavar="TYPE", help="Only this event type. Repeatable."),
    choice_option("--status", "statuses", (WAITING, DELIVERED, DEAD), "in this state"),
    click.option("--url", metavar="URL", help="Only to URLs that begin with this."),
    period_options("Created"),
)


@click.group("forwards", cls=AppGroup, short_help="List, show and replay forwarded events.")
def forwards_group() -> None:
    """Events that are forwarded to other URLs, with their tries."""


@forwards_group.command("list")
@filter_options
@page_options
@json_option
def list_command(*, limit: int, before: int | None, wide: bool, as_json: bool, **criteria: Any) -> None:
    """List forwards, newest first."""
    rows = filter_forwards(get_state().database, ForwardFilter(**criteria))
    list_rows(rows, _NOUN, FORWARDS, limit=limit, before=before, wide=wide, as_json=as_json)


@forwards_group.command("show")
@click.argument("forward_id", type=click.IntRange(1))
@json_option
def show_command(forward_id: int, *, as_json: bool) -> None:
    """Show a forward with its body and every try."""
    database = get_state().database
    forward = read_by_id(database, database.outbox.forwards.model, forward_id)
    if forward is None:
        raise ForwardNotFound(f"There is no forward {forward_id}.")
    body = json.loads(redacted_body(bytes(forward.pop("body"))))
    forward, tries = redacted(forward), redacted(read_tries(database, forward_id))
    if as_json:
        print_document({"forward": {**forward, "body": body}, "attempts": tries})
        return
    screen = Screen()
    show_facts(screen, forward)
    screen.say("")
    screen.table(_TRY_COLUMNS, map(_try_cells, tries))
    screen.say(f"\nbody:\n{pretty(body)}")


@forwards_group.command("replay")
@click.argument("forward_ids", nargs=-1, type=click.IntRange(1), metavar="[ID]...")
@filter_options
@click.option("--yes", is_flag=True, help="Send. Without it, filters only count.")
@json_option
def replay_command(forward_ids: tuple[int, ...], *, yes: bool, as_json: bool, **criteria: Any) -> None:
    """Send finished forwards again: those with the given IDs, or all that match the filters.

    With filters, this only counts unless --yes is given. They are sent at once, or by the scheduler. Exit code 1 when
    a forward could not be sent again.
    """
    state = get_state()
    replay_rows(
        filter_forwards(state.database, ForwardFilter(**criteria)),
        _NOUN,
        forward_ids,
        lambda ids, after_each: _replay_each(state, ids, after_each),
        summary=lambda outcome: f"To be sent again: {_NOUN.counted(len(outcome.replayed))}.",
        document=lambda outcome: {
            "replayed": [row["id"] for row in outcome.replayed],
            "failures": outcome.failures,
        },
        yes=yes,
        as_json=as_json,
    )


def _replay_each(state: WebhookState, forward_ids: Iterable[int], after_each: Callable[[], object]) -> BulkReplay:
    outcome = BulkReplay()
    for forward_id in forward_ids:
        try:
            replay_forward(state, forward_id, by=user_of_terminal())
        except WebhookError as error:
            outcome.failures.append({"id": forward_id, "code": error.code, "error": error.message})
            if isinstance(error, DatabaseUnavailable):
                outcome.interrupted = True
                break
        else:
            outcome.replayed.append({"id": forward_id})
        after_each()
    return outcome


def _try_cells(row: Row) -> tuple[object, ...]:
    duration = row["duration_ms"]
    return (
        row["number"],
        moment(row["started_at"]),
        None if duration is None else round(duration),
        *(row[key] for key in ("address", "status_code", "error")),
    )
