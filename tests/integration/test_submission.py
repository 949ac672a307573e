"""Submission is an outbox: written with the host's own transaction, handed over afterwards, and never lost.

As a program (``python -m tests.integration.test_submission HOW DATABASE_URL``) it is a process that submits from an
unusual place: a forked child, or a thread that outlives the main one.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from flask_contenthub_webhook import (
    ConfigurationError,
    GenerationTaskMixin,
    TransitionRefused,
    task_cancelled,
    task_completed,
    task_failed,
    task_submitted,
)
from flask_contenthub_webhook.core.signatures import sign_url
from flask_contenthub_webhook.creators import Creator, HttpCreator, Job, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorRefused, CreatorUnclear, CreatorUnreachable, TaskNotFound
from flask_contenthub_webhook.testing import CreatorSimulator
from flask_contenthub_webhook.testing.faults import Faults
from flask_contenthub_webhook.testing.live import LiveApp
from tests.support.host import SECRET, Host, at_once, completed, failed, make_host, progress
from tests.support.processes import PROJECT_ROOT, clean_environment, wait_until

Build = Callable[..., Host]
BASE = "https://hub.example"
OPEN = Report(state=RemoteState.OPEN)
DONE = Report(state=RemoteState.COMPLETED, result={"content": "early"}, raw=b"{}")
LEASE = 3600
"""Longer than any lease of a claimed task."""


class Killed(BaseException):
    """The process ends here, whatever anybody catches."""


class OwnCreator:
    """A creator that does what a test tells it, and notes who held a database connection while it was called."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.calls: list[str] = []
        self.jobs: list[Job] = []
        self.cancelled: list[str] = []
        self.connections_in_use: list[int] = []
        self.known: dict[str, Report] = {}
        self.on_submit: Callable[[Job], Report] = lambda _: OPEN
        self.on_statuses: Callable[[], None] = lambda: None

    def _note(self, call: str) -> None:
        self.calls.append(call)
        pool: Any = self._host.engine.pool
        self.connections_in_use.append(pool.checkedout())

    def submit(self, job: Job, *, wait: float) -> Report:
        self._note("submit")
        self.jobs.append(job)
        return self.on_submit(job)

    def status(self, creator_task_id: str) -> Report:
        self._note("status")
        return self.known.get(creator_task_id, Report(state=RemoteState.MISSING))

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        self._note("statuses")
        self.on_statuses()
        return {name: self.known.get(name, Report(state=RemoteState.MISSING)) for name in creator_task_ids}

    def result(self, creator_task_id: str) -> Report:
        self._note("result")
        return Report(state=RemoteState.COMPLETED, result={"content": "fetched"})

    def cancel(self, creator_task_id: str) -> None:
        self._note("cancel")
        self.cancelled.append(creator_task_id)


@pytest.fixture
def hub(hosts: Build, database_url: str) -> Host:
    """Nothing is handed over in the background; the creator is our own."""
    return with_own_creator(hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0))


@pytest.fixture
def sqlite_hub(hosts: Build, sqlite_url: str) -> Host:
    """The same, where the kind of database does not matter."""
    return with_own_creator(hosts(sqlite_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0))


@pytest.fixture
def simulators() -> Iterator[Callable[..., tuple[CreatorSimulator, HttpCreator]]]:
    """A function that starts a simulator on a host's clock and makes it the host's creator."""
    running: list[tuple[CreatorSimulator, HttpCreator]] = []

    def start(host: Host, **options: Any) -> tuple[CreatorSimulator, HttpCreator]:
        defaults: dict[str, Any] = {"time_scale": 0.02, "restart_after": None, "clock": host.clock}
        simulator = CreatorSimulator(**{**defaults, **options}).start()
        creator = HttpCreator(simulator.base_url, timeout=5, clock=host.clock)
        running.append((simulator, creator))
        host.state.creator = creator
        return simulator, creator

    yield start
    for simulator, creator in running:
        creator.close()
        simulator.stop()


def with_own_creator(host: Host) -> Host:
    host.state.creator = OwnCreator(host)
    return host


def own(host: Host) -> OwnCreator:
    assert isinstance(host.state.creator, OwnCreator)
    return host.state.creator


def submit(host: Host, **values: Any) -> str:
    with host.app.app_context():
        given = {"topic": "Tea", "requirements": "R", "target_audience": "A", **values}
        return str(host.webhook.submit(**given).task_id)


def sweep(host: Host, **options: Any) -> Any:
    with host.app.app_context():
        return host.webhook.submit_due(**options)


def reconcile(host: Host) -> Any:
    with host.app.app_context():
        return host.webhook.reconcile()


def cancel(host: Host, task_id: str) -> Any:
    with host.app.app_context():
        return host.webhook.cancel(task_id)


def retry(host: Host, task_id: str) -> Any:
    with host.app.app_context():
        return host.webhook.retry(task_id)


def raise_(error: BaseException) -> Any:
    raise error


def history(host: Host, task_id: str) -> list[tuple[str, str, str]]:
    return [(row.source, row.event, row.verdict) for row in host.deliveries(task_id)]


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query)


