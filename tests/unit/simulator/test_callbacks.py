"""The simulator's callbacks, checked against captures byte for byte, and their delivery."""

from __future__ import annotations

import json
import socket
from itertools import pairwise

import pytest

from flask_contenthub_webhook.testing.article import write_result
from flask_contenthub_webhook.testing.envelope import completed_body, failed_body
from flask_contenthub_webhook.testing.wire import Target, callback_request
from tests.support.receiver import Receiver, Reply
from tests.support.simulator import (
    CALLBACKS,
    CAPTURES,
    GAP,
    ID,
    SCALE,
    TIMEOUT,
    anonymous,
    callback_capture,
    parsed_time,
    simulator,
    submit,
    submitted,
)


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
    """The retries of the real sender: which answers end them, and how far they are apart."""

    @pytest.mark.parametrize("status", [200, 202])
    def test_200_and_202_are_the_end(self, status):
        requests, log = deliver(status)

        assert len(requests) == 1
        assert [(entry.attempt, entry.status, entry.delivered) for entry in log] == [(1, status, True)]

    @pytest.mark.parametrize("status", [201, 203, 204, 206])
    def test_every_other_2xx_is_sent_again_at_once_four_times(self, status):
        requests, log = deliver(status, scale=1.0)

        assert len(requests) == 4
        assert requests[-1].at - requests[0].at < 5  # with gaps it would be 15 s
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
        assert all(gap >= GAP for gap in gaps)
        assert min(gaps) < GAP + 0.5  # a busy machine delays some
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
        assert all(gap >= TIMEOUT + GAP - 0.05 for gap in gaps)
        assert min(gaps) < TIMEOUT + GAP + 0.5  # as above
        assert {entry.error for entry in log} == {"timeout"}

    def test_an_answer_just_in_time_is_enough(self):
        requests, _ = deliver(Reply(delay=5 * 0.2), scale=0.2, timeout=None)

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
