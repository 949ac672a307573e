"""Metrics of one process: what is counted, what is read from the database, and who gets to see it."""

from __future__ import annotations

import importlib
import logging
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, request
from prometheus_client import CollectorRegistry, generate_latest

from flask_contenthub_webhook import generate_secret, signals
from flask_contenthub_webhook.contrib.prometheus import METRICS, WebhookMetrics
from flask_contenthub_webhook.contrib.prometheus.collector import DatabaseCollector
from flask_contenthub_webhook.contrib.prometheus.instruments import Instruments
from flask_contenthub_webhook.contrib.prometheus.recorder import Recorder
from flask_contenthub_webhook.core.state_machine import Trigger
from flask_contenthub_webhook.creators import RemoteState, Report
from flask_contenthub_webhook.errors import ConfigurationError
from tests.support.host import PREFIX, Host, completed, custom, failed, progress
from tests.support.receiver import Receiver
from tests.support.scrapes import Scrape

Build = Callable[..., Host]


def scrape(host: Host) -> Scrape:
    answer = host.app.test_client().get("/metrics")
    assert answer.status_code == 200
    return Scrape(answer.text)


def read(host: Host) -> Scrape:
    """The gauges of the database as they are now; a page may show those of a second ago."""
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(host.state))
    return Scrape(generate_latest(registry).decode())


def is_up(collector: DatabaseCollector) -> bool:
    return bool(next(collector.collect()).samples[0].value)


def add(host: Host, model: Any, **values: Any) -> None:
    with host.app.app_context():
        host.db.session.add(model(**values))
        host.db.session.commit()


@pytest.fixture
def measured(hosts: Build) -> Build:
    """Makes hosts with metrics that anybody may scrape."""

    def build(url: str, *, metrics: WebhookMetrics | None = None, **config: Any) -> Host:
        metrics = metrics or WebhookMetrics()
        return hosts(url, after=lambda app: metrics.init_app(app, path="/metrics"), **config)

    return build


@pytest.fixture
def hub(measured: Build, sqlite_url: str) -> Host:
    return measured(sqlite_url, WEBHOOK_SUBMIT_THREADS=0)


# --- what is counted ---------------------------------------------------------------------------------------------


def test_an_event_is_counted_by_source_scheme_type_and_verdict(hub: Host):
    task_id = hub.add_task()
    hub.post(task_id, completed(task_id))
    hub.post_signed(task_id, completed(task_id), "github")
    hub.post(task_id, progress(task_id, 10))
    hub.trigger(hub.add_task(), Trigger.CANCELLED)

    assert scrape(hub).counts("deliveries_total", "source", "scheme", "event", "verdict") == {
        ("webhook", "url", "completed", "processed"): 1,
        ("webhook", "github", "completed", "duplicate"): 1,
        ("webhook", "url", "progress", "ignored"): 1,
        ("host", "none", "cancelled", "processed"): 1,
    }


def test_an_event_whose_handler_failed_is_counted_once_it_is_settled(hub: Host):
    task_id = hub.add_task()
    hub.publisher.broken = True
    hub.post(task_id, completed(task_id))
    waiting = scrape(hub)
    hub.publisher.broken = False
    hub.clock.advance(60)
    hub.retry()

    assert waiting.counts("deliveries_total", "verdict") == {}
    assert waiting.counts("failed_tries_total", "source", "event", "verdict") == {("webhook", "completed", "failed"): 1}
    settled = scrape(hub)
    assert settled.counts("deliveries_total", "source", "verdict") == {("webhook", "processed"): 1}
    assert settled.counts("failed_tries_total", "verdict") == {("failed",): 1}


