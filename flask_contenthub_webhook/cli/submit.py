"""``flask webhook submit``: one sweep over the outbox."""

from __future__ import annotations

import click

from ..errors import ConfigurationError
from ..runtime.state import get_state
from ..tasks.handover import submit_due
from .commands import AppCommand
from .documents import json_option, print_document
from .terminal import counted

__all__ = ["submit_command"]


@click.command("submit", cls=AppCommand, short_help="Hand over to the creator what is due.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Tasks in the sweep.")
@json_option
def submit_command(limit: int, *, as_json: bool) -> None:
    """Hand over what is due to the creator, once: what waits for its backoff, and what a crash left.

    Exit code 1 when the creator could not be reached, or is left alone because it was down.
    """
    state = get_state()
    if state.creator is None:
        raise ConfigurationError(
            "There is no creator to submit to: set CREATOR_API_BASE_URL (or CREATOR_CLI_PATH), or pass creator= to "
            "init_app."
        )
    report = submit_due(state, limit=limit)
    if as_json:
        print_document({"claimed": report.claimed, "outcomes": report.outcomes, "paused": report.paused})
    else:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.most_common())
        paused = " The creator was down and is left alone for now." if report.paused else ""
        click.echo(
            f"Due: {counted(report.claimed, 'task', 'tasks')}{' (' + outcomes + ')' if outcomes else ''}.{paused}"
        )
    if report.paused or report.outcomes["unreachable"]:
        raise click.exceptions.Exit(1)