class TestTheRow:
    def test_it_is_complete_before_anybody_is_called(self, hub):
        task_id = submit(hub, keywords=["green"], tone="dry", priority=4, imageSize="1k", auto_approve=True, timeout=60)

        task = hub.task(task_id)
        assert own(hub).calls == []
        assert (task.status, task.attempt, task.auto_approve) == ("pending", 1, True)
        assert uuid.UUID(task.creator_task_id).version == uuid.UUID(task.task_id).version == 4
        assert task.creator_task_id != task.task_id
        assert task.callback_url.startswith(f"{BASE}/api/v1/content/callback/{task_id}?")
        assert query_of(task.callback_url) == {"attempt": ["1"], "token": [sign_url(SECRET, task_id, 1)]}
        assert task.next_submit_at == hub.clock.now
        assert task.next_poll_at == hub.clock.now + timedelta(seconds=120)
        assert task.deadline_at == hub.clock.now + timedelta(seconds=60)

        sweep(hub)
        assert own(hub).jobs == [
            Job(
                creator_task_id=task.creator_task_id,
                topic="Tea",
                requirements="R",
                target_audience="A",
                keywords=("green",),
                tone="dry",
                priority=4,
                callback_url=task.callback_url,
                callback_events=("completed", "failed"),
                options={"imageSize": "1k"},
            )
        ]

    def test_the_callback_url_lets_the_creator_in(self, hub):
        task_id = submit(hub)
        url = urlsplit(hub.task(task_id).callback_url)

        answer = hub.post(task_id, completed("whatever"), path=f"{url.path}?{url.query}")

        assert answer.status_code == 200
        assert hub.task(task_id).status == "completed"

    def test_every_task_has_ids_of_its_own(self, sqlite_hub):
        submit(sqlite_hub)
        submit(sqlite_hub)
        first, second = sqlite_hub.tasks()
        assert len({first.task_id, second.task_id, first.creator_task_id, second.creator_task_id}) == 4

    def test_the_hosts_own_columns_are_filled_in(self, hosts, database_url):
        host = with_own_creator(hosts(database_url, models=task_with_account, WEBHOOK_CALLBACK_BASE_URL=BASE))
        task_id = submit(host, task_fields={"account_id": 7})
        assert host.task(task_id).account_id == 7

    def test_too_long_a_text_and_a_strange_priority_are_refused_before_anything_is_written(self, sqlite_hub):
        for values, problem in (
            ({"topic": "x" * 501}, "topic has 501 characters"),
            ({"target_audience": "x" * 501}, "target_audience"),
            ({"tone": "x" * 101}, "tone"),
            ({"callback_url": f"{BASE}/{'x' * 2048}"}, "callback_url"),
            ({"priority": 0}, "priority is 0"),
            ({"priority": 5}, "priority is 5"),
        ):
            with pytest.raises(ValueError, match=problem):
                submit(sqlite_hub, **values)
        assert sqlite_hub.tasks() == []

    def test_the_longest_texts_are_kept(self, hub):
        task_id = submit(hub, topic="键" * 500, target_audience="x" * 500, tone="x" * 100, requirements="字" * 5000)
        assert len(hub.task(task_id).topic) == 500

    def test_without_a_creator_there_is_nothing_to_submit_to(self, hosts, sqlite_url):
        with pytest.raises(ConfigurationError, match="CREATOR_API_BASE_URL"):
            submit(hosts(sqlite_url, WEBHOOK_CALLBACK_BASE_URL=BASE))


def task_with_account(db: Any) -> dict[str, type[Any]]:
    class Task(GenerationTaskMixin, db.Model):  # type: ignore[misc]
        __tablename__ = "content_generation_tasks"
        account_id: Mapped[int] = mapped_column(sa.Integer)

    return {"task_model": Task}