def test_an_event_that_is_left_to_a_worker_is_counted_when_it_is_applied(measured: Build, sqlite_url: str):
    hub = measured(sqlite_url, WEBHOOK_PROCESSING="worker")
    task_id = hub.add_task()
    for _ in range(2):
        assert hub.post(task_id, completed(task_id)).status_code == 202
    accepted = read(hub), scrape(hub)
    hub.clock.advance(60)
    hub.retry()

    assert accepted[0].counts("waiting_deliveries", "verdict") == {("queued",): 2}
    assert accepted[1].counts("responses_total", "status") == {("202",): 2}
    assert accepted[1].counts("deliveries_total", "verdict") == {}
    assert read(hub).counts("waiting_deliveries", "verdict") == {}
    applied = scrape(hub)
    assert applied.counts("deliveries_total", "source", "verdict") == {
        ("webhook", "processed"): 1,
        ("webhook", "duplicate"): 1,
    }
    assert applied.value("acceptance_to_effect_seconds_sum", source="webhook") == 60


def test_refusals_are_counted_by_reason_and_shown_before_there_is_one(hub: Host):
    task_id = hub.add_task()
    assert scrape(hub).value("rejections_total", reason="signature_invalid") == 0
    assert ("contenthub_webhook_rejections_total", frozenset({("reason", "signature_invalid")})) in scrape(hub).series

    for _ in range(3):
        hub.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}?token=forged")
    hub.post(task_id, b"{")

    assert scrape(hub).counts("rejections_total", "reason") == {("signature_invalid",): 3, ("invalid_json",): 1}


def test_answers_are_counted_by_route_and_status(hub: Host):
    task_id = hub.add_task()
    hub.post(task_id, completed(task_id))
    hub.post(task_id, b"{")
    hub.post_batch([], scheme="github")
    hub.app.test_client().get(f"{PREFIX}/health")
    hub.app.test_client().get("/no-route-of-ours")

    assert scrape(hub).counts("responses_total", "endpoint", "status") == {
        ("callback", "200"): 1,
        ("callback", "400"): 1,
        ("batch", "200"): 1,
        ("health", "200"): 1,
    }


def test_an_answer_that_cannot_be_counted_is_given_all_the_same(hub: Host, caplog: pytest.LogCaptureFixture):
    def no_folder() -> Instruments:
        raise FileNotFoundError("somebody tidied up")

    recorder = Recorder(hub.state, no_folder)
    recorder.connect()
    task_id = hub.add_task()

    assert hub.post(task_id, completed(task_id)).status_code == 200
    assert "An answer was not counted." in caplog.text


def test_latencies_reach_from_acceptance_and_from_the_creators_timestamp_to_the_commit(hub: Host):
    task_id, sent = hub.add_task(), hub.clock.now - timedelta(seconds=7)
    hub.publisher.broken = True
    hub.post(task_id, completed(task_id, timestamp=sent.isoformat()))
    hub.publisher.broken = False
    hub.clock.advance(40)
    hub.retry()

    seen = scrape(hub)
    assert seen.value("acceptance_to_effect_seconds_sum", source="webhook") == 40
    assert seen.value("acceptance_to_effect_seconds_count", source="webhook") == 1
    assert seen.value("acceptance_to_effect_seconds_bucket", source="webhook", le="30.0") == 0
    assert seen.value("acceptance_to_effect_seconds_bucket", source="webhook", le="60.0") == 1
    assert seen.value("creator_to_effect_seconds_sum") == pytest.approx(47)


def test_a_creator_whose_clock_is_ahead_makes_no_negative_latency(hub: Host):
    task_id = hub.add_task()
    hub.post(task_id, completed(task_id, timestamp=(hub.clock.now + timedelta(seconds=90)).isoformat()))

    assert scrape(hub).value("creator_to_effect_seconds_sum") == 0


class Creator:
    """Its list knows some of its jobs."""

    def __init__(self, listed: dict[str, Report], alone: dict[str, Report]) -> None:
        self._listed, self._alone = listed, alone

    def statuses(self, _names: Any, *, since: Any = None) -> dict[str, Report]:
        return self._listed

    def status(self, name: str) -> Report:
        return self._alone[name]


