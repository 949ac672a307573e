"""``flask webhook purge``: delete old history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import click

from ..core.state_machine import Verdict
from ..operations.purge import purge_deliveries
from ..operations.retention import Rule, count_expired, retention_rules
from ..runtime.state import get_state
from .commands import AppCommand
from .documents import json_option, print_document
from .parameters import choice_option
from .terminal import Screen, counted, moment

__all__ = ["purge_command"]


@click.command("purge", cls=AppCommand, short_help="Delete old history.")
@click.option(
    "--older-than",
    type=click.FloatRange(0, 36_500),
    metavar="DAYS",
    help="Age; default: WEBHOOK_HISTORY_RETENTION_DAYS and WEBHOOK_HISTORY_RETENTION_BY_VERDICT.",
)
@choice_option("--verdict", "verdicts", Verdict, "with this verdict")
@click.option("--yes", is_flag=True, help="Delete. Without it, only count.")
@json_option
def purge_command(older_than: float | None, verdicts: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    """Delete old deliveries, except those that still wait for a try; without --verdict, also old finished forwards.

    It deletes in small batches, so that callbacks do not wait; a million deliveries take a few minutes.
    """
    state = get_state()
    selected = [Verdict(verdict) for verdict in verdicts]
    before = None if older_than is None else state.now() - timedelta(days=older_than)
    rules = retention_rules(state.settings, state.now(), selected, before=before)
    if not rules:
        raise click.UsageError("Retention is off for these deliveries; pass --older-than.")
    number = count_expired(state.database, rules)
    if yes:
        with Screen().progress("Deleting", number) as on_progress:
            number = purge_deliveries(state, before=before, verdicts=selected, on_progress=on_progress)
    if as_json:
        expired = [{"verdicts": rule.verdicts, "before": rule.before} for rule in rules]
        print_document({"dry_run": not yes, "expired": expired, "deliveries": number})
        return
    from_before = _describe(rules)
    if not number:
        click.echo(f"Nothing to delete: there is no delivery {from_before}.")
        return
    deliveries = f"{counted(number, 'delivery', 'deliveries')} {from_before}"
    click.echo(f"Deleted: {deliveries}." if yes else f"Nothing was deleted: add --yes to delete {deliveries}.")


def _describe(rules: Sequence[Rule]) -> str:
    if len(rules) == 1 and len(rules[0].verdicts) == len(Verdict):
        return f"from before {moment(rules[0].before)} UTC"
    parts = [f"{', '.join(rule.verdicts)} from before {moment(rule.before)} UTC" for rule in rules]
    return f"({'; '.join(parts)})"
