"""``flask webhook purge``: delete old history."""

from __future__ import annotations

from datetime import timedelta

import click

from flask_contenthub_webhook.purge import purge_deliveries
from flask_contenthub_webhook.state import get_state

from .commands import AppCommand
from .documents import json_option, print_document
from .queries import count_expired
from .terminal import counted, moment

__all__ = ["purge_command"]


@click.command("purge", cls=AppCommand, short_help="Delete old history.")
@click.option(
    "--older-than",
    type=click.FloatRange(0, 36_500),
    metavar="DAYS",
    help="By default WEBHOOK_HISTORY_RETENTION_DAYS.",
)
@click.option("--yes", is_flag=True, help="Do it; nothing but a count is made without.")
@json_option
def purge_command(older_than: float | None, *, yes: bool, as_json: bool) -> None:
    """Delete deliveries that were received long ago, except those that are still to be tried again."""
    state = get_state()
    if older_than is None and not state.settings.history_retention:
        raise click.UsageError("WEBHOOK_HISTORY_RETENTION_DAYS is 0, so history is kept for ever; give --older-than.")
    age = state.settings.history_retention if older_than is None else timedelta(days=older_than)
    before = state.clock() - age
    number = purge_deliveries(state, before=before) if yes else count_expired(state, before)
    if as_json:
        print_document({"dry_run": not yes, "before": before, "deliveries": number})
        return
    words = f"{counted(number, 'delivery', 'deliveries')} from before {moment(before)}"
    click.echo(f"Deleted: {words}." if yes else f"Nothing was deleted: add --yes to delete {words}.")
