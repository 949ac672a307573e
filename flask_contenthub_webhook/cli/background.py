"""Commands for the background work: once (``hand-over``, ``reconcile --once``) or until they are stopped."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from flask import current_app

from ..core.stopping import DaemonThreads, stopped_by, time_left
from ..engine.worker import run_worker
from ..errors import ConfigurationError
from ..operations.jobs import JOBS, record_pass
from ..operations.scheduler import run_scheduler
from ..runtime.shutdown import stop_on_signals, wait_for_stop
from ..runtime.state import get_state
from ..tasks.handover import submit_due
from ..tasks.reconcile import ReconcileReport, reconcile
from .commands import DATABASE_ERRORS, AppCommand, describe_database_error
from .documents import json_option, print_document
from .logs import show_logs
from .terminal import counted, escaped

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["hand_over_command", "reconcile_command", "scheduler_command", "worker_command"]

_PAUSED = "the service was down and is left alone for now"


@click.command("hand-over", cls=AppCommand, short_help="Hand over due tasks to the service.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Maximum number of tasks.")
@json_option
def hand_over_command(limit: int, *, as_json: bool) -> None:
    """Hand over due tasks to the service, once: those past their backoff, and those left by a crash.

    Exit code 1 when the database failed, or the service could not be reached or is left alone because it was down.
    """
    report = submit_due(_state_with_service(), limit=limit)
    if as_json:
        print_document({field: getattr(report, field) for field in ("claimed", "outcomes", "trouble", "paused")})
    else:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.most_common())
        reason = _PAUSED if report.paused else report.trouble
        details = f"{f' ({outcomes})' if outcomes else ''}{f'; {reason}' if reason else ''}"
        click.echo(f"Due: {counted(report.claimed, 'task', 'tasks')}{details}.")
    if report.trouble or report.paused or report.outcomes["unreachable"]:
        raise click.exceptions.Exit(1)


@click.command("reconcile", cls=AppCommand, short_help="Poll the service about due tasks.")
@click.option("--once", is_flag=True, help="Make one pass and report it. Without it, run until SIGTERM or Ctrl-C.")
@click.option("--limit", type=click.IntRange(1), default=10_000, show_default=True, help="Maximum tasks in a pass.")
@json_option
def reconcile_command(limit: int, *, once: bool, as_json: bool) -> None:
    """Poll the service about every task that is due, and apply its answers.

    With --once: exit code 1 when the database or a poll failed, or the service is left alone because it was down.
    Without: a pass as often as the scheduler makes one; exit code 0 after SIGTERM.
    """
    state = _state_with_service()
    if not once:
        if as_json:
            raise click.UsageError("--json needs --once.")
        _reconcile_until_stopped(state, limit)
        return
    report = reconcile(state, limit=limit)
    record_pass(state, "reconcile")
    if as_json:
        print_document(asdict(report))
    else:
        click.echo(_summary(report))
    if report.errors or report.trouble or report.paused:
        raise click.exceptions.Exit(1)


@click.command("worker", cls=AppCommand, short_help="Apply the events in the inbox.")
@click.option("--threads", type=click.IntRange(1, 256), help="Number of threads; default: WEBHOOK_WORKER_THREADS.")
@click.option(
    "--batch",
    type=click.IntRange(1, 1000),
    help="Events that a thread claims in one statement; default: WEBHOOK_WORKER_BATCH.",
)
def worker_command(threads: int | None, batch: int | None) -> None:
    """Apply the events in the inbox, and try failed ones again, until SIGTERM or Ctrl-C.

    On SIGTERM, the events in progress are finished, and the other claims are released. You may run any number of
    workers, on any number of machines.
    """
    show_logs()
    settings = get_state().settings
    if settings.processing == "inline":
        click.echo(
            "WEBHOOK_PROCESSING is inline: this worker only applies events that failed or had to wait.", err=True
        )

    def announce() -> None:
        number, size = threads or settings.worker_threads, batch or settings.worker_batch
        click.echo(f"The worker runs: {number} threads, batches of {size}; stop it with SIGTERM or Ctrl-C.")

    app = current_app._get_current_object()  # type: ignore[attr-defined]
    run_worker(app, threads=threads, batch=batch, on_start=announce)
    click.echo("Stopped.")


@click.command("scheduler", cls=AppCommand, short_help="Run the periodic jobs.")
def scheduler_command() -> None:
    """Run the periodic jobs until SIGTERM or Ctrl-C; a running job is finished first. You may run any number."""
    show_logs()
    settings = get_state().registry.pacing

    def announce() -> None:
        for job in JOBS:
            click.echo(f"{job.name}: every {job.interval(settings).total_seconds():g} s")
        click.echo("The scheduler runs; stop it with SIGTERM or Ctrl-C.")

    run_scheduler(current_app._get_current_object(), on_start=announce)  # type: ignore[attr-defined]
    click.echo("Stopped.")


def _state_with_service() -> WebhookState:
    state = get_state()
    if state.creator is None:
        raise ConfigurationError(
            "No service is configured: set CREATOR_API_BASE_URL (or CREATOR_CLI_PATH), or pass creator= to init_app."
        )
    return state


def _reconcile_until_stopped(state: WebhookState, limit: int) -> None:
    show_logs()
    interval = next(job.interval(state.registry.pacing) for job in JOBS if job.name == "reconcile").total_seconds()
    stopped = threading.Event()

    def make_passes() -> None:
        with state.app.app_context(), stopped_by(stopped):
            while not stopped.is_set():
                _make_one_pass(state, limit)
                stopped.wait(interval)

    with stop_on_signals(stopped.set):
        click.echo(f"A pass every {interval:g} s, until SIGTERM or Ctrl-C.")
        passes = DaemonThreads(1, "contenthub-passes").submit(make_passes)
        passes.add_done_callback(lambda _: stopped.set())  # by an error
        wait_for_stop(stopped)
        if wait([passes], timeout=time_left()).done:
            passes.result()
    click.echo("Stopped.")


def _make_one_pass(state: WebhookState, limit: int) -> None:
    try:
        report = reconcile(state, limit=limit)
        record_pass(state, "reconcile")
    except DATABASE_ERRORS as error:
        message = f"The pass failed and will be repeated. {describe_database_error(error)}"
        click.echo(escaped(message), err=True)
    else:
        if report.claimed or report.paused:
            click.echo(_summary(report))


def _summary(report: ReconcileReport) -> str:
    reason = _PAUSED if report.paused else report.trouble
    applied = ", ".join(f"{count} {verdict}" for verdict, count in report.applied.items()) or "none"
    return (
        f"{report.claimed} due, {report.asked} asked, applied: {applied}, {report.still_open} still open, "
        f"{report.missing} missing, {report.timed_out} timed out, {report.errors} failed"
        f"{f'; {reason}' if reason else ''} ({report.seconds:.2f} s)."
    )
