"""Further attempts, retries and cancellations."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from flask_contenthub_webhook import task_cancelled
from flask_contenthub_webhook.creators import Creator, HttpCreator, Job, Report
from flask_contenthub_webhook.errors import TaskNotFound, TransitionRefused
from tests.support.host import Host, completed, failed
from tests.support.processes import wait_until
from tests.support.submission import BASE, OPEN, cancel, own, query_of, retry, submit, sweep, with_own_creator


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


def test_an_own_creator_is_a_creator_like_the_packaged_one(sqlite_hub):
    assert isinstance(own(sqlite_hub), Creator)
    assert isinstance(HttpCreator("http://127.0.0.1:1"), Creator)