class TestTheCallbackUrl:
    def url(self, host: Host, **values: Any) -> str:
        return str(host.task(submit(host, **values)).callback_url)

    def test_the_argument_wins_over_the_configuration(self, sqlite_hub):
        url = self.url(sqlite_hub, callback_url="https://gateway.example/in/")
        assert url.startswith("https://gateway.example/in/api/v1/content/callback/")

    def test_a_whole_url_with_the_task_in_it_is_taken_as_it_is(self, sqlite_hub):
        task_id = submit(sqlite_hub, callback_url="https://gateway.example/hooks/{task_id}?tenant=7&attempt=9")
        url = sqlite_hub.task(task_id).callback_url
        assert url.startswith(f"https://gateway.example/hooks/{task_id}?")
        assert query_of(url) == {"tenant": ["7"], "attempt": ["1"], "token": [sign_url(SECRET, task_id, 1)]}

    @pytest.mark.parametrize("url", ["hub.example", "ftp://hub.example", "https://", "/callback", "", "https://[::1"])
    def test_what_is_no_absolute_url_is_refused(self, sqlite_hub, url):
        with pytest.raises(ValueError):
            submit(sqlite_hub, callback_url=url)
        assert sqlite_hub.tasks() == []

    @pytest.mark.parametrize("url", ["https://gateway.example/in?tenant=7", "https://gateway.example/in#here"])
    def test_a_base_that_no_path_can_be_put_behind_is_refused(self, sqlite_hub, url):
        """As WEBHOOK_CALLBACK_BASE_URL refuses it: the path would end up inside the query."""
        with pytest.raises(ValueError):
            submit(sqlite_hub, callback_url=url)

    def test_in_debug_the_request_at_hand_says_where_we_are(self, hosts, sqlite_url):
        host = with_own_creator(hosts(sqlite_url))
        host.app.debug = True
        with host.app.test_request_context("/", base_url="http://localhost:5000"):
            task = host.webhook.submit(topic="Tea")
            assert task.callback_url.startswith("http://localhost:5000/api/v1/content/callback/")

    def test_in_debug_an_app_below_a_prefix_is_found_there(self, hosts, sqlite_url):
        host = with_own_creator(hosts(sqlite_url))
        host.app.debug = True
        with host.app.test_request_context("/", base_url="http://localhost:5000/hub"):
            task = host.webhook.submit(topic="Tea")
            assert task.callback_url.startswith("http://localhost:5000/hub/api/v1/content/callback/")

    def test_outside_debug_nobody_guesses(self, hosts, sqlite_url):
        host = with_own_creator(hosts(sqlite_url))
        with (
            host.app.test_request_context("/", base_url="http://evil.example"),
            pytest.raises(ConfigurationError, match="WEBHOOK_CALLBACK_BASE_URL"),
        ):
            host.webhook.submit(topic="Tea")
        host.app.debug = True
        with pytest.raises(ConfigurationError):  # debug, but no request
            submit(host)
        assert host.tasks() == []

    def test_with_webhooks_off_there_is_none_and_the_task_is_polled(self, hosts, database_url):
        host = with_own_creator(
            hosts(database_url, WEBHOOK_ENABLED=False, WEBHOOK_REQUIRE_SIGNATURE=False, WEBHOOK_SUBMIT_THREADS=0)
        )
        task_id = submit(host)
        sweep(host)
        task = host.task(task_id)
        assert task.callback_url is None
        assert own(host).jobs[0].callback_url is None

        own(host).known[task.creator_task_id] = OPEN
        waits = []
        for _ in range(4):
            waits.append((host.task(task_id).next_poll_at - host.clock.now).total_seconds())
            host.clock.now = host.task(task_id).next_poll_at
            assert reconcile(host).still_open == 1
        assert waits == [30, 30, 30, 30]


class TestInTheCallersTransaction:
    @pytest.fixture
    def hub(self, hosts: Build, database_url: str) -> Host:
        """One thread in the background, and on SQLite short patience with locks."""
        options = {"connect_args": {"timeout": 0.3}} if database_url.startswith("sqlite") else {}
        return with_own_creator(
            hosts(database_url, engine_options=options, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=1)
        )

    def background_is_idle(self, host: Host) -> None:
        """Its one thread has done everything that it was told until now."""
        idle = threading.Event()
        host.state.submit_threads.submit_or_run(idle.set)
        assert idle.wait(10)

    def test_it_is_handed_over_right_after_the_commit_and_not_before(self, hub):
        with hub.app.app_context():
            task = hub.webhook.submit(topic="Tea", commit=False)
            hub.db.session.add(hub.Content(task_id=task.task_id, body="with it"))
            assert sweep(hub).claimed == 0
            self.background_is_idle(hub)
            assert own(hub).calls == []
            hub.db.session.commit()
            task_id = task.task_id
        self.background_is_idle(hub)
        assert len(own(hub).jobs) == 1
        assert hub.task(task_id).status == "submitted"
        assert hub.contents(task_id) == ["with it"]

    def test_after_a_rollback_there_is_nothing(self, hub):
        with hub.app.app_context():
            hub.webhook.submit(topic="Tea", commit=False)
            hub.db.session.flush()
            hub.db.session.rollback()
            hub.db.session.commit()
        self.background_is_idle(hub)
        assert sweep(hub).claimed == 0
        assert (hub.tasks(), own(hub).calls) == ([], [])

    def test_several_of_one_transaction_are_all_handed_over(self, hub):
        with hub.app.app_context():
            for _ in range(5):
                hub.webhook.submit(topic="Tea", commit=False)
            hub.db.session.commit()
        self.background_is_idle(hub)
        assert [task.status for task in hub.tasks()] == ["submitted"] * 5

    def test_several_that_are_due_already_when_the_table_is_young_are_all_handed_over(self, hosts, database_url):
        """PostgreSQL knows nothing of a young table yet, and plans as if it were empty."""
        hub = with_own_creator(hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0))
        for _ in range(3):
            submit(hub)
        assert sweep(hub).outcomes == {"submitted": 3}
        assert [task.status for task in hub.tasks()] == ["submitted"] * 3

    def test_a_savepoint_is_no_commit(self, hub):
        with hub.app.app_context():
            with hub.db.session.begin_nested():
                hub.webhook.submit(topic="Tea", commit=False)
            self.background_is_idle(hub)
            assert own(hub).calls == []
            hub.db.session.commit()
        self.background_is_idle(hub)
        assert len(own(hub).jobs) == 1

    def test_a_savepoint_that_is_rolled_back_takes_the_task_with_it(self, hub):
        with hub.app.app_context():
            savepoint = hub.db.session.begin_nested()
            hub.webhook.submit(topic="Tea", commit=False)
            savepoint.rollback()
            hub.db.session.commit()
        self.background_is_idle(hub)
        assert (hub.tasks(), own(hub).calls) == ([], [])

    def test_a_handler_submits_the_next_task_with_its_own_effect(self, hub):
        def and_another(app: Any, *, task: Any, **extra: Any) -> None:
            hub.webhook.submit(topic="The next", commit=False)

        hub.connect(task_completed, and_another)
        first = submit(hub)
        self.background_is_idle(hub)
        assert hub.post(first, completed(first), attempt=1).status_code == 200
        self.background_is_idle(hub)
        assert [task.status for task in hub.tasks()] == ["completed", "submitted"]

    def test_a_failing_handler_takes_the_next_task_with_it(self, hub):
        def and_another(app: Any, *, task: Any, **extra: Any) -> None:
            hub.webhook.submit(topic="The next", commit=False)
            raise ValueError("broken")

        hub.connect(task_completed, and_another)
        first = submit(hub)
        self.background_is_idle(hub)
        assert hub.post(first, completed(first), attempt=1).status_code == 500
        self.background_is_idle(hub)
        assert [task.topic for task in hub.tasks()] == ["Tea"]
        assert len(own(hub).jobs) == 1


