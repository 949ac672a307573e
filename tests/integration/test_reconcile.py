"""One pass asks about what is due, applies what it hears, and shares the work with any number of other passes.

As a program (``python -m tests.integration.test_reconcile DATABASE_URL FILE``) it is one of those other passes.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flask_contenthub_webhook import task_failed, task_timed_out
from flask_contenthub_webhook.creators import HttpCreator, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorRefused, CreatorUnclear, CreatorUnreachable
from flask_contenthub_webhook.signals import reconcile_finished
from flask_contenthub_webhook.storage.store import Capabilities, Store
from flask_contenthub_webhook.testing import CreatorSimulator
from tests.support.host import Host, at_once, completed, failed, make_host, progress
from tests.support.processes import PROJECT_ROOT, clean_environment, wait_until

Build = Callable[..., Host]
BASE = "https://hub.example"
OPEN = Report(state=RemoteState.OPEN)
MISSING = Report(state=RemoteState.MISSING)
DONE = Report(state=RemoteState.COMPLETED, result={"content": "# Done"}, raw=b'{"the": "answer"}')
FEATURES = {
    "all capabilities": None,
    "no RETURNING": Capabilities(returning=False, skip_locked=False),
}


class OwnCreator:
    """A creator that answers from a dictionary; ``lists`` says whether it can be asked about many at once."""

    def __init__(self, host: Host | None = None, *, lists: bool = True) -> None:
        self._host = host
        self._lists = lists
        self._lock = threading.Lock()
        self.known: dict[str, Report | Exception | Callable[[], Report]] = {}
        self.default: Report = OPEN
        self.gives: Report = DONE
        self.trouble: Exception | None = None
        self.asked: list[str] = []
        self.singles: list[str] = []
        self.calls = 0
        self.at_work = 0
        self.most_at_work = 0
        self.connections_in_use: list[int] = []

    def submit(self, job: Any, *, wait: float) -> Report:
        self._note()
        return OPEN

    def status(self, creator_task_id: str) -> Report:
        self._note(creator_task_id)
        with self._lock:
            self.singles.append(creator_task_id)
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            return self._say(creator_task_id)
        finally:
            with self._lock:
                self.at_work -= 1

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        self._note(*(creator_task_ids if self._lists else ()))
        if self.trouble is not None:
            raise self.trouble
        return {name: self._say(name) for name in creator_task_ids} if self._lists else {}

    def result(self, creator_task_id: str) -> Report:
        self._note()
        return self.gives

    def cancel(self, creator_task_id: str) -> None:
        self._note()
        if self.trouble is not None:
            raise self.trouble

    def _note(self, *names: str) -> None:
        with self._lock:
            self.calls += 1
            self.asked += names
        if self._host is not None:
            pool: Any = self._host.engine.pool
            self.connections_in_use.append(pool.checkedout())

    def _say(self, name: str) -> Report:
        said = self.known.get(name, self.default)
        if isinstance(said, Exception):
            raise said
        return said() if callable(said) else said


@pytest.fixture
def hub(hosts: Build, database_url: str) -> Host:
    """The creator is our own, and nothing is handed over in the background."""
    return with_own_creator(hosts(database_url, **CONFIG))


@pytest.fixture(params=FEATURES)
def any_hub(request: pytest.FixtureRequest, hub: Host) -> Host:
    """On each database, with what it can do and as if it could do nothing special."""
    if (capabilities := FEATURES[request.param]) is not None:
        use_features(hub, capabilities)
    return hub


@pytest.fixture
def sqlite_hub(hosts: Build, sqlite_url: str) -> Host:
    return with_own_creator(hosts(sqlite_url, **CONFIG))


CONFIG: dict[str, Any] = {"WEBHOOK_CALLBACK_BASE_URL": BASE, "WEBHOOK_SUBMIT_THREADS": 0}


def with_own_creator(host: Host, **options: Any) -> Host:
    host.state.creator = OwnCreator(host, **options)
    return host


def use_features(host: Host, capabilities: Capabilities) -> None:
    state = host.state
    state.database.store = Store(
        state.task_model,
        state.delivery_model,
        lock_timeout=state.settings.timeout,
        poll_intervals=state.settings.poll_intervals,
        capabilities=capabilities,
        clock=state.store.clock,
    )


def own(host: Host) -> OwnCreator:
    assert isinstance(host.state.creator, OwnCreator)
    return host.state.creator


def a_pass(host: Host, **options: Any) -> Any:
    with host.app.app_context():
        return host.webhook.reconcile(**options)


def submitted(host: Host, says: Any = None, **values: Any) -> str:
    """A task that the creator accepted, due now."""
    name = str(uuid.uuid4())
    if says is not None:
        own(host).known[name] = says
    now = host.clock.now
    given = {
        "creator_task_id": name,
        "submitted_at": now,
        "next_poll_at": now,
        "deadline_at": now + timedelta(seconds=1800),
        "callback_url": f"{BASE}/x",
    }
    return host.add_task(**{**given, **values})


def many(host: Host, count: int, **values: Any) -> list[str]:
    """Tasks as of `submitted`, written together; the creator's names of them."""
    now, names = host.clock.now, [str(uuid.uuid4()) for _ in range(count)]
    given = {"status": "submitted", "submitted_at": now, "next_poll_at": now, "callback_url": f"{BASE}/x", **values}
    rows = [{"task_id": str(uuid.uuid4()), "creator_task_id": name, **given} for name in names]
    with host.app.app_context():
        host.db.session.execute(sa.insert(host.state.task_model), rows)
        host.db.session.commit()
    return names


