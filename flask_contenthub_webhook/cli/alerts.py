"""``flask webhook alerts``: show the alerts."""

from __future__ import annotations

from dataclasses import asdict

import click

from ..operations.alerts import AlertStatus, check_alerts, read_alerts
from ..operations.jobs import JobStatus, read_jobs, record_pass
from ..runtime.state import get_state
from .commands import AppCommand
from .documents import json_option, print_document
from .terminal import Screen, moment

__all__ = ["alerts_command"]


@click.command("alerts", cls=AppCommand, short_help="Show the alerts.")
@click.option("--check", is_flag=True, help="Check them first, and announce changes, as the scheduler does.")
@json_option
def alerts_command(*, check: bool, as_json: bool) -> None:
    """Show the alerts. Exit code 1 when one is raised, and when they have not been checked for some time, or never."""
    screen, state = None if as_json else Screen(), get_state()
    alerts = (check_alerts if check else read_alerts)(state)
    if check:
        record_pass(state, "alerts")
    checks = next(job for job in read_jobs(state) if job.name == "alerts")
    if screen is None:
        document = {"last_pass_at": checks.last_pass_at, "is_late": _are_unknown(checks)}
        print_document({"alerts": [asdict(alert) for alert in alerts], "checks": document})
    else:
        screen.table(["alert", "status", "since", "checked", "message"], [_cells(alert) for alert in alerts])
        if checks.is_late:
            screen.say(f"Nobody has checked them since {moment(checks.last_pass_at)}: no scheduler is running.")
    if any(alert.raised for alert in alerts) or (any(alert.enabled for alert in alerts) and _are_unknown(checks)):
        raise click.exceptions.Exit(1)


def _are_unknown(checks: JobStatus) -> bool:
    return checks.is_late or checks.last_pass_at is None


def _cells(alert: AlertStatus) -> tuple[str, ...]:
    status = "RAISED" if alert.raised else "clear" if alert.enabled else "off"
    if alert.checked_at is None:
        return alert.name, status, "", "never", "Run `flask webhook scheduler`, or this command with --check."
    return alert.name, status, moment(alert.changed_at), moment(alert.checked_at), alert.message
