"""Jobs that no open task wants: whatever learns of one cancels it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flask_contenthub_webhook.creators import Job, RemoteState, Report
from flask_contenthub_webhook.creators.holds import LeftAlone
from flask_contenthub_webhook.errors import CreatorUnclear, CreatorUnreachable
from tests.support.host import Host, completed, failed, progress
from tests.support.submission import (
    BASE,
    LEASE,
    OPEN,
    Killed,
    cancel,
    history,
    own,
    raise_,
    reconcile,
    retry,
    submit,
    sweep,
    with_own_creator,
)

NAMED = Report(state=RemoteState.OPEN, creator_task_id="press-7")


def ends(host: Host, task_id: str, status: str) -> None:
    """Poll until the task has ended, as the scheduler does."""
    for _ in range(30):
        if host.task(task_id).status == status:
            return
        host.clock.advance(600)
        reconcile(host)
    raise AssertionError(f"it never became {status}, but is {host.task(task_id).status}")


def settles(host: Host) -> None:
    """Let the sweeps and the poller do what is due within the next hours."""
    for _ in range(20):
        host.clock.advance(700)
        reconcile(host)


class TestACancellation:
    def test_during_the_handover_reaches_the_job_under_the_services_name(self, hub):
        own(hub).on_submit = lambda _: cancel(hub, task_id) and NAMED
        task_id = submit(hub)
        sweep(hub)
        settles(hub)
        assert hub.task(task_id).status == "cancelled"
        assert own(hub).cancelled == ["press-7"]
        assert hub.task(task_id).next_poll_at is None

    def test_with_a_retry_in_the_same_call_leaves_the_second_job_alone(self, hub):
        reports = iter([NAMED, Report(state=RemoteState.OPEN, creator_task_id="press-8")])

        def cancel_and_retry(job: Job) -> Report:
            report = next(reports)
            if report is NAMED:
                cancel(hub, task_id)
                retry(hub, task_id)
                sweep(hub)
            return report

        own(hub).on_submit = cancel_and_retry
        task_id = submit(hub)
        sweep(hub)
        task = hub.task(task_id)
        assert (task.status, task.attempt, task.creator_task_id) == ("submitted", 2, "press-8")
        assert own(hub).cancelled[-1] == "press-7"
        assert "press-8" not in own(hub).cancelled

    def test_is_told_by_the_poller_if_the_process_dies_before_it_tells(self, hub, monkeypatch):
        task_id = submit(hub)
        sweep(hub)
        real = own(hub).cancel
        monkeypatch.setattr(own(hub), "cancel", lambda _: raise_(Killed()))
        with pytest.raises(Killed):
            cancel(hub, task_id)
        monkeypatch.setattr(own(hub), "cancel", real)
        assert hub.task(task_id).status == "cancelled"
        settles(hub)
        assert own(hub).cancelled == [hub.task(task_id).creator_task_id]
        assert hub.task(task_id).next_poll_at is None

    def test_is_told_when_a_creator_that_was_away_is_back(self, hub, monkeypatch):
        task_id = submit(hub)
        sweep(hub)
        real = own(hub).cancel
        monkeypatch.setattr(own(hub), "cancel", lambda _: raise_(CreatorUnreachable()))
        assert cancel(hub, task_id).status == "cancelled"
        settles(hub)
        assert hub.task(task_id).next_poll_at is not None
        monkeypatch.setattr(own(hub), "cancel", real)
        settles(hub)
        assert own(hub).cancelled == [hub.task(task_id).creator_task_id]
        assert hub.task(task_id).next_poll_at is None

    def test_is_not_logged_again_and_again_while_the_creator_is_left_alone(self, sqlite_hub, monkeypatch, caplog):
        task_id = submit(sqlite_hub)
        sweep(sqlite_hub)
        monkeypatch.setattr(own(sqlite_hub), "cancel", lambda _: raise_(LeftAlone("left alone")))
        cancel(sqlite_hub, task_id)
        settles(sqlite_hub)
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []
        assert sqlite_hub.task(task_id).next_poll_at is not None

    def test_is_not_tried_for_longer_than_a_day(self, sqlite_hub, monkeypatch):
        task_id = submit(sqlite_hub)
        sweep(sqlite_hub)
        monkeypatch.setattr(own(sqlite_hub), "cancel", lambda _: raise_(CreatorUnclear()))
        cancel(sqlite_hub, task_id)
        sqlite_hub.clock.advance(25 * 3600)
        reconcile(sqlite_hub)
        assert sqlite_hub.task(task_id).next_poll_at is None

    def test_after_progress_and_a_dead_submitter_tells_the_creator_all_the_same(self, hub):
        """The answer never came; the progress told the name."""

        def report_and_die(job: Job) -> Report:
            assert hub.post(task_id, progress("press-7", 10), attempt=1).status_code == 200
            raise Killed

        own(hub).keeps_names = False
        own(hub).on_submit = report_and_die
        task_id = submit(hub)
        with pytest.raises(Killed):
            sweep(hub)
        task = hub.task(task_id)
        assert (task.status, task.creator_task_id, task.submitting_since) == ("processing", "press-7", None)
        assert task.submitted_at == hub.clock.now
        cancel(hub, task_id)
        assert own(hub).cancelled == ["press-7"]

    def test_of_a_job_whose_answer_was_lost_looks_for_its_name(self, hub):
        creator = own(hub)
        creator.keeps_names = False
        creator.on_submit = lambda _: raise_(CreatorUnclear())
        creator.find = lambda job, *, since: NAMED
        task_id = submit(hub)
        sweep(hub)
        cancel(hub, task_id)
        assert creator.cancelled == ["press-7"]

    def test_of_a_second_attempt_that_was_never_handed_over_reaches_the_first(self, hub):
        task_id = submit(hub)
        sweep(hub)
        first = hub.task(task_id).creator_task_id
        hub.post(task_id, failed(task_id), attempt=1)
        cancel(hub, task_id)
        assert own(hub).cancelled == [first]
        assert hub.task(task_id).next_poll_at is None

    def test_of_many_is_told_in_bounded_time_by_a_service_that_hangs(self, hosts, sqlite_url, monkeypatch):
        """A pass that waits for each of them would keep the poller from everything else."""
        short = {"WEBHOOK_SUBMIT_THREADS": 0, "CREATOR_API_TIMEOUT": 0.1, "WEBHOOK_POLL_CONCURRENCY": 2}
        host = with_own_creator(hosts(sqlite_url, WEBHOOK_CALLBACK_BASE_URL=BASE, **short))
        hangs: list[str] = []

        def hang(name: str) -> None:
            hangs.append(name)
            time.sleep(0.1)
            raise CreatorUnclear

        monkeypatch.setattr(own(host), "cancel", hang)
        ended = {"status": "cancelled", "next_poll_at": host.clock.now, "finished_at": host.clock.now}
        for number in range(40):
            host.add_task(creator_task_id=f"press-{number}", **ended)
        reconcile(host)
        assert 1 <= len(hangs) < 40


class TestAnEarlierAttempt:
    def second_attempt(self, host: Host) -> tuple[str, str, str]:
        task_id = submit(host)
        sweep(host)
        host.post(task_id, failed(task_id), attempt=1)
        host.clock.advance(40)
        sweep(host)
        first, second = (job.creator_task_id for job in own(host).jobs)
        return task_id, first, second

    def test_is_cancelled_before_the_next_one_is_submitted(self, hub):
        """The service may say failed, and then try again by itself."""
        _, first, _ = self.second_attempt(hub)
        assert own(hub).calls == ["submit", "statuses", "cancel", "submit"]
        assert own(hub).cancelled == [first]

    def test_that_cannot_be_cancelled_delays_the_next_one_a_little(self, hub, monkeypatch):
        """At most one job of a task may run; but a service without a working cancellation must not stop everything."""
        task_id = submit(hub)
        sweep(hub)
        hub.post(task_id, failed(task_id), attempt=1)
        real = own(hub).cancel
        monkeypatch.setattr(own(hub), "cancel", lambda _: raise_(CreatorUnclear()))
        hub.clock.advance(40)
        assert sweep(hub).outcomes == {"unreachable": 1}
        assert len(own(hub).jobs) == 1
        monkeypatch.setattr(own(hub), "cancel", real)
        hub.clock.advance(40)
        assert sweep(hub).outcomes == {"submitted": 1}
        assert own(hub).cancelled == [own(hub).jobs[0].creator_task_id]

    def test_that_can_never_be_cancelled_delays_the_next_one_a_few_times(self, hub, monkeypatch):
        task_id = submit(hub)
        sweep(hub)
        hub.post(task_id, failed(task_id), attempt=1)
        monkeypatch.setattr(own(hub), "cancel", lambda _: raise_(NotImplementedError()))
        for _ in range(4):
            hub.clock.advance(150)
            sweep(hub)
        assert (hub.task(task_id).status, len(own(hub).jobs)) == ("submitted", 2)

    def test_that_shows_life_later_is_cancelled_once_more(self, hub):
        task_id, first, second = self.second_attempt(hub)
        own(hub).cancelled.clear()
        for percentage in (40, 50, 60):
            answer = hub.post(task_id, progress(first, percentage), attempt=1)
            assert answer.get_json()["outcome"] == "stale"
        assert own(hub).cancelled == [first]  # and not for each of them
        assert hub.task(task_id).creator_task_id == second

    def test_that_completes_late_ends_the_job_of_the_present_one(self, hub):
        task_id, first, second = self.second_attempt(hub)
        own(hub).cancelled.clear()
        assert hub.post(task_id, completed(first), attempt=1).get_json()["outcome"] == "processed"
        assert (hub.task(task_id).status, own(hub).cancelled) == ("completed", [second])
        assert hub.task(task_id).next_poll_at is None

    def test_that_timed_out_is_cancelled_at_once_and_not_first_by_a_retry(self, hub):
        task_id = submit(hub)
        sweep(hub)
        name = hub.task(task_id).creator_task_id
        own(hub).known[name] = OPEN
        ends(hub, task_id, "timeout")
        assert own(hub).cancelled == [name]
        retry(hub, task_id)
        sweep(hub)
        assert own(hub).jobs[-1].creator_task_id not in own(hub).cancelled
        assert hub.task(task_id).status == "submitted"

    def test_is_forgotten_after_fifty(self, sqlite_hub):
        names = [f"press-{number}" for number in range(60)]
        task_id = sqlite_hub.add_task(
            status="failed", next_poll_at=None, attempt=61, creator_task_id="last", earlier_creator_task_ids=names
        )
        retry(sqlite_hub, task_id)
        assert sqlite_hub.task(task_id).earlier_creator_task_ids == [*names[-49:], "last"]


class TestAJobOfATaskThatHasEnded:
    @pytest.mark.parametrize("status", ["cancelled", "timeout", "failed"])
    def test_is_cancelled_when_it_shows_life(self, hub, status):
        task_id = hub.add_task(status=status, next_poll_at=None, creator_task_id="press-7")
        assert hub.post(task_id, progress("press-7", 40), attempt=1).get_json()["outcome"] == "ignored"
        assert own(hub).cancelled == ["press-7"]

    def test_under_a_name_that_only_its_events_tell(self, hub):
        task_id = hub.add_task(status="cancelled", next_poll_at=None, creator_task_id="ours")
        hub.post(task_id, progress("press-7", 40), attempt=1)
        assert own(hub).cancelled == ["press-7", "ours"]

    def test_but_not_for_progress_that_overtook_its_completion(self, hub):
        task_id = hub.add_task(creator_task_id="press-7")
        hub.post(task_id, completed("press-7"), attempt=1)
        hub.post(task_id, progress("press-7", 40), attempt=1)
        assert own(hub).cancelled == []


class TestAnAnswerThatIsLost:
    def test_of_a_creator_that_names_jobs_itself_waits_for_the_callback(self, hub):
        """It does not know our name; to believe that would pay twice."""
        creator = own(hub)
        creator.keeps_names = False
        creator.on_submit = lambda _: raise_(CreatorUnclear("cut"))
        task_id = submit(hub)
        assert sweep(hub).outcomes == {"unclear": 1}
        for _ in range(4):
            hub.clock.advance(300)
            reconcile(hub)
        assert creator.calls == ["submit"]
        assert hub.task(task_id).status == "submitted"
        assert hub.post(task_id, completed("press-7"), attempt=1).get_json()["outcome"] == "processed"
        assert "cut" in hub.deliveries(task_id)[0].reason

    def test_gets_another_attempt_at_its_deadline_and_the_reason_is_said(self, hub):
        creator = own(hub)
        creator.keeps_names = False
        creator.on_submit = lambda _: raise_(CreatorUnclear("cut"))
        task_id = submit(hub)
        sweep(hub)
        hub.clock.advance(1801)
        reconcile(hub)
        task = hub.task(task_id)
        assert (task.status, task.attempt, task.error_code) == ("pending", 2, "SUBMISSION_UNANSWERED")

    def test_of_a_dead_process_is_not_asked_for_by_a_name_that_nobody_confirmed(self, hub):
        creator = own(hub)
        creator.keeps_names = False
        creator.on_submit = lambda _: raise_(Killed())
        task_id = submit(hub)
        with pytest.raises(Killed):
            sweep(hub)
        hub.clock.advance(LEASE)
        assert sweep(hub).outcomes == {"unclear": 1}
        assert creator.calls == ["submit"]
        assert hub.task(task_id).status == "submitted"

    @pytest.mark.parametrize("lost", [CreatorUnclear("cut"), Killed()], ids=["cut", "killed"])
    def test_of_a_task_that_the_host_cancels_lets_its_retry_wait_until_the_job_is_over(self, hub, lost):
        creator = own(hub)
        creator.keeps_names = False
        creator.on_submit = lambda job: raise_(lost) if job.attempt == 1 else OPEN
        task_id = submit(hub)
        with contextlib.suppress(Killed):
            sweep(hub)
        cancel(hub, task_id)
        retry(hub, task_id)
        for _ in range(2):
            hub.clock.advance(890)
            sweep(hub)
            reconcile(hub)
        assert [job.attempt for job in creator.jobs] == [1]
        assert hub.task(task_id).status == "pending"
        hub.clock.advance(30)
        sweep(hub)
        assert [job.attempt for job in creator.jobs] == [1, 2]
        assert (hub.task(task_id).status, hub.task(task_id).attempt) == ("submitted", 2)

    def test_but_comes_after_a_retry_of_the_hosts_ends_its_waiting(self, hub):
        creator = own(hub)
        creator.keeps_names = False

        def cancel_and_retry(job: Job) -> Report:
            if job.attempt == 1:
                cancel(hub, task_id)
                retry(hub, task_id)
                assert sweep(hub).claimed == 0
            return Report(state=RemoteState.OPEN, creator_task_id=f"press-{job.attempt}")

        creator.on_submit = cancel_and_retry
        task_id = submit(hub)
        sweep(hub)
        assert creator.cancelled[-1] == "press-1"
        hub.clock.advance(max(hub.state.settings.retry_backoff) / timedelta(seconds=1) + 1)
        sweep(hub)
        task = hub.task(task_id)
        assert (task.status, task.attempt, task.creator_task_id) == ("submitted", 2, "press-2")

    def test_is_asked_for_again_under_the_same_name_if_that_is_safe(self, hub):
        creator = own(hub)
        creator.keeps_names, creator.idempotent = False, True
        answers: list[Callable[[], Report]] = [lambda: raise_(CreatorUnclear("cut")), lambda: NAMED]
        creator.on_submit = lambda _: answers.pop(0)()
        task_id = submit(hub)
        sweep(hub)
        hub.clock.advance(LEASE)
        sweep(hub)
        first, second = creator.jobs
        assert first.creator_task_id == second.creator_task_id
        assert (hub.task(task_id).status, hub.task(task_id).creator_task_id) == ("submitted", "press-7")

    def test_is_found_by_a_creator_that_can_look(self, hub):
        creator = own(hub)
        creator.keeps_names = False
        creator.on_submit = lambda _: raise_(CreatorUnclear("cut"))
        creator.find = lambda job, *, since: NAMED
        task_id = submit(hub)
        sweep(hub)
        hub.clock.advance(130)
        reconcile(hub)
        task = hub.task(task_id)
        assert (task.status, task.creator_task_id, task.submitting_since) == ("submitted", "press-7", None)

    def test_that_comes_after_all_gives_the_job_its_name(self, hub):
        """Another process had counted it as unanswered meanwhile."""
        own(hub).keeps_names = False

        def sleep_over_the_lease(job: Job) -> Report:
            hub.clock.advance(LEASE)
            assert sweep(hub).outcomes == {"unclear": 1}
            return NAMED

        own(hub).on_submit = sleep_over_the_lease
        task_id = submit(hub)
        sweep(hub)
        task = hub.task(task_id)
        assert (task.creator_task_id, task.submitting_since, own(hub).cancelled) == ("press-7", None, [])


def test_a_cancellation_is_in_the_history_once(hub):
    task_id = submit(hub)
    sweep(hub)
    cancel(hub, task_id)
    settles(hub)
    assert history(hub, task_id) == [("response", "submitted", "processed"), ("host", "cancelled", "processed")]


def test_a_creator_is_never_called_within_a_transaction(hub):
    def cancel_and_answer(job: Job) -> Report:
        cancel(hub, task_id)
        return OPEN

    own(hub).on_submit = cancel_and_answer
    task_id = submit(hub)
    sweep(hub)
    settles(hub)
    calls: Any = list(zip(own(hub).calls, own(hub).connections_in_use, strict=True))
    assert ("cancel", 0) in calls
    assert {in_use for _, in_use in calls} == {0}