def wait_of(host: Host, task_id: str) -> float:
    return float((host.task(task_id).next_poll_at - host.clock.now).total_seconds())


class TestTheTimes:
    def test_grace_then_doubling_up_to_the_longest_then_the_deadline(self, any_hub):
        with any_hub.app.app_context():
            task_id = any_hub.webhook.submit(topic="Tea").task_id
            any_hub.webhook.submit_due()
        waits = []
        while (wait := wait_of(any_hub, task_id)) and any_hub.task(task_id).status == "submitted":
            waits.append(wait)
            any_hub.clock.advance(wait)
            a_pass(any_hub)
            if any_hub.task(task_id).next_poll_at is None:
                break
        # 120 s of grace; 30 s doubled for the first time, and so on; never past the deadline of 1,800 s
        assert waits == [120, 60, 120, 240, 480, 600, 180]
        assert any_hub.task(task_id).status == "timeout"

    def test_nothing_is_asked_before_its_time(self, any_hub):
        submitted(any_hub, next_poll_at=any_hub.clock.now + timedelta(milliseconds=1))
        assert (a_pass(any_hub).claimed, own(any_hub).calls) == (0, 0)

    def test_claiming_pushes_the_next_time_before_anybody_is_asked(self, any_hub):
        seen: list[float] = []

        def look() -> Report:
            seen.append(wait_of(any_hub, any_hub.tasks()[0].task_id))
            return OPEN

        task_id = submitted(any_hub, look)
        a_pass(any_hub)
        assert seen == [60]
        assert any_hub.task(task_id).polls == 1
        assert a_pass(any_hub).claimed == 0

    def test_progress_is_a_sign_of_life(self, any_hub):
        task_id = submitted(any_hub, OPEN)
        a_pass(any_hub)
        a_pass(any_hub)
        any_hub.clock.advance(10)
        assert any_hub.post(task_id, progress(task_id, 50), attempt=1).status_code == 200
        task = any_hub.task(task_id)
        assert (wait_of(any_hub, task_id), task.polls, task.status) == (120, 0, "processing")
        any_hub.clock.advance(120)
        a_pass(any_hub)
        assert wait_of(any_hub, task_id) == 60

    def test_short_settings_are_kept(self, hosts, sqlite_url):
        host = with_own_creator(
            hosts(sqlite_url, **CONFIG, WEBHOOK_POLL_INTERVAL=2, WEBHOOK_POLL_MAX_INTERVAL=5, WEBHOOK_POLL_GRACE=3)
        )
        task_id = submitted(host, OPEN)
        waits = []
        for _ in range(4):
            a_pass(host)
            waits.append(wait_of(host, task_id))
            host.clock.advance(waits[-1])
        assert waits == [4, 5, 5, 5]


