"""``flask webhook scheduler``: the periodic jobs, as a process of their own."""

from __future__ import annotations

import click
from flask import current_app

from ..operations.scheduler import JOBS, run_scheduler
from ..runtime.state import get_state
from .commands import AppCommand
from .logs import show_logs

__all__ = ["scheduler_command"]


@click.command("scheduler", cls=AppCommand, short_help="Run the periodic jobs.")
def scheduler_command() -> None:
    """Run the periodic jobs until SIGTERM or Ctrl-C; a job that is running is finished first. Any number may run."""
    show_logs()
    state = get_state()

    def announce() -> None:
        for job in JOBS:
            click.echo(f"{job.name}: every {job.interval(state.settings).total_seconds():g} s")
        click.echo("The scheduler runs; stop it with SIGTERM or Ctrl-C.")

    run_scheduler(current_app._get_current_object(), on_start=announce)  # type: ignore[attr-defined]
    click.echo("Stopped.")
