"""``flask webhook worker``: apply what waits in the inbox, as a process of its own."""

from __future__ import annotations

import click
from flask import current_app

from ..engine.worker import run_worker
from ..runtime.state import get_state
from .commands import AppCommand
from .logs import show_logs

__all__ = ["worker_command"]


@click.command("worker", cls=AppCommand, short_help="Apply what waits in the inbox.")
@click.option("--threads", type=click.IntRange(1, 256), help="By default WEBHOOK_WORKER_THREADS.")
@click.option(
    "--batch",
    type=click.IntRange(1, 1000),
    help="Events that a thread claims in one statement; by default WEBHOOK_WORKER_BATCH.",
)
def worker_command(threads: int | None, batch: int | None) -> None:
    """Apply the events that WEBHOOK_PROCESSING=worker accepted, and retry what failed, until SIGTERM or Ctrl-C.

    What is in hand then is finished, and the rest given back. Any number may run, on any number of machines.
    """
    show_logs()
    settings = get_state().settings
    if settings.processing == "inline":
        click.echo("WEBHOOK_PROCESSING is inline: only what failed, or had to wait, is left to this worker.", err=True)

    def announce() -> None:
        number, size = threads or settings.worker_threads, batch or settings.worker_batch
        click.echo(f"The worker runs: {number} threads, batches of {size}; stop it with SIGTERM or Ctrl-C.")

    app = current_app._get_current_object()  # type: ignore[attr-defined]
    run_worker(app, threads=threads, batch=batch, on_start=announce)
    click.echo("Stopped.")
