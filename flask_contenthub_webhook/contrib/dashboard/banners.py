"""What stands above every page: raised alerts, and a scheduler that does not run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ...operations.alert_kinds import FAILURE_RATE, SIGNATURE_FAILURES, SILENCE
from ...operations.alerts import AlertStatus
from ...operations.jobs import JobStatus, read_alerts_and_jobs
from ...storage.failure_log import log_failure

if TYPE_CHECKING:
    from ...runtime.state import WebhookState

__all__ = ["Banners", "read_banners"]

logger = logging.getLogger(__name__)

_ALERTS_JOB = "alerts"
_LEADS_TO = {
    FAILURE_RATE.name: ("failures", {}, "See what failed, and why"),
    SILENCE.name: ("tasks", {"show": "open"}, "See the tasks that wait"),
    SIGNATURE_FAILURES.name: ("deliveries", {"verdict": "rejected"}, "See the refused requests"),
}


@dataclass(frozen=True, slots=True)
class Banners:
    """What stands above every page.

    Args:
        alerts: those that are raised.
        late_jobs: the periodic jobs whose pass is overdue.
        checked_at: when the alerts were last checked, or None.
    """

    alerts: Sequence[AlertStatus] = ()
    late_jobs: Sequence[JobStatus] = ()
    checked_at: datetime | None = None

    @staticmethod
    def leads_to(alert: AlertStatus) -> tuple[str, dict[str, str], str]:
        """Return the page of what an alert is about: its endpoint, its arguments, and the words of the link."""
        return _LEADS_TO[alert.name]


def read_banners(state: WebhookState) -> Banners:
    """Read the alerts and the jobs in one statement; nothing if the database does not answer, as the page will say."""
    try:
        alerts, jobs = read_alerts_and_jobs(state)
    except SQLAlchemyError as error:
        log_failure(state.database, logger, "The alerts could not be read for the history pages.", error)
        return Banners()
    checks = [alert.checked_at for alert in alerts if alert.checked_at is not None]
    checks += [job.last_pass_at for job in jobs if job.name == _ALERTS_JOB and job.last_pass_at is not None]
    return Banners(
        alerts=[alert for alert in alerts if alert.raised],
        late_jobs=[job for job in jobs if job.is_late],
        checked_at=max(checks, default=None),
    )