class TestNoTransactionIsOpenWhileTheCreatorIsCalled:
    def test_in_a_submission(self, hub):
        submit(hub)
        sweep(hub)
        assert (own(hub).calls, own(hub).connections_in_use) == (["submit"], [0])

    def test_in_the_background(self, hosts, database_url):
        hub = with_own_creator(hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=1))
        committed, idle = threading.Event(), threading.Event()
        # This thread's own connection is back in the pool by then.
        hub.state.submit_threads.submit_or_run(committed.wait, 10)
        with hub.app.app_context():
            hub.webhook.submit(topic="Tea")
        hub.state.submit_threads.submit_or_run(idle.set)
        committed.set()
        assert idle.wait(10)
        assert (own(hub).calls, own(hub).connections_in_use) == (["submit"], [0])

    def test_in_the_question_after_a_crash(self, hub):
        submit(hub)
        own(hub).on_submit = lambda _: raise_(Killed())
        with pytest.raises(Killed):
            sweep(hub)
        hub.clock.advance(LEASE)
        own(hub).on_submit = lambda _: OPEN
        sweep(hub)
        assert (own(hub).calls, own(hub).connections_in_use) == (["submit", "statuses", "submit"], [0, 0, 0])

    def test_in_a_cancellation(self, hub):
        task_id = submit(hub)
        sweep(hub)
        cancel(hub, task_id)
        assert (own(hub).calls, own(hub).connections_in_use) == (["submit", "cancel"], [0, 0])


