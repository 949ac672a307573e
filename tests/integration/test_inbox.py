"""The inbox: what is accepted now and applied later, in the order of its arrival, whatever happens meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import mapped_column
from werkzeug.test import TestResponse

from flask_contenthub_webhook import DeliveryMixin, GenerationTaskMixin, task_failed, task_progress
from flask_contenthub_webhook.core.state_machine import Verdict
from flask_contenthub_webhook.creators import RemoteState, Report
from flask_contenthub_webhook.engine.retry import RetryReport, _apply_claimed, _claim, work_off
from flask_contenthub_webhook.engine.worker import Worker
from flask_contenthub_webhook.errors import CreatorUnreachable
from flask_contenthub_webhook.models.columns import UTCDateTime
from flask_contenthub_webhook.runtime.backpressure import Backpressure
from flask_contenthub_webhook.storage.inbox import InboxStore
from flask_contenthub_webhook.storage.inbox_statements import CHANNEL
from tests.support.databases import FIXTURES, KINDS
from tests.support.host import Host, completed, custom, encode, failed, progress

Build = Callable[..., Host]
NO_FEATURES = "no capabilities"


def build(hosts: Build, url: str, **config: Any) -> Host:
    return hosts(url, WEBHOOK_PROCESSING="worker", WEBHOOK_EVENTS="illustrated", **config)


@pytest.fixture(params=[*KINDS, NO_FEATURES])
def hub(request: pytest.FixtureRequest, hosts: Build) -> Host:
    """A host that leaves events to a worker: on each kind of database, and on one that can do nothing special."""
    host = build(hosts, request.getfixturevalue(FIXTURES.get(request.param, "sqlite_url")))
    if request.param == NO_FEATURES:
        host.use_features()
    return host


@pytest.fixture
def lite(hosts: Build, sqlite_url: str) -> Host:
    """Where the kind of database does not matter."""
    return build(hosts, sqlite_url)


def first_words(statements: list[str]) -> list[str]:
    """What statements do; an INSERT that also wakes the workers, which one in 50 ms does, begins with WITH."""
    return [{"WITH": "INSERT"}.get(word := one.split()[0], word) for one in statements]


def work(host: Host, *, limit: int = 100, longest_hold: float = 60, **options: Any) -> RetryReport:
    """One worker's look at the inbox."""
    report = RetryReport()
    work_off(host.state, report, limit=limit, longest_hold=longest_hold, **options)
    return report


def waiting(host: Host, task_id: str | None = None) -> list[Any]:
    return [row for row in host.deliveries(task_id) if row.next_retry_at is not None]


def verdicts(host: Host, task_id: str | None = None) -> list[str]:
    return [row.verdict for row in host.deliveries(task_id)]


def told(answer: TestResponse) -> Any:
    """The document that was answered."""
    return answer.json


class Log:
    """A handler of custom events that notes their numbers, and does what it is told before that."""

    def __init__(self, host: Host) -> None:
        self.host, self.numbers = host, list[int]()
        self.act: Callable[[int], None] = lambda number: None
        host.webhook.on("illustrated")(self)

    def __call__(self, app: Flask, *, event: Any, task: Any, **extra: Any) -> None:
        number = event.payload["number"]
        self.act(number)
        self.host.db.session.add(self.host.Content(task_id=task.task_id, body=str(number)))
        self.numbers.append(number)

    def send(self, task_id: str, *numbers: int) -> None:
        for number in numbers:
            answer = self.host.post(task_id, custom(task_id, "illustrated", number=number))
            assert (answer.status_code, told(answer)["outcome"]) == (202, "queued")


# --- the door ----------------------------------------------------------------------------------------------------


