"""``flask webhook deliveries``: list, show and replay the history."""

from __future__ import annotations

import json
from typing import Any

import click

from ..core.received import Source
from ..core.redaction import redacted, redacted_body
from ..core.state_machine import Verdict
from ..engine.replay import BulkReplay, replay_each
from ..errors import DeliveryNotFound
from ..runtime.state import get_state
from ..storage.delivery_queries import DeliveryFilter, filter_deliveries
from ..storage.queries import read_by_id
from .commands import AppGroup
from .documents import json_option, print_document
from .following import follow_rows
from .listings import DELIVERIES
from .parameters import choice_option, period_options, with_options
from .replay import replay_rows
from .rows import Noun, list_rows, page_options, shortened, show_facts
from .terminal import Screen, escaped, pretty, user_of_terminal

__all__ = ["deliveries_group"]

_NOUN = Noun("delivery", "deliveries")
_SHOWN_CHARACTERS = 20_000

filter_options = with_options(
    click.option("--task", "task_id", metavar="TASK_ID", help="Only this task's."),
    click.option("--event", "events", multiple=True, metavar="TYPE", help="Only this event type. Repeatable."),
    choice_option("--verdict", "verdicts", Verdict, "with this verdict"),
    choice_option("--source", "sources", Source, "from this source"),
    click.option(
        "--scheme",
        "schemes",
        multiple=True,
        metavar="NAME",
        help="Only what this signature scheme, or the creator of this name, vouched for. Repeatable.",
    ),
    click.option("--text", metavar="TEXT", help="Only with this text in the body; case matters. Reads every body."),
    period_options("Received"),
)


@click.group("deliveries", cls=AppGroup, short_help="List, show and replay deliveries.")
def deliveries_group() -> None:
    """The history: every event that arrived, and its verdict."""


@deliveries_group.command("list")
@filter_options
@page_options
@click.option("--follow", is_flag=True, help="Keep running, and print those that arrive or whose verdict changes.")
@json_option
def list_command(*, limit: int, before: int | None, wide: bool, follow: bool, as_json: bool, **criteria: Any) -> None:
    """List deliveries, newest first.

    With --follow the newest comes last, and new ones are printed until Ctrl-C; with --json, one document per line.
    """
    rows = filter_deliveries(get_state().database, DeliveryFilter(**criteria))
    if not follow:
        list_rows(rows, _NOUN, DELIVERIES, limit=limit, before=before, wide=wide, as_json=as_json)
    elif before is not None:
        raise click.UsageError("Give --before or --follow, not both.")
    else:
        follow_rows(rows, DELIVERIES, limit=limit, wide=wide, as_json=as_json)


@deliveries_group.command("show")
@click.argument("delivery_id", type=click.IntRange(1))
@json_option
def show_command(delivery_id: int, *, as_json: bool) -> None:
    """Show a delivery with its headers and its body; control characters are escaped."""
    database = get_state().database
    delivery = read_by_id(database, database.delivery_model, delivery_id)
    if delivery is None:
        raise DeliveryNotFound(f"There is no delivery {delivery_id}.")
    body = redacted_body(bytes(delivery.pop("body") or b""))
    delivery = redacted(delivery)
    if as_json:
        print_document({"delivery": {**delivery, **_json_body(body)}})
        return
    screen = Screen()
    headers, tries = delivery.pop("headers") or {}, delivery.pop("failed_tries") or ()
    show_facts(screen, delivery)
    for one in tries:
        screen.say(f"\ntry {one['number']}, {one['at']}:\n  {escaped(one['traceback'] or one['error'], lines=True)}")
    if headers:
        lines = (f"\n  {escaped(name)}: {escaped(value)}" for name, value in headers.items())
        screen.say(f"\nheaders:{''.join(lines)}")
    if body:
        screen.say(f"\nbody ({len(body)} bytes):\n{shortened(_pretty_body(body), _SHOWN_CHARACTERS)}")


@deliveries_group.command("replay")
@click.argument("delivery_ids", nargs=-1, type=click.IntRange(1), metavar="[ID]...")
@filter_options
@click.option("--yes", is_flag=True, help="Replay. Without it, filters only count.")
@json_option
def replay_command(delivery_ids: tuple[int, ...], *, yes: bool, as_json: bool, **criteria: Any) -> None:
    """Apply the events of deliveries again: those with the given IDs, or all that match the filters.

    With filters, this only counts unless --yes is given. Exit code 1 when a replay failed or was refused.
    """
    state = get_state()
    replay_rows(
        filter_deliveries(state.database, DeliveryFilter(**criteria)),
        _NOUN,
        delivery_ids,
        lambda ids, after_each: replay_each(state, ids, by=user_of_terminal(), after_each=after_each),
        summary=_summary,
        document=lambda outcome: {
            "replayed": outcome.replayed,
            "verdicts": outcome.verdicts,
            "failures": outcome.failures,
            "interrupted": outcome.interrupted,
        },
        yes=yes,
        as_json=as_json,
    )


def _summary(outcome: BulkReplay) -> str:
    if len(outcome.replayed) == 1:
        [row] = outcome.replayed
        return f"Delivery {row['id']} was replayed as {row['delivery_id']}: {row['verdict']}, {row['status']}."
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in outcome.verdicts.most_common())
    return f"Replayed: {_NOUN.counted(len(outcome.replayed))}{f' ({verdicts})' if verdicts else ''}."


def _pretty_body(body: bytes) -> str:
    try:
        return pretty(json.loads(body))
    except (ValueError, RecursionError):
        return escaped(body.decode("utf-8", "backslashreplace"), lines=True)


def _json_body(body: bytes) -> dict[str, str | bytes | None]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body": None, "body_base64": body}
