"""``flask webhook reconcile``: ask the creator about what is overdue, once or again and again."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..errors import ConfigurationError
from ..operations.scheduler import JOBS
from ..runtime.shutdown import stop_on_signals, wait_for_stop
from ..runtime.state import get_state
from ..tasks.reconcile import ReconcileReport, reconcile
from .commands import DATABASE_ERRORS, AppCommand, describe_database_error
from .documents import json_option, print_document
from .logs import show_logs
from .terminal import escaped

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["reconcile_command"]


@click.command("reconcile", cls=AppCommand, short_help="Ask the creator about what is overdue.")
@click.option("--once", is_flag=True, help="One pass, and print what it did; without, passes until SIGTERM or Ctrl-C.")
@click.option("--limit", type=click.IntRange(1), default=10_000, show_default=True, help="Tasks in one pass.")
@json_option
def reconcile_command(limit: int, *, once: bool, as_json: bool) -> None:
    """Ask the creator about every task that is due for it, and apply what it says.

    With --once: exit code 1 when a task could not be asked about, or the creator is left alone because it was down.
    Without: a pass as often as the scheduler makes one; exit code 0 after SIGTERM.
    """
    state = get_state()
    if state.creator is None:
        raise ConfigurationError(
            "There is no creator to ask: set CREATOR_API_BASE_URL (or CREATOR_CLI_PATH), or pass creator= to init_app."
        )
    if not once:
        _run(state, limit, as_json=as_json)
        return
    report = reconcile(state, limit=limit)
    if as_json:
        print_document(asdict(report))
    else:
        click.echo(_words(report))
    if report.errors or report.paused:
        raise click.exceptions.Exit(1)


def _run(state: WebhookState, limit: int, *, as_json: bool) -> None:
    if as_json:
        raise click.UsageError("--json goes with --once: one document is all that it prints.")
    show_logs()
    interval = next(job.interval(state.settings) for job in JOBS if job.name == "reconcile").total_seconds()
    stopped = threading.Event()
    with stop_on_signals(stopped.set):
        click.echo(f"A pass every {interval:g} s, until SIGTERM or Ctrl-C.")
        while not stopped.is_set():
            try:
                report = reconcile(state, limit=limit)
            except DATABASE_ERRORS as error:
                click.echo(
                    escaped(f"The pass failed; the next one tries again. {describe_database_error(error)}"), err=True
                )
            else:
                if report.claimed or report.paused:
                    click.echo(_words(report))
            wait_for_stop(stopped, interval)
    click.echo("Stopped.")


def _words(report: ReconcileReport) -> str:
    applied = ", ".join(f"{count} {verdict}" for verdict, count in report.applied.items()) or "none"
    return (
        f"{report.claimed} due, {report.asked} asked, applied: {applied}, {report.still_open} still open, "
        f"{report.missing} missing, {report.timed_out} timed out, {report.errors} in error"
        f"{'; the creator was down and is left alone for now' if report.paused else ''} ({report.seconds:.2f} s)."
    )