class TestAcceptance:
    def test_an_event_is_acknowledged_with_202_and_waits(self, hub: Host) -> None:
        task_id = hub.add_task()
        answer = hub.post(task_id, completed(task_id), attempt=1)

        assert answer.status_code == 202
        assert told(answer)["outcome"] == "queued"
        assert told(answer)["details"]["status"] == "submitted"
        (row,) = hub.deliveries(task_id)
        assert told(answer)["delivery_id"] == row.id
        assert (row.verdict, row.attempt, row.tries, row.status_before) == ("queued", 1, 0, "submitted")
        assert (row.processed_at, row.latency_ms, row.claimed_until) == (None, None, None)
        assert row.next_retry_at is not None
        assert (hub.task(task_id).status, hub.contents()) == ("submitted", [])

    def test_a_worker_gives_it_its_effect_once(self, hub: Host) -> None:
        task_id = hub.add_task()
        hub.post(task_id, completed(task_id, "# done"), attempt=1)
        hub.clock.advance(2)

        assert work(hub).outcomes == {"processed": 1}
        assert work(hub).claimed == 0

        assert (hub.task(task_id).status, hub.contents(task_id)) == ("completed", ["# done"])
        (row,) = hub.deliveries(task_id)
        assert (row.verdict, row.status_before, row.status_after) == ("processed", "submitted", "completed")
        assert (row.next_retry_at, row.claimed_until, row.error, row.latency_ms) == (None, None, None, 2000)

    def test_what_is_wrong_is_still_refused_at_the_door(self, lite: Host) -> None:
        task_id, other = lite.add_task(), lite.add_task()
        unknown = "00000000-0000-4000-8000-000000000000"
        unsigned = f"/api/v1/content/callback/{task_id}"
        for answer, status, code in (
            (lite.post(unknown, completed(unknown)), 404, "task_not_found"),
            (lite.post_signed(task_id, completed(other), "contenthub"), 409, "task_mismatch"),
            (lite.post(task_id, b"{"), 400, "invalid_json"),
            (lite.post(task_id, custom(task_id, "unheard-of")), 400, "unknown_event"),
            (lite.post(task_id, completed(task_id), path=unsigned), 403, "signature_missing"),
        ):
            assert (answer.status_code, told(answer)["error"]["code"]) == (status, code)
        assert waiting(lite) == []

    def test_it_costs_one_statement_which_a_server_commits_by_itself(self, hosts: Build, database_url: str) -> None:
        host = build(hosts, database_url)
        host.state.backpressure = Backpressure(host.state.database, 1000, recount=3600)
        task_id, named = host.add_task(), host.add_task(creator_task_id="theirs")
        for attempt in (None, 1):  # counts the inbox, prepares, and looks once at the database
            host.post(task_id, completed(task_id), attempt=attempt)
        with host.statements() as seen:
            host.post(task_id, completed(task_id), attempt=1)
        whole = ["INSERT", "COMMIT"] if host.engine.dialect.name == "sqlite" else ["INSERT"]
        assert first_words(seen) == whole
        host.post_signed(named, completed("theirs"), "contenthub")
        with host.statements() as seen:
            host.post_signed(named, completed("theirs"), "contenthub")
        assert first_words(seen) == whole

    def test_workers_are_woken_when_the_row_is_there(self, hosts: Build, postgres_url: str) -> None:
        host = build(hosts, postgres_url)
        task_id = host.add_task()
        with host.statements() as seen:
            host.post(task_id, failed(task_id))  # speaks for no attempt, so the task is looked at first
        steps = ["notify" if "pg_notify" in one else "row" for one in seen if "pg_notify" in one or "INSERT" in one]
        assert steps == ["row", "notify"]

    def test_a_database_that_is_away_is_said_with_503(self, hosts: Build, postgres_url: str, postgres: Any) -> None:
        host = build(hosts, postgres_url)
        task_id = host.add_task()
        with postgres.outage():
            one = host.post(task_id, completed(task_id))
            many = host.post_batch([completed(task_id)], scheme="contenthub")
            assert work(host).interrupted
        for answer in (one, many):
            assert (answer.status_code, told(answer)["error"]["code"]) == (503, "database_unavailable")
            assert "Retry-After" in answer.headers
        assert host.deliveries() == []

    def test_a_host_may_name_columns_as_it_likes_and_give_them_defaults(self, hosts: Build, database_url: str) -> None:
        def models(db: SQLAlchemy) -> dict[str, Any]:
            big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
            task = {
                "__tablename__": "jobs",
                "__table_args__": (),
                "id": mapped_column("row", big, primary_key=True),
                "task_id": mapped_column("job", sa.String(36), unique=True),
                "attempt": mapped_column("number", sa.Integer, default=1),
            }
            log = {
                "__tablename__": "job_log",
                "__table_args__": (),
                "id": mapped_column("row", big, primary_key=True),
                "task_id": mapped_column("job", sa.String(255)),
                "verdict": mapped_column("outcome", sa.String(16)),
                "next_retry_at": mapped_column("due_at", UTCDateTime),
                "claimed_until": mapped_column("held_until", UTCDateTime),
                "tenant": mapped_column(sa.String(8), nullable=False, default=lambda: "ours"),
            }
            return {
                "task_model": type("Job", (GenerationTaskMixin, db.Model), task),
                "delivery_model": type("JobLog", (DeliveryMixin, db.Model), log),
            }

        host = build(hosts, database_url, models=models)
        log = Log(host)
        first, second = host.add_task(task_id="a", creator_task_id="theirs"), host.add_task(task_id="b")
        host.post_signed(first, completed("theirs"), "contenthub")
        log.send(second, 1, 2)
        host.post_batch([completed(second)], scheme="contenthub")

        assert work(host).outcomes == {"processed": 4}
        assert host.contents(second)[:2] == ["1", "2"]
        assert {row.tenant for row in host.deliveries()} == {"ours"}