def test_the_pollers_questions_are_counted_by_what_they_brought(hub: Host):
    done, open_, missing = (
        Report(state=state) for state in (RemoteState.FAILED, RemoteState.OPEN, RemoteState.MISSING)
    )
    hub.state.creator = Creator({"a": done, "b": open_, "c": open_}, {"d": missing, "e": open_})  # type: ignore[assignment]
    for name in "abcde":
        hub.add_task(creator_task_id=name, next_poll_at=hub.clock.now)
    with hub.app.app_context():
        hub.webhook.reconcile()
        hub.webhook.reconcile()  # nothing is due: nothing is asked

    seen = scrape(hub)
    assert seen.counts("polls_total", "outcome") == {("processed",): 1, ("open",): 3, ("missing",): 1}
    assert seen.counts("creator_questions_total", "kind") == {("list",): 1, ("single",): 2}
    assert seen.counts("reconcile_passes_total", "outcome") == {("done",): 2}
    assert seen.value("reconcile_seconds_count") == 2
    assert seen.counts("deliveries_total", "source", "event", "verdict") == {("poll", "failed", "processed"): 1}


def test_a_pass_that_leaves_the_creator_alone_asks_nothing(hub: Host):
    hub.state.creator = Creator({}, {})  # type: ignore[assignment]
    hub.state.service.pause.failed()
    with hub.app.app_context():
        hub.webhook.reconcile()

    seen = scrape(hub)
    assert seen.counts("reconcile_passes_total", "outcome") == {("paused",): 1}
    assert seen.counts("creator_questions_total", "kind") == {}


def test_tries_to_send_an_event_on_are_counted_by_what_became_of_it(measured: Build, sqlite_url: str):
    answers = iter([503, 200, 410])
    with Receiver(lambda *_: next(answers)) as receiver:
        hub = measured(
            sqlite_url,
            WEBHOOK_FORWARD_URLS=receiver.url(),
            WEBHOOK_FORWARD_SECRET=generate_secret(),
            WEBHOOK_FORWARD_ALLOWED_NETWORKS="127.0.0.0/8",
            WEBHOOK_SUBMIT_THREADS=0,
        )
        for _ in range(2):
            task_id = hub.add_task()
            hub.post(task_id, completed(task_id))
            with hub.app.app_context():
                hub.webhook.send_due_forwards(limit=1)
                hub.clock.advance(60)
                hub.webhook.send_due_forwards(limit=1)

    assert scrape(hub).counts("forward_attempts_total", "outcome") == {("waiting",): 1, ("delivered",): 1, ("dead",): 1}


def test_a_receiver_beside_it_that_raises_is_logged_and_never_felt(hub: Host, caplog: pytest.LogCaptureFixture):
    def fail(_app: Flask, **_extra: Any) -> None:
        raise RuntimeError

    with signals.forward_tried.connected_to(fail, sender=hub.app):
        signals.send_quietly(signals.forward_tried, hub.app, status="delivered")

    assert "A receiver of contenthub-forward-tried raised" in caplog.text
    assert scrape(hub).counts("forward_attempts_total", "outcome") == {("delivered",): 1}


def test_no_stranger_makes_a_new_series(measured: Build, sqlite_url: str):
    hub = measured(sqlite_url, WEBHOOK_EVENTS="illustrated")

    def send(number: int) -> None:
        task_id = hub.add_task()
        hub.post(task_id, custom(task_id, "illustrated"))
        hub.post(task_id, custom(task_id, f"event-{number}"))
        hub.post(f"no-task-{number}", completed("x"))
        hub.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}?token=forged-{number}")
        hub.post(task_id, completed(task_id), headers={"X-Webhook-Signature": f"forged-{number}"}, path=PREFIX)

    send(0)
    known = scrape(hub).series
    for number in range(1, 20):
        send(number)

    assert scrape(hub).series == known