class TestWhatIsApplied:
    def test_completed_with_the_result_at_hand(self, any_hub):
        task_id = submitted(any_hub, DONE)
        report = a_pass(any_hub)
        assert (report.claimed, report.asked, report.applied, report.errors) == (1, 1, {"processed": 1}, 0)
        assert (any_hub.task(task_id).status, any_hub.contents(task_id)) == ("completed", ["# Done"])
        (delivery,) = any_hub.deliveries(task_id)
        assert (delivery.source, delivery.event, delivery.verdict) == ("poll", "completed", "processed")

    def test_completed_whose_result_is_asked_for(self, hub):
        task_id = submitted(hub, Report(state=RemoteState.COMPLETED))
        a_pass(hub)
        assert hub.contents(task_id) == ["# Done"]
        assert own(hub).connections_in_use == [0, 0]

    def test_failed_is_tried_again(self, hub):
        error = {"message": "LLM away", "type": "execution_error"}
        told: list[Any] = []
        hub.connect(task_failed, lambda app, *, error, will_retry, **extra: told.append((error, will_retry)))
        task_id = submitted(hub, Report(state=RemoteState.FAILED, error=error))
        assert a_pass(hub).applied == {"processed": 1}
        assert (hub.task(task_id).status, hub.task(task_id).attempt) == ("pending", 2)
        assert told == [(error, True)]

    def test_cancelled_at_the_creator_fails_for_good(self, hub):
        task_id = submitted(hub, Report(state=RemoteState.CANCELLED))
        a_pass(hub)
        task = hub.task(task_id)
        assert (task.status, task.error_code, task.attempt) == ("failed", "CANCELLED_BY_CREATOR", 1)

    @pytest.mark.parametrize(
        "result",
        [
            {"content": 5},
            {"content": "half \ud800"},
            {"content": "nul \0"},
            {"wordCount": 0},
            {"content": "x", "made_at": datetime(2026, 1, 1)},
            {"content": "x", "tags": {"a", "b"}},
        ],
        ids=["number", "surrogate", "NUL", "nothing", "no JSON", "set"],
    )
    def test_an_invalid_result_ends_it_and_the_answer_is_kept(self, sqlite_hub, result):
        report = Report(state=RemoteState.COMPLETED, result=result, raw=b'{"wordCount": "as it came"}')
        task_id, good = submitted(sqlite_hub, report), submitted(sqlite_hub, DONE)
        a_pass(sqlite_hub)
        task = sqlite_hub.task(task_id)
        assert (task.status, task.error_code, task.next_poll_at) == ("failed", "INVALID_RESULT", None)
        assert sqlite_hub.task(good).status == "completed"
        assert sqlite_hub.contents(task_id) == []
        (delivery,) = sqlite_hub.deliveries(task_id)
        assert b"wordCount" in delivery.body
        json.loads(delivery.body)

    def test_an_invalid_result_is_kept_on_every_database(self, hub):
        task_id = submitted(hub, Report(state=RemoteState.COMPLETED, result={"content": "\0"}, raw=b"a \0 and \xff"))
        a_pass(hub)
        assert (hub.task(task_id).status, hub.task(task_id).error_code) == ("failed", "INVALID_RESULT")
        answer = json.loads(hub.deliveries(task_id)[0].body)["answer"]
        assert answer == "a \ufffd and \ufffd"

    def test_a_failing_handler_leaves_the_answer_for_the_retry(self, hub):
        hub.publisher.broken = True
        task_id = submitted(hub, DONE)
        report = a_pass(hub)
        assert (report.errors, report.applied, hub.task(task_id).status) == (1, {}, "submitted")
        hub.publisher.broken = False
        hub.clock.advance(40)
        assert hub.retry().outcomes == {"processed": 1}
        assert (hub.task(task_id).status, hub.contents(task_id)) == ("completed", ["# Done"])

    def test_a_callback_that_comes_while_the_creator_is_asked_has_the_only_effect(self, hub):
        def call_back_first() -> Report:
            assert hub.post(task_id, completed(task_id, "by callback"), attempt=1).status_code == 200
            return DONE

        task_id = submitted(hub, call_back_first)
        assert a_pass(hub).applied == {"duplicate": 1}
        assert hub.contents(task_id) == ["by callback"]

    def test_the_failure_of_an_attempt_that_is_over_meanwhile_is_stale(self, hub):
        def fail_first() -> Report:
            assert hub.post(task_id, failed(task_id), attempt=1).status_code == 200
            return Report(state=RemoteState.FAILED, error={"message": "the same"})

        task_id = submitted(hub, fail_first)
        assert a_pass(hub).applied == {"stale": 1}
        assert (hub.task(task_id).status, hub.task(task_id).attempt) == ("pending", 2)

    def test_the_report_counts_everything_and_is_told(self, hub):
        told: list[Any] = []
        hub.connect(reconcile_finished, lambda app, *, report, **extra: told.append(report))
        hub.connect(reconcile_finished, lambda app, **extra: 1 / 0)
        submitted(hub, DONE)
        submitted(hub, DONE)
        submitted(hub, OPEN)
        submitted(hub, MISSING)
        submitted(hub, OPEN, deadline_at=hub.clock.now)
        submitted(hub, status="pending", submitted_at=None)
        report = a_pass(hub)
        assert told == [report]
        assert (report.claimed, report.asked, report.applied) == (6, 5, {"processed": 2})
        assert (report.still_open, report.missing, report.timed_out, report.errors) == (2, 1, 1, 0)
        assert (report.paused, report.seconds > 0) == (False, True)

    def test_without_a_creator_only_the_deadlines_count(self, sqlite_hub):
        task_id, late = submitted(sqlite_hub), submitted(sqlite_hub, deadline_at=sqlite_hub.clock.now)
        sqlite_hub.state.creator = None
        report = a_pass(sqlite_hub)
        assert (report.claimed, report.asked, report.timed_out) == (2, 0, 1)
        assert (sqlite_hub.task(task_id).status, sqlite_hub.task(late).status) == ("submitted", "timeout")


