"""``flask webhook deliveries``: the history, one delivery with all that came with it, and the replay."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click

from ..core.received import Source
from ..core.state_machine import Verdict
from ..errors import DeliveryNotFound
from ..runtime.state import get_state
from ..storage.delivery_queries import DeliveryFilter, read_deliveries, read_delivery
from ..storage.queries import Row
from .commands import AppGroup
from .documents import json_option, print_document
from .parameters import read_moment
from .replay import replay_chosen, replay_ids
from .terminal import Screen, counted, escaped, moment, pretty

__all__ = ["deliveries_group", "delivery_cells", "delivery_columns"]

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN_CHARACTERS = 20_000
_DEFAULT_LIMIT = 50
_BRIEF = 80


@click.group("deliveries", cls=AppGroup, short_help="List, show and replay deliveries.")
def deliveries_group() -> None:
    """The history: every event that reached us, and what became of it."""


def filter_options(command: F) -> F:
    """Give a command the options that choose deliveries."""
    options = (
        click.option("--task", "task_id", metavar="TASK_ID", help="Of this task."),
        click.option("--event", "events", multiple=True, metavar="TYPE", help="Of this event type. Repeatable."),
        click.option(
            "--verdict", "verdicts", multiple=True, type=click.Choice([v.value for v in Verdict]), help="Repeatable."
        ),
        click.option(
            "--source", "sources", multiple=True, type=click.Choice([s.value for s in Source]), help="Repeatable."
        ),
        click.option(
            "--since", type=read_moment, metavar="TIME", help="Received since: 30m, 2h, 7d (ago) or a date and time."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@deliveries_group.command("list")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=_DEFAULT_LIMIT, show_default=True)
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Older than this delivery: the next page.")
@json_option
def list_command(
    *,
    task_id: str | None,
    events: tuple[str, ...],
    verdicts: tuple[str, ...],
    sources: tuple[str, ...],
    since: datetime | None,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """List deliveries, newest first."""
    screen = None if as_json else Screen()
    chosen = DeliveryFilter(task_id=task_id, events=events, verdicts=verdicts, sources=sources, since=since)
    found = read_deliveries(get_state().database, chosen, before=before, limit=limit + 1)
    page, next_before = found[:limit], found[limit - 1]["id"] if len(found) > limit else None
    if screen is None:
        print_document({"deliveries": page, "next_before": next_before})
        return
    screen.table(delivery_columns(), [delivery_cells(delivery) for delivery in page])
    more = f" Older ones: --before {next_before}" if next_before is not None else ""
    screen.say(f"{counted(len(page), 'delivery', 'deliveries')}.{more}")


@deliveries_group.command("show")
@click.argument("delivery_id", type=click.IntRange(1))
@json_option
def show_command(delivery_id: int, *, as_json: bool) -> None:
    """Show one delivery with its headers and its body; control characters are shown, not obeyed."""
    screen = None if as_json else Screen()
    delivery = read_delivery(get_state().database, delivery_id)
    if delivery is None:
        raise DeliveryNotFound(f"There is no delivery {delivery_id}.")
    body = bytes(delivery.pop("body") or b"")
    if screen is None:
        print_document({"delivery": {**delivery, "body": _text(body), **_base64(body)}})
        return
    headers = delivery.pop("headers") or {}
    screen.facts((name, moment(value) if isinstance(value, datetime) else value) for name, value in delivery.items())
    if headers:
        screen.say(
            "\nheaders:\n" + "\n".join(f"  {escaped(name)}: {escaped(value)}" for name, value in headers.items())
        )
    if body:
        text = _pretty_body(body)
        more = f"\n... ({len(text)} characters; all of them with --json)" if len(text) > _SHOWN_CHARACTERS else ""
        screen.say(f"\nbody ({len(body)} bytes):\n{text[:_SHOWN_CHARACTERS]}{more}")


@deliveries_group.command("replay")
@click.argument("delivery_ids", nargs=-1, type=click.IntRange(1), metavar="[ID]...")
@filter_options
@click.option("--yes", is_flag=True, help="Do it; with filters, nothing but a count is made without.")
@json_option
def replay_command(
    delivery_ids: tuple[int, ...],
    *,
    task_id: str | None,
    events: tuple[str, ...],
    verdicts: tuple[str, ...],
    sources: tuple[str, ...],
    since: datetime | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Apply the events of deliveries again: those with the given IDs, or all that the filters choose.

    By filters, this only counts unless --yes is given. Exit code 1 when a replay failed or was refused.
    """
    chosen = DeliveryFilter(task_id=task_id, events=events, verdicts=verdicts, sources=sources, since=since)
    if bool(delivery_ids) != chosen.is_empty:
        raise click.UsageError("Give either IDs or filters, such as --verdict dead --since 2d.")
    state, screen = get_state(), None if as_json else Screen()
    if delivery_ids:
        replay_ids(state, list(dict.fromkeys(delivery_ids)), screen)
    else:
        replay_chosen(state, chosen, screen, do_it=yes)


# --- how a delivery is shown ---------------------------------------------------------------------------------


def delivery_columns() -> list[str]:
    """The headings of a table of deliveries."""
    return [">id", "!received", "!task", "!event", ">attempt", "!source", "!scheme", "!verdict", "!status", "why"]


def delivery_cells(delivery: Row) -> tuple[object, ...]:
    """The cells of one delivery."""
    before, after = delivery["status_before"], delivery["status_after"]
    notes = ["late"] if delivery["late"] else []
    notes += [f"{delivery['occurrences']} times"] if delivery["occurrences"] > 1 else []
    notes += [text for text in (delivery["error"], delivery["reason"]) if text]
    return (
        delivery["id"],
        moment(delivery["received_at"]),
        delivery["task_id"],
        delivery["event"],
        delivery["attempt"],
        delivery["source"],
        delivery["scheme"],
        delivery["verdict"],
        after if before == after else f"{before} > {after}",
        _brief("; ".join(notes)),
    )


def _brief(text: str) -> str:
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 3]}..."


def _pretty_body(body: bytes) -> str:
    try:
        return pretty(json.loads(body))
    except (ValueError, RecursionError):
        return escaped(body.decode("utf-8", "backslashreplace"), lines=True)


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _base64(body: bytes) -> dict[str, bytes]:
    """Only where the body is no text."""
    return {"body_base64": body} if _text(body) is None else {}
