"""The alerts: raised once, cleared once, by whichever process finds out; time passes on a clock that is moved."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook.operations.alerts import AlertStatus
from flask_contenthub_webhook.signals import alert_changed, failure_rate_exceeded
from tests.support.databases import FIXTURES
from tests.support.host import PREFIX, Host, completed, failed, progress
from tests.support.processes import PROJECT_ROOT, clean_environment

WINDOW = 300
CALLBACK_URL = "https://hub.example/callback"

on_each_database = pytest.mark.parametrize("host", FIXTURES.values(), indirect=True)


@pytest.fixture
def host(hosts: Any, request: pytest.FixtureRequest) -> Host:
    """The default host on SQLite, or where a test says so on each kind of database."""
    made: Host = hosts(request.getfixturevalue(getattr(request, "param", "sqlite_url")))
    return made


def changes_of(host: Host) -> list[tuple[str, bool]]:
    """Every change that is told from now on: the alert, and whether it was raised."""
    changes: list[tuple[str, bool]] = []
    host.connect(alert_changed, lambda app, *, alert, **extra: changes.append((alert.name, alert.raised)))
    return changes


def check(host: Host) -> dict[str, AlertStatus]:
    with host.app.app_context():
        return {alert.name: alert for alert in host.webhook.check_alerts()}


def events(host: Host, count: int, failures: int = 0, **values: Any) -> None:
    """Callbacks that come now, of which some fail in a handler and are parked."""
    row = {
        "source": "webhook",
        "event": "completed",
        "received_at": host.clock.now,
        "processed_at": host.clock.now,
        **values,
    }
    verdicts = ["dead"] * failures + [values.get("verdict", "processed")] * (count - failures)
    with host.app.app_context():
        host.db.session.execute(sa.insert(host.state.delivery_model), [{**row, "verdict": v} for v in verdicts])
        host.db.session.commit()


# --- the failure rate ----------------------------------------------------------------------------------------------


@pytest.fixture
def checkers(host: Host) -> Iterator[list[subprocess.Popen[str]]]:
    """Four processes that check when they are told the time."""
    database_url = host.app.config["SQLALCHEMY_DATABASE_URI"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.alert_checker"],
            cwd=PROJECT_ROOT,
            env=clean_environment(PYTHONPATH=str(PROJECT_ROOT), DATABASE_URL=database_url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    yield processes
    for process in processes:
        process.communicate()
        assert process.returncode == 0


def check_everywhere(checkers: list[subprocess.Popen[str]], host: Host) -> tuple[list[Any], list[Any]]:
    """Let all processes check at this moment; what all of them together told, and logged."""
    for process in checkers:
        process.stdin.write(f"{host.clock.now.isoformat()}\n")
        process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for process in checkers]
    return [item for answer in answers for item in answer["told"]], [item for a in answers for item in a["log"]]


@on_each_database
def test_four_processes_fire_once_and_clear_once_on_9_11_11_9_percent(host, checkers):
    told, log = [], []

    def stream(*windows: tuple[int, int]) -> None:
        for count, failures in windows:
            for moment in range(4):  # evenly over the window, checked all the time
                host.clock.advance(WINDOW / 4)
                events(host, count // 4, failures // 4 + (moment >= 4 - failures % 4))
                more_told, more_log = check_everywhere(checkers, host)
                told.extend(more_told)
                log.extend(more_log)

    stream((16, 1), (16, 3), (16, 3), (16, 1))  # 6 % and 19 %, but of fewer than 20
    assert (told, log) == ([], [])
    host.clock.advance(2 * WINDOW)

    stream((100, 9), (100, 11), (100, 11), (100, 9))

    assert [change for change in told if change[0] == "failure_rate"] == [
        ["failure_rate", True],
        ["failure_rate", False],
    ]
    raised, cleared = (change for change in told if change[0] != "failure_rate")
    assert (raised[0] > 0.10, raised[1:]) == (True, [100, False])
    assert cleared == [0.09, 100, True]
    assert [level for level, _ in log] == ["WARNING", "INFO"]
    assert log[0][1].startswith("Alert failure_rate raised: The handlers failed at 1")


@on_each_database
def test_the_row_says_what_was_measured_and_when(host):
    told = changes_of(host)
    events(host, 40, 8)
    began = host.clock.now
    alert = check(host)["failure_rate"]
    assert (alert.raised, alert.value, alert.limit, alert.sample) == (True, 0.2, 0.1, 40)
    assert alert.window == timedelta(seconds=WINDOW)
    assert alert.changed_at == alert.checked_at == began
    assert alert.message == "The handlers failed at 20.0% of 40 events within 5 min (limit: 10.0%)."

    host.clock.advance(WINDOW + 1)
    events(host, 40)
    alert = check(host)["failure_rate"]
    assert (alert.raised, alert.value, alert.changed_at) == (False, 0, began + timedelta(seconds=WINDOW + 1))
    assert told == [("failure_rate", True), ("failure_rate", False)]


def test_a_process_that_starts_while_it_is_raised_does_not_fire_again(hosts, sqlite_url):
    first = hosts(sqlite_url)
    events(first, 40, 8)
    assert check(first)["failure_rate"].raised

    second = hosts(sqlite_url, create_tables=False)
    changes: list[Any] = []
    second.connect(alert_changed, lambda app, **extra: changes.append(extra))
    second.clock.now = first.clock.now + timedelta(seconds=30)

    assert check(second)["failure_rate"].raised
    assert changes == []


@on_each_database
def test_what_counts_is_what_was_given_to_the_handlers(host):
    events(host, 30, 6)
    for verdict in ("duplicate", "ignored", "stale", "rejected", "queued"):
        events(host, 50, verdict=verdict)
    events(host, 50, source="replay")
    events(host, 50, source="host")
    events(host, 50, source="response", event="submitted")
    alert = check(host)["failure_rate"]
    assert (alert.value, alert.sample) == (0.2, 30)


def test_forged_requests_and_failures_of_the_creator_are_no_failures_of_ours(host):
    for _ in range(25):
        task_id = host.add_task(max_retries=0)
        assert host.post(task_id, failed(task_id)).status_code == 200
        assert (
            host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}?token=forged").status_code == 401
        )
    alert = check(host)["failure_rate"]
    assert (alert.raised, alert.value, alert.sample) == (False, 0, 25)


def test_a_handler_that_fails_raises_it_and_once_the_retries_succeed_it_is_cleared(host):
    told = changes_of(host)
    host.publisher.broken = True
    for _ in range(20):
        task_id = host.add_task()
        assert host.post(task_id, completed(task_id)).status_code == 500
    assert check(host)["failure_rate"].value == 1
    host.publisher.broken = False
    host.clock.advance(60)
    host.retry()
    alert = check(host)["failure_rate"]
    assert (alert.raised, alert.value, alert.sample) == (False, 0, 20)
    assert told == [("failure_rate", True), ("failure_rate", False)]


def test_a_stream_of_progress_does_not_hide_that_every_result_fails(host):
    events(host, 400, event="progress")
    events(host, 20, 20)
    alert = check(host)["failure_rate"]
    assert (alert.raised, alert.value, alert.sample) == (True, 1, 20)


def test_what_the_poller_brings_counts_as_well(host):
    events(host, 20, 10, source="poll")
    assert check(host)["failure_rate"].raised


def test_an_event_counts_when_it_was_decided(host):
    now, earlier = host.clock.now, host.clock.now - timedelta(seconds=WINDOW + 60)
    events(host, 30, 30, received_at=earlier, processed_at=now - timedelta(seconds=WINDOW + 1), latency_ms=59_000.0)
    events(host, 20)
    events(host, 5, 5, received_at=earlier, latency_ms=1000.0 * (WINDOW + 60))  # they waited in the inbox
    alert = check(host)["failure_rate"]
    assert (alert.value, alert.sample) == (0.2, 25)


def test_events_that_waited_and_all_ended_dead_raise_it(hosts, database_url):
    host = hosts(database_url, WEBHOOK_PROCESSING="worker")
    host.publisher.broken = True
    for task_id in [host.add_task() for _ in range(20)]:
        host.post(task_id, completed(task_id), attempt=1)
    host.clock.advance(360)
    host.retry()
    alert = check(host)["failure_rate"]
    assert (alert.raised, alert.value, alert.sample) == (True, 1, 20)
    while waits(host):
        host.clock.advance(140)
        host.retry()
    alert = check(host)["failure_rate"]
    assert (alert.raised, alert.value, alert.sample) == (True, 1, 20)
    assert {row.verdict for row in host.deliveries()} == {"dead"}


def waits(host: Host) -> bool:
    return any(row.next_retry_at is not None for row in host.deliveries())


def test_when_nothing_comes_any_more_it_is_cleared_after_a_window(host):
    told = changes_of(host)
    events(host, 20, 10)
    assert check(host)["failure_rate"].raised
    host.clock.advance(WINDOW - 1)
    assert check(host)["failure_rate"].raised
    host.clock.advance(2)  # the events are out of sight now; the last check that saw them is two seconds ago
    assert check(host)["failure_rate"].raised
    host.clock.advance(WINDOW - 2)
    assert not check(host)["failure_rate"].raised
    assert told == [("failure_rate", True), ("failure_rate", False)]


# --- silence -------------------------------------------------------------------------------------------------------


def hand_over(host: Host, *, minutes_ago: float, **values: Any) -> str:
    """A task that the creator accepted so long ago."""
    submitted_at = host.clock.now - timedelta(minutes=minutes_ago)
    return host.add_task(**{"callback_url": CALLBACK_URL, "submitted_at": submitted_at, **values})


@on_each_database
def test_no_callback_for_half_an_hour_while_a_task_waits_for_one(host):
    told = changes_of(host)
    task_id = hand_over(host, minutes_ago=29)
    assert not check(host)["silence"].raised
    host.clock.advance(61)
    alert = check(host)["silence"]
    assert (alert.raised, alert.value, alert.sample, alert.window) == (True, 1, 1, timedelta(minutes=30))
    assert "No callback has come for 30 min" in alert.message

    assert host.post(task_id, progress(task_id, 10)).status_code == 200
    assert not check(host)["silence"].raised
    host.clock.advance(29 * 60)
    assert not check(host)["silence"].raised
    assert told == [("silence", True), ("silence", False)]


@pytest.mark.parametrize(
    "task",
    [
        {"callback_url": None},
        {"status": "pending"},
        {"status": "completed", "next_poll_at": None},
    ],
    ids=["asks for no callback", "is not handed over", "is settled"],
)
def test_a_task_that_waits_for_no_callback_is_no_reason(host, task):
    hand_over(host, minutes_ago=60, **task)
    assert not check(host)["silence"].raised


def test_strangers_do_not_break_the_silence(host):
    task_id = hand_over(host, minutes_ago=60)
    host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}?token=forged")
    assert check(host)["silence"].raised


@on_each_database
def test_what_the_poller_has_to_settle_tells_of_lost_callbacks(host):
    """With a poller hardly any task stays open for half an hour."""
    task_id = hand_over(host, minutes_ago=20, status="completed", next_poll_at=None)
    events(host, 1, source="poll", task_id=task_id)
    assert not check(host)["silence"].raised  # its callback may be on the way
    host.clock.advance(121)
    assert check(host)["silence"].raised
    events(host, 1, verdict="duplicate", task_id=task_id)
    assert not check(host)["silence"].raised


def test_what_the_poller_settles_of_tasks_without_callbacks_tells_nothing(host):
    task_id = hand_over(host, minutes_ago=20, callback_url=None, status="completed", next_poll_at=None)
    events(host, 1, source="poll", task_id=task_id)
    host.clock.advance(121)
    assert not check(host)["silence"].raised


def test_where_callbacks_are_off_silence_is_wanted(hosts, sqlite_url):
    host = hosts(sqlite_url, WEBHOOK_ENABLED=False)
    hand_over(host, minutes_ago=60)
    assert not check(host)["silence"].raised


# --- signature failures --------------------------------------------------------------------------------------------


def forge(host: Host, count: int, *, every: float = 1.0) -> None:
    """Requests with a wrong token, one after another."""
    for _ in range(count):
        host.post("some-task", completed("some-task"), path=f"{PREFIX}/callback/some-task?token=forged")
        host.clock.advance(every)


@on_each_database
def test_many_signature_failures_at_once_raise_it_and_it_is_cleared_when_they_end(host):
    told = changes_of(host)
    forge(host, 20)
    assert not check(host)["signature_failures"].raised
    forge(host, 12)
    alert = check(host)["signature_failures"]
    assert alert.raised
    assert alert.sample > 20
    assert "is the key the same on both sides?" in alert.message

    host.clock.advance(WINDOW + 60)
    assert not check(host)["signature_failures"].raised
    assert told == [("signature_failures", True), ("signature_failures", False)]


def test_a_steady_noise_of_strangers_is_no_jump_but_a_jump_on_top_of_it_is(host):
    for _ in range(7):  # half an hour and more, 30 in five minutes; checked once it is usual
        forge(host, 30, every=10)
    assert not check(host)["signature_failures"].raised
    forge(host, 110, every=2)
    alert = check(host)["signature_failures"]
    assert alert.raised
    assert alert.limit == pytest.approx(90, rel=0.1)


def test_a_jump_that_lasts_does_not_become_usual(host):
    told = changes_of(host)
    for _ in range(20):  # with the window, the half hour that tells what is usual is long over
        forge(host, 25, every=WINDOW / 25)
        check(host)
    assert told == [("signature_failures", True)]


def test_all_reasons_are_counted_together_and_other_refusals_are_not(host):
    for _ in range(11):
        host.post("t", completed("t"), path=f"{PREFIX}/callback/t?token=forged")
        host.post("t", completed("t"), path=f"{PREFIX}/callback/t")
        host.post("t", b"no json", path=host.path("t"))
        host.clock.advance(6)
    alert = check(host)["signature_failures"]
    assert (alert.raised, alert.sample) == (True, 22)


# --- all of them ---------------------------------------------------------------------------------------------------


def test_an_alert_can_be_switched_off_and_one_that_was_raised_is_cleared(hosts, sqlite_url):
    host = hosts(sqlite_url)
    events(host, 40, 8)
    assert check(host)["failure_rate"].raised
    off = {"WEBHOOK_FAILURE_RATE_ALERT": 0, "WEBHOOK_SILENCE_ALERT": "0", "WEBHOOK_SIGNATURE_FAILURE_ALERT": None}
    later = hosts(sqlite_url, create_tables=False, **off)
    changes: list[Any] = []
    later.connect(alert_changed, lambda app, *, alert, **extra: changes.append((alert.name, alert.raised)))
    hand_over(later, minutes_ago=60)
    forge(later, 30)
    events(later, 40, 40)

    alerts = check(later)

    assert {(alert.enabled, alert.raised, alert.value) for alert in alerts.values()} == {(False, False, None)}
    assert changes == [("failure_rate", False)]


def test_a_receiver_that_raises_is_logged_and_keeps_nobody_from_being_told(host, caplog):
    told = changes_of(host)

    def broken(app: Any, **extra: Any) -> None:
        raise RuntimeError("the pager is down")

    rates: list[Any] = []
    host.connect(alert_changed, broken)
    host.connect(failure_rate_exceeded, lambda app, **extra: rates.append(extra))
    events(host, 40, 8)
    with caplog.at_level(logging.INFO):
        check(host)
    assert told == [("failure_rate", True)]
    assert rates == [{"rate": 0.2, "sample": 40, "window": timedelta(seconds=WINDOW), "cleared": False}]
    assert "A receiver of contenthub-alert-changed raised" in caplog.text
    assert check(host)["failure_rate"].raised


def test_a_check_is_a_handful_of_statements_and_reads_no_body(host):
    events(host, 50, 10)
    check(host)
    with host.statements() as statements:
        check(host)
    reads = [line for line in statements if line.startswith(("SELECT", "WITH"))]
    assert len(reads) <= 12
    assert not [line for line in reads if "body" in line or "headers" in line]
    assert len([line for line in statements if line.startswith("UPDATE")]) == 3
    assert statements.count("COMMIT") == 1


@on_each_database
def test_a_loser_of_the_race_tells_nothing(host):
    """Another process raised it between our measuring and our writing."""
    told = changes_of(host)
    events(host, 40, 8)
    check(host)
    told.clear()
    with host.app.app_context():
        host.db.session.execute(sa.text("UPDATE webhook_alerts SET raised = false, version = 1"))
        host.db.session.commit()
    engine, raced = host.engine, list[bool]()

    def another(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE webhook_alerts") and not raced:
            raced.append(True)
            cursor.execute("UPDATE webhook_alerts SET raised = true, version = 2 WHERE name = 'failure_rate'")

    sa.event.listen(engine, "before_cursor_execute", another)
    assert check(host)["failure_rate"].raised
    assert raced
    assert told == []


def test_the_first_check_of_all_may_be_made_by_two_at_once(host):
    engine, raced = host.engine, list[bool]()

    def another(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO webhook_alerts") and not raced:
            raced.append(True)
            cursor.execute("INSERT INTO webhook_alerts (name, raised, sample, version) VALUES ('silence', false, 0, 1)")

    sa.event.listen(engine, "before_cursor_execute", another)
    assert set(check(host)) == {"failure_rate", "silence", "signature_failures"}
