"""Raised alerts, with what to do about each."""

from __future__ import annotations

from collections.abc import Iterator

from ...operations.alerts import read_alerts
from ..terminal import moment
from .findings import DoctorContext, Finding, check, ok, warn

__all__ = ["check_raised_alerts"]

_REMEDIES = {
    "failure_rate": "Look at `flask webhook deliveries list --verdict failed --verdict dead`; once the handler is "
    "fixed, replay the dead deliveries.",
    "silence": "Check that the service is running and can reach WEBHOOK_CALLBACK_BASE_URL.",
    "signature_failures": "Compare the secrets of both sides; `flask webhook deliveries list --verdict rejected` shows "
    "where the requests come from.",
}


@check("alerts", needs_schema=True)
def check_raised_alerts(context: DoctorContext) -> Iterator[Finding]:
    """Repeat what the last check of the alerts found, without measuring again."""
    raised = [alert for alert in read_alerts(context.state) if alert.raised]
    for alert in raised:
        yield warn(f"Since {moment(alert.changed_at)}: {alert.message}", _REMEDIES[alert.name])
    if not raised:
        yield ok("No alert is raised.")