class TestWhatTheCreatorSays:
    def test_an_early_result_completes_the_task(self, hub, simulators):
        simulator, _ = simulators(hub)
        task_id = submit(hub)
        assert sweep(hub).outcomes == {"submitted": 1}
        task = hub.task(task_id)
        assert task.status == "completed"
        assert task.result["content"] == simulator.tasks[task.creator_task_id].result["content"]
        assert hub.contents(task_id) == [task.result["content"]]
        assert history(hub, task_id) == [
            ("response", "submitted", "processed"),
            ("response", "completed", "processed"),
        ]

    def test_a_completed_answer_without_the_result_has_it_fetched(self, hub):
        """`Report.result`: where the answer brought it; `Creator.result` has it otherwise."""
        own(hub).on_submit = lambda job: Report(state=RemoteState.COMPLETED)
        task_id = submit(hub)
        sweep(hub)
        assert (hub.task(task_id).status, hub.contents(task_id)) == ("completed", ["fetched"])

    def test_an_early_failure_is_tried_again_under_a_new_name(self, hub, simulators):
        simulator, _ = simulators(hub, faults=Faults(fail=1))
        task_id = submit(hub, max_retries=1)
        before = hub.task(task_id)
        sweep(hub)
        task = hub.task(task_id)
        assert (task.status, task.attempt) == ("pending", 2)
        assert task.earlier_creator_task_ids == [before.creator_task_id]
        assert uuid.UUID(task.creator_task_id).version == 4
        assert query_of(task.callback_url) == {"attempt": ["2"], "token": [sign_url(SECRET, task_id, 2)]}

        wait = (task.next_submit_at - hub.clock.now).total_seconds()
        assert 27 <= wait <= 33
        hub.clock.advance(wait - 0.01)
        assert sweep(hub).claimed == 0
        hub.clock.advance(0.02)
        assert sweep(hub).claimed == 1
        assert [*simulator.tasks] == [before.creator_task_id, task.creator_task_id]
        assert simulator.tasks[task.creator_task_id].callback_url == task.callback_url
        assert hub.task(task_id).status == "failed"
        assert hub.task(task_id).error_message == simulator.tasks[task.creator_task_id].error

    def test_a_refusal_ends_it_at_once_with_the_creators_words(self, hub, simulators):
        simulator, _ = simulators(hub, faults=Faults(refuse=1))
        told: list[Any] = []
        hub.connect(task_failed, lambda app, *, error, will_retry, **extra: told.append((error, will_retry)))
        task_id = submit(hub)
        assert sweep(hub).outcomes == {"refused": 1}

        task = hub.task(task_id)
        field = {"path": "requirements", "message": "Too big: expected string to have <=2000 characters"}
        assert (task.status, task.error_code, task.next_submit_at) == ("failed", "VALIDATION_ERROR", None)
        assert "requirements: Too big" in task.error_message
        ((error, will_retry),) = told
        assert not will_retry
        assert error["details"]["said"]["fields"] == [field]
        (delivery,) = hub.deliveries(task_id)
        assert json.loads(delivery.body)["error"]["details"]["said"]["fields"] == [field]
        assert (delivery.source, delivery.verdict) == ("response", "processed")
        assert simulator.tasks == {}

    def test_a_refusal_in_words_that_no_database_keeps(self, hub):
        refusal = CreatorRefused("no\0", reason="BAD", details={"said": "\ud800"})
        own(hub).on_submit = lambda _: raise_(refusal)
        task_id = submit(hub)
        sweep(hub)
        assert (hub.task(task_id).status, hub.task(task_id).error_code) == ("failed", "BAD")

    def test_one_that_is_away_gets_the_same_attempt_later(self, hub, simulators):
        simulator, _ = simulators(hub)
        simulator.crash()
        task_id, other = submit(hub), submit(hub)
        report = sweep(hub)
        assert (report.claimed, report.outcomes, report.paused) == (1, {"unreachable": 1}, True)

        assert sweep(hub).paused  # nobody is asked while it is on
        first, second = hub.tasks()
        assert first.task_id == task_id
        assert second.next_submit_at == hub.clock.now  # not even claimed
        assert (first.status, first.attempt, first.submit_tries, first.submitting_since) == ("pending", 1, 1, None)
        assert 27 <= (first.next_submit_at - hub.clock.now).total_seconds() <= 33

        simulator.restart()
        hub.clock.advance(6)  # past the pause, before the backoff
        assert sweep(hub).outcomes == {"submitted": 1}
        assert hub.task(other).status == "completed"
        hub.clock.advance(30)
        assert sweep(hub).outcomes == {"submitted": 1}
        assert hub.task(task_id).status == "completed"
        assert [*simulator.tasks] == [second.creator_task_id, first.creator_task_id]
        assert hub.task(task_id).callback_url == first.callback_url

    def test_the_backoff_grows_and_its_last_step_repeats(self, sqlite_hub):
        own(sqlite_hub).on_submit = lambda _: raise_(CreatorUnreachable())
        task_id = submit(sqlite_hub)
        waits = []
        for _ in range(5):
            sqlite_hub.state.creator_pause.succeeded()
            sweep(sqlite_hub)
            waits.append((sqlite_hub.task(task_id).next_submit_at - sqlite_hub.clock.now).total_seconds())
            sqlite_hub.clock.now = sqlite_hub.task(task_id).next_submit_at
        for wait, expected in zip(waits, (30, 60, 120, 120, 120), strict=True):
            assert 0.9 * expected <= wait <= 1.1 * expected

    def test_the_pause_doubles_and_one_answer_ends_it(self, sqlite_hub):
        creator = own(sqlite_hub)
        creator.on_submit = lambda _: raise_(CreatorUnreachable())
        for _ in range(40):
            submit(sqlite_hub)
        pauses: list[float] = []
        for _ in range(9):
            sweep(sqlite_hub)
            started = sqlite_hub.clock.now
            while sweep(sqlite_hub).paused and len(creator.calls) == len(pauses) + 1:
                sqlite_hub.clock.advance(max(1, (sqlite_hub.clock.now - started).total_seconds() / 20))
                if not sqlite_hub.state.creator_pause.is_on(sqlite_hub.clock.now):
                    break
            pauses.append((sqlite_hub.clock.now - started).total_seconds())
        assert len(creator.calls) == 9  # one call for each pause, however many tasks wait
        for pause, expected in zip(pauses, (5, 10, 20, 40, 80, 160, 300, 300, 300), strict=True):
            assert 0.9 * expected <= pause <= 1.25 * expected

        creator.on_submit = lambda _: OPEN
        assert sweep(sqlite_hub, limit=3).outcomes == {"submitted": 3}

    def test_a_cut_connection_means_submitted_and_the_poller_settles_it(self, hub, simulators):
        simulator, _ = simulators(hub, faults=Faults(crash_at=(1,)), orphans="failed")
        task_id = submit(hub)
        assert sweep(hub).outcomes == {"unclear": 1}
        assert hub.task(task_id).status == "submitted"
        assert simulator.death_reasons == ("submission 1",)

        simulator.restart()
        hub.clock.now = hub.task(task_id).next_poll_at
        assert reconcile(hub).applied == {"processed": 1}
        task = hub.task(task_id)
        assert (task.status, task.attempt) == ("pending", 2)
        assert task.error_message == "Task was interrupted by a restart"
        hub.clock.now = task.next_submit_at
        sweep(hub)
        assert hub.task(task_id).status == "completed"
        assert simulator.requests["POST /api/tasks"] == 2
        assert hub.contents(task_id) == [hub.task(task_id).result["content"]]

    def test_one_that_works_for_long_is_hung_up_on_and_calls_back(self, hosts, database_url, simulators):
        hub = hosts(database_url, WEBHOOK_SUBMIT_THREADS=0, CREATOR_SUBMIT_WAIT=0.1)
        with LiveApp(hub.app):
            simulator, _ = simulators(hub, work_time=None)
            task_id = submit(hub)
            assert sweep(hub).outcomes == {"submitted": 1}
            task = hub.task(task_id)
            assert (task.status, task.submitted_at, task.submitting_since) == ("submitted", hub.clock.now, None)
            simulator.finish(task.creator_task_id)
            simulator.wait_until_idle()
            assert [callback.status for callback in simulator.callbacks] == [200]
        assert hub.task(task_id).status == "completed"
        assert history(hub, task_id)[-1] == ("webhook", "completed", "processed")

    def test_the_callback_that_comes_before_the_answer(self, hosts, database_url, simulators):
        hub = hosts(database_url, WEBHOOK_SUBMIT_THREADS=0)
        with LiveApp(hub.app):
            simulator, _ = simulators(hub, work_time=(0.3, 0.3), callback_offset=(-0.3, -0.3), callback_timeout=5)
            task_id = submit(hub)
            assert sweep(hub).outcomes == {"submitted": 1}
            simulator.wait_until_idle()
        task = hub.task(task_id)
        assert (task.status, task.attempt) == ("completed", 1)
        assert len(hub.contents(task_id)) == 1
        assert history(hub, task_id) == [
            ("webhook", "completed", "processed"),
            ("response", "submitted", "ignored"),
            ("response", "completed", "duplicate"),
        ]

    def test_progress_that_comes_before_the_answer_loses_nothing_of_it(self, hub):
        """The creator's own name for the job, and the time of its acceptance, still count."""

        def report_first(job: Job) -> Report:
            assert hub.post(task_id, progress(task_id, 10), attempt=1).status_code == 200
            return Report(state=RemoteState.OPEN, creator_task_id="press-7")

        own(hub).on_submit = report_first
        task_id = submit(hub)
        sweep(hub)
        task = hub.task(task_id)
        assert task.status == "processing"
        assert task.submitted_at == hub.clock.now
        assert task.creator_task_id == "press-7"
        cancel(hub, task_id)
        assert own(hub).cancelled == ["press-7"]

    def test_a_creator_of_its_own_mind_names_the_job(self, hub):
        own(hub).on_submit = lambda job: Report(state=RemoteState.OPEN, creator_task_id="press-7")
        task_id = submit(hub)
        sweep(hub)
        assert hub.task(task_id).creator_task_id == "press-7"
        assert hub.post_signed(task_id, completed("press-7"), "contenthub").status_code == 200
        assert hub.task(task_id).status == "completed"

    def test_task_submitted_is_sent_and_what_a_receiver_breaks_is_its_own(self, hub):
        told: list[Any] = []

        def note(app: Any, *, task: Any, attempt: int, **extra: Any) -> None:
            hub.db.session.add(hub.Content(task_id=task.task_id, body="noted"))
            hub.db.session.commit()
            told.append((task.task_id, task.status, attempt))

        def breaks(app: Any, **extra: Any) -> None:
            hub.db.session.add(hub.Content(body="there is no task_id"))
            hub.db.session.flush()

        hub.connect(task_submitted, breaks)
        hub.connect(task_submitted, note)
        hub.connect(task_submitted, breaks)
        task_id = submit(hub)
        assert sweep(hub).outcomes == {"submitted": 1}
        assert told == [(task_id, "submitted", 1)]
        assert hub.contents(task_id) == ["noted"]

    def test_task_submitted_is_not_sent_where_nobody_accepted(self, sqlite_hub):
        told: list[Any] = []
        sqlite_hub.connect(task_submitted, lambda app, **extra: told.append(extra))
        answers = itertools.cycle([CreatorUnreachable(), CreatorRefused("no")])
        own(sqlite_hub).on_submit = lambda _: raise_(next(answers))
        submit(sqlite_hub)
        sweep(sqlite_hub)
        submit(sqlite_hub)
        sqlite_hub.state.creator_pause.succeeded()
        sweep(sqlite_hub)
        assert told == []


