"""``flask webhook doctor``: find what is wrong, and say what to do about it."""

from __future__ import annotations

import click
from flask import current_app

from ..errors import ConfigurationError
from ..runtime.state import get_state
from .checks import CHECKS, DoctorContext, Finding, Level
from .commands import PlainCommand, enter_app
from .documents import json_option, print_document
from .http import http_client
from .terminal import Screen, counted

__all__ = ["doctor_command"]

_MARKS = {
    Level.OK: click.style("ok  ", fg="green"),
    Level.WARN: click.style("warn", fg="yellow"),
    Level.FAIL: click.style("FAIL", fg="red", bold=True),
    Level.SKIP: click.style("-   ", dim=True),
}


@click.command("doctor", cls=PlainCommand, short_help="Check the whole setup, and say what to do.")
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds for each request."
)
@json_option
@click.pass_context
def doctor_command(ctx: click.Context, timeout: float, *, as_json: bool) -> None:
    """Check the whole setup: configuration, secret, address, database, service, and a callback to ourselves.

    The callback goes to WEBHOOK_CALLBACK_BASE_URL, so the app must be running there; it names a task that does not
    exist. A second one has a wrong token. So each run leaves two refused requests in the history, of which one counts
    as a wrong signature. Exit code 1 when a check fails; warnings alone are 0.
    """
    findings = _findings(ctx, timeout)
    failed = any(finding.level is Level.FAIL for finding in findings)
    if as_json:
        print_document(
            {
                "healthy": not failed,
                "findings": [
                    {"check": f.check, "level": f.level.value, "message": f.message, "remedy": f.remedy or None}
                    for f in findings
                ],
            }
        )
    else:
        _show(findings)
    if failed:
        raise click.exceptions.Exit(1)


def _findings(ctx: click.Context, timeout: float) -> list[Finding]:
    try:
        enter_app(ctx)
    except ConfigurationError as error:
        return [Finding(Level.FAIL, error.message, "Correct this; then the rest can be checked.", "configuration")]
    with http_client(timeout) as client:
        context = DoctorContext(get_state(current_app), client)
        return [finding for check in CHECKS for finding in check(context)]


def _show(findings: list[Finding]) -> None:
    """Print the findings without rich: the doctor must work where little else does."""
    screen, width = Screen(), max(len(finding.check) for finding in findings)
    for finding in findings:
        screen.hanging(f"{_MARKS[finding.level]}  {finding.check:<{width}}  ", finding.message)
        if finding.remedy:
            screen.hanging(f"      {'':<{width}}  -> ", finding.remedy)
    failures, warnings = (sum(finding.level is level for finding in findings) for level in (Level.FAIL, Level.WARN))
    click.echo(f"\n{failures} failed, {counted(warnings, 'warning', 'warnings')}.")
