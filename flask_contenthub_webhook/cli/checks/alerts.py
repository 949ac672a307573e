"""Whether an alert is raised."""

from __future__ import annotations

from ...operations.alerts import read_alerts
from ..commands import DATABASE_ERRORS, database_words
from ..terminal import moment
from .findings import Examination, Finding, Level

__all__ = ["check_raised_alerts"]

_REMEDIES = {
    "failure_rate": "Look into `flask webhook deliveries list --verdict failed --verdict dead`; once the handler is "
    "mended, replay what is dead.",
    "silence": "Look whether the creator runs and can reach WEBHOOK_CALLBACK_BASE_URL.",
    "signature_failures": "Compare the secrets of both sides, and look into `flask webhook deliveries list --verdict "
    "rejected` for where the requests come from.",
}


def check_raised_alerts(examination: Examination) -> list[Finding]:
    """Whatever the last check of the alerts found; nothing is measured here."""
    if not examination.has_schema:
        return [Finding("alerts", Level.SKIP, "Not looked at, because of the schema.")]
    try:
        raised = [alert for alert in read_alerts(examination.state) if alert.raised]
    except DATABASE_ERRORS as error:
        return [Finding("alerts", Level.FAIL, database_words(error))]
    if not raised:
        return [Finding("alerts", Level.OK, "No alert is raised.")]
    return [
        Finding("alerts", Level.WARN, f"Since {moment(alert.changed_at)}: {alert.message}", _REMEDIES[alert.name])
        for alert in raised
    ]
