"""The simulator's API, checked against the captured answers of the real creator."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime

import httpx
import pytest

from flask_contenthub_webhook.testing.wire import api_response
from tests.support.receiver import Receiver
from tests.support.simulator import (
    CAPTURES,
    FIELDS,
    ID,
    anonymous,
    api_capture,
    call,
    callback_capture,
    parsed_time,
    simulator,
    submit,
    submitted,
    wait_for,
)

ANSWERED = sorted(
    path.stem for path in (CAPTURES / "api").glob("*.json") if json.loads(path.read_text())["outcome"] == "response"
)


class TestTheAnswersOfTheApi:
    @pytest.fixture
    def replayed(self, request):
        """What a capture was answered, and what its call is answered here in the same situation."""
        name = request.param
        capture = api_capture(name)
        told = capture["response"]["body"]
        with simulator(work_time=None, database="postgres" if name.startswith("pg") else "sqlite") as creator:
            match name:
                case "create-sync-completed" | "create-sync-failed-llm-error" | "retry-failed":
                    if name == "retry-failed":
                        creator.add_task(capture["request"]["path"].split("/")[3], state="failed", error="x")
                    before = len(creator.tasks)
                    with ThreadPoolExecutor(1) as pool:
                        future = pool.submit(self.repeat, capture, creator)
                        wait_for(lambda: len(creator.tasks) > before)
                        creator.finish(list(creator.tasks)[-1], error=told["data"].get("error"))
                        answer = future.result()
                case "create-sync-duplicate-idempotencyKey" | "cancel-running" | "get-running" | "list-status-running":
                    with self.working(creator, told) as task_id:
                        answer = self.repeat(capture, creator)
                        creator.finish(task_id)
                case "health" | "stats-empty" | "invalid-callback-url" | "invalid-empty-body" | "list-limit-101":
                    answer = self.repeat(capture, creator)
                case _:  # about one task that is over
                    with self.working(creator, told) as task_id:
                        creator.finish(task_id, error=told["data"].get("errorMessage"))
                        creator.wait_until_idle()
                    answer = self.repeat(capture, creator)
        return capture["response"], answer

    @staticmethod
    def repeat(capture, creator):
        asked = capture["request"]
        return call(creator, asked["method"], asked["path"], asked["body"] and json.loads(asked["body"]))

    @staticmethod
    @contextmanager
    def working(creator, told):
        """The task that a captured answer speaks of, being worked on; yields its id."""
        row = (told["data"].get("tasks") or [told["data"]])[0]
        task_id = row.get("id") or row["taskId"]
        topic = row.get("topic") or row.get("content", "# T").split("\n")[0].removeprefix("# ")
        with submitted(creator, idempotencyKey=task_id, topic=topic, requirements=row.get("requirements", "R")):
            yield task_id

    @pytest.mark.parametrize("replayed", ANSWERED, indirect=True)
    def test_an_answer_is_that_of_the_capture_but_for_ids_and_times(self, replayed):
        captured, answer = replayed

        assert answer.status_code == captured["status"]
        assert anonymous(answer.content) == anonymous(captured["bodyText"])

    @pytest.mark.parametrize("name", ANSWERED)
    def test_the_head_of_an_answer_is_rebuilt_byte_for_byte(self, name):
        captured = api_capture(name)["response"]
        fields = dict(line.split(": ", 1) for line in captured["headers"])
        at = datetime.strptime(fields["Date"], "%a, %d %b %Y %H:%M:%S GMT").astimezone()
        at = at.replace(tzinfo=parsed_time("2026-01-01T00:00Z").tzinfo)

        head = api_response(captured["status"], captured["bodyText"].encode(), at=at, keep_alive=False)

        assert head.decode().split("\r\n\r\n")[0].split("\r\n")[1:] == captured["headers"]

    def test_a_submission_blocks_until_the_work_is_done(self):
        with simulator(work_time=(0.2, 0.2)) as creator:
            started = time.monotonic()
            answer = submit(creator)

            assert time.monotonic() - started >= 0.2
            assert (answer.status_code, answer.json()["data"]["status"]) == (201, "completed")

    def test_the_work_goes_on_when_the_client_hangs_up(self):
        with Receiver() as receiver, simulator(work_time=(0.3, 0.3)) as creator:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{creator.base_url}/api/tasks", json={**FIELDS, "callbackUrl": receiver.url()}, timeout=0.1)
            receiver.wait_for(1)

            assert [task.state for task in creator.tasks.values()] == ["completed"]

    def test_the_callback_can_come_before_the_answer(self):
        with Receiver() as receiver, simulator(callback_offset=(-0.2, -0.2)) as creator:
            submit(creator, receiver.url())

            assert receiver.wait_for(1)[0].at <= time.monotonic() - 0.1

    def test_which_comes_first_is_chance_and_each_happens(self):
        answered = []
        with Receiver() as receiver, simulator(callback_offset=(-0.15, 0.15)) as creator:
            for _ in range(12):
                submit(creator, receiver.url())
                answered.append(time.monotonic())
                receiver.wait_for(len(answered))
            called_back = [request.at for request in receiver.requests]

        assert {back < answer for back, answer in zip(called_back, answered, strict=True)} == {True, False}

    def test_the_two_are_at_most_two_milliseconds_apart_by_default(self):
        answered, usual = [], []
        with Receiver() as receiver, simulator() as creator:
            for _ in range(20):
                started = time.monotonic()
                call(creator, "GET", "/health")
                usual.append(time.monotonic() - started)
                submit(creator, receiver.url())
                answered.append(time.monotonic())
                receiver.wait_for(len(answered))
            apart = sorted(
                abs(request.at - answer) for request, answer in zip(receiver.requests, answered, strict=True)
            )

        assert apart[10] < 0.02 + 4 * sorted(usual)[10]  # medians: a busy machine delays some, and all of them

    def test_the_list_is_paged_newest_first_and_filtered(self):
        with simulator() as creator:
            for n in range(25):
                creator.add_task(f"t{n}", state="running" if n % 5 else "failed", error=None if n % 5 else "x")
            second = call(creator, "GET", "/api/tasks?page=2&limit=10").json()["data"]
            failed = call(creator, "GET", "/api/tasks?status=failed&limit=3").json()["data"]
            beyond = call(creator, "GET", "/api/tasks?page=9").json()["data"]

        assert [task["id"] for task in second["tasks"]] == [f"t{n}" for n in range(14, 4, -1)]
        assert second["pagination"] == {"page": 2, "limit": 10, "total": 25, "totalPages": 3}
        assert [task["id"] for task in failed["tasks"]] == ["t20", "t15", "t10"]
        assert failed["pagination"] == {"page": 1, "limit": 3, "total": 5, "totalPages": 2}
        assert beyond["tasks"] == []

    def test_the_status_of_a_task_is_told(self):
        with simulator() as creator:
            creator.add_task(ID, state="failed", error="no")
            data = call(creator, "GET", f"/api/tasks/{ID}/status").json()["data"]

        assert (data["taskId"], data["status"], data["errorMessage"]) == (ID, "failed", "no")

    def test_statistics_count_by_state(self):
        with simulator() as creator:
            creator.add_task(state="running")
            creator.add_task(state="failed")
            stats = call(creator, "GET", "/api/stats").json()["data"]["tasks"]

        assert (stats["total"], stats["byStatus"]["running"], stats["byStatus"]["failed"]) == (2, 1, 1)
        assert stats["byType"] == {"content-creator": 2}

    @pytest.mark.parametrize(
        ("fields", "path", "message"),
        [
            ({"topic": ""}, "topic", "Too small: expected string to have >=1 characters"),
            ({"topic": "🚀" * 251}, "topic", "Too big: expected string to have <=500 characters"),
            ({"requirements": "r" * 2001}, "requirements", "Too big: expected string to have <=2000 characters"),
            ({"targetAudience": 7}, "targetAudience", "Invalid input: expected string, received number"),
            ({"keywords": "a"}, "keywords", "Invalid input: expected array, received string"),
            ({"keywords": ["a", None]}, "keywords.1", "Invalid input: expected string, received null"),
            ({"tone": "t" * 101}, "tone", "Too big: expected string to have <=100 characters"),
            ({"priority": 5}, "priority", "Too big: expected number to be <=4"),
            ({"priority": 0}, "priority", "Too small: expected number to be >=1"),
            ({"priority": "high"}, "priority", "Invalid input: expected number, received string"),
            ({"mode": "later"}, "mode", 'Invalid option: expected one of "sync"|"async"'),
            ({"type": "content-creator"}, "type", "Invalid input"),
            ({"callbackUrl": "http://"}, "callbackUrl", "Invalid URL"),
            ({"hardConstraints": {"minWords": "x"}}, "hardConstraints.minWords", None),
        ],
    )
    def test_a_wrong_field_is_refused_with_its_path(self, fields, path, message):
        with simulator() as creator:
            answer = submit(creator, **fields)
            tasks = creator.tasks

        (problem,) = answer.json()["error"]["details"]["fields"]
        assert answer.status_code == 400
        assert problem["path"] == path
        assert message is None or problem["message"] == message
        assert tasks == {}

    def test_an_unknown_status_in_the_list_is_refused(self):
        with simulator() as creator:
            answer = call(creator, "GET", "/api/tasks?status=done&limit=x")

        assert [field["path"] for field in answer.json()["error"]["details"]["fields"]] == ["status", "limit"]

    @pytest.mark.parametrize("body", [b"{", b'{"topic": NaN}', b" " * (10 * 1024 * 1024 + 1)])
    def test_malformed_or_huge_bodies_are_answered_with_500(self, body):
        with simulator() as creator:
            answer = httpx.post(
                f"{creator.base_url}/api/tasks", content=body, headers={"Content-Type": "application/json"}
            )

            assert answer.status_code == 500
            assert creator.deaths == 0

    def test_several_calls_share_a_connection(self):
        with simulator() as creator, httpx.Client(base_url=creator.base_url) as client:
            for _ in range(3):
                assert client.get("/health").headers["Connection"] == "keep-alive"

            assert len(creator._supervisor.process.connections) == 1

    def test_a_chunked_body_is_read(self):
        with simulator() as creator:
            pieces = iter([json.dumps(FIELDS)[:9].encode(), json.dumps(FIELDS)[9:].encode()])
            headers = {"Content-Type": "application/json"}

            assert httpx.post(f"{creator.base_url}/api/tasks", content=pieces, headers=headers).status_code == 201

    def test_a_cancelled_task_runs_on_and_calls_back_completed(self):
        with Receiver() as receiver, simulator(work_time=None) as creator:
            with submitted(creator, receiver.url(), idempotencyKey=ID):
                assert call(creator, "DELETE", f"/api/tasks/{ID}").json()["data"]["status"] == "cancelled"
                creator.finish(ID)
            (request,) = receiver.wait_for(1)

            assert request.header("X-Webhook-Event") == "completed"
            assert creator.tasks[ID].state == "cancelled"

    def test_a_retry_makes_a_new_task_that_never_calls_back(self):
        with Receiver() as receiver, simulator() as creator:
            creator.add_task(ID, state="failed", error="x", callback_url=receiver.url())
            data = call(creator, "POST", f"/api/tasks/{ID}/retry", {}).json()["data"]
            creator.wait_until_idle()

            assert data["status"] == "completed"
            assert data["taskId"] != ID
            assert creator.tasks[data["taskId"]].state == "completed"
            assert receiver.requests == []

    def test_a_reused_id_marks_a_finished_task_failed(self):
        _, captured = callback_capture("failed-duplicate-idempotency-key")
        told = json.loads(captured)
        with Receiver() as receiver, simulator() as creator:
            for _ in range(2):
                submit(creator, receiver.url(), idempotencyKey=told["taskId"], **told["metadata"])
            requests = receiver.wait_for(2)

            assert anonymous(requests[1].body) == anonymous(captured)
            assert creator.tasks[told["taskId"]].state == "failed"

    def test_a_reused_id_of_a_running_task_fails_first_and_completes_later(self):
        with Receiver() as receiver, simulator(work_time=None) as creator:
            with submitted(creator, receiver.url(), idempotencyKey=ID):
                submit(creator, receiver.url(), idempotencyKey=ID)
                in_between = creator.tasks[ID].state
                creator.finish(ID)
            requests = receiver.wait_for(2)

            assert [request.header("X-Webhook-Event") for request in requests] == ["failed", "completed"]
            assert (in_between, creator.tasks[ID].state) == ("failed", "completed")

    def test_on_paper_a_reused_id_is_the_same_task(self):
        with simulator(api="paper") as creator:
            submit(creator, idempotencyKey=ID)
            again = submit(creator, idempotencyKey=ID)

            assert again.json()["data"]["taskId"] == ID
            assert creator.tasks[ID].state == "completed"

    def test_every_call_is_counted_by_its_route(self):
        with simulator() as creator:
            creator.add_task(ID, state="failed")
            call(creator, "GET", f"/api/tasks/{ID}")
            call(creator, "GET", f"/api/tasks/{ID}/status")
            call(creator, "GET", "/api/tasks")
            call(creator, "GET", "/elsewhere")

            assert creator.requests == {
                "GET /api/tasks/:id": 1,
                "GET /api/tasks/:id/status": 1,
                "GET /api/tasks": 1,
                "GET *": 1,
            }
            assert creator.asked == {ID: 2}

    def test_latency_comes_before_every_answer(self):
        with simulator(latency=0.1) as creator:
            started = time.monotonic()
            call(creator, "GET", "/health")

            assert time.monotonic() - started >= 0.1

    def test_rows_tell_the_time_of_the_given_clock(self):
        with simulator(clock=lambda: parsed_time("2031-05-06T07:08:09.123456+00:00")) as creator:
            answer = submit(creator, idempotencyKey=ID).json()

            assert answer["timestamp"] == "2031-05-06T07:08:09.123Z"
            assert creator.tasks[ID].created_at == parsed_time("2031-05-06T07:08:09.123456+00:00")