# --- what is read from the database ------------------------------------------------------------------------------


def test_what_is_open_and_overdue_is_read_from_the_tasks(measured: Build, database_url: str):
    hub = measured(database_url)
    now = hub.clock.now
    hub.add_task(status="pending", next_submit_at=now - timedelta(seconds=20))
    hub.add_task(status="pending", next_submit_at=now + timedelta(seconds=20))
    hub.add_task(deadline_at=now - timedelta(seconds=1), next_poll_at=now - timedelta(seconds=30))
    hub.add_task(status="processing", deadline_at=now + timedelta(seconds=1))
    hub.add_task(status="failed", deadline_at=now - timedelta(seconds=1))

    seen = read(hub)
    assert seen.value("database_up") == 1
    assert seen.counts("open_tasks", "status") == {("pending",): 2, ("submitted",): 1, ("processing",): 1}
    assert seen.value("overdue_tasks") == 1
    assert seen.counts("due", "queue") == {("polls",): 1, ("submissions",): 1}
    assert seen.counts("longest_due_seconds", "queue") == {("polls",): 30, ("submissions",): 20}


def test_what_waits_and_what_was_given_up_is_read_from_the_history(measured: Build, database_url: str):
    hub = measured(database_url, WEBHOOK_RETRY_BACKOFF="30")
    hub.publisher.broken = True
    first, second = hub.add_task(), hub.add_task()
    hub.post(first, completed(first))
    hub.clock.advance(60)
    hub.retry()
    hub.post(second, completed(second))
    hub.clock.advance(90)

    seen = read(hub)
    assert seen.counts("waiting_deliveries", "verdict") == {("failed",): 1}
    assert seen.value("dead_deliveries") == 1
    assert seen.value("due", queue="deliveries") == 1
    assert 57 <= seen.value("longest_due_seconds", queue="deliveries") <= 63  # the backoff varies by a tenth


def test_a_new_event_is_due_since_it_came(measured: Build, database_url: str):
    hub = measured(database_url, WEBHOOK_PROCESSING="worker")
    task_id = hub.add_task()
    hub.post(task_id, completed(task_id))
    hub.clock.advance(90)

    assert read(hub).value("longest_due_seconds", queue="deliveries") == 90


def test_forwards_and_alerts_are_read_from_their_tables(measured: Build, database_url: str):
    hub = measured(database_url)
    forward = hub.state.models.forward
    alert = hub.state.models.alert
    sent = {"delivery_id": 1, "task_id": "t", "event": "completed", "url": "u", "message_id": "m", "body": b"{}"}
    add(hub, forward, **sent, status="waiting", next_try_at=hub.clock.now - timedelta(seconds=9))
    add(hub, forward, **sent, status="waiting", next_try_at=hub.clock.now + timedelta(seconds=9))
    add(hub, forward, **sent, status="dead")
    add(hub, forward, **sent, status="delivered")
    add(hub, alert, name="failure_rate", raised=True)
    add(hub, alert, name="silence", raised=False)
    add(hub, alert, name="failure:0a1b", raised=False, acknowledged_by="Ada", changed_at=hub.clock.now)
    add(hub, alert, name="purged", raised=False, changed_at=hub.clock.now)

    seen = read(hub)
    assert "0a1b" not in str(seen.series)
    assert "purged" not in str(seen.series)
    assert seen.value("waiting_forwards") == 2
    assert seen.value("dead_forwards") == 1
    assert seen.value("due", queue="forwards") == 1
    assert seen.value("longest_due_seconds", queue="forwards") == 9
    assert (seen.value("alert_raised", alert="failure_rate"), seen.value("alert_raised", alert="silence")) == (1, 0)
    assert ("contenthub_webhook_alert_raised", frozenset({("alert", "silence")})) in seen.series


