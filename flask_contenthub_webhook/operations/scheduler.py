"""The periodic jobs, run by APScheduler.

Any number of processes may run the jobs at once, since every job claims its work in the database. One process of
``flask webhook scheduler`` is enough; small hosts let the serving process run them (WEBHOOK_SCHEDULER_ENABLED).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.job import Job as APSchedulerJob
from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask

from ..core.logs import get_logger
from ..core.stopping import GRACE, DaemonThreads, stopped_by
from ..runtime.clock_watch import ClockWatch
from ..runtime.shutdown import stop_on_signals, wait_for_stop
from ..runtime.state import get_state
from ..storage.failure_log import log_unexpected
from .jobs import JOBS, Job, record_pass
from .lookout import Lookout

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["run_scheduler", "start_scheduler", "stop_scheduler"]

logger = get_logger(__name__)

_LOOK_AT_CLOCK = 1.0
"""Seconds after which a clock that was set is noticed."""


def start_scheduler(app: Flask) -> None:
    """Run the jobs in threads of this process, unless they run already."""
    state = get_state(app)
    jobs = state.jobs.value
    with jobs.lock:
        if jobs.scheduler is not None:
            return
        jobs.threads = DaemonThreads(len(JOBS), "contenthub-scheduler", awaited=True)
        jobs.stopping = threading.Event()  # an abandoned job keeps the earlier one
        jobs.lookout = Lookout(state)
        jobs.lookout.listen(jobs.stopping)
        scheduler = _build(state, jobs.threads, jobs.lookout)
        scheduler.start()
        jobs.scheduler, jobs.was_started = scheduler, True
    logger.info("The scheduler runs in this process.", extra={"jobs": [job.name for job in JOBS]})


def stop_scheduler(app: Flask, *, wait: bool = True) -> None:
    """Stop the jobs of this process; with ``wait``, wait for the running ones, for at most :data:`.GRACE` seconds."""
    jobs = get_state(app).jobs.value
    with jobs.lock:
        scheduler, threads, jobs.scheduler, jobs.threads = jobs.scheduler, jobs.threads, None, None
        lookout, jobs.lookout = jobs.lookout, None
        jobs.stopping.set()
    if scheduler is not None and scheduler.running:
        scheduler.shutdown(wait=False)
    if threads is not None and wait and not threads.join(GRACE):
        logger.warning("A job is abandoned: it waits for an answer, or did not notice that it should end.")
    if lookout is not None and wait:
        lookout.join(GRACE)


def run_scheduler(app: Flask, *, on_start: Callable[[], None] = lambda: None) -> None:
    """Run the jobs in the foreground until SIGTERM or SIGINT, then finish the running ones."""
    stopped = threading.Event()
    with stop_on_signals(stopped.set):
        try:
            start_scheduler(app)
            on_start()
            wait_for_stop(stopped)
        finally:
            stop_scheduler(app, wait=True)


class _Executor(BasePoolExecutor):  # type: ignore[misc]  # APScheduler ships no types
    """Ignores a job that comes due while the threads are being stopped."""

    def __init__(self, threads: DaemonThreads) -> None:
        super().__init__(threads)

    def _do_submit_job(self, job: APSchedulerJob, run_times: list[datetime]) -> None:
        try:
            super()._do_submit_job(job, run_times)
        except RuntimeError:
            logger.debug("The job %s came due while the process was ending.", job.id)


class _Scheduler(BackgroundScheduler):  # type: ignore[misc]
    """Runs every job at once when the clock of the machine was set, since APScheduler compares their times with it."""

    def __init__(self, **options: Any) -> None:
        self._watch = ClockWatch()
        super().__init__(**options)

    def _process_jobs(self) -> float | None:
        if seconds := self._watch.set_by():
            logger.warning("The clock of this machine was set by %+.0f s; every job runs now.", seconds)
            for job in self.get_jobs():
                self.modify_job(job.id, next_run_time=datetime.now(self.timezone))
        wait: float | None = super()._process_jobs()
        return None if wait is None else min(wait, _LOOK_AT_CLOCK)


def _build(state: WebhookState, threads: DaemonThreads, lookout: Lookout) -> BackgroundScheduler:
    scheduler = _Scheduler(
        executors={"default": _Executor(threads)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone="UTC",
    )
    for job in JOBS:
        seconds = job.interval(state.registry.pacing).total_seconds()
        scheduler.add_job(
            _run,
            "interval",
            (state, job, lookout),
            id=job.name,
            name=f"contenthub_webhook {job.name}",  # as it stands in the lines that APScheduler logs
            seconds=seconds,
            jitter=seconds / 10,
            next_run_time=datetime.now(scheduler.timezone),
        )
    return scheduler


def _run(state: WebhookState, job: Job, lookout: Lookout) -> None:
    try:
        with state.app.app_context(), stopped_by(state.jobs.value.stopping):
            if lookout.is_due(job.name):
                lookout.note(job.name, job.work(state))
            else:
                job.idle(state)
            record_pass(state, job.name)
    except Exception as error:  # noqa: BLE001 - it runs again
        message = f"The job {job.name} failed; it runs again at its next time."
        log_unexpected(state.database, logger, message, error, extra={"job": job.name})
