"""``flask webhook forwards``: what is sent on, what became of it try by try, and the replay."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.redaction import shown_url
from ..errors import DatabaseUnavailable, ForwardNotFound, WebhookError
from ..forwarding.replay import replay_forward
from ..runtime.state import get_state
from ..storage.forward_queries import (
    ForwardFilter,
    count_forwards,
    finished_ids,
    read_attempts,
    read_forward,
    read_forwards,
)
from ..storage.forwards import DEAD, DELIVERED, WAITING
from ..storage.queries import Row
from .commands import AppGroup
from .documents import json_option, print_document
from .parameters import read_moment
from .terminal import Screen, counted, moment, pretty

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["forwards_group"]

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT_LIMIT = 50
_BATCH = 500
_SHOWN_FAILURES = 20


@click.group("forwards", cls=AppGroup, short_help="List, show and replay forwarded events.")
def forwards_group() -> None:
    """Events that are sent on to other URLs, and what became of them."""


def filter_options(command: F) -> F:
    """Give a command the options that choose forwards: the arguments of :class:`ForwardFilter`."""
    options = (
        click.option("--task", "task_id", metavar="TASK_ID", help="Of this task."),
        click.option("--delivery", "delivery_id", type=click.IntRange(1), metavar="ID", help="Of this delivery."),
        click.option("--event", "events", multiple=True, metavar="TYPE", help="Of this event type. Repeatable."),
        click.option(
            "--status",
            "statuses",
            multiple=True,
            type=click.Choice([WAITING, DELIVERED, DEAD]),
            help="In this state. Repeatable.",
        ),
        click.option("--url", metavar="URL", help="To a URL that begins so."),
        click.option("--since", type=read_moment, metavar="TIME", help="Made since: 30m, 2h, 7d (ago) or a time."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@forwards_group.command("list")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=_DEFAULT_LIMIT, show_default=True)
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Older than this forward: the next page.")
@json_option
def list_command(*, limit: int, before: int | None, as_json: bool, **choice: Any) -> None:
    """List forwards, newest first."""
    screen = None if as_json else Screen()
    found = read_forwards(get_state().database, ForwardFilter(**choice), before=before, limit=limit + 1)
    page, next_before = found[:limit], found[limit - 1]["id"] if len(found) > limit else None
    if screen is None:
        print_document({"forwards": page, "next_before": next_before})
        return
    screen.table([">id", "!made", "!task", "!event", "!status", ">tries", "!next try", "to"], map(_cells, page))
    more = f" Older ones: --before {next_before}" if next_before is not None else ""
    screen.say(f"{counted(len(page), 'forward', 'forwards')}.{more}")


@forwards_group.command("show")
@click.argument("forward_id", type=click.IntRange(1))
@json_option
def show_command(forward_id: int, *, as_json: bool) -> None:
    """Show one forward with its body and every try."""
    screen, state = None if as_json else Screen(), get_state()
    forward = read_forward(state.database, forward_id)
    if forward is None:
        raise ForwardNotFound(f"There is no forward {forward_id}.")
    attempts, body = read_attempts(state.database, forward_id), json.loads(bytes(forward.pop("body")))
    if screen is None:
        print_document({"forward": {**forward, "body": body}, "attempts": attempts})
        return
    screen.facts((name, moment(value) if isinstance(value, datetime) else value) for name, value in forward.items())
    screen.say("")
    screen.table([">try", "!at", ">ms", "!address", ">status", "why it failed"], map(_attempt_cells, attempts))
    screen.say(f"\nbody:\n{pretty(body)}")


@forwards_group.command("replay")
@click.argument("forward_ids", nargs=-1, type=click.IntRange(1), metavar="[ID]...")
@filter_options
@click.option("--yes", is_flag=True, help="Do it; with filters, nothing but a count is made without.")
@json_option
def replay_command(forward_ids: tuple[int, ...], *, yes: bool, as_json: bool, **choice: Any) -> None:
    """Send finished forwards again: those with the given IDs, or all that the filters choose.

    By filters, this only counts unless --yes is given. They are sent at once, or by the scheduler. Exit code 1 when
    one of them could not be replayed.
    """
    chosen = ForwardFilter(**choice)
    if bool(forward_ids) != chosen.is_empty:
        raise click.UsageError("Give either IDs or filters, such as --status dead --since 2d.")
    state, screen = get_state(), None if as_json else Screen()
    if forward_ids:
        _report(_replay_all(state, dict.fromkeys(forward_ids)), screen)
        return
    counts = count_forwards(state.database, chosen)
    if yes:
        _report(_replay_all(state, _in_batches(state, chosen, up_to=counts["newest"] or 0)), screen)
    elif screen is None:
        print_document({"dry_run": True, "matching": counts["matching"], "replayable": counts["replayable"]})
    else:
        matching = counted(counts["matching"], "forward", "forwards")
        screen.say(f"Matching: {matching}. Nothing was done: add --yes to replay {counts['replayable']} of them.")


# --- replaying -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Outcome:
    """What became of the replays so far."""

    replayed: list[int] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)


def _in_batches(state: WebhookState, chosen: ForwardFilter, *, up_to: int) -> Iterator[int]:
    after = 0
    while batch := finished_ids(state.database, chosen, after=after, up_to=up_to, limit=_BATCH):
        yield from batch
        after = batch[-1]


def _replay_all(state: WebhookState, forward_ids: Iterable[int]) -> _Outcome:
    outcome = _Outcome()
    for forward_id in forward_ids:
        try:
            replay_forward(state, forward_id)
        except WebhookError as error:
            outcome.failures.append({"id": forward_id, "code": error.code, "error": error.message})
            if isinstance(error, DatabaseUnavailable):
                break
        else:
            outcome.replayed.append(forward_id)
    return outcome


def _report(outcome: _Outcome, screen: Screen | None) -> None:
    if screen is None:
        print_document({"dry_run": False, "replayed": outcome.replayed, "failures": outcome.failures})
    else:
        screen.say(f"To be sent again: {counted(len(outcome.replayed), 'forward', 'forwards')}.")
        for failure in outcome.failures[:_SHOWN_FAILURES]:
            screen.say(f"Forward {failure['id']} failed: {failure['error']}")
        if (more := len(outcome.failures) - _SHOWN_FAILURES) > 0:
            screen.say(f"... and {more} more failed; see --json.")
    if outcome.failures:
        raise click.exceptions.Exit(1)


# --- how a forward is shown ----------------------------------------------------------------------------------


def _cells(forward: Row) -> tuple[object, ...]:
    return (
        forward["id"],
        moment(forward["created_at"]),
        forward["task_id"],
        forward["event"],
        forward["status"],
        forward["tries"],
        moment(forward["next_try_at"]),
        shown_url(forward["url"]),
    )


def _attempt_cells(attempt: Row) -> tuple[object, ...]:
    duration = attempt["duration_ms"]
    return (
        attempt["number"],
        moment(attempt["started_at"]),
        None if duration is None else round(duration),
        attempt["address"],
        attempt["status_code"],
        attempt["error"],
    )