# --- whose event it is --------------------------------------------------------------------------------------------


class TestAttempts:
    def test_a_signed_body_speaks_for_the_attempt_that_it_names(self, hub: Host) -> None:
        task_id = hub.add_task(creator_task_id="second", earlier_creator_task_ids=["first"], attempt=2)
        for name in ("second", "first", task_id):
            assert hub.post_signed(task_id, failed(name), "contenthub").status_code == 202
        assert [row.attempt for row in hub.deliveries(task_id)] == [2, 1, 2]

        assert work(hub).outcomes == {"processed": 1, "stale": 2}
        assert hub.task(task_id).attempt == 3

    def test_an_event_never_speaks_for_an_attempt_that_began_after_it_came(self, hub: Host) -> None:
        task_id = hub.add_task()
        hub.post(task_id, failed(task_id, "no more"), attempt=1)
        hub.post(task_id, failed(task_id, "said in other words"), attempt=None)
        assert work(hub).outcomes == {"processed": 1, "stale": 1}
        assert hub.task(task_id).attempt == 2

    @pytest.mark.parametrize("attempt", [1, None])
    @pytest.mark.parametrize("scheme", [None, "contenthub", "standard"])
    def test_a_copy_has_no_second_effect(self, lite: Host, scheme: str | None, attempt: int | None) -> None:
        task_id = lite.add_task()
        body = encode(failed(task_id))
        for _ in range(2):
            if scheme is None:
                lite.post(task_id, body, attempt=attempt)
            else:
                lite.post_signed(task_id, body, scheme, attempt=attempt, message_id="msg_1")
        assert work(lite).outcomes[Verdict.PROCESSED] == 1
        assert lite.task(task_id).attempt == 2

    @pytest.mark.parametrize("scheme", [None, "contenthub", "standard"])
    def test_an_old_failure_sent_again_cannot_fail_a_newer_attempt(self, lite: Host, scheme: str | None) -> None:
        task_id = lite.add_task()
        body = encode(failed(task_id))

        def send(attempt: int | None) -> None:
            if scheme is None:
                lite.post(task_id, body)
            else:
                lite.post_signed(task_id, body, scheme, attempt=attempt, message_id="msg_1")

        send(1)
        work(lite)
        send(2)
        send(None)
        assert work(lite).outcomes == {"duplicate": 2}
        assert lite.task(task_id).attempt == 2

    def test_two_identical_results_complete_once(self, hub: Host) -> None:
        task_id = hub.add_task()
        for _ in range(2):
            hub.post(task_id, completed(task_id, "# once"), attempt=1)
        assert work(hub).outcomes == {"processed": 1, "duplicate": 1}
        assert hub.contents(task_id) == ["# once"]