def test_a_reading_is_six_statements_however_much_there_is_and_serves_every_scrape_of_a_second(hub: Host):
    for _ in range(20):
        task_id = hub.add_task()
        hub.post(task_id, failed(task_id))

    with hub.statements() as statements:
        scrape(hub)
        scrape(hub)

    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 6


def test_a_reading_walks_no_table_of_settled_rows(hub: Host):
    with hub.statements() as statements:
        read(hub)
    with hub.engine.connect() as connection:
        plans = [
            row.detail
            for statement in statements
            if statement.startswith("SELECT")
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?"))
        ]

    walked = [plan for plan in plans if plan.startswith(("SCAN webhook_", "SCAN content_"))]
    assert [plan for plan in walked if "INDEX ix_" not in plan] == ["SCAN webhook_alerts"]


# --- a database that is away -------------------------------------------------------------------------------------


@contextmanager
def away(host: Host) -> Iterator[None]:
    """Take the database file away from under the application."""
    path = Path(str(host.engine.url.database))
    host.engine.dispose()
    kept = path.rename(path.with_suffix(".kept"))
    path.mkdir()  # so that SQLite cannot make a new one
    try:
        yield
    finally:
        path.rmdir()
        kept.rename(path)


def test_without_its_database_a_scrape_still_shows_what_was_counted(hub: Host, caplog: pytest.LogCaptureFixture):
    task_id = hub.add_task()
    hub.post(task_id, completed(task_id))

    with away(hub):
        seen = scrape(hub)

    assert seen.value("database_up") == 0
    assert seen.counts("deliveries_total", "verdict") == {("processed",): 1}
    assert "contenthub_webhook_open_tasks" not in seen.names
    assert "The database could not be read for metrics: OperationalError" in caplog.text


