"""The state of background work and alerts, read from the database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ...operations.alerts import read_alerts
from ...operations.jobs import read_jobs
from ...storage.task_queries import count_waiting
from ..terminal import counted, moment
from .findings import DoctorContext, Finding, check, fail, ok, skip, warn

__all__ = ["check_backlog", "check_jobs", "check_raised_alerts"]

_PATIENCE = timedelta(minutes=5)
_NOUNS = {
    "polls": ("poll", "polls"),
    "submissions": ("submission", "submissions"),
    "retries": ("delivery", "deliveries"),
}
_REMEDIES = {
    "failure_rate": "Look at `flask webhook deliveries list --verdict failed --verdict dead`; once the handler is "
    "fixed, replay the dead deliveries.",
    "silence": "Check that the service is running and can reach WEBHOOK_CALLBACK_BASE_URL.",
    "signature_failures": "Compare the secrets of both sides; `flask webhook deliveries list --verdict rejected` shows "
    "where the requests come from.",
}


@check("background work", needs_schema=True)
def check_backlog(context: DoctorContext) -> Iterator[Finding]:
    """Count the work that has been due for more than five minutes."""
    waiting = count_waiting(context.state.database, due_before=context.state.now() - _PATIENCE)
    late = [counted(waiting[key], *noun) for key, noun in _NOUNS.items() if waiting[key]]
    if late:
        yield warn(
            f"Overdue by more than five minutes: {', '.join(late)}. No scheduler is running, or it cannot keep up.",
            "Run `flask webhook scheduler` as a service, or set WEBHOOK_SCHEDULER_ENABLED=true; if one is running, "
            "look at its log.",
        )
    else:
        yield ok("Nothing is overdue by more than five minutes.")


@check("scheduler", needs_schema=True)
def check_jobs(context: DoctorContext) -> Iterator[Finding]:
    """Compare the last pass of each periodic job with its interval."""
    jobs = read_jobs(context.state)
    late = [f"{job.name} (last at {moment(job.last_pass_at)})" for job in jobs if job.is_late]
    if late:
        yield fail(
            f"Jobs that no longer run: {', '.join(late)}. The scheduler is dead, or they fail.",
            "Start `flask webhook scheduler` again; if it runs, look at its log.",
        )
    elif all(job.last_pass_at is None for job in jobs):
        yield skip("No scheduler has run here yet.")
    else:
        yield ok("The scheduler runs.")


@check("alerts", needs_schema=True)
def check_raised_alerts(context: DoctorContext) -> Iterator[Finding]:
    """Repeat what the last check of the alerts found, without measuring again; an old check says nothing."""
    checks = next(job for job in read_jobs(context.state) if job.name == "alerts")
    are_known = checks.last_pass_at is not None and not checks.is_late
    if not are_known:
        yield skip("Nobody checks the alerts, so it is not known whether one should be raised.")
    raised = [alert for alert in read_alerts(context.state) if alert.raised]
    for alert in raised:
        yield warn(f"Since {moment(alert.changed_at)}: {alert.message}", _REMEDIES[alert.name])
    if are_known and not raised:
        yield ok("No alert is raised.")