class TestAttempts:
    def second_attempt(self, hub: Host) -> str:
        task_id = submit(hub)
        sweep(hub)
        assert hub.post(task_id, failed(task_id), attempt=1).get_json()["details"]["will_retry"]
        hub.clock.advance(40)
        assert sweep(hub).outcomes == {"submitted": 1}
        assert (hub.task(task_id).status, hub.task(task_id).attempt) == ("submitted", 2)
        return task_id

    def test_a_late_completed_of_the_old_one_still_completes(self, hub):
        task_id = self.second_attempt(hub)
        first, second = own(hub).jobs
        url = urlsplit(str(first.callback_url))
        answer = hub.post(task_id, completed(first.creator_task_id), path=f"{url.path}?{url.query}")
        assert answer.get_json()["outcome"] == "processed"
        assert hub.task(task_id).status == "completed"
        assert first.creator_task_id != second.creator_task_id

    def test_a_late_failed_of_the_old_one_is_stale(self, hub):
        task_id = self.second_attempt(hub)
        url = urlsplit(str(own(hub).jobs[0].callback_url))
        answer = hub.post(task_id, failed(own(hub).jobs[0].creator_task_id), path=f"{url.path}?{url.query}")
        assert answer.get_json()["outcome"] == "stale"
        assert hub.task(task_id).status == "submitted"

    def test_the_new_one_has_its_full_time(self, hub):
        task_id = self.second_attempt(hub)
        task = hub.task(task_id)
        assert task.deadline_at == hub.clock.now + timedelta(seconds=1800)
        assert task.next_poll_at == hub.clock.now + timedelta(seconds=120)