class SlowCreator:
    """Has a result, sooner or later."""

    def __init__(self) -> None:
        self.is_down = True

    def statuses(self, creator_task_ids: Any, *, since: Any = None) -> dict[str, Report]:
        if self.is_down:
            raise CreatorUnreachable("The creator is away.")
        return dict.fromkeys(creator_task_ids, Report(state=RemoteState.COMPLETED, result={"content": "# fetched"}))

    def status(self, creator_task_id: str) -> Report:
        return self.statuses([creator_task_id])[creator_task_id]

    result = status

    def submit(self, job: Any, *, wait: float) -> Report:
        raise AssertionError

    def cancel(self, creator_task_id: str) -> None:
        raise AssertionError


def test_a_thin_callback_is_completed_by_the_worker_not_by_the_request(hosts: Build, sqlite_url: str) -> None:
    creator = SlowCreator()
    host = build(hosts, sqlite_url)
    host.state.creator = creator
    task_id = host.add_task(creator_task_id="theirs")
    assert host.post(task_id, completed("theirs", None), attempt=1).status_code == 202

    assert work(host).outcomes == {"failed": 1}
    assert "away" in host.deliveries(task_id)[0].error
    creator.is_down = False
    host.clock.advance(34)
    assert work(host).outcomes == {"processed": 1}
    assert host.contents(task_id) == ["# fetched"]


# --- what fails ---------------------------------------------------------------------------------------------------


def test_what_a_handler_fails_at_is_tried_again_then_parked_and_can_be_replayed(hub: Host) -> None:
    task_id = hub.add_task()
    hub.post(task_id, completed(task_id), attempt=1)
    (row,) = hub.deliveries(task_id)
    hub.publisher.broken = True
    for tries, wait in ((1, 30), (2, 60), (3, 120)):
        assert work(hub).outcomes == {"failed": 1}
        (row,) = hub.deliveries(task_id)
        assert (row.verdict, row.tries, row.claimed_until) == ("failed", tries, None)
        assert row.next_retry_at - hub.clock.now == pytest.approx(timedelta(seconds=wait), rel=0.1)
        assert work(hub).claimed == 0
        hub.clock.advance(1.1 * wait)
    assert work(hub).outcomes == {"dead": 1}
    assert waiting(hub) == []
    hub.publisher.broken = False

    assert hub.replay(row.id).verdict == "processed"
    assert verdicts(hub, task_id) == ["replayed", "processed"]


def test_one_that_waits_for_its_next_try_holds_up_nobody(hub: Host) -> None:
    log, task_id = Log(hub), hub.add_task()

    def fail_at_the_second(number: int) -> None:
        if number == 2:
            raise ValueError(number)

    log.act = fail_at_the_second
    log.send(task_id, 1, 2, 3)
    assert work(hub).outcomes == {"processed": 2, "failed": 1}
    log.act = lambda number: None
    log.send(task_id, 4)
    hub.clock.advance(34)
    work(hub)
    assert log.numbers == [1, 3, 2, 4]


# --- order, leases, clocks ----------------------------------------------------------------------------------------


def claim(host: Host, limit: int = 100) -> list[Any]:
    """Claim as a worker does that is never heard of again."""
    return [one.row for one in _claim(host.state, limit, None)]


LEASE = 61
"""A little more than the lease, six times WEBHOOK_TIMEOUT."""


def test_later_events_of_a_task_wait_while_an_earlier_one_is_in_hand(hub: Host) -> None:
    log, busy, other = Log(hub), hub.add_task(), hub.add_task()
    log.send(busy, 1, 2)
    log.send(other, 10)
    held = claim(hub, limit=1)
    assert [row["task_id"] for row in held] == [busy]

    assert work(hub).outcomes == {"processed": 1}
    assert log.numbers == [10]
    hub.clock.advance(LEASE)
    work(hub)
    assert log.numbers == [10, 1, 2]
    assert [row.tries for row in hub.deliveries(busy)] == [2, 1]


