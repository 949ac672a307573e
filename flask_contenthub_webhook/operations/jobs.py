"""The periodic jobs, and the last pass of each, which the database keeps so that a dead scheduler is noticed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import IntegrityError

from .. import signals
from ..engine.retry import retry_due_deliveries
from ..forwarding.send import send_due_forwards
from ..storage.job_passes import insert_pass, is_pass, job_of, read_passes, update_passes
from ..tasks.handover import submit_due
from ..tasks.reconcile import ReconcileReport, reconcile
from .alerts import AlertStatus, alerts_in, check_alerts, read_rows
from .purge import purge_regularly
from .set_back import heed_clock

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..runtime.state import WebhookState

__all__ = ["JOBS", "Job", "JobStatus", "read_alerts_and_jobs", "read_jobs", "record_pass"]

_RECORD_INTERVAL = timedelta(seconds=30)
"""Time between two records by one process, which are of all jobs that ran meanwhile."""
_PATIENCE = timedelta(minutes=5)
"""Time by which a pass may be late beyond two intervals: a restart, a long pass."""


@dataclass(frozen=True, slots=True)
class Job:
    """A periodic job; ``idle`` takes the place of ``work`` while nothing is due."""

    name: str
    work: Callable[[WebhookState], Any]
    interval: Callable[[Settings], timedelta]
    idle: Callable[[WebhookState], None] = lambda _: None


def _a_third_of_the_poll_interval(settings: Settings) -> timedelta:
    """Look more often than tasks come due, which costs one small statement."""
    return max(settings.poll_interval / 3, timedelta(seconds=1))


def _retry_interval(settings: Settings) -> timedelta:
    """Look often if events wait in the inbox: the scheduler may be their only worker."""
    return timedelta(seconds=10 if settings.processing == "inline" else 1)


def _report_idle_pass(state: WebhookState) -> None:
    """Tell whoever counts the passes that one found nothing due."""
    signals.send_quietly(signals.reconcile_finished, state.app, report=ReconcileReport())


JOBS = (
    Job("reconcile", reconcile, _a_third_of_the_poll_interval, _report_idle_pass),
    Job("submit", submit_due, lambda _: timedelta(seconds=5)),
    Job("retry-deliveries", retry_due_deliveries, _retry_interval),
    Job("forward", send_due_forwards, lambda _: timedelta(seconds=5)),
    Job("alerts", check_alerts, lambda settings: settings.alert_window / 10),
    Job("purge", purge_regularly, lambda _: timedelta(hours=1)),
    Job("clock", heed_clock, lambda _: timedelta(seconds=10)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The last pass of a job, made by any process.

    Args:
        name: of the job.
        last_pass_at: when a pass last ended without an error; None if there was none yet.
        is_late: True if the next pass should have come by now: after two intervals and five minutes.
    """

    name: str
    last_pass_at: datetime | None
    is_late: bool


def record_pass(state: WebhookState, name: str) -> None:
    """Record that a pass of a job has ended without an error; a later one may be recorded with those of other jobs.

    Raises:
        SQLAlchemyError: the database is down.
    """
    jobs, model, now = state.jobs.value, state.models.alert, state.waited()
    jobs.ended.add(name)
    if name in jobs.recorded and timedelta() <= now - jobs.recorded_at < _RECORD_INTERVAL:
        return
    names = frozenset(jobs.ended)
    if not state.database.write(lambda tx: update_passes(tx, model, names, state.store.now(tx))):
        for each in sorted(names):
            with contextlib.suppress(IntegrityError):
                state.database.write(lambda tx, job=each: insert_pass(tx, model, job, state.store.now(tx)))  # type: ignore[misc]
    jobs.recorded |= names
    jobs.ended -= names
    jobs.recorded_at = now


def read_jobs(state: WebhookState) -> list[JobStatus]:
    """Return the jobs with their last passes."""
    return _jobs(state, state.database.ask(lambda tx: read_passes(tx, state.models.alert)))


def read_alerts_and_jobs(state: WebhookState) -> tuple[list[AlertStatus], list[JobStatus]]:
    """Return the alerts, and the jobs with their last passes, in one statement."""
    rows = read_rows(state)
    passes = {job_of(name): row["checked_at"] for name, row in rows.items() if is_pass(name)}
    return alerts_in(state, rows), _jobs(state, passes)


def _jobs(state: WebhookState, passes: Mapping[str, datetime]) -> list[JobStatus]:
    now = state.now()
    return [_status(job, passes.get(job.name), state.registry.pacing, now) for job in JOBS]


def _status(job: Job, last: datetime | None, settings: Settings, now: datetime) -> JobStatus:
    longest = 2 * job.interval(settings) + _PATIENCE
    return JobStatus(name=job.name, last_pass_at=last, is_late=last is not None and now - last > longest)