def test_it_is_said_once_that_the_database_went_and_once_that_it_came_back(hub: Host, caplog: pytest.LogCaptureFixture):
    collector = DatabaseCollector(hub.state, max_age=0)
    table = hub.state.task_model.__table__
    with hub.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {table.name} RENAME TO elsewhere"))
    with caplog.at_level(logging.INFO, "flask_contenthub_webhook.contrib.prometheus"):
        gone = [is_up(collector) for _ in range(3)]
        with hub.engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE elsewhere RENAME TO {table.name}"))
        back = [is_up(collector) for _ in range(2)]

    assert (gone, back) == ([False] * 3, [True] * 2)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_database_that_does_not_answer_delays_a_scrape_only_so_long(hub: Host):
    lock = sqlite3.connect(str(hub.engine.url.database), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    collector = DatabaseCollector(hub.state, patience=0.05, max_age=0)

    assert not is_up(collector)
    assert not is_up(collector)
    held_up = [thread for thread in threading.enumerate() if thread.name == "contenthub-metrics"]
    assert len(held_up) == 1, "another reading was begun behind one that hangs"
    lock.close()
    held_up[0].join()
    assert is_up(DatabaseCollector(hub.state))


# --- who sees it -------------------------------------------------------------------------------------------------


def in_production(hosts: Build, url: str, **options: Any) -> Host:
    host = hosts(url, after=lambda app: WebhookMetrics(app, path="/metrics", **options))
    host.app.testing = False
    return host


def test_without_a_permission_nobody_scrapes_a_production_app_and_the_log_says_what_to_set(
    hosts: Build, sqlite_url: str, caplog: pytest.LogCaptureFixture
):
    host = in_production(hosts, sqlite_url)

    assert host.app.test_client().get("/metrics").status_code == 403
    assert "needs a `permission`" in caplog.text
    host.app.debug = True
    assert host.app.test_client().get("/metrics").status_code == 200


def test_the_permission_decides(hosts: Build, sqlite_url: str):
    host = in_production(hosts, sqlite_url, permission=lambda: request.headers.get("Authorization") == "Bearer let-me")
    client = host.app.test_client()

    assert client.get("/metrics").status_code == 403
    assert client.get("/metrics", headers={"Authorization": "Bearer let-me"}).status_code == 200
    assert client.post("/metrics").status_code == 405


@pytest.mark.parametrize("answer", ["yes", 1, ["a"], ("redirect", 302)], ids=repr)
def test_only_true_permits(hosts: Build, sqlite_url: str, answer: object, caplog: pytest.LogCaptureFixture):
    host = in_production(hosts, sqlite_url, permission=lambda: answer)

    assert host.app.test_client().get("/metrics").status_code == 403
    assert f"the permission returned {type(answer).__name__}" in caplog.text


def test_a_server_of_several_processes_without_a_shared_folder_is_told_of_once(
    hub: Host, caplog: pytest.LogCaptureFixture
):
    for _ in range(2):
        hub.app.test_client().get("/metrics", environ_overrides={"wsgi.multiprocess": True})

    assert len([record for record in caplog.records if "PROMETHEUS_MULTIPROC_DIR" in record.message]) == 1


def test_nothing_is_mounted_where_no_path_is_given_and_the_hosts_own_page_shows_all(hosts: Build, sqlite_url: str):
    registry, metrics = CollectorRegistry(auto_describe=True), WebhookMetrics()
    host = hosts(sqlite_url, after=lambda app: metrics.init_app(app, registry=registry))

    assert host.app.test_client().get("/metrics").status_code == 404
    with host.app.app_context():
        assert metrics.registry is registry
    assert Scrape(generate_latest(registry).decode()).value("database_up") == 1


def test_setting_up_asks_no_database(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url)
    with host.statements() as statements:
        WebhookMetrics(host.app, registry=CollectorRegistry(auto_describe=True))

    assert statements == []


def test_one_object_serves_two_apps_that_count_for_themselves(measured: Build, tmp_path: Path):
    metrics = WebhookMetrics()
    one, other = (measured(f"sqlite:///{tmp_path / name}", metrics=metrics) for name in ("one.db", "other.db"))
    task_id = one.add_task()
    one.post(task_id, completed(task_id))

    assert scrape(one).counts("deliveries_total", "verdict") == {("processed",): 1}
    assert scrape(other).counts("deliveries_total", "verdict") == {}


def test_a_second_set_up_and_one_before_the_extension_are_refused(hub: Host):
    with pytest.raises(RuntimeError, match="already set up"):
        WebhookMetrics(hub.app)
    with pytest.raises(RuntimeError, match=r"webhook\.init_app"):
        WebhookMetrics(Flask("other"))
    with Flask("other").app_context(), pytest.raises(RuntimeError, match=r"metrics\.init_app"):
        _ = WebhookMetrics().registry


def test_a_shared_folder_that_is_not_there_is_named(
    measured: Build, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "nowhere"))

    with pytest.raises(ConfigurationError, match=r"PROMETHEUS_MULTIPROC_DIR is .*nowhere"):
        measured(sqlite_url)


def test_without_the_extra_the_import_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    package = "flask_contenthub_webhook.contrib.prometheus"
    for name in [name for name in sys.modules if name.startswith(package)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(ImportError, match=r"flask-contenthub-webhook\[prometheus\]"):
        importlib.import_module(package)


def test_every_metric_of_the_catalogue_is_there_and_no_other(hub: Host):
    alert = hub.state.models.alert
    add(hub, alert, name="failure_rate", raised=True)
    described = {family.name for family in DatabaseCollector(hub.state).describe()}
    with hub.app.app_context():
        families = {
            family.name: family for family in hub.app.extensions["contenthub_webhook_metrics"].registry.collect()
        }

    assert set(families) == {metric.name.removesuffix("_total") for metric in METRICS}
    assert described == {metric.name for metric in METRICS if metric.kind == "gauge"}
    for metric in METRICS:
        assert families[metric.name.removesuffix("_total")].type == metric.kind
        assert families[metric.name.removesuffix("_total")].documentation == metric.doc