class TestDeadlines:
    def test_the_creator_is_asked_once_more(self, hub):
        saved, lost = submitted(hub, DONE, deadline_at=hub.clock.now), submitted(hub, OPEN, deadline_at=hub.clock.now)
        told: list[Any] = []
        hub.connect(task_timed_out, lambda app, *, task, delivery, **extra: told.append((task.task_id, delivery.event)))
        a_pass(hub)
        assert (hub.task(saved).status, hub.task(lost).status) == ("completed", "timeout")
        assert told == [(lost, "timed_out")]
        assert hub.task(lost).next_poll_at is None

    def test_a_late_completion_still_completes(self, hub):
        task_id = submitted(hub, OPEN, deadline_at=hub.clock.now)
        a_pass(hub)
        answer = hub.post(task_id, completed(task_id), attempt=1)
        assert answer.get_json()["details"]["late"]
        assert hub.task(task_id).status == "completed"
        assert [row.late for row in hub.deliveries(task_id)] == [False, True]

    def test_a_creator_that_cannot_be_asked_gets_some_patience(self, hub):
        task_id = submitted(hub, deadline_at=hub.clock.now)
        own(hub).trouble = CreatorUnreachable()
        for _ in range(20):
            if hub.task(task_id).status != "submitted":
                break
            a_pass(hub)
            hub.clock.advance(60)
        waited = (hub.task(task_id).finished_at - hub.task(task_id).deadline_at).total_seconds()
        assert hub.task(task_id).status == "timeout"
        assert 600 <= waited <= 1300

    def test_a_pending_task_that_nobody_could_submit_runs_out_of_time_as_well(self, hub):
        task_id = submitted(hub, status="pending", submitted_at=None, deadline_at=hub.clock.now)
        assert a_pass(hub).timed_out == 1
        assert hub.task(task_id).status == "timeout"
        assert own(hub).asked == []

    def test_one_that_is_submitted_during_the_pass_has_its_time_before_it(self, hub):
        """Its old deadline was that of the waiting; from its acceptance on it has a new one."""
        task_id = submitted(
            hub,
            status="pending",
            submitted_at=None,
            deadline_at=hub.clock.now,
            next_submit_at=hub.clock.now,
        )

        def submit_meanwhile() -> Report:
            with hub.app.app_context():
                assert hub.webhook.submit_due().outcomes == {"submitted": 1}
            return OPEN

        submitted(hub, submit_meanwhile)
        a_pass(hub)
        assert hub.task(task_id).status == "submitted"


