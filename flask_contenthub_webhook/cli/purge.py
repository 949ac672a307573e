"""``flask webhook purge``: delete old history."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import click

from ..core.state_machine import Verdict
from ..operations.purge import purge_deliveries
from ..operations.retention import Rule, count_expired, retention_rules
from ..runtime.state import get_state
from .commands import AppCommand
from .documents import json_option, print_document
from .terminal import Screen, counted, moment

__all__ = ["purge_command"]


@click.command("purge", cls=AppCommand, short_help="Delete old history.")
@click.option(
    "--older-than",
    type=click.FloatRange(0, 36_500),
    metavar="DAYS",
    help="By default WEBHOOK_HISTORY_RETENTION_DAYS and WEBHOOK_HISTORY_RETENTION_BY_VERDICT.",
)
@click.option(
    "--verdict",
    "verdicts",
    multiple=True,
    type=click.Choice([verdict.value for verdict in Verdict]),
    help="Only deliveries with this verdict. Repeatable.",
)
@click.option("--yes", is_flag=True, help="Do it; nothing but a count is made without.")
@json_option
def purge_command(older_than: float | None, verdicts: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    """Delete deliveries that were received long ago, except those that are still to be tried again.

    In small batches, so that callbacks do not have to wait; that takes a few minutes for a million.
    """
    state = get_state()
    chosen = [Verdict(verdict) for verdict in verdicts]
    before = None if older_than is None else state.clock() - timedelta(days=older_than)
    rules = retention_rules(state.settings, state.clock(), chosen, before=before)
    if not rules:
        raise click.UsageError("By the configuration these deliveries are kept for ever; give --older-than.")
    number = count_expired(state.database, rules)
    if yes:
        with _progress(number, quiet=as_json) as on_progress:
            number = purge_deliveries(state, before=before, verdicts=chosen, on_progress=on_progress)
    if as_json:
        expired = [{"verdicts": rule.verdicts, "before": rule.before} for rule in rules]
        print_document({"dry_run": not yes, "expired": expired, "deliveries": number})
        return
    words = f"{counted(number, 'delivery', 'deliveries')} {_words(rules)}"
    click.echo(f"Deleted: {words}." if yes else f"Nothing was deleted: add --yes to delete {words}.")


def _words(rules: Sequence[Rule]) -> str:
    """What has expired."""
    if len(rules) == 1 and len(rules[0].verdicts) == len(Verdict):
        return f"from before {moment(rules[0].before)}"
    parts = [f"{', '.join(rule.verdicts)} from before {moment(rule.before)}" for rule in rules]
    return f"({'; '.join(parts)})"


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar, where there are a terminal and rich; it is no reason not to purge."""
    try:
        screen = None if quiet else Screen()
    except click.ClickException:
        screen = None
    if screen is None:
        yield lambda _: None
        return
    with screen.progress() as progress:
        bar = progress.add_task("Deleting", total=total)
        yield lambda deleted: progress.advance(bar, deleted)