def test_one_busy_task_keeps_no_other_from_its_turn(hub: Host) -> None:
    store = hub.state.store
    store.inbox = InboxStore(
        store.tasks,
        store.deliveries,
        connect=store.connection_of,
        capabilities=store.capabilities,
        clock=store.clock,
        window=3,
    )
    log, busy, other = Log(hub), hub.add_task(), hub.add_task()
    log.send(busy, *range(6))
    log.send(other, 10)
    claim(hub, limit=1)
    assert work(hub).outcomes == {"processed": 1}
    assert log.numbers == [10]


def test_a_claim_that_looks_at_few_since_the_last_one_was_full_misses_nobody(hub: Host) -> None:
    log, busy, other = Log(hub), hub.add_task(), hub.add_task()
    log.send(busy, *range(6))
    log.send(other, 10)
    assert [row["task_id"] for _ in range(3) for row in claim(hub, limit=1)] == [busy, other]


def test_a_task_without_further_events_is_not_asked_for_more(hub: Host) -> None:
    one, busy, other = (hub.add_task() for _ in range(3))
    for task_id, number in ((one, 1), (busy, 1), (busy, 2), (other, 1)):
        hub.post(task_id, custom(task_id, "illustrated", number=number))
    claimed = _claim(hub.state, 10, None)
    assert [(each.row["task_id"], each.more) for each in claimed] == [(one, False), (busy, True), (other, False)]


def test_an_event_whose_worker_dies_each_time_is_parked(hub: Host) -> None:
    task_id = hub.add_task()
    hub.post(task_id, completed(task_id), attempt=1)
    for _ in range(4):
        assert len(claim(hub)) == 1
        hub.clock.advance(LEASE)
    assert work(hub).outcomes == {"dead": 1}
    (row,) = hub.deliveries(task_id)
    assert "died" in row.reason
    assert (row.next_retry_at, hub.task(task_id).status) == (None, "submitted")
    assert hub.replay(row.id).verdict == "processed"


def test_the_end_of_a_batch_is_kept_from_others_while_the_beginning_takes_long(hosts: Build, server_url: str) -> None:
    hub = build(hosts, server_url)
    log, first, second = Log(hub), hub.add_task(), hub.add_task()
    stolen: list[int] = []

    def take_forty_seconds(number: int) -> None:
        hub.clock.advance(40)
        if number == 2:  # past the first lease, which was renewed when this one's turn came
            with ThreadPoolExecutor(1) as another:
                stolen.append(len(another.submit(claim, hub).result()))

    log.act = take_forty_seconds
    log.send(first, 1)
    log.send(second, 2)
    assert work(hub).outcomes == {"processed": 2}
    assert stolen == [0]


def test_a_delivery_whose_lease_ended_and_that_another_took_is_left_to_it(hub: Host) -> None:
    log, first, second = Log(hub), hub.add_task(), hub.add_task()
    log.send(first, 1)
    log.send(second, 2)
    mine = claim(hub)
    hub.clock.advance(LEASE)
    theirs = claim(hub)
    assert [row["id"] for row in mine] == [row["id"] for row in theirs]

    assert [_apply_claimed(hub.state, row) for row in mine] == ["queued", "queued"]
    assert [_apply_claimed(hub.state, row) for row in theirs] == ["processed", "processed"]
    assert log.numbers == [1, 2]


def test_whoever_comes_too_late_with_an_effect_leaves_no_trace(hub: Host) -> None:
    """Its lease ended while it worked, as far as others could tell: the row was settled by another."""
    log, task_id, other = Log(hub), hub.add_task(), hub.add_task()
    log.send(task_id, 1)
    hub.post(other, completed(other), attempt=1)
    mine = claim(hub)
    hub.clock.advance(LEASE)
    work(hub)
    hub.clock.advance(-LEASE)  # whose clock says that the lease still lasts
    assert {_apply_claimed(hub.state, row) for row in mine} == {"processed"}
    assert (hub.contents(task_id), len(hub.contents(other))) == (["1"], 1)
    assert verdicts(hub) == ["processed", "processed"]