class TestMissing:
    def test_after_three_times_in_a_row_it_is_lost_and_tried_again(self, any_hub):
        task_id = submitted(any_hub, MISSING)
        for times in (1, 2):
            report = a_pass(any_hub)
            assert (report.missing, report.applied) == (1, {})
            assert any_hub.task(task_id).times_missing == times
            any_hub.clock.now = any_hub.task(task_id).next_poll_at
        assert a_pass(any_hub).applied == {"processed": 1}
        task = any_hub.task(task_id)
        assert (task.status, task.attempt, task.error_code) == ("pending", 2, "LOST_BY_CREATOR")
        assert (task.times_missing, task.submitted_at) == (0, None)

    def test_without_retries_left_it_fails(self, hub):
        task_id = submitted(hub, MISSING, max_retries=0, times_missing=2)
        a_pass(hub)
        assert (hub.task(task_id).status, hub.task(task_id).error_code) == ("failed", "LOST_BY_CREATOR")

    def test_one_sighting_begins_the_count_anew(self, hub):
        task_id = submitted(hub, OPEN, times_missing=2)
        assert a_pass(hub).still_open == 1
        assert hub.task(task_id).times_missing == 0

    def test_a_result_that_is_gone_counts_as_missing(self, sqlite_hub):
        task_id = submitted(sqlite_hub, Report(state=RemoteState.COMPLETED))
        own(sqlite_hub).gives = MISSING
        assert a_pass(sqlite_hub).missing == 1
        assert sqlite_hub.task(task_id).times_missing == 1


class TestACreatorThatIsDown:
    @pytest.mark.parametrize("trouble", [CreatorUnreachable, CreatorRefused])
    def test_one_call_and_then_a_pause(self, hub, trouble):
        many(hub, 50)
        own(hub).trouble = trouble()
        report = a_pass(hub)
        assert (report.claimed, report.errors, report.paused) == (50, 50, False)
        assert (own(hub).calls, own(hub).singles) == (1, [])
        many(hub, 50)
        assert a_pass(hub).paused
        assert own(hub).calls == 1

        own(hub).trouble = None
        hub.clock.advance(70)
        report = a_pass(hub)
        assert (report.paused, report.asked) == (False, 100)

    def test_the_pause_of_a_long_outage_grows_to_five_minutes(self, sqlite_hub):
        own(sqlite_hub).trouble = CreatorUnreachable()
        many(sqlite_hub, 200)
        calls_at: list[datetime] = []
        for _ in range(0, 7200, 10):
            before = own(sqlite_hub).calls
            a_pass(sqlite_hub)
            if own(sqlite_hub).calls > before:
                calls_at.append(sqlite_hub.clock.now)
            sqlite_hub.clock.advance(10)
        assert own(sqlite_hub).calls == len(calls_at) <= 40  # for 200 tasks, in two hours
        gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(calls_at)]
        assert max(gaps) <= 700  # and nobody is forgotten

    def test_a_real_one_that_is_down_gets_one_connection(self, hosts, sqlite_url):
        host = hosts(sqlite_url, **CONFIG)
        with CreatorSimulator(clock=host.clock, restart_after=None) as simulator:
            creator = HttpCreator(simulator.base_url, clock=host.clock)
            host.state.creator = creator
            for name in many(host, 20):
                simulator.add_task(name, state="completed", result={"content": "there all the time"})
            simulator.crash()
            assert a_pass(host).errors == 20
            simulator.restart()
            host.clock.advance(70)
            assert a_pass(host).applied == {"processed": 20}
            assert simulator.requests == {"GET /api/tasks": 1, "GET /api/tasks/:id/result": 20}
            assert simulator.deaths == 1
            creator.close()
        assert host.contents() == ["there all the time"] * 20

    def test_one_that_broke_off_in_the_middle_is_asked_singly(self, hub):
        """What it said of some holds; `CreatorUnclear` of the many is no reason to give up the rest."""
        own(hub).trouble = CreatorUnclear()
        first, second = submitted(hub, DONE), submitted(hub, CreatorUnclear())
        report = a_pass(hub)
        assert (report.applied, report.errors) == ({"processed": 1}, 1)
        assert (hub.task(first).status, hub.task(second).status) == ("completed", "submitted")