class TestRetryAndCancel:
    def test_retry_gives_another_attempt_at_once(self, hub):
        task_id = submit(hub, max_retries=0)
        sweep(hub)
        hub.post(task_id, failed(task_id), attempt=1)
        assert hub.task(task_id).status == "failed"

        assert retry(hub, task_id).status == "pending"
        task = hub.task(task_id)
        assert (task.attempt, task.finished_at, task.next_submit_at) == (2, None, hub.clock.now)
        assert sweep(hub).outcomes == {"submitted": 1}
        first, second = own(hub).jobs
        assert first.creator_task_id != second.creator_task_id
        assert query_of(second.callback_url)["attempt"] == ["2"]

    def test_retry_is_handed_over_in_the_background(self, hosts, database_url):
        hub = with_own_creator(hosts(database_url, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=1))
        task_id = hub.add_task(status="timeout", next_poll_at=None)
        retry(hub, task_id)
        wait_until(lambda: hub.task(task_id).status == "submitted", timeout=10, what="submitted", log=str)

    @pytest.mark.parametrize("status", ["pending", "submitted", "processing", "completed"])
    def test_retry_of_what_is_open_or_done_is_refused(self, sqlite_hub, status):
        task_id = sqlite_hub.add_task(status=status)
        with pytest.raises(TransitionRefused, match=status):
            retry(sqlite_hub, task_id)
        assert (sqlite_hub.task(task_id).status, sqlite_hub.deliveries(task_id)) == (status, [])

    @pytest.mark.parametrize("status", ["completed", "failed", "timeout"])
    def test_cancel_of_what_is_settled_is_refused(self, sqlite_hub, status):
        task_id = sqlite_hub.add_task(status=status, next_poll_at=None)
        with pytest.raises(TransitionRefused, match=status):
            cancel(sqlite_hub, task_id)
        assert own(sqlite_hub).calls == []

    def test_an_unknown_task_is_neither_retried_nor_cancelled(self, sqlite_hub):
        for act in (retry, cancel):
            with pytest.raises(TaskNotFound):
                act(sqlite_hub, str(uuid.uuid4()))

    def test_cancel_tells_the_creator_and_the_host(self, hub):
        told: list[Any] = []
        hub.connect(task_cancelled, lambda app, *, task, delivery, **extra: told.append((task.task_id, delivery.event)))
        task_id = submit(hub)
        sweep(hub)
        assert cancel(hub, task_id).status == "cancelled"
        assert own(hub).cancelled == [hub.task(task_id).creator_task_id]
        assert told == [(task_id, "cancelled")]
        assert cancel(hub, task_id).verdict == "duplicate"
        assert len(told) == 1
        assert hub.post(task_id, completed(task_id), attempt=1).get_json()["outcome"] == "ignored"

    def test_cancel_before_the_submission_tells_nobody_and_hands_nothing_over(self, hub):
        task_id = submit(hub)
        cancel(hub, task_id)
        assert sweep(hub).claimed == 0
        assert (hub.task(task_id).status, own(hub).calls) == ("cancelled", [])

    def test_cancel_while_the_creator_is_being_called_reaches_it_all_the_same(self, hub):
        def cancelled_meanwhile(job: Job) -> Report:
            cancel(hub, task_id)
            return OPEN

        own(hub).on_submit = cancelled_meanwhile
        task_id = submit(hub)
        sweep(hub)
        assert hub.task(task_id).status == "cancelled"
        assert own(hub).cancelled == [own(hub).jobs[0].creator_task_id]

    def test_cancel_against_a_real_one(self, hosts, sqlite_url, simulators):
        hub = hosts(sqlite_url, WEBHOOK_SUBMIT_THREADS=0, WEBHOOK_CALLBACK_BASE_URL=BASE, CREATOR_SUBMIT_WAIT=0.1)
        simulator, _ = simulators(hub, work_time=None)
        task_id = submit(hub)
        sweep(hub)
        cancel(hub, task_id)
        assert simulator.tasks[hub.task(task_id).creator_task_id].state == "cancelled"
        assert simulator.deaths == 0

    def test_a_creator_that_is_away_hinders_no_cancellation(self, sqlite_hub, simulators):
        simulator, _ = simulators(sqlite_hub, work_time=None)
        simulator.crash()
        task_id = sqlite_hub.add_task(creator_task_id="x", submitted_at=sqlite_hub.clock.now)
        assert cancel(sqlite_hub, task_id).status == "cancelled"