def test_a_worker_that_stops_gives_back_what_it_has_not_begun(hub: Host) -> None:
    log, busy, other = Log(hub), hub.add_task(), hub.add_task()
    stopped = threading.Event()
    log.act = lambda number: stopped.set()
    log.send(busy, 1, 2)  # the second is claimed when the first is done: another lease than the other task's
    log.send(other, 3)
    hub.clock.advance(1)

    assert work(hub, is_stopped=stopped.is_set).claimed == 1

    assert [(row.next_retry_at.year, row.claimed_until) for row in waiting(hub)] == [(1970, None)] * 2
    assert work(hub).outcomes == {"processed": 2}
    assert {row.tries for row in hub.deliveries()} == {1}


def test_a_slow_handler_does_not_keep_the_rest_of_its_batch_from_others(hub: Host) -> None:
    log = Log(hub)
    log.act = lambda number: time.sleep(0.02)
    for number in range(3):
        log.send(hub.add_task(), number)
    assert work(hub, longest_hold=0.01).claimed == 1
    assert [row.claimed_until for row in waiting(hub)] == [None, None]


def test_a_task_that_somebody_holds_costs_the_rest_nothing(hosts: Build, server_url: str) -> None:
    host = build(hosts, server_url, WEBHOOK_TIMEOUT=0.1)
    held, free = host.add_task(), host.add_task()
    for task_id in (held, free):
        host.post(task_id, completed(task_id), attempt=1)
    table = host.state.task_model.__table__
    with host.engine.begin() as connection:
        connection.execute(sa.select(table).where(table.c.task_id == held).with_for_update())
        assert work(host).interrupted
        assert {(row.claimed_until, row.tries) for row in waiting(host)} == {(None, 0)}
    assert work(host).outcomes == {"processed": 2}


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_costs_no_event_and_no_order(hub: Host, hours: int) -> None:
    log, task_id, failing = Log(hub), hub.add_task(), hub.add_task()
    hub.publisher.broken = True
    hub.post(failing, completed(failing), attempt=1)
    work(hub)
    log.send(task_id, 1, 2)
    hub.clock.advance(3600 * hours)
    log.send(task_id, 3)
    hub.publisher.broken = False
    work(hub)

    assert log.numbers == [1, 2, 3]
    if hours < 0:  # a time in the future is waited for, however far off it has become
        assert [row.verdict for row in waiting(hub)] == ["failed"]
        hub.clock.advance(3640)
        work(hub)
    assert len(hub.contents(failing)) == 1
    assert waiting(hub) == []


# --- back-pressure ------------------------------------------------------------------------------------------------


def test_a_full_inbox_turns_away_and_recovers(hosts: Build, database_url: str) -> None:
    host = build(hosts, database_url, WEBHOOK_INBOX_LIMIT=3)
    host.state.backpressure = Backpressure(host.state.database, 3, recount=0)
    tasks = [host.add_task() for _ in range(3)]
    for task_id in tasks:
        assert host.post(task_id, completed(task_id), attempt=1).status_code == 202

    one = host.post(tasks[0], completed(tasks[0]), attempt=1)
    many = host.post_batch([completed(tasks[0])], scheme="contenthub")
    for answer in (one, many):
        assert (answer.status_code, told(answer)["error"]["code"]) == (503, "inbox_full")
        assert answer.headers["Retry-After"] == "10"
    assert len(host.deliveries()) == 3

    work(host, limit=1)
    assert host.post(tasks[0], completed(tasks[0]), attempt=1).status_code == 202


def test_between_two_counts_a_process_adds_what_it_accepted(lite: Host) -> None:
    lite.state.backpressure = Backpressure(lite.state.database, 2, recount=3600)
    task_id = lite.add_task()
    answers = [lite.post(task_id, completed(task_id)).status_code for _ in range(3)]
    assert answers == [202, 202, 503]


def test_a_wake_up_that_is_rolled_back_does_not_hold_back_the_next(lite: Host) -> None:
    unknown, task_id = "00000000-0000-4000-8000-000000000000", lite.add_task()
    lite.post(unknown, completed(unknown))
    assert lite.state.backpressure.may_notify()
    lite.post(task_id, completed(task_id))
    assert not lite.state.backpressure.may_notify()