class TestOneByOne:
    def test_bounded_concurrency(self, hosts, database_url):
        hub = with_own_creator(hosts(database_url, **CONFIG, WEBHOOK_POLL_CONCURRENCY=3), lists=False)
        together = threading.Barrier(3)

        def three_at_a_time() -> Report:
            together.wait(10)
            return OPEN

        for name in many(hub, 12):
            own(hub).known[name] = three_at_a_time
        assert a_pass(hub).still_open == 12
        assert own(hub).most_at_work == 3
        assert len(own(hub).singles) == len(set(own(hub).singles)) == 12
        assert max(own(hub).connections_in_use) == 0

    def test_one_that_hangs_delays_no_other(self, hosts, database_url):
        hub = with_own_creator(hosts(database_url, **CONFIG), lists=False)
        own(hub).default = DONE
        names = many(hub, 30)

        def hang() -> Report:
            wait_until(lambda: len(hub.contents()) == 29, timeout=10, what="29 others", log=lambda: str(hub.contents()))
            raise CreatorUnclear("hung up at last")

        own(hub).known[names[0]] = hang
        report = a_pass(hub)
        assert (report.applied, report.errors) == ({"processed": 29}, 1)

    def test_one_over_which_a_creator_stumbles_delays_no_other(self, hub):
        """An own creator with a bug in it: the protocol has no such error, and the pass survives it."""
        own(hub)._lists = False
        bad, good = submitted(hub, KeyError("status")), submitted(hub, DONE)
        late = submitted(hub, OPEN, deadline_at=hub.clock.now)
        report = a_pass(hub)
        assert (report.applied, report.errors, report.timed_out) == ({"processed": 1}, 1, 1)
        statuses = [hub.task(task_id).status for task_id in (bad, good, late)]
        assert statuses == ["submitted", "completed", "timeout"]


def claim_statements(host: Host) -> int:
    """The statements of one claim: where an UPDATE returns nothing, rows are locked before it and read after it."""
    return 3 if host.engine.dialect.name == "mysql" else 1


