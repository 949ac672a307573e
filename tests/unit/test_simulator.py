"""The creator simulator: checked against what the real creator was captured doing, byte for byte where it can be."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from flask_contenthub_webhook.testing import (
    FORGED_CONTENT,
    Contradiction,
    CreatorSimulator,
    Faults,
    Forgery,
    read_ledger,
)
from flask_contenthub_webhook.testing.article import write_result
from flask_contenthub_webhook.testing.envelope import completed_body, failed_body
from flask_contenthub_webhook.testing.faults import draw
from flask_contenthub_webhook.testing.wire import Target, api_response, callback_request
from tests.support.processes import PROJECT_ROOT, clean_environment
from tests.support.receiver import Receiver, Reply

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
CALLBACKS = sorted(path.stem for path in (CAPTURES / "callbacks").glob("*.http"))
ANSWERED = sorted(
    path.stem for path in (CAPTURES / "api").glob("*.json") if json.loads(path.read_text())["outcome"] == "response"
)
SCALE = 0.02  # 5 s become 100 ms, 10 s become 200 ms
GAP, TIMEOUT = 5 * SCALE, 10 * SCALE
FIELDS = {"topic": "T", "requirements": "R", "targetAudience": "A"}
TLS = ssl.create_default_context()  # made once: it takes longer than most of these tests
ID = "5837d91f-f64b-4f20-b5ab-17090b7576e5"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def callback_capture(name):
    """The head and the body of a captured callback."""
    head, _, body = (CAPTURES / "callbacks" / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), body


def api_capture(name):
    return json.loads((CAPTURES / "api" / f"{name}.json").read_text())


def anonymous(text):
    """JSON text without what differs from run to run: ids, times, durations, and names made of them."""
    text = text.decode() if isinstance(text, bytes) else text
    text = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", text)
    text = re.sub(r"\d{13}-[0-9a-z]{6}\.png", "NAME.png", text)
    text = re.sub(r"_([01])_\d{13}\.png", r"_\1_NAME.png", text)
    return re.sub(r'"(duration|uptime)":\d+', r'"\1":N', text)


def parsed_time(text):
    return datetime.fromisoformat(text)


@contextmanager
def simulator(**options):
    with CreatorSimulator(**{"time_scale": SCALE, "callback_timeout": 10.0, "seed": 1, **options}) as running:
        yield running


def call(creator, method, path, body=None):
    content = None if body is None else json.dumps(body)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    return httpx.request(method, creator.base_url + path, content=content, headers=headers, timeout=10, verify=TLS)


def submit(creator, url=None, **fields):
    callback = {} if url is None else {"callbackUrl": url}
    return call(creator, "POST", "/api/tasks", {**FIELDS, **callback, **fields})


@contextmanager
def submitted(creator, url=None, **fields):
    """A submission that is being waited for; yields the future of its answer once the task is there."""
    before = len(creator.tasks)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(submit, creator, url, **fields)
        wait_for(lambda: len(creator.tasks) > before)
        yield answer


def wait_for(condition, timeout=10.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def deliver(reply, *, scale=SCALE, timeout=10.0):
    """One callback to a receiver that answers so; what it saw and what the simulator logged."""
    with Receiver(reply) as receiver, simulator(time_scale=scale, callback_timeout=timeout) as creator:
        submit(creator, receiver.url())
        creator.wait_until_idle()
        return receiver.requests, creator.callbacks


class TestTheBytesOfACallback:
    @pytest.mark.parametrize("name", CALLBACKS)
    def test_a_captured_request_is_rebuilt_byte_for_byte(self, name):
        head, captured = callback_capture(name)
        told = json.loads(captured)
        at, metadata, kind = parsed_time(told["timestamp"]), told["metadata"], told["workflowType"]
        if told["event"] == "completed":
            body = completed_body(told["taskId"], metadata, told["result"], at=at, workflow_type=kind)
        else:
            error = told["error"]
            duration = error["details"]["duration"]
            body = failed_body(told["taskId"], metadata, error["message"], at=at, duration=duration, workflow_type=kind)
        target = Target.parse(f"http://127.0.0.1:19200{head[0].split(' ')[1]}")

        sent = callback_request(target, told["event"], told["taskId"], body)

        assert sent == (CAPTURES / "callbacks" / f"{name}.http").read_bytes()

    @pytest.mark.parametrize(
        "name", ["completed-content-creator", "completed-before-duplicate", "completed-nonuuid-taskid"]
    )
    def test_a_completed_task_is_told_as_in_the_capture(self, name):
        head, captured = callback_capture(name)
        told = json.loads(captured)
        with Receiver() as receiver, simulator() as creator:
            path = head[0].split(" ")[1]
            submit(creator, receiver.url(path), idempotencyKey=told["taskId"], **told["metadata"])
            (request,) = receiver.wait_for(1)

        def stable(lines):
            return [line for line in lines if not line.startswith(("Host:", "Content-Length:"))]

        assert stable(request.head) == stable(head)
        assert [line.split(":")[0] for line in request.head] == [line.split(":")[0] for line in head]
        assert request.header("Host") == receiver.netloc
        assert request.header("Content-Length") == str(len(request.body))
        assert anonymous(request.body) == anonymous(captured)

    @pytest.mark.parametrize(
        "name", ["failed-llm-http-400", "failed-llm-unreachable", "failed-text-quality", "failed-invalid-params"]
    )
    def test_a_failed_task_is_told_as_in_the_capture(self, name):
        _, captured = callback_capture(name)
        told = json.loads(captured)
        with Receiver() as receiver, simulator(work_time=None) as creator:
            if name == "failed-invalid-params":
                submit(creator, receiver.url(), imageSize="nonsense", **told["metadata"])
            else:
                with submitted(creator, receiver.url(), idempotencyKey=told["taskId"], **told["metadata"]):
                    creator.finish(told["taskId"], error=told["error"]["message"])
            (request,) = receiver.wait_for(1)

        assert request.header("X-Webhook-Event") == "failed"
        assert anonymous(request.body) == anonymous(captured)

    def test_every_try_is_byte_identical(self):
        requests, _ = deliver(503)

        assert len({request.raw for request in requests}) == 1

    def test_credentials_in_the_url_become_a_basic_header_between_host_and_connection(self):
        with Receiver() as receiver, simulator() as creator:
            submit(creator, f"http://user:pass@{receiver.netloc}/hook")
            (request,) = receiver.wait_for(1)

        assert request.head[-3:] == [
            f"Host: {receiver.netloc}",
            "Authorization: Basic dXNlcjpwYXNz",
            "Connection: keep-alive",
        ]

    def test_the_query_arrives_verbatim_and_the_fragment_does_not(self):
        with Receiver() as receiver, simulator() as creator:
            submit(creator, receiver.url("/a%2Fb/?x=1&x=%7e+%20&token=a-_&empty=#there"))
            (request,) = receiver.wait_for(1)

        assert request.path == "/a%2Fb/?x=1&x=%7e+%20&token=a-_&empty="

    @pytest.mark.parametrize(
        ("url", "host", "path"),
        [
            ("http://hub.example:80/x", "hub.example", "/x"),
            ("https://hub.example/x", "hub.example", "/x"),
            ("https://hub.example:80/x", "hub.example:80", "/x"),
            ("http://[::1]:8000", "[::1]:8000", "/"),
            ("http://hub.example?q=中", "hub.example", "/?q=%E4%B8%AD"),
        ],
    )
    def test_host_and_request_line_come_from_the_url(self, url, host, path):
        target = Target.parse(url)

        assert (target.host_header, target.path) == (host, path)

    def test_half_of_a_surrogate_pair_is_escaped_as_javascript_does(self):
        assert b'"topic":"\\ud83d"' in completed_body("x", {"topic": "\ud83d"}, {}, at=parsed_time("2026-01-01T00:00Z"))

    def test_word_counts_are_those_of_javascript(self):
        captured = json.loads(callback_capture("completed-content-creator")[1])
        result = write_result(
            ID, captured["metadata"]["topic"], seed=1, at=parsed_time("2026-01-01T00:00Z"), duration=1, images_url="x"
        )

        assert result["wordCount"] == captured["result"]["wordCount"] == 922


class TestDelivery:
    """The table of WIRE.md section 2."""

    @pytest.mark.parametrize("status", [200, 202])
    def test_200_and_202_are_the_end(self, status):
        requests, log = deliver(status)

        assert len(requests) == 1
        assert [(entry.attempt, entry.status, entry.delivered) for entry in log] == [(1, status, True)]

    @pytest.mark.parametrize("status", [201, 203, 204, 206])
    def test_every_other_2xx_is_sent_again_at_once_four_times(self, status):
        requests, log = deliver(status, scale=1.0)

        assert len(requests) == 4
        assert requests[-1].at - requests[0].at < 1  # with gaps it would be 15 s
        assert not any(entry.delivered for entry in log)

    @pytest.mark.parametrize("status", [301, 302, 303])
    def test_a_redirect_is_fetched_with_get_and_a_200_there_counts(self, status):
        requests, log = deliver(lambda request, n: Reply(status, {"Location": "/there?a=1"}) if n == 0 else 200)

        assert [(request.method, request.path) for request in requests] == [("POST", "/hook"), ("GET", "/there?a=1")]
        assert requests[1].body == b""
        assert requests[1].header("Content-Type") is None
        assert requests[1].header("X-Webhook-Event") == "completed"
        assert [(entry.method, entry.attempt, entry.delivered) for entry in log] == [
            ("POST", 1, False),
            ("GET", 1, True),
        ]

    @pytest.mark.parametrize("status", [307, 308])
    def test_307_and_308_are_posted_again(self, status):
        requests, _ = deliver(lambda request, n: Reply(status, {"Location": "/there"}) if n == 0 else 200)

        assert [(request.method, request.path) for request in requests] == [("POST", "/hook"), ("POST", "/there")]
        assert requests[0].body == requests[1].body
        assert requests[0].head[1:] == requests[1].head[1:]

    @pytest.mark.parametrize("answer", [300, 302, 304, 400, 429, 500, 503, "reset", "nonsense"])
    def test_everything_else_is_tried_four_times_five_seconds_apart(self, answer):
        replies = {
            429: Reply(429, {"Retry-After": "1"}),
            "reset": Reply(reset=True),
            "nonsense": Reply(raw=b"hello\r\n\r\n"),
        }
        requests, log = deliver(replies.get(answer, answer))

        gaps = [later.at - earlier.at for earlier, later in pairwise(requests)]
        assert len(requests) == 4
        assert all(GAP <= gap < GAP + 0.5 for gap in gaps)
        assert [entry.attempt for entry in log] == [1, 2, 3, 4]
        assert not any(entry.delivered for entry in log)

    def test_a_refused_connection_is_tried_four_times(self):
        with socket.socket() as closed, simulator() as creator:
            closed.bind(("127.0.0.1", 0))
            submit(creator, f"http://127.0.0.1:{closed.getsockname()[1]}/hook")
            creator.wait_until_idle()

            assert [(entry.attempt, entry.error) for entry in creator.callbacks] == [
                (n, "refused") for n in (1, 2, 3, 4)
            ]

    def test_silence_is_tried_four_times_fifteen_seconds_apart(self):
        requests, log = deliver(Reply(hang=True), timeout=None)

        gaps = [later.at - earlier.at for earlier, later in pairwise(requests)]
        assert len(requests) == 4
        assert all(TIMEOUT + GAP - 0.05 <= gap < TIMEOUT + GAP + 0.5 for gap in gaps)
        assert {entry.error for entry in log} == {"timeout"}

    def test_an_answer_just_in_time_is_enough(self):
        requests, _ = deliver(Reply(delay=TIMEOUT / 2), timeout=None)

        assert len(requests) == 1

    @pytest.mark.parametrize(
        ("reply", "wait", "timeout"),
        [(503, 15 * SCALE, 10.0), (Reply(hang=True), 55 * SCALE, None)],
        ids=["503", "silence"],
    )
    def test_one_receiver_holds_up_all_others(self, reply, wait, timeout):
        with (
            Receiver(reply) as slow,
            Receiver() as quick,
            simulator(callback_timeout=timeout) as creator,
        ):
            submit(creator, slow.url())
            slow.wait_for(1)
            submit(creator, quick.url())
            quick.wait_for(1)

            assert quick.requests[0].at - slow.requests[0].at >= wait - 0.02
            assert len(slow.requests) == 4

    def test_no_two_callbacks_are_on_their_way_at_once(self):
        with Receiver(Reply(delay=0.02)) as receiver, simulator() as creator:
            for _ in range(5):
                submit(creator, receiver.url())
            receiver.wait_for(5)

        assert all(later.at - earlier.at >= 0.02 for earlier, later in pairwise(receiver.requests))

    def test_an_id_that_cannot_stand_in_a_header_is_never_sent(self):
        with Receiver() as receiver, simulator() as creator:
            submit(creator, receiver.url(), idempotencyKey="中")
            creator.wait_until_idle()

            assert receiver.requests == []
            assert "Invalid character" in creator.callbacks[0].error

    def test_without_a_callback_url_or_with_callbacks_off_nothing_is_sent(self):
        with Receiver() as receiver, simulator() as creator:
            submit(creator)
            submit(creator, receiver.url(), callbackEnabled=False)
            creator.wait_until_idle()

            assert creator.callbacks == ()
            assert receiver.requests == []


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
        with Receiver() as receiver, simulator(callback_offset=(-0.04, 0.04)) as creator:
            for _ in range(12):
                submit(creator, receiver.url())
                answered.append(time.monotonic())
                receiver.wait_for(len(answered))
            called_back = [request.at for request in receiver.requests]

        assert {back < answer for back, answer in zip(called_back, answered, strict=True)} == {True, False}

    def test_the_two_are_at_most_two_milliseconds_apart_by_default(self):
        answered = []
        with Receiver() as receiver, simulator() as creator:
            for _ in range(20):
                submit(creator, receiver.url())
                answered.append(time.monotonic())
                receiver.wait_for(len(answered))
            apart = sorted(
                abs(request.at - answer) for request, answer in zip(receiver.requests, answered, strict=True)
            )

        assert apart[10] < 0.02  # the median: a busy machine delays some

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

            assert len(creator._process.connections) == 1

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


TRAPS = {
    "unknown id": ("GET", f"/api/tasks/{UNKNOWN}", None, 404),
    "unknown status": ("GET", f"/api/tasks/{UNKNOWN}/status", None, 404),
    "unknown result": ("GET", f"/api/tasks/{UNKNOWN}/result", None, 404),
    "early result": ("GET", "/api/tasks/running/result", None, 400),
    "result of a failed one": ("GET", "/api/tasks/failed/result", None, 400),
    "cancel unknown": ("DELETE", f"/api/tasks/{UNKNOWN}", None, 404),
    "cancel completed": ("DELETE", "/api/tasks/completed", None, 400),
    "retry completed": ("POST", "/api/tasks/completed/retry", {}, 400),
    "retry unknown": ("POST", f"/api/tasks/{UNKNOWN}/retry", {}, 404),
    "async": ("POST", "/api/tasks", {**FIELDS, "mode": "async"}, 202),
}


class TestTraps:
    @pytest.fixture(autouse=True)
    def rows(self):
        self.states = ("running", "failed", "completed")

    def seeded(self, creator):
        for state in self.states:
            creator.add_task(state, state=state, result={} if state == "completed" else None)

    @pytest.mark.parametrize("trap", TRAPS)
    def test_the_real_one_dies_of_it_and_comes_back(self, trap):
        method, path, body, _ = TRAPS[trap]
        with simulator(restart_after=0.05) as creator:
            self.seeded(creator)
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                call(creator, method, path, body)
            wait_for(lambda: creator.deaths == 1)
            creator.wait_until_up()

            assert call(creator, "GET", "/health").status_code == 200
            assert call(creator, "GET", "/api/tasks").json()["data"]["pagination"]["total"] == 3

    @pytest.mark.parametrize("trap", TRAPS)
    def test_on_paper_it_is_answered(self, trap):
        method, path, body, status = TRAPS[trap]
        with simulator(api="paper") as creator:
            self.seeded(creator)
            answer = call(creator, method, path, body)

            assert answer.status_code == status
            assert creator.deaths == 0
            assert status != 404 or answer.json()["error"]["code"] == "NOT_FOUND"

    def test_on_paper_an_async_task_is_done_later_and_calls_back(self):
        with Receiver() as receiver, simulator(api="paper", work_time=(0.1, 0.1)) as creator:
            answer = submit(creator, receiver.url(), mode="async", idempotencyKey=ID)
            receiver.wait_for(1)

            assert answer.status_code == 202
            assert answer.json()["data"] | {"message": ""} == {"taskId": ID, "status": "pending", "message": ""}
            assert creator.tasks[ID].state == "completed"

    def test_on_postgres_the_list_kills_and_the_single_row_is_safe(self):
        with simulator(database="postgres", restart_after=0.01) as creator:
            creator.add_task(ID)

            assert call(creator, "GET", f"/api/tasks/{ID}").json()["data"]["status"] == "running"
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                call(creator, "GET", "/api/tasks")
            wait_for(lambda: creator.death_reasons == ("GET of the list on Postgres",))

    def test_a_death_cuts_everybody_and_connections_are_refused_until_it_is_back(self):
        with simulator(work_time=None, restart_after=None) as creator:
            with submitted(creator, idempotencyKey=ID) as blocked:
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    call(creator, "GET", f"/api/tasks/{UNKNOWN}")
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    blocked.result()
            with pytest.raises(httpx.ConnectError):
                call(creator, "GET", "/health")
            creator.restart()

            assert call(creator, "GET", "/health").status_code == 200


class TestACrash:
    def test_completed_tasks_stay_and_the_queue_is_lost(self):
        with Receiver(Reply(delay=0.3)) as receiver, simulator() as creator:
            submit(creator, receiver.url(), idempotencyKey="sent")
            receiver.wait_for(1)
            submit(creator, receiver.url(), idempotencyKey="queued")
            creator.crash()
            creator.restart()
            time.sleep(0.1)

            assert {task.state for task in creator.tasks.values()} == {"completed"}
            assert len(receiver.requests) == 1
            assert [(entry.task_id, entry.faults) for entry in creator.callbacks if entry.attempt == 0] == [
                ("queued", ("crash",))
            ]

    @pytest.mark.parametrize("orphans", ["running", "failed"])
    def test_what_was_being_worked_on_never_finishes(self, orphans):
        with Receiver() as receiver, simulator(work_time=(0.1, 0.1), orphans=orphans) as creator:
            with submitted(creator, receiver.url(), idempotencyKey=ID):
                creator.crash()
            creator.restart(after=0.05)
            time.sleep(0.15)
            task = creator.tasks[ID]

            assert (task.state, task.orphaned) == (orphans, True)
            assert call(creator, "GET", f"/api/tasks/{ID}").json()["data"]["status"] == orphans
            assert receiver.requests == []

    def test_the_supervisor_brings_it_back_on_the_same_port(self):
        with simulator() as creator:
            url = creator.base_url
            creator.crash(restart_after=0.05)
            down = not creator.up
            creator.wait_until_idle()

            assert down
            assert creator.base_url == url
            assert creator.death_reasons == ("crash",)
            assert call(creator, "GET", "/health").status_code == 200

    def test_it_dies_at_the_submission_that_was_named(self):
        with simulator(faults=Faults(crash_at=(2,)), restart_after=0.01) as creator:
            assert submit(creator, idempotencyKey="one").status_code == 201
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                submit(creator, idempotencyKey="two")
            wait_for(lambda: creator.deaths == 1)
            creator.wait_until_up()

            assert submit(creator, idempotencyKey="three").status_code == 201
            assert [task.state for task in creator.tasks.values()] == ["completed", "running", "completed"]
            assert creator.deaths == 1

    def test_it_forgets_no_client_that_comes_at_that_moment(self):
        """Whoever leaves a socket open makes the test of a host fail, if warnings are errors there."""
        with simulator() as creator:
            address, ended = urlsplit(creator.base_url), threading.Event()

            def call_on():
                while not ended.is_set():
                    with suppress(OSError), socket.create_connection((address.hostname, address.port), 2) as client:
                        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                        client.recv(100)

            with ThreadPoolExecutor(8) as pool:
                for _ in range(8):
                    pool.submit(call_on)
                for _ in range(20):
                    creator.crash()
                    creator.restart()
                    time.sleep(0.002)
                ended.set()
        gc.collect()  # the warnings, if there are any, fail this test

    def test_the_truth_is_readable_after_the_end(self):
        with simulator() as creator:
            submit(creator, idempotencyKey=ID)

        assert creator.tasks[ID].state == "completed"
        assert creator.requests["POST /api/tasks"] == 1


class TestAProcessOfItsOwn:
    @contextmanager
    def running(self, options):
        script = f"from flask_contenthub_webhook.testing import run_simulator; run_simulator({options})"
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=PROJECT_ROOT,
            env=clean_environment(PYTHONPATH=str(PROJECT_ROOT)),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()
            process.communicate()

    def test_it_runs_until_it_is_told_to_stop(self, tmp_path):
        with self.running(f"state_path={str(tmp_path / 'state.db')!r}, seed=1") as (process, url):
            assert httpx.post(f"{url}/api/tasks", json={**FIELDS, "idempotencyKey": ID}).status_code == 201
            process.send_signal(signal.SIGTERM)

            assert process.wait(10) == 0
        ledger = read_ledger(tmp_path / "state.db")
        assert ledger.tasks()[ID].state == "completed"
        assert ledger.counts("requests") == {"POST /api/tasks": 1}

    def test_a_kill_loses_nothing_of_the_truth(self, tmp_path):
        state = tmp_path / "state.db"
        options = f"state_path={str(state)!r}, seed=1"
        with Receiver() as receiver:
            fields = {**FIELDS, "callbackUrl": receiver.url()}
            with self.running(options) as (process, url):
                httpx.post(f"{url}/api/tasks", json={**fields, "idempotencyKey": "done"})
                receiver.wait_for(1)
                wait_for(lambda: read_ledger(state).callbacks())
                process.kill()
                process.wait()
            with self.running(f"{options}, work_time=(60, 60)") as (process, url):
                with pytest.raises(httpx.ReadTimeout):
                    httpx.post(f"{url}/api/tasks", json={**fields, "idempotencyKey": "running"}, timeout=0.3)
                process.kill()
                process.wait()
            with self.running(options) as (_, url):
                rows = httpx.get(f"{url}/api/tasks").json()["data"]["tasks"]

        ledger = read_ledger(state)
        assert [(row["id"], row["status"]) for row in rows] == [("running", "running"), ("done", "completed")]
        assert ledger.tasks()["running"].orphaned
        assert [(entry.task_id, entry.delivered) for entry in ledger.callbacks()] == [("done", True)]


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


class TestTheLoad:
    def test_a_hundred_submissions_block_at_once_in_one_thread(self):
        request = json.dumps(FIELDS).encode()
        head = (
            f"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(request)}"
        )
        threads = threading.active_count()
        with simulator(work_time=(0.5, 0.5)) as creator:
            clients = [socket.create_connection(("127.0.0.1", urlsplit(creator.base_url).port)) for _ in range(100)]
            started = time.monotonic()
            for client in clients:
                client.sendall(f"{head}\r\n\r\n".encode() + request)
            wait_for(lambda: len(creator.tasks) == 100)
            running = threading.active_count()
            answers = [client.recv(12) for client in clients]
            elapsed = time.monotonic() - started
            for client in clients:
                client.close()

        assert set(answers) == {b"HTTP/1.1 201"}
        assert elapsed < 3
        assert running == threads + 1

    def test_nothing_is_left_after_the_end(self):
        before = set(threading.enumerate())
        with Receiver(Reply(hang=True)) as receiver, simulator(work_time=None) as creator:
            creator.add_task(ID)
            with submitted(creator, receiver.url(), idempotencyKey="blocked") as answer:
                creator.stop()
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    answer.result()

        assert {thread for thread in threading.enumerate() if thread.name == "creator-simulator"} <= before

    def test_a_port_that_is_taken_is_said_at_once(self):
        with simulator() as creator, pytest.raises(OSError, match="in use"):
            CreatorSimulator(port=urlsplit(creator.base_url).port).start()

    def test_it_can_be_started_again(self):
        creator = CreatorSimulator(seed=1)
        for _ in range(2):
            with creator:
                assert call(creator, "GET", "/health").status_code == 200
        with pytest.raises(RuntimeError, match="not started"):
            creator.crash()

    @pytest.mark.parametrize(
        "options", [{"time_scale": -1}, {"time_scale": 0}, {"work_time": (2, 1)}, {"api": "other"}, {"latency": -1}]
    )
    def test_an_option_that_makes_no_sense_is_refused(self, options):
        with pytest.raises(ValueError, match=r".+"):
            CreatorSimulator(**options)