def test_no_worker_is_woken_before_it_can_see_the_event(hosts: Build, postgres_url: str) -> None:
    """It would find nothing, and rest until the next look."""
    host = build(hosts, postgres_url)
    one, other, third = (host.add_task() for _ in range(3))
    host.post(one, completed(one))  # what is looked up once is looked up
    dsn = sa.make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        early: list[Any] = []
        sa.event.listen(host.engine, "commit", lambda _: early.extend(listener.notifies(timeout=0.1)))
        host.post_batch([completed(other), completed(third)], scheme="contenthub")
        assert len(list(listener.notifies(timeout=5, stop_after=1))) == 1
    assert early == []


# --- batches ------------------------------------------------------------------------------------------------------


def test_a_batch_is_queued_with_a_verdict_for_each_in_order(hub: Host) -> None:
    log, one, named = Log(hub), hub.add_task(), hub.add_task(creator_task_id="theirs")
    answer = hub.post_batch(
        [
            custom(one, "illustrated", number=1),
            completed("nobody's"),
            {"event": "completed"},
            "no object",
            completed("theirs", "# named"),
            custom(one, "illustrated", number=2),
        ],
        scheme="contenthub",
    )
    assert answer.status_code == 200
    assert told(answer)["success"] is False
    outcomes = [result.get("outcome") or result["error"]["code"] for result in told(answer)["results"]]
    assert outcomes == ["queued", "task_not_found", "invalid_payload", "invalid_payload", "queued", "queued"]
    ids = [result["delivery_id"] for result in told(answer)["results"] if result["success"]]
    assert [row.id for row in waiting(hub)] == ids
    assert [row.task_id for row in waiting(hub)] == [one, named, one]

    work(hub)
    assert log.numbers == [1, 2]
    assert hub.contents(named) == ["# named"]


def test_a_batch_of_a_hundred_costs_no_more_statements_than_one_of_two(hosts: Build, database_url: str) -> None:
    host = build(hosts, database_url)
    tasks = [host.add_task() for _ in range(100)]
    host.state.backpressure = Backpressure(host.state.database, 0, recount=3600)
    host.post(tasks[0], progress(tasks[0], 5))  # counts the inbox, for an hour
    costs = []
    for size in (2, 100):
        with host.statements() as seen:
            answer = host.post_batch([completed(task_id) for task_id in tasks[:size]], scheme="contenthub")
        assert told(answer)["success"]
        costs.append([statement.split()[0] for statement in seen])
    wake = ["SELECT"] if host.engine.dialect.name == "postgresql" else []
    assert costs[1] == ["SELECT", "INSERT", *wake, "COMMIT"]
    assert len(waiting(host)) == 103


def test_an_inline_batch_is_still_one_transaction_for_each(hosts: Build, sqlite_url: str) -> None:
    host = hosts(sqlite_url)
    tasks = [host.add_task() for _ in range(3)]
    with host.statements() as seen:
        answer = host.post_batch([completed(task_id) for task_id in tasks], scheme="contenthub")
    assert [result["outcome"] for result in told(answer)["results"]] == ["processed"] * 3
    assert seen.count("COMMIT") == 3


# --- the rest -----------------------------------------------------------------------------------------------------


def test_health_says_where_events_are_applied(lite: Host) -> None:
    health = lite.app.test_client().get("/api/v1/content/health")
    assert told(health)["processing"] == "worker"


def test_signals_of_every_kind_come_from_the_worker(lite: Host) -> None:
    seen: list[str] = []
    lite.connect(task_progress, lambda app, *, progress, **extra: seen.append(f"{progress['percentage']:g} %"))
    lite.connect(task_failed, lambda app, *, will_retry, **extra: seen.append(f"retry: {will_retry}"))
    task_id = lite.add_task()
    lite.post(task_id, progress(task_id, 40), attempt=1)
    lite.post(task_id, failed(task_id), attempt=1)
    assert seen == []
    work(lite)
    assert seen == ["40 %", "retry: True"]


def test_threads_that_are_told_to_stop_all_do(lite: Host) -> None:
    """Many times, since what one would miss is a matter of a moment."""
    for _ in range(5):
        worker = Worker(lite.state, threads=8)
        runner = threading.Thread(target=worker.run, kwargs={"on_start": worker.stop})
        runner.start()
        runner.join(10)
        assert not runner.is_alive()