class TestClaiming:
    def test_a_limit_holds_and_the_longest_due_come_first(self, any_hub):
        """Also right after the table was made, when PostgreSQL plans as if it were empty."""
        now = any_hub.clock.now
        ids = [submitted(any_hub, OPEN, next_poll_at=now - timedelta(seconds=age)) for age in (1, 3, 2)]
        assert a_pass(any_hub, limit=1).claimed == 1
        assert [any_hub.task(task_id).polls for task_id in ids] == [0, 1, 0]

    @pytest.mark.parametrize("batch", [100, 500])
    def test_two_statements_for_a_hundred_tasks_at_the_most(self, hosts, database_url, batch):
        hub = with_own_creator(hosts(database_url, **CONFIG, WEBHOOK_POLL_BATCH=batch))
        many(hub, 1000)
        a_pass(hub, limit=1)
        with hub.statements() as statements:
            assert a_pass(hub).claimed == 999
        one, reads_of_the_pause = claim_statements(hub), 1
        assert sum(line != "COMMIT" for line in statements) <= one * (1000 / batch + 1) + reads_of_the_pause
        assert len(statements) <= (one + 1) * (1000 / batch + 1) + 2 * reads_of_the_pause  # and one COMMIT for each

    def test_passes_at_once_in_threads_share_the_work(self, any_hub):
        names = many(any_hub, 60)
        reports = at_once(*[lambda: a_pass(any_hub)] * 4)
        assert sum(report.claimed for report in reports) == 60
        assert Counter(own(any_hub).asked) == Counter(names)

    def test_four_processes_ask_about_each_of_a_thousand_tasks_exactly_once(self, hosts, database_url, tmp_path):
        hub = hosts(database_url, **CONFIG)
        names = many(hub, 1000)
        files = [tmp_path / f"asked-{number}" for number in range(4)]
        passes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.integration.test_reconcile", database_url, str(file)],
                cwd=PROJECT_ROOT,
                env=clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for file in files
        ]
        try:
            for process in passes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            started = time.monotonic()
            for process in passes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            reports = [json.loads(process.communicate(timeout=60)[0]) for process in passes]
            took = time.monotonic() - started
        finally:
            for process in passes:
                process.kill()
                process.wait()
        asked = [name for file in files for name in file.read_text().split()]
        print(f"{took:.2f} s; {[report['claimed'] for report in reports]} tasks, {reports}")  # noqa: T201 - with -rP
        assert Counter(asked) == Counter(names)
        assert sum(report["claimed"] for report in reports) == 1000
        once_in_each = 2 * len(passes)  # the pause, and on PostgreSQL the encoding of the database
        assert sum(report["statements"] for report in reports) <= 2 * claim_statements(hub) * 1000 / 100 + once_in_each
        assert {task.polls for task in hub.tasks()} == {1}


class TestWithTheSimulator:
    @pytest.fixture
    def world(self, hosts: Build, database_url: str) -> Iterator[tuple[Host, CreatorSimulator]]:
        host = hosts(database_url, **CONFIG)
        with CreatorSimulator(clock=host.clock, restart_after=None, work_time=None) as simulator:
            creator = HttpCreator(simulator.base_url, timeout=5, clock=host.clock)
            host.state.creator = creator
            yield host, simulator
            creator.close()

    def test_a_lost_callback_is_found_in_the_list(self, world):
        host, simulator = world
        names = many(host, 150)
        for name in names[:75]:
            simulator.add_task(name, state="completed", result={"content": name})
        for name in names[75:]:
            simulator.add_task(name)
        report = a_pass(host)
        assert (report.asked, report.applied, report.still_open) == (150, {"processed": 75}, 75)
        assert sorted(host.contents()) == sorted(names[:75])
        assert simulator.requests == {"GET /api/tasks": 2, "GET /api/tasks/:id/result": 75}
        assert simulator.deaths == 0

    def test_what_it_never_had_is_missing_and_does_not_kill_it(self, world):
        host, simulator = world
        many(host, 3)
        assert a_pass(host).missing == 3
        assert simulator.deaths == 0


def main(database_url: str, file: str) -> None:
    """One pass in a process of its own, when it is told to; reports what it did."""
    host = make_host(database_url, create_tables=False, **CONFIG, WEBHOOK_POLL_BATCH=100)
    creator = OwnCreator()
    host.state.creator = creator
    host.clock.advance(60)  # the tasks were due when this process was not there yet
    with host.engine.connect():
        pass
    print("ready", flush=True)  # noqa: T201 - the parent waits for it
    sys.stdin.readline()
    with host.statements() as statements:
        report = a_pass(host)
    Path(file).write_text("\n".join(creator.asked))
    claims = sum(line != "COMMIT" for line in statements)
    print(json.dumps({"claimed": report.claimed, "statements": claims}))  # noqa: T201 - the parent reads it
    host.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
