"""Faults that a test asks for, and the seed that decides which task they meet."""

from __future__ import annotations

import asyncio
import json
import re
import time
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from flask_contenthub_webhook.testing import FORGED_CONTENT, Contradiction, Faults, Forgery
from flask_contenthub_webhook.testing.faults import draw
from tests.support.receiver import Receiver
from tests.support.simulator import ID, call, parsed_time, simulator, submit, wait_for


def with_faults(faults, *, fields=None, tasks=1, expected=1, **options):
    """Submit `tasks` tasks; what arrived, the simulator's log, and its truth."""
    with Receiver() as receiver, simulator(faults=faults, **options) as creator:
        for n in range(tasks):
            submit(creator, receiver.url(f"/hook/{n}?attempt=1&token=secret"), idempotencyKey=f"t{n}", **(fields or {}))
        creator.wait_until_idle()
        assert len(receiver.requests) == expected
        return receiver.requests, creator.callbacks, creator.tasks


def events(requests):
    return [request.header("X-Webhook-Event") for request in requests]


class TestFaults:
    def test_lost_callbacks_are_never_sent(self):
        _, log, tasks = with_faults(Faults(lose=1), expected=0)

        assert [(entry.attempt, entry.faults, entry.status) for entry in log] == [(0, ("lose",), None)]
        assert (tasks["t0"].state, tasks["t0"].faults) == ("completed", ("lose",))

    def test_delayed_callbacks_come_late(self):
        _, log, tasks = with_faults(Faults(delay=1, delay_by=0.3))

        assert (log[0].sent_at - tasks["t0"].finished_at).total_seconds() >= 0.3
        assert log[0].faults == ("delay",)

    def test_duplicates_are_byte_identical(self):
        requests, log, _ = with_faults(Faults(duplicate=1), expected=2)

        assert requests[0].raw == requests[1].raw
        assert [entry.faults for entry in log] == [(), ("duplicate",)]

    def test_a_reordered_callback_lets_that_of_another_task_pass(self):
        seed = next(
            seed for seed in range(100) if [draw(seed, f"t{n}", "reorder") < 0.5 for n in range(2)] == [True, False]
        )
        started = time.monotonic()
        requests, _, _ = with_faults(Faults(reorder=0.5, reorder_hold=20), tasks=2, expected=2, seed=seed)

        assert [request.header("X-Task-ID") for request in requests] == ["t1", "t0"]
        assert time.monotonic() - started < 10  # it goes right behind the other, not when its time is up

    def test_a_reordered_callback_does_not_wait_for_ever(self):
        with_faults(Faults(reorder=1, reorder_hold=0.1))

    def test_reordering_turns_the_callbacks_of_one_task_around(self):
        kinds = (Contradiction.FAILED_THEN_COMPLETED,)
        faults = Faults(contradict=1, contradictions=kinds, contradict_after=0.05, reorder=1, reorder_hold=0.01)
        requests, _, _ = with_faults(faults, expected=2)

        assert events(requests) == ["completed", "failed"]

    @pytest.mark.parametrize(
        ("kind", "told"),
        [
            (Contradiction.FAILED_THEN_COMPLETED, ["failed", "completed"]),
            (Contradiction.FAILED_AFTER_COMPLETED, ["completed", "failed"]),
            (Contradiction.TWO_COMPLETED, ["completed", "completed"]),
        ],
    )
    def test_contradictions_come_a_moment_apart_and_the_truth_is_completed(self, kind, told):
        faults = Faults(contradict=1, contradictions=(kind,), contradict_after=0.2, fail=1)
        requests, log, tasks = with_faults(faults, expected=2)

        assert events(requests) == told
        assert requests[1].at - requests[0].at >= 0.15
        assert tasks["t0"].state == "completed"
        assert {entry.faults for entry in log} == {(f"contradict:{kind}",)}
        stamps = [parsed_time(json.loads(request.body)["timestamp"]) for request in requests]
        assert stamps[1] > stamps[0]

    def test_two_completed_have_different_content_and_the_api_serves_the_later(self):
        faults = Faults(contradict=1, contradictions=(Contradiction.TWO_COMPLETED,), contradict_after=0.01)
        requests, _, tasks = with_faults(faults, expected=2)

        first, second = (json.loads(request.body)["result"] for request in requests)
        assert first["content"] != second["content"]
        assert (tasks["t0"].other_result, tasks["t0"].result) == (first, second)

    @pytest.mark.parametrize(("kind", "token"), [(Forgery.NO_TOKEN, None), (Forgery.WRONG_TOKEN, "other")])
    def test_a_stranger_calls_back_without_the_right_token(self, kind, token):
        requests, log, tasks = with_faults(Faults(forge=1, forgeries=(kind,)), work_time=(0.1, 0.1), expected=2)

        forged = requests[0]
        query = parse_qs(urlsplit(forged.path).query)
        assert json.loads(forged.body)["result"]["content"] == FORGED_CONTENT
        assert forged.path.startswith("/hook/0?attempt=1")
        assert ("token" in query) == (token is not None)
        assert query.get("token") != ["secret"]
        assert [(entry.forged, entry.faults) for entry in log] == [(True, (f"forge:{kind}",)), (False, ())]
        assert tasks["t0"].result["content"] != FORGED_CONTENT

    def test_a_stranger_uses_the_token_of_one_task_for_another(self):
        faults = Faults(forge=1, forgeries=(Forgery.OTHER_TASK,))
        with Receiver() as receiver, simulator(faults=faults) as creator:
            creator.add_task("victim", callback_url=receiver.url("/hook/victim?attempt=1&token=theirs"))
            submit(creator, receiver.url("/hook/mine?attempt=1&token=mine"), idempotencyKey="t0")
            creator.wait_until_idle()
            (forged,) = [entry for entry in creator.callbacks if entry.forged]

        assert forged.url == receiver.url("/hook/victim?attempt=1&token=mine")
        assert json.loads(forged.body)["taskId"] == "victim"

    def test_a_stranger_does_not_know_the_password(self):
        with Receiver() as receiver, simulator(faults=Faults(forge=1, forgeries=(Forgery.NO_TOKEN,))) as creator:
            submit(creator, f"http://user:pass@{receiver.netloc}/hook")
            creator.wait_until_idle()

        assert sorted(request.header("Authorization") is None for request in receiver.requests) == [False, True]

    def test_a_call_that_hangs_holds_up_no_other(self):
        with simulator(faults=Faults(hang=1)) as creator:
            creator.add_task(ID)
            for path in (f"/api/tasks/{ID}", f"/api/tasks/{ID}/status"):
                with pytest.raises(httpx.ReadTimeout):
                    httpx.get(creator.base_url + path, timeout=0.1)

            assert call(creator, "GET", "/api/tasks").json()["data"]["tasks"][0]["id"] == ID
            # Of the clients that have gone nothing is kept: only the courier is left.
            wait_for(lambda: len(asyncio.all_tasks(creator._loop)) == 1)

    def test_a_task_that_fails_says_what_real_ones_said(self):
        requests, _, tasks = with_faults(Faults(fail=1))

        assert events(requests) == ["failed"]
        assert tasks["t0"].error == json.loads(requests[0].body)["error"]["message"]
        assert tasks["t0"].error.startswith(("Request failed", "connect ECONN", "Text quality"))

    def test_a_refused_submission_makes_no_task(self):
        with simulator(faults=Faults(refuse=1)) as creator:
            answer = submit(creator, idempotencyKey=ID)

            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "VALIDATION_ERROR"
            assert creator.tasks == {}
            assert creator.refused == (ID,)

    @pytest.mark.parametrize("wrong", [{"lose": 1.1}, {"forge": -0.1}, {"delay_by": -1.0}])
    def test_a_rate_that_is_none_is_refused(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Faults(**wrong)


class TestTheSeed:
    EVERYTHING = Faults(
        lose=0.1, delay=0.05, duplicate=0.1, reorder=0.1, contradict=0.1, forge=0.1, hang=0.05, fail=0.2, refuse=0.02
    )

    def test_faults_follow_from_seed_and_id_alone(self):
        ids = [f"task-{n}" for n in range(200)]
        forwards = [self.EVERYTHING.of(5, task_id) for task_id in ids]
        backwards = [self.EVERYTHING.of(5, task_id) for task_id in reversed(ids)]

        assert forwards == backwards[::-1]
        assert forwards != [self.EVERYTHING.of(6, task_id) for task_id in ids]

    def test_rates_are_met_and_faults_are_independent(self):
        drawn = [self.EVERYTHING.of(5, f"task-{n}") for n in range(4000)]

        assert 340 <= sum(plan.lose for plan in drawn) <= 460
        assert 340 <= sum(plan.duplicate for plan in drawn) <= 460
        assert 20 <= sum(plan.lose and plan.duplicate for plan in drawn) <= 65
        assert {plan.contradict for plan in drawn} == {None, *Contradiction}
        assert {plan.forge for plan in drawn} == {None, *Forgery}

    def test_one_rate_does_not_change_what_another_draws(self):
        alone = Faults(lose=0.3)
        together = Faults(lose=0.3, duplicate=0.9, fail=0.5)

        assert [alone.of(1, str(n)).lose for n in range(100)] == [together.of(1, str(n)).lose for n in range(100)]

    def test_the_same_tasks_in_another_order_meet_the_same_fate(self):
        def truths(ids):
            with simulator(faults=Faults(fail=0.5, lose=0.3, duplicate=0.3), seed=9) as creator:
                for task_id in ids:
                    submit(creator, idempotencyKey=task_id)
                return {task.id: (task.state, task.error, task.faults) for task in creator.tasks.values()}

        ids = [f"t{n}" for n in range(12)]
        assert truths(ids) == truths(ids[::-1])

    def test_made_up_ids_are_repeatable_uuids(self):
        def made_up():
            with simulator(seed=4) as creator:
                return [submit(creator).json()["data"]["taskId"] for _ in range(2)]

        first = made_up()
        assert first == made_up()
        assert len(set(first)) == 2
        assert all(
            re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", i) for i in first
        )
