"""A scheduler that is dead shows wherever somebody looks: commands, doctor, metrics, pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from flask_contenthub_webhook.contrib.dashboard import create_dashboard
from flask_contenthub_webhook.contrib.prometheus import WebhookMetrics
from flask_contenthub_webhook.operations import scheduler
from flask_contenthub_webhook.operations.jobs import JOBS, Job, read_jobs
from flask_contenthub_webhook.operations.lookout import Lookout
from tests.cli.conftest import run, run_json
from tests.support.host import Host

LATER = 600


def run_jobs(host: Host) -> None:
    """Run each job once, as the scheduler does."""
    lookout = Lookout(host.state)
    for job in JOBS:
        scheduler._run(host.state, job, lookout)


@pytest.fixture
def dead(host: Host) -> Host:
    """A host whose scheduler made its last passes ten minutes ago."""
    run_jobs(host)
    host.clock.advance(LATER)
    return host


def test_every_job_records_its_passes(host: Host):
    assert {job.last_pass_at for job in read_jobs(host.state)} == {None}

    run_jobs(host)

    passes = {job.name: job.last_pass_at for job in read_jobs(host.state)}
    assert passes == {job.name: host.clock.now for job in JOBS}


def test_a_job_is_recorded_every_half_minute_and_not_more_often(host: Host):
    run_jobs(host)
    first = host.clock.now
    host.clock.advance(29)
    run_jobs(host)
    assert {job.last_pass_at for job in read_jobs(host.state)} == {first}

    host.clock.advance(1)
    run_jobs(host)
    assert {job.last_pass_at for job in read_jobs(host.state)} == {first + timedelta(seconds=30)}


def test_a_job_that_fails_has_made_no_pass(host: Host):
    def fail(_state: object) -> None:
        raise RuntimeError("broken")

    scheduler._run(host.state, Job("clock", fail, JOBS[0].interval), Lookout(host.state))

    assert read_jobs(host.state)[-1].last_pass_at is None


def test_late_jobs_are_those_that_miss_two_intervals_and_five_minutes(dead: Host):
    assert {job.name for job in read_jobs(dead.state) if job.is_late} == {job.name for job in JOBS} - {"purge"}

    dead.clock.advance(3 * 3600)

    assert all(job.is_late for job in read_jobs(dead.state))


def test_the_commands_exit_with_1(dead: Host):
    alerts, stats = run(dead, "alerts"), run(dead, "stats")

    assert (alerts.exit_code, stats.exit_code) == (1, 1)
    assert "no scheduler is running" in alerts.stdout
    assert "last pass of reconcile" in stats.stdout


def test_the_documents_of_the_commands_say_it(dead: Host):
    assert run_json(dead, "alerts")["checks"]["is_late"] is True
    jobs = run_json(dead, "stats")["jobs"]
    assert (jobs["reconcile"]["is_late"], jobs["purge"]["is_late"]) == (True, False)


def test_the_commands_exit_with_0_while_it_runs(host: Host):
    run_jobs(host)

    assert (run(host, "alerts").exit_code, run(host, "stats").exit_code) == (0, 0)


def test_checking_by_cron_instead_of_a_scheduler_is_enough_for_the_alerts(dead: Host):
    assert run(dead, "alerts", "--check").exit_code == 0
    assert run(dead, "alerts").exit_code == 0


def test_nobody_is_late_where_every_alert_is_switched_off(hosts: Callable[..., Host], sqlite_url: str):
    off = {"WEBHOOK_FAILURE_RATE_ALERT": 0, "WEBHOOK_SILENCE_ALERT": 0, "WEBHOOK_SIGNATURE_FAILURE_ALERT": 0}

    assert run(hosts(sqlite_url, **off), "alerts").exit_code == 0


def test_the_doctor_fails_and_does_not_call_the_alerts_ok(dead: Host):
    findings = {(f["check"], f["level"]) for f in run_json(dead, "doctor")["findings"]}

    assert ("scheduler", "fail") in findings
    assert ("alerts", "skip") in findings
    assert ("alerts", "ok") not in findings


def test_the_metrics_have_the_time_of_each_pass(dead: Host):
    registry = CollectorRegistry()
    WebhookMetrics().init_app(dead.app, registry=registry)
    text = generate_latest(registry).decode()
    last = dead.clock.now.timestamp() - LATER

    for job in JOBS:
        line = next(line for line in text.splitlines() if f'last_pass_timestamp_seconds{{job="{job.name}"}}' in line)
        assert float(line.split()[-1]) == pytest.approx(last, abs=0.01)
    assert 'alert="job:' not in text


def test_the_banner_of_the_pages_says_it(hosts: Callable[..., Host], database_url: str):
    host = hosts(database_url)
    host.app.register_blueprint(create_dashboard(permission=lambda: True), url_prefix="/history")
    run_jobs(host)
    assert "No scheduler is running" not in host.app.test_client().get("/history/").text

    host.clock.advance(LATER)

    assert "No scheduler is running" in host.app.test_client().get("/history/").text
