"""Results, refusals and silence of the creator at the submission."""

from __future__ import annotations

import itertools
import json
import uuid
from typing import Any

from flask_contenthub_webhook import task_failed, task_submitted
from flask_contenthub_webhook.core.signatures import sign_url
from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.errors import CreatorRefused, CreatorUnreachable
from flask_contenthub_webhook.testing.faults import Faults
from flask_contenthub_webhook.testing.live import LiveApp
from tests.support.host import SECRET, completed, progress
from tests.support.submission import OPEN, cancel, history, own, query_of, raise_, reconcile, submit, sweep


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
            sqlite_hub.state.service.pause.succeeded()
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
                if not sqlite_hub.state.service.pause.is_on():
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
        hub = hosts(database_url, WEBHOOK_SUBMIT_THREADS=0, CREATOR_SUBMIT_WAIT=20)
        with LiveApp(hub.app):
            simulator, _ = simulators(hub, work_time=(1.5, 1.5), callback_offset=(-1.5, -1.5), callback_timeout=5)
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
        sqlite_hub.state.service.pause.succeeded()
        sweep(sqlite_hub)
        assert told == []
