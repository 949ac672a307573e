"""Invalid content types, task ids and attempts."""

from __future__ import annotations

import pytest

from tests.support.adversarial_http import (
    OWN_REFUSALS_OF_GUNICORN,
    PROGRESS,
    assert_untouched,
    assert_works_as_before,
    event,
)
from tests.support.raw_http import callback, completed, failed, post


class TestContentTypes:
    @pytest.mark.parametrize(
        "type_",
        [
            None,
            "",
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            "application/json+x",
            "application/",
            "json",
            "*/*",
            ";",
            b"\xff\xfe",
        ],
    )
    def test_other_than_json(self, web, type_):
        task_id = web.database.add_task()

        answer = web.post(task_id, completed(task_id), headers={"Content-Type": type_})

        assert (answer.status, answer.code) == (415, "unsupported_media_type")
        assert_untouched(web, task_id)

    @pytest.mark.parametrize(
        "type_",
        [
            "application/json; charset=utf-8",
            "APPLICATION/JSON",
            "application/cloudevents+json",
            "image/svg+json",
            "application/json;",
            "application/json; charset=utf-16",
        ],
    )
    def test_json_by_any_name(self, web, type_):
        task_id = web.database.add_task()

        assert web.post(task_id, completed(task_id), headers={"Content-Type": type_}).outcome == "processed"


class TestTasks:
    @pytest.mark.parametrize(
        "path",
        ["nope", "00000000-0000-4000-8000-000000000000", "a/b/c", "a%2Fb", "..", "../../../etc/passwd", "%2e%2e%2f",
         ".", "...", "%00", "a%00b", "%E4%BD%A0%E5%A5%BD", "%F0%9F%8E%89", "%ff%fe", "%zz", "%", "x" * 3_000, "%20",
         "a+b", "a;b", "a:b@c", "'%20OR%20'1'='1", "%25s", "%7B0%7D", "a%3Fb", "a%23b", "a//b", "a/",
         "%EF%BB%BF", "a%7Fb"],
        ids=lambda path: path[:24],
    )  # fmt: skip
    def test_an_id_that_nobody_has(self, web, path):
        answer = web.send(post(callback(path), completed("some-task")))

        assert (answer.status, answer.code) == (404, "task_not_found")

    @pytest.mark.parametrize("path", ["", "/", "//x", "a%0Ab", "%0D%0ASet-Cookie:%20a=b", "%2F"])
    def test_an_id_that_is_no_part_of_a_path(self, web, path):
        answer = web.send(post(callback(path), completed("some-task")))

        assert answer.status == 404
        assert "Set-Cookie" not in answer.headers

    @pytest.mark.parametrize("path", ["%E4" * 1_500, "x" * 8_000])
    def test_an_id_longer_than_the_server_takes(self, web, path):
        answer = web.send(post(callback(path), completed("some-task")))

        assert answer.status in OWN_REFUSALS_OF_GUNICORN

    @pytest.mark.parametrize("attempt", ["0", "-1", "1.5", "abc", "", "9" * 5_000, "%00", "１", "+1", "1%0A", "0x1"])
    def test_an_attempt_that_is_none(self, web, attempt):
        task_id = web.database.add_task()
        query = f"attempt={attempt}" if len(attempt) < 1_000 else f"attempt={attempt[:3000]}"

        answer = web.post(task_id, completed(task_id), query=query.replace("１", "%EF%BC%91"))

        assert (answer.status, answer.code) == (400, "invalid_payload")
        assert_untouched(web, task_id)

    def test_an_attempt_far_ahead(self, web):
        task_id = web.database.add_task()

        assert web.post(task_id, failed(task_id), query="attempt=999999999").outcome == "stale"
        assert web.database.status(task_id) == "submitted"

    def test_a_payload_of_another_task(self, web):
        mine, yours = web.database.add_tasks(2)

        for body in (completed(mine), failed(mine), event(mine, PROGRESS % b'{"percentage":5}'), completed("x" * 255)):
            answer = web.post(yours, body)
            assert (answer.status, answer.code) == (409, "task_mismatch")
        assert_untouched(web, mine, yours)

    def test_a_forwarded_address_that_is_none(self, web):
        task_id = web.database.add_task()

        answer = web.post(task_id, completed(task_id), headers={"X-Forwarded-For": "9" * 4_000})

        assert (answer.status, answer.outcome) == (200, "processed")


def test_after_all_of_this_the_server_works_as_before(web):
    assert_works_as_before(web)