class TestACrash:
    """In the process that hands over; another one sweeps when the lease is over."""

    @pytest.fixture
    def other(self, hub: Host, database_url: str) -> Iterator[Host]:
        """Another process on the same database, with the same creator."""
        other = make_host(database_url, create_tables=False, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=0)
        other.clock, other.state.clock, other.state.creator = hub.clock, hub.clock, own(hub)
        yield other
        other.close()

    def test_before_the_creator_had_it(self, hub, other):
        task_id = submit(hub)
        own(hub).on_submit = lambda _: raise_(Killed())
        with pytest.raises(Killed):
            sweep(hub)
        assert sweep(other).claimed == 0  # it may still be at work
        assert hub.task(task_id).submitting_since == hub.clock.now

        own(hub).on_submit = lambda _: OPEN
        hub.clock.advance(LEASE)
        assert sweep(other).outcomes == {"submitted": 1}
        assert own(hub).calls == ["submit", "statuses", "submit"]
        first, second = own(hub).jobs
        assert first.creator_task_id == second.creator_task_id  # which the creator never saw
        assert hub.task(task_id).status == "submitted"

    def crash_after_it_was_accepted(self, hub: Host) -> str:
        def accept_and_die(job: Job) -> Report:
            own(hub).known[job.creator_task_id] = OPEN
            raise Killed

        own(hub).on_submit = accept_and_die
        task_id = submit(hub)
        with pytest.raises(Killed):
            sweep(hub)
        own(hub).on_submit = lambda _: OPEN
        hub.clock.advance(LEASE)
        return task_id

    def test_when_the_creator_had_it_it_is_not_submitted_again(self, hub, other):
        task_id = self.crash_after_it_was_accepted(hub)
        assert sweep(other).outcomes == {"submitted": 1}
        assert own(hub).calls == ["submit", "statuses"]
        assert (hub.task(task_id).status, hub.task(task_id).submitting_since) == ("submitted", None)

    @pytest.mark.parametrize("trouble", [CreatorUnreachable, CreatorUnclear, CreatorRefused])
    def test_nor_when_it_cannot_be_asked_at_first(self, hub, other, trouble):
        """A creator that dies with us, and comes back later: it marks the first run failed when it gets a second."""
        task_id = self.crash_after_it_was_accepted(hub)
        own(hub).on_statuses = lambda: raise_(trouble())
        sweep(other)
        assert hub.task(task_id).status == "pending"

        own(hub).on_statuses = lambda: None
        hub.clock.advance(LEASE)
        assert sweep(other).outcomes == {"submitted": 1}
        assert len(own(hub).jobs) == 1
        assert hub.task(task_id).status == "submitted"

    def test_a_callback_settles_what_a_crash_left(self, hub, other):
        task_id = self.crash_after_it_was_accepted(hub)
        assert hub.post(task_id, completed(task_id), attempt=1).status_code == 200
        assert sweep(other).claimed == 0
        assert hub.task(task_id).status == "completed"

    def test_many_sweeps_at_once_submit_each_task_once(self, hub, other):
        for _ in range(20):
            submit(hub)
        reports = at_once(*(lambda host=host: sweep(host) for host in (hub, other, hub, other)))
        assert sum(report.claimed for report in reports) == 20
        assert len({job.creator_task_id for job in own(hub).jobs}) == len(own(hub).jobs) == 20

    def test_one_that_slept_over_its_lease_does_not_submit_as_well(self, hub, other):
        """A machine that is suspended between its claim and its call; meanwhile another process makes the call."""
        submit(hub)
        due = hub.tasks()[0].next_submit_at
        called, answered = threading.Event(), threading.Event()
        other_process = threading.Thread(target=sweep, args=(other,))

        def wait_for_the_sleeper(job: Job) -> Report:
            if len(own(hub).jobs) == 1:
                called.set()
                answered.wait(10)
            return OPEN

        def sleepy() -> datetime:
            if other_process.ident is None and hub.tasks()[0].next_submit_at > due:
                hub.clock.advance(LEASE)
                other_process.start()
                assert called.wait(10)
            now: datetime = hub.clock.now
            return now

        own(hub).on_submit = wait_for_the_sleeper
        hub.state.clock = sleepy
        sweep(hub)
        answered.set()
        other_process.join()
        assert len(own(hub).jobs) == 1


def test_an_own_creator_is_a_creator_like_the_packaged_one(sqlite_hub):
    assert isinstance(own(sqlite_hub), Creator)
    assert isinstance(HttpCreator("http://127.0.0.1:1"), Creator)


class TestInUnusualPlaces:
    def submit_from(self, place: str, sqlite_url: str) -> str:
        """Two submissions, the second one from there; what the process has to say."""
        command = [sys.executable, "-m", "tests.integration.test_submission", place, sqlite_url]
        ended = subprocess.run(
            command, cwd=PROJECT_ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def test_a_forked_worker_hands_over_what_it_submits(self, sqlite_host, sqlite_url):
        """As gunicorn's with ``--preload``, where the parent has submitted something before."""
        assert self.submit_from("fork", sqlite_url) == "returned\n"
        assert [task.status for task in sqlite_host.tasks()] == ["submitted"] * 2

    def test_a_thread_that_outlives_the_main_one_can_still_commit(self, sqlite_host, sqlite_url):
        """Nothing is handed over any more; the sweep of another process does that."""
        assert self.submit_from("thread", sqlite_url) == "returned\n"
        assert [task.status for task in sqlite_host.tasks()] == ["submitted", "pending"]


def main(place: str, database_url: str) -> None:
    host = with_own_creator(
        make_host(database_url, create_tables=False, WEBHOOK_CALLBACK_BASE_URL=BASE, WEBHOOK_SUBMIT_THREADS=1)
    )

    def submit_and_wait(*, until_idle: bool) -> None:
        submit(host)
        if until_idle:
            idle = threading.Event()
            host.state.submit_threads.submit_or_run(idle.set)
            idle.wait(3)

    submit_and_wait(until_idle=True)
    if place == "fork":
        with host.app.app_context():
            host.db.engine.dispose()
        if os.fork() == 0:
            submit_and_wait(until_idle=True)
            print("returned", flush=True)  # noqa: T201 - the test reads it
            os._exit(0)
        os.wait()
        return

    def outlive() -> None:
        threading.main_thread().join()
        threading.Event().wait(0.3)  # the interpreter has said that it takes no more work
        submit_and_wait(until_idle=False)
        print("returned", flush=True)  # noqa: T201 - the test reads it

    threading.Thread(target=outlive).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
